//! The verbs of a transaction, for the default namespace.

use std::ops::ControlFlow;

use super::Transaction;
use crate::Result;
use crate::iter::{EmdbIter, EmdbKeyIter, TryIter, TryKeyIter};
use crate::value::ValueRef;

impl Transaction<'_> {
    /// Stores a record, replacing the key's value if it has one.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::insert`](super::TransactionNamespace::insert).
    ///
    /// # Errors
    /// As [`TransactionNamespace::insert`](super::TransactionNamespace::insert).
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.root().insert(key, value)
    }

    /// Stores a record; returns the value the key had.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::replace`](super::TransactionNamespace::replace).
    ///
    /// # Errors
    /// As [`TransactionNamespace::replace`](super::TransactionNamespace::replace).
    #[inline]
    pub fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        self.root().replace(key, value)
    }

    /// Removes a key; returns the value it had.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::remove`](super::TransactionNamespace::remove).
    ///
    /// # Errors
    /// As [`TransactionNamespace::remove`](super::TransactionNamespace::remove).
    #[inline]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.root().remove(key)
    }

    /// A copy of the key's value.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::get`](super::TransactionNamespace::get).
    ///
    /// # Errors
    /// As [`TransactionNamespace::get`](super::TransactionNamespace::get).
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.root().get(key)
    }

    /// The key's value without a copy; it stays valid for as long as it is held, also
    /// if the transaction is rolled back.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::get_zerocopy`](super::TransactionNamespace::get_zerocopy).
    ///
    /// # Errors
    /// As [`TransactionNamespace::get_zerocopy`](super::TransactionNamespace::get_zerocopy).
    #[inline]
    pub fn get_zerocopy(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueRef>> {
        self.root().get_zerocopy(key)
    }

    /// Calls `read` with the key's value in place: no copy, no allocation.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::get_with`](super::TransactionNamespace::get_with).
    ///
    /// # Errors
    /// As [`TransactionNamespace::get_with`](super::TransactionNamespace::get_with).
    #[inline]
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        self.root().get_with(key, read)
    }

    /// Copies of the values of many keys, in their order, with the memory that they
    /// need fetched together.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::get_many`](super::TransactionNamespace::get_many).
    ///
    /// # Errors
    /// As [`TransactionNamespace::get_many`](super::TransactionNamespace::get_many).
    #[inline]
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.root().get_many(keys)
    }

    /// As [`get_many`](Self::get_many), but hands out the values in place, with the
    /// index of their key.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::get_many_with`](super::TransactionNamespace::get_many_with).
    ///
    /// # Errors
    /// As [`TransactionNamespace::get_many_with`](super::TransactionNamespace::get_many_with).
    #[inline]
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.root().get_many_with(keys, visit)
    }

    /// Whether the key has a value; values above 16 KiB are not read.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::contains_key`](super::TransactionNamespace::contains_key).
    ///
    /// # Errors
    /// As [`TransactionNamespace::contains_key`](super::TransactionNamespace::contains_key).
    #[inline]
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.root().contains_key(key)
    }

    /// How many records the transaction sees; exact, and costs nothing.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::len`](super::TransactionNamespace::len).
    ///
    /// # Errors
    /// As [`TransactionNamespace::len`](super::TransactionNamespace::len).
    #[inline]
    pub fn len(&self) -> Result<usize> {
        self.root().len()
    }

    /// Whether the transaction sees no record.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::is_empty`](super::TransactionNamespace::is_empty).
    ///
    /// # Errors
    /// As [`TransactionNamespace::is_empty`](super::TransactionNamespace::is_empty).
    #[inline]
    pub fn is_empty(&self) -> Result<bool> {
        self.root().is_empty()
    }

    /// Removes every record, whatever their number: one frame, as by
    /// [`Emdb::clear`](crate::Emdb::clear). What the transaction stores after that stays.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::clear`](super::TransactionNamespace::clear).
    ///
    /// # Errors
    /// As [`TransactionNamespace::clear`](super::TransactionNamespace::clear).
    #[inline]
    pub fn clear(&self) -> Result<()> {
        self.root().clear()
    }

    /// Stores many records, all or none. Where a key comes twice, the later value counts.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::insert_many`](super::TransactionNamespace::insert_many).
    ///
    /// # Errors
    /// As [`TransactionNamespace::insert_many`](super::TransactionNamespace::insert_many).
    #[inline]
    pub fn insert_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.root().insert_many(records)
    }

    /// Stores `new` (or removes the key, for `None`) if the key's value is `expected`
    /// (`None`: if the key has none). Otherwise changes nothing and returns the
    /// current value in the inner error.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::compare_and_swap`](super::TransactionNamespace::compare_and_swap).
    ///
    /// # Errors
    /// As [`TransactionNamespace::compare_and_swap`](super::TransactionNamespace::compare_and_swap).
    #[inline]
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Vec<u8>>>> {
        self.root().compare_and_swap(key, expected, new)
    }

    /// Changes the key's value: `change` gets the current value and returns the new one,
    /// or `None` to remove the key. Returns the new value.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::update`](super::TransactionNamespace::update).
    ///
    /// # Errors
    /// As [`TransactionNamespace::update`](super::TransactionNamespace::update).
    #[inline]
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        self.root().update(key, change)
    }

    /// Stores a record unless the key has a value; tells whether it did.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::insert_if_absent`](super::TransactionNamespace::insert_if_absent).
    ///
    /// # Errors
    /// As [`TransactionNamespace::insert_if_absent`](super::TransactionNamespace::insert_if_absent).
    #[inline]
    pub fn insert_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.root().insert_if_absent(key, value)
    }

    /// The records as the transaction sees them now, in no particular order. What it
    /// does later does not show.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::iter`](super::TransactionNamespace::iter).
    ///
    /// # Errors
    /// As [`TransactionNamespace::iter`](super::TransactionNamespace::iter).
    #[inline]
    pub fn iter(&self) -> Result<EmdbIter> {
        self.root().iter()
    }

    /// As [`iter`](Self::iter), for keys alone; values above 16 KiB are not read.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::keys`](super::TransactionNamespace::keys).
    ///
    /// # Errors
    /// As [`TransactionNamespace::keys`](super::TransactionNamespace::keys).
    #[inline]
    pub fn keys(&self) -> Result<EmdbKeyIter> {
        self.root().keys()
    }

    /// As [`iter`](Self::iter), with damage as an item.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::try_iter`](super::TransactionNamespace::try_iter).
    ///
    /// # Errors
    /// As [`TransactionNamespace::try_iter`](super::TransactionNamespace::try_iter).
    #[inline]
    pub fn try_iter(&self) -> Result<TryIter> {
        self.root().try_iter()
    }

    /// As [`keys`](Self::keys), with damage as an item.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::try_keys`](super::TransactionNamespace::try_keys).
    ///
    /// # Errors
    /// As [`TransactionNamespace::try_keys`](super::TransactionNamespace::try_keys).
    #[inline]
    pub fn try_keys(&self) -> Result<TryKeyIter> {
        self.root().try_keys()
    }

    /// Calls `visit` with every record in place, as the transaction sees it now, until
    /// it breaks.
    ///
    /// For the default namespace; more is at [`TransactionNamespace::for_each`](super::TransactionNamespace::for_each).
    ///
    /// # Errors
    /// As [`TransactionNamespace::for_each`](super::TransactionNamespace::for_each).
    #[inline]
    pub fn for_each(&self, visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.root().for_each(visit)
    }
}
