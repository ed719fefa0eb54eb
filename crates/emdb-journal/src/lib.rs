//! An append-only log read through a memory map.
//!
//! A [`Journal`] is a write-ahead log anyone can build on: records get an [`Lsn`],
//! survive the death of the process as soon as [`Journal::append`] returns, and
//! survive power loss once [`Journal::sync`] returns. Opening it replays what was
//! appended, tells a torn tail from damage, and refuses the latter.
//!
//! This crate is the only one of emdb that touches files. It promises:
//!
//! - Appending is a copy into mapped, preallocated space; no system call a record.
//! - What `sync` acknowledged is found again, or opening fails with
//!   [`Error::Corrupted`]; it is never silently missing.
//! - A failed sync is never retried and believed: the journal is poisoned.
//! - Reading takes no lock and writes no shared memory.
//!
//! # Examples
//!
//! ```
//! use emdb_journal::{FrameSpec, Journal, Kind, MemoryMedium, Options};
//!
//! let journal = Journal::open(Box::new(MemoryMedium::new()), Options::default(), |_| {})?;
//! let lsn = journal.append(&FrameSpec::new(Kind::Put, b"key", b"value"))?;
//! journal.sync()?;
//! assert!(journal.durable_lsn() > lsn);
//! # Ok::<(), emdb_journal::Error>(())
//! ```
#![deny(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod append;
mod batch;
mod commit;
mod doubt;
mod error;
#[allow(unsafe_code)]
mod extent;
mod gate;
mod journal;
mod lock;
mod lsn;
mod medium;
mod opened;
mod options;
mod primitive;
mod recovery;
#[cfg(feature = "encrypt")]
mod seal;
#[cfg(not(feature = "encrypt"))]
#[path = "seal/absent.rs"]
mod seal;
mod sidecar;
#[allow(unsafe_code)]
mod sys;

pub use append::Busy;
pub use batch::{Batch, Mark};
#[cfg(feature = "encrypt")]
pub use emdb_crypto::{Cipher, EncryptionInput, KdfParams};
pub use emdb_format::{Frame, FrameSpec, Header, Kind, Previous, Stamp};
pub use error::Error;
pub use extent::{Map, PinnedBytes};
pub use gate::this_thread;
pub use journal::{Journal, JournalStats};
pub use lock::{LockHolder, break_lock, lock_holder};
pub use lsn::Lsn;
pub use medium::remove_unfinished;
pub use medium::{
    FileMedium, Medium, MemoryMedium, OpenMode, SidecarMemory, SimulatedMedium, Store,
};
#[cfg(feature = "encrypt")]
pub use medium::{Place, put_in_place};
pub use opened::Opened;
pub use options::{Options, SyncPolicy};
pub use recovery::{Opening, Recovered, Replayed};
#[cfg(feature = "encrypt")]
pub use seal::Encryption;
pub use sidecar::Sidecar;
