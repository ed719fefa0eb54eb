//! The handle to a database.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use emdb_journal::{LockHolder, MemoryMedium};

use crate::Result;
use crate::builder::EmdbBuilder;
use crate::engine::Handle;
use crate::iter::{EmdbIter, EmdbKeyIter, TryIter, TryKeyIter};
use crate::namespace::Namespace;
use crate::stats::{EmdbStats, VerifyReport};
use crate::value::ValueRef;

/// A database.
///
/// A handle, cheap to clone and to share between threads. Dropping the last one
/// closes the database as [`close`](Self::close) does, silently.
///
/// # Examples
///
/// ```no_run
/// use emdb_engine::Emdb;
///
/// let db = Emdb::open("data.emdb")?;
/// db.insert("key", "value")?;
/// db.flush()?;
/// assert_eq!(db.get("key")?.as_deref(), Some(&b"value"[..]));
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Emdb {
    root: Namespace,
}

impl Emdb {
    /// The default namespace, with a handle of its own.
    pub(crate) fn root(&self) -> &Namespace {
        &self.root
    }

    pub(crate) fn new(engine: Handle) -> Self {
        let space = Arc::clone(&engine.root);
        Self {
            root: Namespace::new(engine, space),
        }
    }

    /// Opens the database in the file at `path`, creating it if it is missing.
    ///
    /// The file is locked until the database is closed; `<path>.lock` tells others who
    /// has it, `<path>.meta` makes opening quick.
    ///
    /// # Errors
    /// As [`EmdbBuilder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        EmdbBuilder::new().path(path).build()
    }

    /// Opens an existing database for reading only.
    ///
    /// # Errors
    /// As [`EmdbBuilder::build`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        EmdbBuilder::new().path(path).read_only(true).build()
    }

    /// A new database in memory: no file, no lock, nothing left behind. It grows to
    /// 64 GiB, replaced and removed records included, if the system gives as much
    /// address space; then writes return [`Error::TooLarge`](crate::Error::TooLarge).
    ///
    /// # Panics
    /// If the system gives neither 64 KiB of memory nor random numbers;
    /// [`builder().build()`](Self::builder) returns an error instead.
    #[expect(
        clippy::panic,
        reason = "the signature has no error, and there is no database"
    )]
    pub fn open_in_memory() -> Self {
        match EmdbBuilder::new().build_on(Box::new(MemoryMedium::new())) {
            Ok(db) => db,
            Err(error) => panic!("cannot open a database in memory: {error}"),
        }
    }

    /// Options for opening a database.
    pub fn builder() -> EmdbBuilder {
        EmdbBuilder::new()
    }

    /// Another handle to the same database.
    #[must_use]
    pub fn clone_handle(&self) -> Self {
        self.clone()
    }

    /// The database's file; made up for a database in memory.
    pub fn path(&self) -> &Path {
        self.engine().journal.path()
    }

    pub(crate) fn engine(&self) -> &Handle {
        &self.root.engine
    }

    /// Ends the database for every handle: takes a checkpoint if there is much to
    /// replay, syncs, trims the file and unlocks it. Waits for running calls, and rolls
    /// back the transaction of another thread. Later calls through other handles return
    /// [`Error::Closed`](crate::Error::Closed); snapshots, iterators and [`ValueRef`]s read on.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the sync fails; the database is closed all the same, and the
    /// next opening tells what survived. [`Error::WriteInProgress`](crate::Error::WriteInProgress) if this thread
    /// holds the write side; the database stays open then.
    pub fn close(self) -> Result<()> {
        self.engine().close()
    }

    /// Makes everything written before the call survive power loss, whichever thread
    /// or earlier process wrote it. Calls at the same time share one sync.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the sync fails. It is never retried: later writes and flushes
    /// return [`Error::Poisoned`](crate::Error::Poisoned) until the database is reopened; reads go on.
    pub fn flush(&self) -> Result<()> {
        self.engine().flush()
    }

    /// Writes the indexes to `<path>.meta`, so that opening need not replay the
    /// journal up to here. Writers go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); the previous checkpoint is still there then.
    pub fn checkpoint(&self) -> Result<()> {
        self.engine().checkpoint()
    }

    /// Sizes and counts.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), and [`Error::Io`](crate::Error::Io) if the file cannot be looked at.
    pub fn stats(&self) -> Result<EmdbStats> {
        self.engine().stats()
    }

    /// Reads every frame, verifies it, and compares the indexes with the journal.
    /// Writers wait meanwhile; the time grows with the file.
    ///
    /// # Errors
    /// [`Error::Corrupted`](crate::Error::Corrupted) for the first damage found.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.engine().verify()
    }

    /// The namespace of that name, created if it is missing.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) if the name is empty; otherwise as
    /// [`insert`](Self::insert).
    pub fn namespace(&self, name: impl AsRef<str>) -> Result<Namespace> {
        let space = self.engine().create_space(name.as_ref())?;
        Ok(Namespace::new(self.engine().clone(), space))
    }

    /// The namespace of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn open_namespace(&self, name: impl AsRef<str>) -> Result<Option<Namespace>> {
        let space = self.engine().find_space(name.as_ref())?;
        Ok(space.map(|space| Namespace::new(self.engine().clone(), space)))
    }

    /// Drops a namespace and everything in it; tells whether there was one. Handles to
    /// it get [`Error::NamespaceDropped`](crate::Error::NamespaceDropped), iterators go on.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn drop_namespace(&self, name: impl AsRef<str>) -> Result<bool> {
        self.engine().drop_space(name.as_ref())
    }

    /// The names of all namespaces but the default one, sorted.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn list_namespaces(&self) -> Result<Vec<String>> {
        self.engine().space_names()
    }

    /// Who has the database at `path` open for writing, if anyone does.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be looked at.
    pub fn lock_holder(path: impl AsRef<Path>) -> Result<Option<LockHolder>> {
        Ok(emdb_journal::lock_holder(path.as_ref())?)
    }

    /// Removes what a dead process left of its lock on the database at `path`. Doing
    /// it twice, or where nothing was left, is fine.
    ///
    /// # Errors
    /// [`Error::AlreadyLocked`](crate::Error::AlreadyLocked) while the lock is held; nothing has changed then.
    pub fn break_lock(path: impl AsRef<Path>) -> Result<()> {
        Ok(emdb_journal::break_lock(path.as_ref())?)
    }

    /// Stores a record, replacing the key's value if it has one.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::insert`].
    ///
    /// # Errors
    /// As [`Namespace::insert`].
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.root.insert(key, value)
    }

    /// A copy of the key's value.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::get`].
    ///
    /// # Errors
    /// As [`Namespace::get`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.root.get(key)
    }

    /// The key's value without a copy; it stays valid for as long as it is held.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::get_zerocopy`].
    ///
    /// # Errors
    /// As [`Namespace::get_zerocopy`].
    #[inline]
    pub fn get_zerocopy(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueRef>> {
        self.root.get_zerocopy(key)
    }

    /// Calls `read` with the key's value in place: no copy, no allocation, no
    /// reference count.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::get_with`].
    ///
    /// # Errors
    /// As [`Namespace::get_with`].
    #[inline]
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        self.root.get_with(key, read)
    }

    /// Copies of the values of many keys, in their order, at one point in time. Faster
    /// than single calls: the memory they need is fetched together.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::get_many`].
    ///
    /// # Errors
    /// As [`Namespace::get_many`].
    #[inline]
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.root.get_many(keys)
    }

    /// As [`get_many`](Self::get_many), but hands out the values in place, with the
    /// index of their key.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::get_many_with`].
    ///
    /// # Errors
    /// As [`Namespace::get_many_with`].
    #[inline]
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.root.get_many_with(keys, visit)
    }

    /// Removes a key; returns the value it had.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::remove`].
    ///
    /// # Errors
    /// As [`Namespace::remove`].
    #[inline]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.root.remove(key)
    }

    /// Whether the key has a value; values above 16 KiB are not read.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::contains_key`].
    ///
    /// # Errors
    /// As [`Namespace::contains_key`].
    #[inline]
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.root.contains_key(key)
    }

    /// How many records there are; exact, and costs nothing.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::len`].
    ///
    /// # Errors
    /// As [`Namespace::len`].
    #[inline]
    pub fn len(&self) -> Result<usize> {
        self.root.len()
    }

    /// Whether there is no record.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::is_empty`].
    ///
    /// # Errors
    /// As [`Namespace::is_empty`].
    #[inline]
    pub fn is_empty(&self) -> Result<bool> {
        self.root.is_empty()
    }

    /// Removes every record: one frame, whatever the size. Iterators made before go on.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::clear`].
    ///
    /// # Errors
    /// As [`Namespace::clear`].
    #[inline]
    pub fn clear(&self) -> Result<()> {
        self.root.clear()
    }

    /// Stores a record; returns the value the key had.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::replace`].
    ///
    /// # Errors
    /// As [`Namespace::replace`].
    #[inline]
    pub fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        self.root.replace(key, value)
    }

    /// Stores many records: all or none, for readers, for crashes and on errors. Where
    /// a key comes twice, the later value counts.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::insert_many`].
    ///
    /// # Errors
    /// As [`Namespace::insert_many`].
    #[inline]
    pub fn insert_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.root.insert_many(records)
    }

    /// Stores `new` (or removes the key, for `None`) if the key's value is `expected`
    /// (`None`: if the key has none). Otherwise changes nothing and returns the
    /// current value in the inner error.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::compare_and_swap`].
    ///
    /// # Errors
    /// As [`Namespace::compare_and_swap`].
    #[inline]
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Vec<u8>>>> {
        self.root.compare_and_swap(key, expected, new)
    }

    /// Changes the key's value atomically: `change` gets the current value and returns
    /// the new one, or `None` to remove the key. Returns the new value.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::update`].
    ///
    /// # Errors
    /// As [`Namespace::update`].
    #[inline]
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        self.root.update(key, change)
    }

    /// Stores a record unless the key has a value; tells whether it did.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::insert_if_absent`].
    ///
    /// # Errors
    /// As [`Namespace::insert_if_absent`].
    #[inline]
    pub fn insert_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.root.insert_if_absent(key, value)
    }

    /// The records as they are now, in no particular order.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::iter`].
    ///
    /// # Errors
    /// As [`Namespace::iter`].
    #[inline]
    pub fn iter(&self) -> Result<EmdbIter> {
        self.root.iter()
    }

    /// The keys as they are now, in no particular order; values above 16 KiB are not read.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::keys`].
    ///
    /// # Errors
    /// As [`Namespace::keys`].
    #[inline]
    pub fn keys(&self) -> Result<EmdbKeyIter> {
        self.root.keys()
    }

    /// As [`iter`](Self::iter), with damage as an item.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::try_iter`].
    ///
    /// # Errors
    /// As [`Namespace::try_iter`].
    #[inline]
    pub fn try_iter(&self) -> Result<TryIter> {
        self.root.try_iter()
    }

    /// As [`keys`](Self::keys), with damage as an item.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::try_keys`].
    ///
    /// # Errors
    /// As [`Namespace::try_keys`].
    #[inline]
    pub fn try_keys(&self) -> Result<TryKeyIter> {
        self.root.try_keys()
    }

    /// Calls `visit` with every record in place, at one point in time, until it breaks.
    ///
    /// For the default namespace; durability, errors and an example are at
    /// [`Namespace::for_each`].
    ///
    /// # Errors
    /// As [`Namespace::for_each`].
    #[inline]
    pub fn for_each(&self, visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.root.for_each(visit)
    }
}
