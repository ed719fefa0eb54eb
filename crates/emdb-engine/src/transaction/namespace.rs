//! The verbs in a transaction, written once; [`Transaction`](super::Transaction) has
//! them for the default namespace.

use std::marker::PhantomData;
use std::ops::ControlFlow;

use emdb_index::Location;
use emdb_journal::{Frame, Opened};

use crate::Result;
use crate::engine::{Extent, Handle, Step, Sweep};
use crate::iter::{NamespaceIter, NamespaceKeyIter, Stand, TryIter, TryKeyIter, Walk};
use crate::range::Ground;
use crate::space::End;
use crate::value::ValueRef;

/// A namespace in a [`Transaction`](super::Transaction), with the same verbs.
///
/// It sees what the transaction did, and what was committed before. If the transaction
/// created the namespace and then went back to a savepoint before that, calls return
/// [`Error::NamespaceDropped`](crate::Error::NamespaceDropped).
#[derive(Clone)]
pub struct TransactionNamespace<'t> {
    engine: &'t Handle,
    number: u64,
    at: usize,
    transaction: PhantomData<&'t super::Transaction<'t>>,
}

impl<'t> TransactionNamespace<'t> {
    pub(crate) fn new(engine: &'t Handle, number: u64, at: usize) -> Self {
        Self {
            engine,
            number,
            at,
            transaction: PhantomData,
        }
    }

    /// The engine, the transaction's number, and the namespace's place in it.
    #[cfg(feature = "ttl")]
    pub(crate) fn parts(&self) -> (&'t Handle, u64, usize) {
        (self.engine, self.number, self.at)
    }

    /// Removes a key without a look at its value.
    pub(crate) fn forget(&self, key: &[u8]) -> Result<()> {
        self.engine
            .remove_in(self.number, self.at, key, |_| ())
            .map(drop)
    }

    /// For a walk over the order of keys that begins now.
    pub(crate) fn begin_sweep(&self) -> Result<Sweep> {
        self.engine.begin_sweep(self.number)
    }

    /// Removes the record that a walk has come to, at the location that the order has.
    pub(crate) fn sweep(
        &self,
        sweep: &mut Sweep,
        location: Location,
        frame: &Frame<'_>,
    ) -> Result<()> {
        let place = (self.number, self.at);
        self.engine.sweep_in(place, sweep, location, frame)
    }

