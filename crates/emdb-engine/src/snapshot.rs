//! Snapshots: the database as it was at one moment.

use std::ops::ControlFlow;

use crate::iter::{EmdbIter, EmdbKeyIter, TryIter, TryKeyIter};
use crate::value::ValueRef;
use crate::{Emdb, Result};

mod namespace;

pub use namespace::SnapshotNamespace;

/// The database as it was at one moment, in all of its namespaces.
///
/// Taking one costs next to nothing and stops nobody. What happens later does not show:
/// writes, removals, commits, [`clear`](Emdb::clear) and
/// [`drop_namespace`](Emdb::drop_namespace) included. It may be shared between threads.
///
/// While it lives, removed records keep their index entries, and cleared namespaces
/// their indexes; drop it when done. Like any handle it keeps the database open, and it
/// reads on after [`close`](Emdb::close).
///
/// # Examples
///
/// ```
/// let db = emdb_engine::Emdb::open_in_memory();
/// db.insert("apple", "red")?;
/// let snapshot = db.snapshot()?;
/// db.insert("apple", "green")?;
/// db.clear()?;
/// assert_eq!(snapshot.get("apple")?.as_deref(), Some(&b"red"[..]));
/// assert_eq!(snapshot.len()?, 1);
/// # Ok::<(), emdb_engine::Error>(())
/// ```
pub struct Snapshot {
    root: SnapshotNamespace,
}

impl Emdb {
    /// A snapshot of now: everything that any thread has seen happen is in it, and of
    /// every transaction all or nothing.
    ///
    /// A transaction of this thread that is open is not in it.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Examples
    ///
    /// See [`Snapshot`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        let engine = self.engine();
        engine.check_open()?;
        let ticket = engine.snapshots.open(&engine.journal)?;
        Ok(Snapshot {
            root: SnapshotNamespace::root(engine.clone(), ticket, engine.clock.now_ms()),
        })
    }
}

impl Snapshot {
    pub(crate) fn root(&self) -> &SnapshotNamespace {
        &self.root
    }

    /// The namespace of that name as it was, if there was one. It stands on its own and
    /// may outlive this.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) in a fork.
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// db.namespace("users")?.insert("ada", "lovelace")?;
    /// let snapshot = db.snapshot()?;
    /// db.drop_namespace("users")?;
    /// let users = snapshot.namespace("users")?.expect("it was there");
    /// assert_eq!(users.len()?, 1);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn namespace(&self, name: impl AsRef<str>) -> Result<Option<SnapshotNamespace>> {
        self.root.sibling(name.as_ref())
    }

    /// The names that namespaces but the default one had, sorted.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) in a fork.
    pub fn list_namespaces(&self) -> Result<Vec<String>> {
        self.root.siblings()
    }

    /// A copy of the value that the key had.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::get`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.root.get(key)
    }

    /// The value that the key had, without a copy; it stays valid for as long as it is
    /// held.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::get_zerocopy`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::get_zerocopy`].
    pub fn get_zerocopy(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueRef>> {
        self.root.get_zerocopy(key)
    }

    /// Calls `read` with the value that the key had, in place: no copy, no allocation.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::get_with`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::get_with`].
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        self.root.get_with(key, read)
    }

    /// Copies of the values that many keys had, in their order, with the memory that
    /// they need fetched together.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::get_many`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::get_many`].
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.root.get_many(keys)
    }

    /// As [`get_many`](Self::get_many), but hands out the values in place, with the
    /// index of their key.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::get_many_with`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::get_many_with`].
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.root.get_many_with(keys, visit)
    }

    /// Whether the key had a value; values above 16 KiB are not read.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::contains_key`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::contains_key`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.root.contains_key(key)
    }

    /// How many records there were. The first call counts them, and takes as long as
    /// reading all keys does.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::len`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::len`].
    pub fn len(&self) -> Result<usize> {
        self.root.len()
    }

    /// Whether there was no record.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::is_empty`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::is_empty`].
    pub fn is_empty(&self) -> Result<bool> {
        self.root.is_empty()
    }

    /// The records as they were, in no particular order.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::iter`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::iter`].
    pub fn iter(&self) -> Result<EmdbIter> {
        self.root.iter()
    }

    /// The keys as they were, in no particular order; values above 16 KiB are not read.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::keys`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::keys`].
    pub fn keys(&self) -> Result<EmdbKeyIter> {
        self.root.keys()
    }

    /// As [`iter`](Self::iter), with damage as an item.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::try_iter`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::try_iter`].
    pub fn try_iter(&self) -> Result<TryIter> {
        self.root.try_iter()
    }

    /// As [`keys`](Self::keys), with damage as an item.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::try_keys`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::try_keys`].
    pub fn try_keys(&self) -> Result<TryKeyIter> {
        self.root.try_keys()
    }

    /// Calls `visit` with every record in place, as it was, until it breaks.
    ///
    /// For the default namespace; more is at [`SnapshotNamespace::for_each`].
    ///
    /// # Errors
    /// As [`SnapshotNamespace::for_each`].
    pub fn for_each(&self, visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.root.for_each(visit)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}
