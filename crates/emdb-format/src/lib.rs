//! The bytes emdb puts on disk, as pure functions over byte slices.
//!
//! This crate owns the layout of the journal (header slots, frames, batches,
//! sync markers) and of the head of the checkpoint image. It does no I/O, takes
//! no locks and has no unsafe code. It promises never to panic on any input and
//! never to allocate from a length it has not verified.
//!
//! The whole format is described in `docs/format.md`; the tables in this crate's
//! modules are the authority for single fields.
//!
//! # Examples
//!
//! ```
//! use emdb_format::{Frame, FrameSpec, Kind, Stamp};
//!
//! let stamp = Stamp::new(&[7; 16], 1);
//! let spec = FrameSpec::new(Kind::Put, b"key", b"value");
//! let mut bytes = vec![0; spec.encoded_len()?];
//! spec.encode_into(&mut bytes, stamp, 16_384)?;
//!
//! let frame = Frame::parse(&bytes)?;
//! assert_eq!((frame.key, frame.value), (&b"key"[..], &b"value"[..]));
//! frame.verify(stamp, 16_384)?;
//! assert!(frame.verify(stamp, 16_385).is_err(), "a moved frame does not pass");
//! # Ok::<(), emdb_format::FormatError>(())
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod batch;
mod bytes;
mod catalog;
mod checkpoint;
mod epoch;
mod error;
mod frame;
mod header;
mod limits;
mod marker;
mod sealed;
mod varint;

pub use batch::{BatchSum, Commit, Discard};
pub use catalog::CatalogChange;
pub use checkpoint::{CheckpointHead, CheckpointSpace};
pub use epoch::{EPOCH_FRAME_LEN, EpochMark};
pub use error::FormatError;
pub use frame::{Frame, FrameSpec, Head, Kind, Previous, Stamp};
pub use header::{Header, KeySlot, Sealing};
pub use limits::{
    FIRST_POSITION, FORMAT_VERSION, HEADER_BYTES, HEADER_SLOT_BYTES, HEADER_SLOTS, KEY_LEN_MAX,
    MARKER_ALIGN, MARKER_BYTES, MARKER_DISTANCE, POSITION_MAX, VALUE_INLINE_MAX, VALUE_LEN_MAX,
};
pub use marker::{Marker, marker_frame_len};
pub use sealed::{AnyFrame, SealedFrame, SealedLayout};
