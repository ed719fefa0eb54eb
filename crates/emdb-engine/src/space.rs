//! A namespace's state: its index, its counts, and what it held before it was cleared.

mod ends;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use emdb_index::{Detached, HashIndex, OrderedCell, OrderedIndex};
use emdb_journal::Frame;

pub(crate) use ends::{DeadEnds, End};

/// A namespace.
///
/// Counts change only in a writer's turn to publish or under the write side, so
/// plain loads and stores suffice.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) index: HashIndex,
    /// Where it was created; not where it was cleared since.
    pub(crate) created: u64,
    /// Where the incarnation that is alive began.
    born: AtomicU64,
    /// The incarnation's id: what its frames carry.
    id: AtomicU32,
    /// Odd while the contents are being exchanged; readers that miss look again when
    /// it has changed.
    epoch: AtomicU64,
    dropped: AtomicBool,
    /// Whether the index is known to be sound: fresh, rebuilt, or an image that was
    /// checked throughout.
    checked: AtomicBool,
    /// Whether rebuilding the index failed, so that nothing it says can be believed.
    broken: AtomicBool,
    records: AtomicU64,
    logical_bytes: AtomicU64,
    /// No record expires before, in Unix milliseconds; 0 if that is not known.
    earliest_expiry_ms: AtomicU64,
    /// The keys in order, where the database keeps it. Exchanged only under the write side.
    order: OrderedCell,
    /// Whether a key may be missing there.
    order_broken: AtomicBool,
    pub(crate) dead_ends: DeadEnds,
    past: Mutex<Past>,
}

/// Earlier incarnations that snapshots may need.
pub(crate) struct Past {
    pub(crate) ended: Vec<Ended>,
}

/// An incarnation that was ended by a clear or a drop.
pub(crate) struct Ended {
    pub(crate) id: u32,
    pub(crate) born: u64,
    /// Position of the frame that ended it.
    pub(crate) ended: u64,
    pub(crate) contents: Detached,
    /// `None` if a key may be missing in it.
    pub(crate) order: Option<Arc<OrderedIndex>>,
}

/// What a namespace goes on with after a clear.
pub(crate) struct Next {
    pub(crate) id: u32,
    /// Position of the frame that begins it.
    pub(crate) born: u64,
    /// `None` where there is nothing yet.
    pub(crate) contents: Option<Detached>,
    pub(crate) order: Option<Arc<OrderedIndex>>,
    pub(crate) is_order_broken: bool,
    pub(crate) records: u64,
    pub(crate) logical_bytes: u64,
}

impl Next {
    pub(crate) fn empty(id: u32, born: u64) -> Self {
        Self {
            id,
            born,
            contents: None,
            order: None,
            is_order_broken: false,
            records: 0,
            logical_bytes: 0,
        }
    }
}

/// A namespace whose contents were exchanged: readers that miss wait until this is
/// dropped. That is once they would see what is there now, and before anybody exchanges
/// them again.
#[must_use]
pub(crate) struct Exchanging(Arc<Space>);

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// Changes of the counts, to be applied together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delta {
    pub(crate) records: i64,
    pub(crate) logical_bytes: i64,
    pub(crate) dead_bytes: u64,
}

impl Delta {
    /// Counts a record that is there from now on, given the bytes of its key and value.
    #[inline]
    pub(crate) fn put(&mut self, logical_bytes: u64) {
        self.records += 1;
        self.logical_bytes += logical_bytes as i64;
    }

    /// Counts a record that is no longer there.
    #[inline]
    pub(crate) fn remove(&mut self, old: &Frame<'_>) {
        self.records -= 1;
        self.logical_bytes -= (old.key.len() + old.value_len()) as i64;
        self.dead_bytes += old.len() as u64;
    }

    pub(crate) fn add(&mut self, other: Delta) {
        self.records += other.records;
        self.logical_bytes += other.logical_bytes;
        self.dead_bytes += other.dead_bytes;
    }
}