    /// Removes the record at that end of the order.
    pub(crate) fn pop(&self, end: End) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.engine.pop_in(self.number, self.at, end)
    }

    fn stand(&self) -> Result<Stand> {
        let seen = self.engine.standpoint(self.number, self.at)?;
        Ok(Stand::in_transaction(self.engine, seen))
    }

    /// As `stand`, for a walk in the order of keys.
    pub(crate) fn ordered_stand(&self) -> Result<Stand> {
        let seen = self.engine.ordered_standpoint(self.number, self.at)?;
        Ok(Stand::in_transaction(self.engine, seen))
    }

    pub(crate) fn with_ground<T>(&self, work: impl FnOnce(Ground<'_>) -> Result<T>) -> Result<T> {
        let stand = self.ordered_stand()?;
        work(stand.ground())
    }

    fn walk(&self, extent: Extent) -> Result<Walk> {
        Ok(Walk::new(self.stand()?, extent))
    }

    fn change<'v, T>(
        &'v self,
        key: impl AsRef<[u8]>,
        decide: impl FnOnce(Option<&[u8]>) -> Step<'v, T>,
    ) -> Result<T> {
        self.engine
            .change_in(self.number, self.at, key.as_ref(), decide)
    }

    /// Stores a record, replacing the key's value if it has one.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) and [`Error::Io`](crate::Error::Io) (no space) leave the transaction as it
    /// was; [`Error::Closed`](crate::Error::Closed) if the database was closed, which rolled it back.
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.engine
            .put_in(self.number, self.at, key.as_ref(), value.as_ref())
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
        self.change(key, |old| Step::Put(value, old.map(<[u8]>::to_vec)))
    }

    /// Removes a key; returns the value it had.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.engine
            .remove_in(self.number, self.at, key.as_ref(), <[u8]>::to_vec)
    }

    /// A copy of the key's value.
    ///
    /// # Errors
    /// [`Error::Corrupted`](crate::Error::Corrupted) if the record is damaged; otherwise as
    /// [`insert`](Self::insert).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// The key's value without a copy; it stays valid for as long as it is held, also
    /// if the transaction is rolled back.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_zerocopy(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueRef>> {
        let opened = Opened::new();
        match self.find(key.as_ref(), Extent::Whole, &opened)? {
            Some(value) => Ok(Some(ValueRef::new(self.engine.journal.pin(value)?))),
            None => Ok(None),
        }
    }

    /// Calls `read` with the key's value in place: no copy, no allocation.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let opened = Opened::new();
        Ok(self.find(key.as_ref(), Extent::Whole, &opened)?.map(read))
    }

    fn find<'a>(
        &'a self,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        self.engine
            .get_in(self.number, self.at, key, extent, opened)
    }

    /// Copies of the values of many keys, in their order, with the memory that they
    /// need fetched together.
    ///
    /// # Errors
    /// As [`get`](Self::get).
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
    /// As [`get`](Self::get); the values before were visited.
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.engine.get_many_in(self.number, self.at, keys, visit)
    }

    /// Whether the key has a value; values above 16 KiB are not read.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let opened = Opened::new();
        let found = self.find(key.as_ref(), Extent::Head, &opened)?;
        Ok(found.is_some())
    }

    /// How many records the transaction sees; exact, and costs nothing.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn len(&self) -> Result<usize> {
        let records = self.engine.len_in(self.number, self.at)?;
        Ok(usize::try_from(records).unwrap_or(usize::MAX))
    }

    /// Whether the transaction sees no record.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Removes every record, whatever their number: one frame, as by
    /// [`Namespace::clear`](crate::Namespace::clear). What the transaction stores after
    /// that stays.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn clear(&self) -> Result<()> {
        self.engine.clear_in(self.number, self.at)
    }

    /// Stores many records, all or none. Where a key comes twice, the later value counts.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); nothing of it is in the transaction then.
    pub fn insert_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.engine.insert_many_in(self.number, self.at, records)
    }

    /// Stores `new` (or removes the key, for `None`) if the key's value is `expected`
    /// (`None`: if the key has none). Otherwise changes nothing and returns the
    /// current value in the inner error.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Vec<u8>>>> {
        self.change(key, |old| {
            if old != expected {
                return Step::Keep(Err(old.map(<[u8]>::to_vec)));
            }
            match new {
                Some(new) => Step::Put(new, Ok(())),
                None => Step::Remove(Ok(())),
            }
        })
    }

    /// Changes the key's value: `change` gets the current value and returns the new one,
    /// or `None` to remove the key. Returns the new value.
    ///
    /// `change` may use the transaction, and runs again if it changed this key.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let key = key.as_ref();
        loop {
            let opened = Opened::new();
            let old = self.find(key, Extent::Whole, &opened)?;
            let new = change(old);
            if self.compare_and_swap(key, old, new.as_deref())?.is_ok() {
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
        self.change(key, |old| match old {
            Some(_) => Step::Keep(false),
            None => Step::Put(value, true),
        })
    }

    /// The records as the transaction sees them now, in no particular order. What it
    /// does later does not show.
    ///
    /// The iterator may outlive the transaction if that is committed. If what it stands
    /// on is taken back, it ends with [`Error::TransactionAborted`](crate::Error::TransactionAborted).
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn iter(&self) -> Result<NamespaceIter> {
        self.walk(Extent::Whole).map(NamespaceIter::new)
    }

    /// As [`iter`](Self::iter), for keys alone; values above 16 KiB are not read.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn keys(&self) -> Result<NamespaceKeyIter> {
        self.walk(Extent::Head).map(NamespaceKeyIter::new)
    }

    /// As [`iter`](Self::iter), with damage as an item.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn try_iter(&self) -> Result<TryIter> {
        self.walk(Extent::Whole).map(TryIter::new)
    }

    /// As [`keys`](Self::keys), with damage as an item.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn try_keys(&self) -> Result<TryKeyIter> {
        self.walk(Extent::Head).map(TryKeyIter::new)
    }

    /// Calls `visit` with every record in place, as the transaction sees it now, until
    /// it breaks.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_each(&self, visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.walk(Extent::Whole)?.for_each(visit)
    }

    /// The namespace's name.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn name(&self) -> Result<String> {
        self.engine.name_in(self.number, self.at)
    }
}

impl std::fmt::Debug for TransactionNamespace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionNamespace")
            .finish_non_exhaustive()
    }
}
