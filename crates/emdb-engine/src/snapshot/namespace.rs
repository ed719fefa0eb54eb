//! The verbs at a snapshot, written once; [`Snapshot`](super::Snapshot) has them for the
//! default namespace.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use emdb_journal::Opened;

use crate::Result;
use crate::engine::{Extent, Handle};
use crate::iter::{NamespaceIter, NamespaceKeyIter, Stand, TryIter, TryKeyIter, Walk};
use crate::range::Ground;
use crate::snapshots::Ticket;
use crate::space::Space;
use crate::value::ValueRef;

/// A namespace as it was when a [`Snapshot`](super::Snapshot) was taken.
///
/// It holds a snapshot of its own, of the same moment.
pub struct SnapshotNamespace {
    engine: Handle,
    ticket: Ticket,
    /// When it was taken: what had expired then does not show.
    at_ms: u64,
    /// `None` for the default namespace, which the engine has.
    space: Option<Arc<Space>>,
    /// The incarnation's id, once it was asked for.
    id: OnceLock<Option<u32>>,
    len: OnceLock<usize>,
}

impl SnapshotNamespace {
    #[inline]
    pub(super) fn root(engine: Handle, ticket: Ticket, at_ms: u64) -> Self {
        Self {
            engine,
            ticket,
            at_ms,
            space: None,
            id: OnceLock::new(),
            len: OnceLock::new(),
        }
    }

    /// Another namespace at the same moment.
    pub(super) fn sibling(&self, name: &str) -> Result<Option<Self>> {
        self.engine.journal.check_not_forked()?;
        if name.is_empty() {
            return Ok(None);
        }
        let position = self.ticket.position();
        let found = self.engine.space_at(name, position);
        Ok(found.map(|(space, id)| Self {
            engine: self.engine.clone(),
            ticket: self.engine.snapshots.open_at(position),
            at_ms: self.at_ms,
            space: Some(space),
            id: OnceLock::from(Some(id)),
            len: OnceLock::new(),
        }))
    }

    /// The names of the others.
    pub(super) fn siblings(&self) -> Result<Vec<String>> {
        self.engine.journal.check_not_forked()?;
        let spaces = self.engine.spaces_at(self.ticket.position()).into_iter();
        let mut names: Vec<_> = spaces.map(|(space, _)| space.name.clone()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn space(&self) -> &Arc<Space> {
        self.space.as_ref().unwrap_or(&self.engine.root)
    }

    fn id(&self) -> Option<u32> {
        *self
            .id
            .get_or_init(|| self.space().id_at(self.ticket.position()))
    }

    pub(crate) fn stand(&self) -> Result<Stand> {
        let position = self.ticket.position();
        Stand::at(&self.engine, self.space(), self.id(), position, self.at_ms)
    }

    pub(crate) fn with_ground<T>(&self, work: impl FnOnce(Ground<'_>) -> Result<T>) -> Result<T> {
        self.engine.journal.check_not_forked()?;
        work(Ground {
            engine: &self.engine,
            space: self.space(),
            id: self.id(),
            upto: self.ticket.position(),
            discarded: None,
            at_ms: Some(self.at_ms),
        })
    }

    fn walk(&self, extent: Extent) -> Result<Walk> {
        Ok(Walk::new(self.stand()?, extent))
    }

    fn find<'a>(
        &'a self,
        hash: u64,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        let Some(id) = self.id() else { return Ok(None) };
        let upto = self.ticket.position();
        self.engine.find_at(
            self.space(),
            id,
            hash,
            key,
            extent,
            upto,
            Some(self.at_ms),
            opened,
        )
    }

    /// The namespace's name; empty for the default namespace.
    pub fn name(&self) -> &str {
        &self.space().name
    }

    /// A copy of the value that the key had.
    ///
    /// # Errors
    /// [`Error::Corrupted`](crate::Error::Corrupted) if the record is damaged.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// The value that the key had, without a copy; it stays valid for as long as it is
    /// held.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_zerocopy(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueRef>> {
        let key = key.as_ref();
        let opened = Opened::new();
        match self.find(self.engine.hash(key), key, Extent::Whole, &opened)? {
            Some(value) => Ok(Some(ValueRef::new(self.engine.journal.pin(value)?))),
            None => Ok(None),
        }
    }

    /// Calls `read` with the value that the key had, in place: no copy, no allocation.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let key = key.as_ref();
        let opened = Opened::new();
        let found = self.find(self.engine.hash(key), key, Extent::Whole, &opened)?;
        Ok(found.map(read))
    }

    /// Copies of the values that many keys had, in their order, with the memory that
    /// they need fetched together.
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
        mut visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let mut at = 0;
        self.engine.visit_many(self.space(), keys, |hashes, keys| {
            for (hash, key) in hashes.iter().zip(keys) {
                let opened = Opened::new();
                visit(at, self.find(*hash, key.as_ref(), Extent::Whole, &opened)?);
                at += 1;
            }
            Ok(())
        })
    }

    /// Whether the key had a value; values above 16 KiB are not read.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let opened = Opened::new();
        let found = self.find(self.engine.hash(key), key, Extent::Head, &opened)?;
        Ok(found.is_some())
    }

    /// How many records there were. The first call counts them, and takes as long as
    /// reading all keys does.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn len(&self) -> Result<usize> {
        if let Some(len) = self.len.get() {
            return Ok(*len);
        }
        let len = self.walk(Extent::Head)?.count()?;
        Ok(*self.len.get_or_init(|| len))
    }

    /// Whether there was no record.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool> {
        if let Some(len) = self.len.get() {
            return Ok(*len == 0);
        }
        Ok(self.walk(Extent::Head)?.next_key()?.is_none())
    }

    /// The records as they were, in no particular order.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) in a fork.
    pub fn iter(&self) -> Result<NamespaceIter> {
        self.walk(Extent::Whole).map(NamespaceIter::new)
    }

    /// The keys as they were, in no particular order; values above 16 KiB are not read.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn keys(&self) -> Result<NamespaceKeyIter> {
        self.walk(Extent::Head).map(NamespaceKeyIter::new)
    }

    /// As [`iter`](Self::iter), with damage as an item.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn try_iter(&self) -> Result<TryIter> {
        self.walk(Extent::Whole).map(TryIter::new)
    }

    /// As [`keys`](Self::keys), with damage as an item.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn try_keys(&self) -> Result<TryKeyIter> {
        self.walk(Extent::Head).map(TryKeyIter::new)
    }

    /// Calls `visit` with every record in place, as it was, until it breaks.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_each(&self, visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.walk(Extent::Whole)?.for_each(visit)
    }
}

impl Drop for SnapshotNamespace {
    fn drop(&mut self) {
        self.engine.close_snapshot(&self.ticket);
    }
}

impl std::fmt::Debug for SnapshotNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotNamespace")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
