//! From a staged record to its frame and its index entry, and from there to a commit.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::MutexGuard;

use emdb_index::Location;
use emdb_journal::{Batch, Frame, FrameSpec, Kind, Lsn, Opened};

use super::touched::Removed;
use super::{Staging, Touched};
use crate::engine::read::Extent;
use crate::engine::write::Newest;
use crate::engine::{Engine, Step};
use crate::{Error, Result};

/// Records held back, or whose memory is on its way.
pub(super) const AHEAD: usize = 16;
/// Larger records are not held back, so that they are not copied twice.
const HELD_BYTES: usize = 4096;

/// The last records stored, oldest first, in buffers that are used again.
#[derive(Default)]
pub(super) struct Queue {
    records: Vec<Held>,
    first: usize,
    len: usize,
}

#[derive(Default)]
struct Held {
    at: usize,
    hash: u64,
    removes: bool,
    expires_at_ms: Option<u64>,
    key_len: usize,
    bytes: Vec<u8>,
}

impl Held {
    fn key_and_value(&self) -> (&[u8], &[u8]) {
        self.bytes
            .split_at_checked(self.key_len)
            .unwrap_or_default()
    }
}

impl Queue {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place for one more record behind the others, if there is any left.
    fn push(&mut self) -> Option<&mut Held> {
        if self.len == AHEAD {
            return None;
        }
        let at = (self.first + self.len) % AHEAD;
        if self.records.len() <= at {
            self.records.resize_with(at + 1, Held::default);
        }
        let held = self.records.get_mut(at)?;
        self.len += 1;
        Some(held)
    }

    fn oldest(&mut self) -> Option<&mut Held> {
        if self.len == 0 {
            return None;
        }
        self.records.get_mut(self.first)
    }

    fn pop(&mut self) {
        self.first = (self.first + 1) % AHEAD;
        self.len -= 1;
    }
}

impl Staging {
    /// Whether all there is to commit is one record that is held back.
    pub(super) fn is_single(&self) -> bool {
        self.queue.len == 1 && self.is_untouched()
    }

    /// Whether nothing has been appended yet.
    pub(super) fn is_untouched(&self) -> bool {
        let untouched = |batch: &Batch| batch.cursor() == batch.begin();
        self.batch.as_ref().is_some_and(untouched)
    }

    /// Applies the records that are held back, so that everything can be seen.
    #[inline]
    pub(super) fn drain(&mut self, engine: &Engine) -> Result<()> {
        self.settle(engine)?;
        while self.queue.len > 0 {
            self.apply_oldest(engine)?;
        }
        Ok(())
    }

    /// Applies the record that was held back longest. An error leaves it where it is:
    /// nothing that was staged is lost unless all of it is.
    fn apply_oldest(&mut self, engine: &Engine) -> Result<()> {
        let Some(oldest) = self.queue.oldest() else {
            return Ok(());
        };
        let held = std::mem::take(oldest);
        let (key, value) = held.key_and_value();
        let applied = self.change(engine, held.at, held.hash, key, Extent::Head, |_| {
            if held.removes {
                Step::Remove(())
            } else {
                Step::PutUntil(value, held.expires_at_ms, ())
            }
        });
        if let Some(oldest) = self.queue.oldest() {
            *oldest = held;
        }
        applied?;
        self.queue.pop();
        Ok(())
    }

    /// Appends a frame and points the index at it. `decide` sees so much of what is there.
    pub(super) fn change<'v, T>(
        &mut self,
        engine: &Engine,
        at: usize,
        hash: u64,
        key: &[u8],
        extent: Extent,
        decide: impl FnOnce(Option<&Frame<'_>>) -> Step<'v, T>,
    ) -> Result<T> {
        let touched = self.touched.get_mut(at).filter(|touched| !touched.gone);
        let touched = touched.ok_or(Error::NamespaceDropped)?;
        let batch = self.batch.as_mut().ok_or(Error::Closed)?;
        let mut guard = engine.lock_in_batch(&touched.space, hash)?;
        let opened = Opened::new();
        let newest = engine.newest(&mut guard, touched.id, key, extent, &opened)?;
        let live = newest.as_ref().and_then(Newest::live);
        let (spec, answer) = match engine.decided(decide(live), live, key)? {
            ControlFlow::Continue(decided) => decided,
            ControlFlow::Break(answer) => return Ok(answer),
        };
        let (kind, expires_at_ms) = (spec.kind, spec.expires_at_ms);
        let spec = FrameSpec {
            namespace: touched.id,
            previous: newest.as_ref().map(|newest| engine.link(newest)),
            ..spec
        };
        if newest.is_none() {
            engine.make_room(&mut guard)?;
        }
        let position = batch.append(&spec)?;
        let location = Location::new(position)
            .ok_or_else(|| Error::corrupted(position, "impossible position"))?;
        match &newest {
            // Others still need what a removed key's entry leads to.
            Some(_) => guard.replace(location, kind == Kind::Tombstone),
            None => guard.insert(location, false),
        }
        drop(guard);
        touched.delta.add(engine.delta(&spec, live));
        if let Some(expiry) = expires_at_ms {
            touched.earliest_expiry_ms = touched.earliest_expiry_ms.min(expiry);
        }
        touched.note(position, kind, engine, key, hash);
        if touched.must_sort() {
            touched.put_in_order(engine, batch.cursor());
        }
        Ok(answer)
    }

