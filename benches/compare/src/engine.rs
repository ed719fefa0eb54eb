//! What a row may ask of an engine, and the engines.
//!
//! Every adapter uses the calls that its engine's documentation recommends for the task. What
//! an engine cannot do is `NotAvailable`: the default of every call that not all of them have.

mod emdb;
mod fjall;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::path::Path;

pub use emdb::{Hash, Ranges};
pub use fjall::Fjall;
pub use lmdb::Lmdb;
pub use redb::Redb;
#[cfg(feature = "rocksdb")]
pub use rocksdb::Rocks;
pub use sled::Sled;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;

pub type Failure = Box<dyn std::error::Error + Send + std::marker::Sync>;
pub type Outcome<T> = Result<T, Failure>;

/// The cache budget of every engine that has one to set.
pub const CACHE_BYTES: u64 = 4 << 30;

/// The engine has no such thing: its cell says n/a, and why.
#[derive(Debug)]
pub struct NotAvailable(pub &'static str);

impl fmt::Display for NotAvailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotAvailable {}

pub fn unavailable<T>(why: &'static str) -> Outcome<T> {
    Err(NotAvailable(why).into())
}

/// What a write survives when it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// Power loss.
    Durable,
    /// What the engine gives when nothing is synced.
    Unsynced,
}

/// Where pops happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    First,
    Last,
}

/// The ways to read that an engine offers beside its usual one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadWay {
    Copy,
    Borrow,
    InPlace,
    Many,
}

/// An open database of one engine.
pub trait Engine: Sized + Send + std::marker::Sync {
    /// Reads at one point in time where the engine has such a thing.
    type Reader<'a>: Reader
    where
        Self: 'a;

    /// Opens the database in the folder, which exists; creates it if the folder is empty.
    fn open(folder: &Path) -> Outcome<Self>;

    /// Called before writes of this kind begin, while no other thread writes.
    fn prepare(&self, _sync: Sync) -> Outcome<()> {
        Ok(())
    }

    /// One write by itself.
    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()>;

    /// One write in a transaction of its own, where that is another call than `put`.
    fn put_transaction(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.put(key, value, sync)
    }

    /// Many writes, all or none.
    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()>;

    /// As `put_all`, durable, of ascending keys into an empty database.
    fn put_sorted<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
    ) -> Outcome<()> {
        self.put_all(records, Sync::Durable)
    }

    /// One read by itself, which sees all writes before it.
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        self.reader()?.get(key, read)
    }

    /// For many reads in a row.
    fn reader(&self) -> Outcome<Self::Reader<'_>>;

    /// Removals in one durable transaction.
    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()>;

    /// Keeps what `keep` says, in one durable transaction.
    fn retain(&self, _keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        unavailable("no such call")
    }

    /// Removes what `wanted` says and visits it; durable at the end.
    fn extract_if(
        &self,
        _wanted: impl FnMut(&[u8]) -> bool,
        _visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        unavailable("no such call")
    }

    /// Takes records from one end, up to `count`; durable at the end. Tells how many.
    fn pop(&self, _end: End, _count: u64) -> Outcome<u64> {
        unavailable("no such call")
    }

    /// Gives back what dead records take on disk.
    fn compact(&mut self) -> Outcome<()> {
        unavailable("no such call")
    }

    /// The same while others write.
    fn compact_beside_writers(&self) -> Outcome<()> {
        unavailable("no such call")
    }

    /// Reads the keys in one particular way; the sum of their values.
    fn read_as<K: AsRef<[u8]>>(&self, _way: ReadWay, _keys: &[K]) -> Outcome<u64> {
        unavailable("the engine has one way to read")
    }

    /// Opens an encrypted database in the folder.
    fn open_encrypted(_folder: &Path) -> Outcome<Self> {
        unavailable("no encryption")
    }

    /// Ends the database properly.
    fn close(self) -> Outcome<()> {
        Ok(())
    }
}

/// Reads of one thread.
pub trait Reader {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>>;

    /// Visits up to `count` records in the order of keys, from `start` on; tells how many.
    fn scan(
        &self,
        _start: &[u8],
        _count: usize,
        _visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        unavailable("no order of keys")
    }

    /// How many records there are, exactly.
    fn len(&self) -> Outcome<u64>;
}
