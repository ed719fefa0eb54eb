//! A concurrent point index: from the hash of a key to the [`Location`] of its
//! newest record.
//!
//! The index never knows keys. It stores a few bits of each hash beside the
//! location and asks the caller, through a closure, whether the record there
//! is the one looked for. It knows no files and no time either.
//!
//! - Lookups take no lock and write no shared memory. A key that is present
//!   usually costs one cache line of the index.
//! - Writers lock one *stripe*, a segment of up to 512 entries.
//! - Growth is gradual: one full segment at a time is split in two. No pause
//!   grows with the index, and memory stays below 16 bytes a record from a
//!   million records up, growth included.
//! - [`HashIndex::write_image`] writes the table as it lies in memory;
//!   [`HashIndex::from_image`] uses such an image in place.
//!
//! [`OrderedIndex`] is for ranges of keys: from keys, in the order of their
//! bytes, to the same locations. It stores no keys either, and has images too:
//! [`OrderedIndex::write_image`].
//!
//! Hashes must be uniform in all 64 bits, as a keyed hash such as PolymurHash is:
//! the index does not mix them again, and reports [`Error::Full`] when many
//! are equal.
//!
//! # Examples
//!
//! ```
//! use std::convert::Infallible;
//! use emdb_index::{FindError, HashIndex, Location, Verdict};
//!
//! // The "journal": records by position. Position 0 is never a location.
//! let records = ["", "apple", "pear"];
//! // Stands for a keyed 64-bit hash.
//! let hash = |key: &str| key.bytes().fold(7_u64, |hash, byte| {
//!     (hash ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
//! });
//! let key_at = |location: Location| records[location.get() as usize];
//!
//! let index = HashIndex::new();
//! for position in 1..records.len() as u64 {
//!     let location = Location::new(position).expect("positions start at 1");
//!     let key = key_at(location);
//!     let mut guard = index.lock(hash(key))?;
//!     let found = guard.find(|entry| Ok::<_, Infallible>(key_at(entry.location) == key));
//!     if let Ok(None) = found {
//!         guard.make_room(|location| Ok::<_, Infallible>(hash(key_at(location))))?;
//!         guard.insert(location, false);
//!     }
//! }
//!
//! let found = index.find(hash("pear"), |entry| {
//!     Ok::<_, Infallible>(match key_at(entry.location) {
//!         "pear" => Verdict::Found(entry.location.get()),
//!         _ => Verdict::Pass,
//!     })
//! })?;
//! assert_eq!(found, Some(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod error;
mod hash;
mod location;
mod ordered;
mod primitive;

pub use error::{Error, FindError};
pub use hash::{Cursor, Detached, Guard, HashIndex, ImageMemory};
pub use location::{Entry, Location, Verdict};
pub use ordered::{Direction, OrderedBuilder, OrderedCell, OrderedIndex, RangeBatch, RangeCursor};