    /// Has the batch count; it is still hidden.
    pub(super) fn seal(&mut self, engine: &Engine) -> Result<()> {
        self.drain(engine)?;
        let batch = self.batch.as_mut().ok_or(Error::Closed)?;
        for touched in self.touched.iter_mut().filter(|touched| !touched.gone) {
            touched.seal_order(engine, batch.cursor());
            touched.seal_clear()?;
        }
        Ok(batch.seal()?)
    }
}

impl Engine {
    /// Stores a record in the transaction.
    pub(crate) fn put_in(&self, number: u64, at: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.put_until_in(number, at, key, value, self.default_expiry()?)
    }

    /// As `put_in`, to expire then.
    pub(crate) fn put_until_in(
        &self,
        number: u64,
        at: usize,
        key: &[u8],
        value: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Result<()> {
        // A record that is too long is refused here, before it is held back.
        FrameSpec::new(Kind::Put, key, value).encoded_len()?;
        let hash = self.hash(key);
        let mut staging = self.open_staging(number)?;
        let touched = staging.touched(at)?;
        if key.len() + value.len() > HELD_BYTES {
            staging.drain(self)?;
            return staging.change(self, at, hash, key, Extent::Head, |_| {
                Step::PutUntil(value, expires_at_ms, ())
            });
        }
        touched.space.index.prefetch(hash);
        self.journal.prefetch_end();
        self.hold(&mut staging, at, hash, key, Some((value, expires_at_ms)))
    }

    pub(super) fn hold(
        &self,
        staging: &mut Staging,
        at: usize,
        hash: u64,
        key: &[u8],
        value: Option<(&[u8], Option<u64>)>,
    ) -> Result<()> {
        if staging.queue.len == AHEAD {
            staging.settle(self)?;
            staging.apply_oldest(self)?;
        }
        if let Some(held) = staging.queue.push() {
            held.at = at;
            held.hash = hash;
            held.removes = value.is_none();
            held.key_len = key.len();
            held.bytes.clear();
            held.bytes.extend_from_slice(key);
            let (value, expires_at_ms) = value.unwrap_or_default();
            held.expires_at_ms = expires_at_ms;
            held.bytes.extend_from_slice(value);
        }
        Ok(())
    }

    /// Removes a key in the transaction; hands the value it had to `take`.
    pub(crate) fn remove_in<T>(
        &self,
        number: u64,
        at: usize,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let hash = self.hash(key);
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        if !staging.is_untouched() {
            return staging.change(self, at, hash, key, Extent::Whole, |stored| {
                let seen = stored.filter(|frame| !self.is_expired(frame, None));
                Step::Remove(seen.map(|frame| take(frame.value)))
            });
        }
        // It may stay the only one.
        let space = &staging.touched(at)?.space;
        let opened = Opened::new();
        let stored = self.find_own_frame(space, hash, key, Extent::Whole, u64::MAX, &opened)?;
        if stored.is_none() {
            return Ok(None);
        }
        let old = self.unexpired(stored, None).map(|frame| take(frame.value));
        // What has expired is stored until it is removed, too.
        self.hold(&mut staging, at, hash, key, None)?;
        Ok(old)
    }

    /// The value that the transaction sees.
    pub(crate) fn get_in<'a>(
        &'a self,
        number: u64,
        at: usize,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        let hash = self.hash(key);
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let space = &staging.touched(at)?.space;
        self.find_own(space, hash, key, extent, u64::MAX, opened)
    }

    /// When a record that the transaction sees expires or has expired.
    #[cfg(feature = "ttl")]
    pub(crate) fn expiry_in(&self, number: u64, at: usize, key: &[u8]) -> Result<Option<u64>> {
        let hash = self.hash(key);
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let space = &staging.touched(at)?.space;
        let opened = Opened::new();
        let frame = self.find_own_frame(space, hash, key, Extent::Head, u64::MAX, &opened)?;
        Ok(frame.and_then(|frame| frame.expires_at_ms))
    }

