//! The database: namespaces over a journal and an index.
//!
//! Most users want the `emdb` crate, which re-exports what is public here. The
//! layers below are usable alone: `emdb-journal` is a write-ahead log,
//! `emdb-index` a concurrent index, `emdb-format` the bytes on disk.
//!
//! # Examples
//!
//! ```
//! let db = emdb_engine::Emdb::open_in_memory();
//! db.insert("key", "value")?;
//! assert_eq!(db.get("key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), emdb_engine::Error>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "encrypt")]
mod admin;
mod builder;
mod clock;
mod db;
mod engine;
mod error;
mod hash;
mod iter;
mod namespace;
#[cfg(feature = "nested")]
mod nested;
mod range;
mod snapshot;
mod snapshots;
mod space;
mod stats;
mod transaction;
#[cfg_attr(
    not(feature = "ttl"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "files may hold records that expire"
    )
)]
mod ttl;
mod value;

#[cfg(feature = "encrypt")]
pub use admin::RewriteProgress;
pub use builder::{EmdbBuilder, FlushPolicy, VerifyReads};
pub use db::Emdb;
pub use emdb_journal::LockHolder;
#[cfg(feature = "encrypt")]
pub use emdb_journal::{Cipher, EncryptionInput};
pub use error::Error;
pub use iter::{EmdbIter, EmdbKeyIter, NamespaceIter, NamespaceKeyIter, TryIter, TryKeyIter};
pub use namespace::Namespace;
#[cfg(feature = "nested")]
pub use nested::{Focus, GroupIter};
pub use range::{EmdbRangeIter, ExtractIf, KeyRange, NamespaceRangeIter, TryRangeIter};
pub use snapshot::{Snapshot, SnapshotNamespace};
pub use stats::{EmdbStats, VerifyReport};
pub use transaction::{Savepoint, Transaction, TransactionNamespace};
#[cfg(feature = "ttl")]
pub use ttl::Ttl;
pub use value::ValueRef;

/// What every fallible call returns.
pub type Result<T> = std::result::Result<T, Error>;
