//! The verbs, written once; [`Emdb`](crate::Emdb) has them for the default namespace.

use std::ops::ControlFlow;
use std::sync::Arc;

use emdb_journal::Opened;

use crate::engine::{Extent, Handle, Step};
use crate::iter::{NamespaceIter, NamespaceKeyIter, Stand, TryIter, TryKeyIter, Walk};
use crate::range::Ground;
use crate::space::Space;
use crate::value::ValueRef;
use crate::{Error, Result};

/// An independent key space of a database.
///
/// A handle, cheap to clone and to share between threads. After
/// [`drop_namespace`](crate::Emdb::drop_namespace) its calls return
/// [`Error::NamespaceDropped`].
///
/// # Examples
///
/// ```
/// let db = emdb_engine::Emdb::open_in_memory();
/// let users = db.namespace("users")?;
/// users.insert("ada", "lovelace")?;
/// assert_eq!(users.len()?, 1);
/// assert!(db.is_empty()?);
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Namespace {
    pub(crate) engine: Handle,
    space: Arc<Space>,
}

impl Namespace {
    pub(crate) fn new(engine: Handle, space: Arc<Space>) -> Self {
        Self { engine, space }
    }

    /// The namespace's name; empty for the default namespace.
    pub fn name(&self) -> &str {
        &self.space.name
    }

    pub(crate) fn stand(&self) -> Result<Stand> {
        Stand::now(&self.engine, &self.space)
    }

    #[inline]
    pub(crate) fn with_ground<T>(&self, work: impl FnOnce(Ground<'_>) -> Result<T>) -> Result<T> {
        self.engine.with_ground(&self.space, work)
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    fn check(&self) -> Result<()> {
        self.engine.check_open()?;
        if self.space.is_dropped() {
            Err(Error::NamespaceDropped)
        } else {
            Ok(())
        }
    }

    fn walk(&self, extent: Extent) -> Result<Walk> {
        Ok(Walk::new(self.stand()?, extent))
    }

    /// Stores a record, replacing the key's value if it has one.
    ///
    /// # Durability
    /// Survives the death of the process at once, and power loss after the next
    /// [`flush`](crate::Emdb::flush) (at once with [`FlushPolicy::WriteThrough`](crate::FlushPolicy)).
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Io`] (no space) leave everything as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// db.insert("key", b"value")?;
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let value = value.as_ref();
        self.engine
            .put(&self.space, key.as_ref(), "insert", || Step::Put(value, ()))
    }

    /// A copy of the key's value.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if the record is damaged.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let opened = Opened::new();
        let found = self
            .engine
            .get(&self.space, key.as_ref(), Extent::Whole, &opened)?;
        Ok(found.map(<[u8]>::to_vec))
    }

    /// The key's value without a copy; it stays valid for as long as it is held.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if the record is damaged.
    #[inline]
    pub fn get_zerocopy(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueRef>> {
        let opened = Opened::new();
        let found = self
            .engine
            .get(&self.space, key.as_ref(), Extent::Whole, &opened)?;
        match found {
            Some(value) => Ok(Some(ValueRef::new(self.engine.journal.pin(value)?))),
            None => Ok(None),
        }
    }

    /// Calls `read` with the key's value in place: no copy, no allocation, no
    /// reference count.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if the record is damaged.
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// db.insert("key", "value")?;
    /// assert_eq!(db.get_with("key", |value| value.len())?, Some(5));
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    #[inline]
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let opened = Opened::new();
        let found = self
            .engine
            .get(&self.space, key.as_ref(), Extent::Whole, &opened)?;
        Ok(found.map(read))
    }

    /// Copies of the values of many keys, in their order, at one point in time. Faster
    /// than single calls: the memory they need is fetched together.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if a record is damaged.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let keys: Vec<K> = keys.into_iter().collect();
        let mut values = Vec::with_capacity(keys.len());
        self.get_many_with(&keys, |_, value| values.push(value.map(<[u8]>::to_vec)))?;
        Ok(values)
    }

    /// As [`get_many`](Self::get_many), but hands out the values in place, with the
    /// index of their key.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if a record is damaged; the values before it were visited.
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.engine.get_many_with(&self.space, keys, visit)
    }

    /// Removes a key; returns the value it had.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.engine
            .change(&self.space, key.as_ref(), "remove", |old| {
                Step::Remove(old.map(<[u8]>::to_vec))
            })
    }

    /// Whether the key has a value; values above 16 KiB are not read.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if the record is damaged.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let opened = Opened::new();
        Ok(self
            .engine
            .get(&self.space, key.as_ref(), Extent::Head, &opened)?
            .is_some())
    }

    /// How many records there are; exact, and costs nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::NamespaceDropped`].
    pub fn len(&self) -> Result<usize> {
        self.check()?;
        Ok(usize::try_from(self.space.records()).unwrap_or(usize::MAX))
    }

    /// Whether there is no record.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Removes every record: one frame, whatever the size. Iterators made before go on.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn clear(&self) -> Result<()> {
        self.engine.clear(&self.space)
    }