impl Space {
    pub(crate) fn new(name: String, id: u32, born: u64, index: HashIndex) -> Self {
        Self {
            name,
            index,
            created: born,
            born: AtomicU64::new(born),
            id: AtomicU32::new(id),
            epoch: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
            checked: AtomicBool::new(true),
            broken: AtomicBool::new(false),
            records: AtomicU64::new(0),
            logical_bytes: AtomicU64::new(0),
            earliest_expiry_ms: AtomicU64::new(0),
            order: OrderedCell::default(),
            order_broken: AtomicBool::new(false),
            dead_ends: DeadEnds::default(),
            past: Mutex::new(Past { ended: Vec::new() }),
        }
    }

    /// A namespace whose index comes from an image that is checked as it is used.
    pub(crate) fn from_checkpoint(name: String, id: u32, index: HashIndex) -> Self {
        let space = Self::new(name, id, 0, index);
        space.checked.store(false, Ordering::Relaxed);
        space
    }

    pub(crate) fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Acquire)
    }

    /// Says how checking or rebuilding the index ended.
    pub(crate) fn set_checked(&self, sound: bool) {
        self.broken.store(!sound, Ordering::Release);
        self.checked.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The incarnation's id.
    #[inline]
    pub(crate) fn id(&self) -> u32 {
        self.id.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    pub(crate) fn logical_bytes(&self) -> u64 {
        self.logical_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_counts(&self, records: u64, logical_bytes: u64) {
        self.records.store(records, Ordering::Release);
        self.logical_bytes.store(logical_bytes, Ordering::Release);
    }

    /// Applies changes; only in a writer's turn or under the write side.
    #[inline]
    pub(crate) fn apply(&self, delta: &Delta) {
        let records = self.records.load(Ordering::Relaxed);
        self.records.store(
            records.saturating_add_signed(delta.records),
            Ordering::Release,
        );
        let bytes = self.logical_bytes.load(Ordering::Relaxed);
        self.logical_bytes.store(
            bytes.saturating_add_signed(delta.logical_bytes),
            Ordering::Release,
        );
    }

    /// Calls `work` with the keys in order. Writers do while they hold a stripe: whoever
    /// exchanges the order waits for these.
    #[inline]
    pub(crate) fn with_order<T>(&self, work: impl FnOnce(&OrderedIndex) -> T) -> T {
        self.order.with(|order| match order {
            Some(order) => work(order),
            None => work(&self.order()),
        })
    }

    /// Calls `work` with the keys in order if these are now, for sure, the whole ones of
    /// the incarnation `id`.
    #[inline]
    pub(crate) fn with_living_order<T>(
        &self,
        id: u32,
        work: impl FnOnce(Option<&OrderedIndex>) -> T,
    ) -> T {
        let epoch = self.epoch();
        let is_alive = epoch.is_multiple_of(2) && self.id() == id && !self.is_order_broken();
        // Found between two looks at the epoch, it is that one's. An exchange after that
        // leaves it to those who stand on it.
        self.order
            .with(|order| work(order.filter(|_| is_alive && self.epoch() == epoch)))
    }

    /// The keys in order, if any was begun.
    pub(crate) fn begun_order(&self) -> Option<Arc<OrderedIndex>> {
        self.order.get()
    }

    /// The keys in order, to be held beyond an exchange.
    pub(crate) fn order(&self) -> Arc<OrderedIndex> {
        self.order.get_or_default()
    }

    pub(crate) fn set_order(&self, order: OrderedIndex) {
        self.order.exchange(Some(Arc::new(order)));
        self.order_broken.store(false, Ordering::Release);
    }

    pub(crate) fn is_order_broken(&self) -> bool {
        self.order_broken.load(Ordering::Acquire)
    }

    /// Says that a key may be missing in the order, for good.
    #[cold]
    pub(crate) fn set_order_broken(&self) {
        self.order_broken.store(true, Ordering::Release);
    }

    /// Bytes of memory that the order takes.
    pub(crate) fn order_bytes(&self) -> u64 {
        self.order
            .with(|order| order.map_or(0, OrderedIndex::memory_bytes))
    }

    pub(crate) fn earliest_expiry_ms(&self) -> u64 {
        self.earliest_expiry_ms.load(Ordering::SeqCst)
    }

    /// To be called once a record that expires then is in the index, so that whoever
    /// forgets this finds the record.
    pub(crate) fn will_expire_at(&self, expiry_ms: u64) {
        if expiry_ms < self.earliest_expiry_ms() {
            self.earliest_expiry_ms
                .fetch_min(expiry_ms, Ordering::SeqCst);
        }
    }

    /// To be called before every record is looked at.
    pub(crate) fn forget_expiries(&self) {
        self.earliest_expiry_ms.store(u64::MAX, Ordering::SeqCst);
    }

    pub(crate) fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the incarnation and goes on with the next one, or not at all if the namespace
    /// is dropped; under the write side. The old contents stay for snapshots.
    pub(crate) fn end(self: &Arc<Self>, next: Next, drops: bool) -> Exchanging {
        let mut past = self.past();
        if drops {
            self.dropped.store(true, Ordering::Release);
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.index.wait_for_guards();
        let contents = match next.contents {
            Some(contents) => self.index.exchange(contents),
            None => self.index.detach(),
        };
        let (old, born) = (self.id(), self.born.load(Ordering::Acquire));
        // None was begun where no key ever was.
        let order = self.order.exchange(next.order).unwrap_or_default();
        let was_broken = self
            .order_broken
            .swap(next.is_order_broken, Ordering::AcqRel);
        past.ended.push(Ended {
            id: old,
            born,
            ended: next.born,
            contents,
            order: (!was_broken).then_some(order),
        });
        self.dead_ends.forget();
        self.born.store(next.born, Ordering::Release);
        self.id.store(next.id, Ordering::Release);
        self.set_counts(next.records, next.logical_bytes);
        Exchanging(Arc::clone(self))
    }

    /// Empties the index so that it can be built again; under the write side.
    /// Readers that miss wait until `end_rebuild`. The order stays until another one
    /// takes its place, as it does not depend on the index.
    pub(crate) fn begin_rebuild(&self) {
        let past = self.past();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.index.wait_for_guards();
        let contents = self.index.detach();
        self.index.release(contents);
        self.dead_ends.forget();
        drop(past);
        self.set_counts(0, 0);
    }

    pub(crate) fn end_rebuild(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives back what no snapshot needs; tells whether anything is left.
    pub(crate) fn release_past(&self, unneeded: impl Fn(u64) -> bool) -> bool {
        let mut past = self.past();
        let mut kept = Vec::new();
        for ended in past.ended.drain(..) {
            if unneeded(ended.ended) {
                self.index.release(ended.contents);
            } else {
                kept.push(ended);
            }
        }
        past.ended = kept;
        !past.ended.is_empty()
    }

    /// The id of the incarnation that a snapshot at `position` sees.
    #[inline]
    pub(crate) fn id_at(&self, position: u64) -> Option<u32> {
        // Loaded between two looks at the epoch, all of it is of one incarnation.
        let epoch = self.epoch();
        let (born, id) = (self.born.load(Ordering::Acquire), self.id());
        let is_it = born < position && epoch.is_multiple_of(2) && !self.is_dropped();
        if is_it && self.epoch() == epoch {
            return Some(id);
        }
        self.id_before(position)
    }

    #[cold]
    fn id_before(&self, position: u64) -> Option<u32> {
        let past = self.past();
        if self.born.load(Ordering::Acquire) < position && !self.is_dropped() {
            return Some(self.id());
        }
        past.ended
            .iter()
            .find(|ended| ended.born < position && position <= ended.ended)
            .map(|ended| ended.id)
    }
}