    #[cfg(feature = "ttl")]
    pub(crate) fn persist_in(&self, number: u64, at: usize, key: &[u8]) -> Result<bool> {
        self.change_frame_in(number, at, key, |stored| self.persisted(stored))
    }

    /// The values that the transaction sees, of many keys.
    pub(crate) fn get_many_in<K: AsRef<[u8]>>(
        &self,
        number: u64,
        at: usize,
        keys: &[K],
        mut visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let (space, upto) = self.sight(number, at)?;
        let mut seen = 0;
        self.visit_many(&space, keys, |hashes, keys| {
            let opened = Opened::new();
            let mut found = Vec::with_capacity(keys.len());
            let staging = self.open_staging(number)?;
            for (hash, key) in hashes.iter().zip(keys) {
                let key = key.as_ref();
                found.push(self.find_own(&space, *hash, key, Extent::Whole, upto, &opened)?);
            }
            // Nothing is locked while users' code runs.
            drop(staging);
            for value in found {
                visit(seen, value);
                seen += 1;
            }
            Ok(())
        })
    }

    /// Stores records with the memory that each needs on its way before its turn.
    pub(crate) fn put_all_in<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        number: u64,
        at: usize,
        records: &[(K, V)],
    ) -> Result<()> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let expires_at_ms = self.default_expiry()?;
        let mut hashes = VecDeque::with_capacity(AHEAD);
        let mut ahead = records.iter();
        for (key, value) in records {
            let space = &staging.touched(at)?.space;
            while hashes.len() < AHEAD {
                let Some((key, _)) = ahead.next() else { break };
                let hash = self.hash(key.as_ref());
                space.index.prefetch(hash);
                hashes.push_back(hash);
            }
            let Some(hash) = hashes.pop_front() else {
                break;
            };
            let value = value.as_ref();
            staging.change(self, at, hash, key.as_ref(), Extent::Head, |_| {
                Step::PutUntil(value, expires_at_ms, ())
            })?;
        }
        Ok(())
    }

    /// Commits a transaction whose only record is still held back.
    pub(super) fn commit_single(&self, mut guard: MutexGuard<'_, Staging>) -> Result<()> {
        let staging = &mut *guard;
        let committed = match (staging.batch.take(), staging.queue.oldest()) {
            (Some(batch), Some(held)) => match staging.touched.get_mut(held.at) {
                Some(touched) => self.commit_held(batch, touched, held),
                None => Err(Error::NamespaceDropped),
            },
            // It is called with both.
            _ => Err(Error::Closed),
        };
        staging.reset();
        // Whoever begins next need not wait for the sync.
        drop(guard);
        match committed? {
            Some(lsn) => Ok(self.journal.sync_appended(lsn)?),
            None => Ok(()),
        }
    }

    fn commit_held(&self, batch: Batch, touched: &mut Touched, held: &Held) -> Result<Option<Lsn>> {
        let (space, id) = (&touched.space, touched.id);
        let (key, value) = held.key_and_value();
        let mut guard = self.lock_in_batch(space, held.hash)?;
        let opened = Opened::new();
        let newest = self.newest(&mut guard, id, key, Extent::Head, &opened)?;
        let live = newest.as_ref().and_then(Newest::live);
        let kind = match (held.removes, live) {
            (false, _) => Kind::Put,
            (true, Some(_)) => Kind::Tombstone,
            (true, None) => return Ok(None),
        };
        let expires_at_ms = held.expires_at_ms.filter(|_| kind == Kind::Put);
        let spec = FrameSpec {
            namespace: id,
            expires_at_ms,
            previous: newest.as_ref().map(|newest| self.link(newest)),
            ..FrameSpec::new(kind, key, value)
        };
        let delta = self.delta(&spec, live);
        if newest.is_none() {
            self.make_room(&mut guard)?;
        }
        let removed = &mut touched.removed;
        let lsn = batch.commit_single_unsynced(&spec, |position| {
            let Some(location) = Location::new(position) else {
                return;
            };
            match &newest {
                Some(old) => {
                    guard.replace(location, kind == Kind::Tombstone);
                    let hash = held.hash;
                    removed.extend((kind == Kind::Tombstone).then_some(Removed { position, hash }));
                    self.order_replace(space, key, old.position, location, kind);
                }
                None => {
                    guard.insert(location, false);
                    self.order_insert(space, key, location);
                }
            }
            space.apply(&delta);
            self.add_dead(delta.dead_bytes);
        })?;
        drop(guard);
        if let Some(expiry) = expires_at_ms {
            space.will_expire_at(expiry);
        }
        self.remove_tombstones(std::slice::from_mut(touched));
        Ok(Some(lsn))
    }
}