    /// Stores a record; returns the value the key had.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        let value = value.as_ref();
        self.engine
            .change(&self.space, key.as_ref(), "replace", |old| {
                Step::Put(value, old.map(<[u8]>::to_vec))
            })
    }

    /// Stores many records: all or none, for readers, for crashes and on errors. Where
    /// a key comes twice, the later value counts.
    ///
    /// Pulls the iterator in chunks of up to 1 MiB; from the second chunk on it holds
    /// the write side, so the iterator must not write to this database then.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); then nothing of it is stored.
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// db.insert_many([("a", "1"), ("b", "2")])?;
    /// assert_eq!(db.len()?, 2);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn insert_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.engine.insert_many(&self.space, records)
    }

    /// Stores `new` (or removes the key, for `None`) if the key's value is `expected`
    /// (`None`: if the key has none). Otherwise changes nothing and returns the
    /// current value in the inner error.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// assert_eq!(db.compare_and_swap("key", None, Some(b"1"))?, Ok(()));
    /// assert_eq!(db.compare_and_swap("key", None, Some(b"2"))?, Err(Some(b"1".to_vec())));
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Vec<u8>>>> {
        self.engine
            .change(&self.space, key.as_ref(), "compare_and_swap", |old| {
                if old != expected {
                    return Step::Keep(Err(old.map(<[u8]>::to_vec)));
                }
                match new {
                    Some(new) => Step::Put(new, Ok(())),
                    None => Step::Remove(Ok(())),
                }
            })
    }

    /// Changes the key's value atomically: `change` gets the current value and returns
    /// the new one, or `None` to remove the key. Returns the new value.
    ///
    /// `change` runs without any lock held and may run more than once.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// let count = |old: Option<&[u8]>| Some(vec![old.map_or(1, |old| old[0] + 1)]);
    /// db.update("visits", count)?;
    /// assert_eq!(db.update("visits", count)?, Some(vec![2]));
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let key = key.as_ref();
        loop {
            let old = self.get_zerocopy(key)?;
            let new = change(old.as_deref());
            let swapped = self.compare_and_swap(key, old.as_deref(), new.as_deref())?;
            if swapped.is_ok() {
                return Ok(new);
            }
        }
    }

    /// Stores a record unless the key has a value; tells whether it did.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        let value = value.as_ref();
        self.engine.change(
            &self.space,
            key.as_ref(),
            "insert_if_absent",
            |old| match old {
                Some(_) => Step::Keep(false),
                None => Step::Put(value, true),
            },
        )
    }

    /// The records as they are now, in no particular order.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::NamespaceDropped`].
    pub fn iter(&self) -> Result<NamespaceIter> {
        self.walk(Extent::Whole).map(NamespaceIter::new)
    }

    /// The keys as they are now, in no particular order; values above 16 KiB are not read.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::NamespaceDropped`].
    pub fn keys(&self) -> Result<NamespaceKeyIter> {
        self.walk(Extent::Head).map(NamespaceKeyIter::new)
    }

    /// As [`iter`](Self::iter), with damage as an item.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::NamespaceDropped`].
    pub fn try_iter(&self) -> Result<TryIter> {
        self.walk(Extent::Whole).map(TryIter::new)
    }

    /// As [`keys`](Self::keys), with damage as an item.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::NamespaceDropped`].
    pub fn try_keys(&self) -> Result<TryKeyIter> {
        self.walk(Extent::Head).map(TryKeyIter::new)
    }

    /// Calls `visit` with every record in place, at one point in time, until it breaks.
    ///
    /// # Errors
    /// [`Error::Corrupted`] at the first damaged record.
    pub fn for_each(&self, visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.walk(Extent::Whole)?.for_each(visit)
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespace")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
