//! emdb: an embedded key-value database.
//!
//! A library in your process, no server. One append-only journal file read through a
//! memory map, and an in-memory hash index over it.
//!
//! ```no_run
//! use emdb::Emdb;
//!
//! let db = Emdb::open("data.emdb")?;
//! db.insert("key", "value")?;
//! db.flush()?;
//! assert_eq!(db.get("key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), emdb::Error>(())
//! ```
//!
//! # What survives what
//!
//! | call | survives the death of the process | survives power loss |
//! |---|---|---|
//! | [`insert`](Emdb::insert), [`remove`](Emdb::remove) return | yes | after the next flush |
//! | [`flush`](Emdb::flush) returns | yes | yes |
//! | any write with [`FlushPolicy::WriteThrough`] | yes | yes |
//! | [`Transaction::commit`] returns | yes, all of it | after the next flush |
//! | a transaction that was not committed | nothing of it | nothing of it |
//!
//! After a crash the database holds a prefix of what was acknowledged, cut between
//! operations, that contains everything flushed.
//!
//! # Reading
//!
//! [`get`](Emdb::get) copies, [`get_zerocopy`](Emdb::get_zerocopy) borrows the map for
//! as long as you hold the value, [`get_with`](Emdb::get_with) shows it in place, and
//! [`get_many`](Emdb::get_many) fetches many keys together. None of them takes a lock.
//!
//! # All or nothing
//!
//! A [`transaction`](Emdb::transaction) happens as a whole, for readers and for crashes. It
//! sees what it did itself; others see nothing before it is committed, and all of it
//! afterwards. A [`snapshot`](Emdb::snapshot) is the database at one moment.
//!
//! ```
//! use emdb::{Emdb, Error};
//!
//! let db = Emdb::open_in_memory();
//! db.insert("apples", "3")?;
//! let before = db.snapshot()?;
//! db.transaction(|tx| {
//!     let apples = tx.remove("apples")?.ok_or(Error::KeyNotFound)?;
//!     tx.namespace("sold")?.insert("apples", apples)
//! })?;
//! assert!(db.is_empty()?);
//! assert_eq!(before.get("apples")?.as_deref(), Some(&b"3"[..]));
//! # Ok::<(), Error>(())
//! ```
//!
//! # Memory
//!
//! The index takes at most 16 bytes a record; keys and values stay in the file.
//!
//! # Features
//!
//! `ttl`, on by default: records that expire (`Ttl`, `Emdb::insert_with_ttl`).
//!
//! `nested`, off by default: keys joined by dots (`Focus`, `Emdb::group`).
//!
//! `encrypt`, off by default: encryption at rest (`EmdbBuilder::encryption_key`).
//!
//! `iouring`, off by default, gives [`EmdbBuilder::iouring_sqpoll`] its effect on Linux.
#![forbid(unsafe_code)]

#[cfg(feature = "ttl")]
pub use emdb_engine::Ttl;
#[cfg(feature = "encrypt")]
pub use emdb_engine::{Cipher, EncryptionInput, RewriteProgress};
pub use emdb_engine::{
    Emdb, EmdbBuilder, EmdbIter, EmdbKeyIter, EmdbRangeIter, EmdbStats, Error, ExtractIf,
    FlushPolicy, KeyRange, LockHolder, Namespace, NamespaceIter, NamespaceKeyIter,
    NamespaceRangeIter, Result, Savepoint, Snapshot, SnapshotNamespace, Transaction,
    TransactionNamespace, TryIter, TryKeyIter, TryRangeIter, ValueRef, VerifyReads, VerifyReport,
};
#[cfg(feature = "nested")]
pub use emdb_engine::{Focus, GroupIter};
