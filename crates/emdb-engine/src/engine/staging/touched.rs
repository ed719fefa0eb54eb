//! What a transaction has done in one namespace.

use std::sync::Arc;

use emdb_index::{Detached, Direction, Location};
use emdb_journal::Kind;

use super::pop::Ahead;
use crate::engine::Engine;
use crate::engine::order::Placed;
use crate::space::{Delta, Space};

/// Records that are sorted by their keys at once. More take more memory and less time.
pub(super) const UNORDERED: usize = 1 << 21;

/// A namespace that the transaction uses.
pub(super) struct Touched {
    /// What others know it as.
    pub(super) base: Arc<Space>,
    /// What the transaction sees of it: the same, unless it has cleared it.
    pub(super) space: Arc<Space>,
    pub(super) id: u32,
    /// What it was before each clear that may have to be undone, the first one always.
    pub(super) earlier: Vec<Touched>,
    /// What takes the place of the base's contents, once the batch is sealed.
    pub(super) contents: Option<Detached>,
    pub(super) delta: Delta,
    /// None of its records that the transaction stored expires before.
    pub(super) earliest_expiry_ms: u64,
    /// Tombstones: they stay in the indexes until it is committed.
    pub(super) removed: Vec<Removed>,
    /// The last of these in the order of their keys, if sealing the batch has sorted them.
    pub(super) removed_sorted: Vec<Placed>,
    /// Tombstones of keys that came in their order, rising and falling.
    pub(super) swept: [Sweeps; 2],
    /// Positions of records and tombstones that the order of keys does not know yet, and
    /// where they begin.
    pub(super) unordered: Vec<u64>,
    pub(super) ordered_upto: u64,
    /// Whether one of them stores a record.
    pub(super) unordered_puts: bool,
    /// How often a key was changed.
    pub(super) changes: u64,
    pub(super) first: Ahead,
    pub(super) last: Ahead,
    /// The transaction creates it.
    pub(super) created: bool,
    /// It was created, and then discarded.
    pub(super) gone: bool,
}

/// A tombstone.
#[derive(Clone, Copy)]
pub(super) struct Removed {
    pub(super) position: u64,
    pub(super) hash: u64,
}

/// Records that were removed one after the other in the order of their keys.
pub(super) struct Sweeps {
    pub(super) direction: Direction,
    pub(super) all: Vec<Swept>,
    /// How many of them the order of keys knows.
    ordered: usize,
}

/// A tombstone, and where the order has what it replaces.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Swept {
    pub(in crate::engine) old: Location,
    pub(in crate::engine) tombstone: Location,
    pub(in crate::engine) hash: u64,
}

impl Swept {
    pub(super) fn removed(&self) -> Removed {
        Removed {
            position: self.tombstone.get(),
            hash: self.hash,
        }
    }
}

impl Sweeps {
    fn new(direction: Direction) -> Self {
        Self {
            direction,
            all: Vec::new(),
            ordered: 0,
        }
    }

    fn forget_from(&mut self, from: u64) {
        let is_before = |swept: &Swept| swept.tombstone.get() < from;
        self.all.truncate(self.all.partition_point(is_before));
        self.ordered = self.ordered.min(self.all.len());
    }

    fn put_in_order(&mut self, engine: &Engine, space: &Space) {
        let new = self.all.get(self.ordered..).unwrap_or_default();
        engine.order_replace_swept(space, new, self.direction);
        self.ordered = self.all.len();
    }
}

impl Touched {
    pub(super) fn new(space: Arc<Space>, created: bool) -> Self {
        Self {
            id: space.id(),
            base: Arc::clone(&space),
            space,
            earlier: Vec::new(),
            contents: None,
            delta: Delta::default(),
            earliest_expiry_ms: u64::MAX,
            removed: Vec::new(),
            removed_sorted: Vec::new(),
            swept: [Direction::Rising, Direction::Falling].map(Sweeps::new),
            unordered: Vec::new(),
            ordered_upto: 0,
            unordered_puts: false,
            changes: 0,
            first: Ahead::default(),
            last: Ahead::default(),
            created,
            gone: false,
        }
    }

    /// As if the transaction had not touched it.
    pub(super) fn forget(&mut self) {
        self.delta = Delta::default();
        self.earliest_expiry_ms = u64::MAX;
        self.removed = Vec::new();
        self.removed_sorted = Vec::new();
        for sweeps in &mut self.swept {
            *sweeps = Sweeps::new(sweeps.direction);
        }
        self.unordered = Vec::new();
        self.ordered_upto = 0;
        self.unordered_puts = false;
        self.forget_ahead();
    }

    /// Forgets what came from this position on, but for what the order knows of it.
    pub(super) fn forget_from(&mut self, from: u64) {
        let is_before = |removed: &Removed| removed.position < from;
        self.removed
            .truncate(self.removed.partition_point(is_before));
        for sweeps in &mut self.swept {
            sweeps.forget_from(from);
        }
        let ordered = self.unordered.partition_point(|position| *position < from);
        self.unordered.truncate(ordered);
        self.forget_ahead();
    }

    /// Notes a frame that the indexes other than the order of keys know.
    pub(super) fn note(
        &mut self,
        position: u64,
        kind: Kind,
        engine: &Engine,
        key: &[u8],
        hash: u64,
    ) {
        self.changes += 1;
        if kind == Kind::Tombstone {
            self.removed.push(Removed { position, hash });
        }
        if engine.range_scans {
            self.unordered.push(position);
            if kind == Kind::Put {
                self.unordered_puts = true;
                self.stored(key);
            }
        }
    }

    /// Notes a tombstone of a record that the order of keys leads to.
    pub(super) fn note_swept(&mut self, swept: Swept, direction: Direction) {
        self.changes += 1;
        let is_it = |sweeps: &&mut Sweeps| sweeps.direction == direction;
        if let Some(sweeps) = self.swept.iter_mut().find(is_it) {
            sweeps.all.push(swept);
        }
    }

    /// Every tombstone.
    pub(super) fn all_removed(&self) -> impl Iterator<Item = Removed> + '_ {
        let swept = self.swept.iter().flat_map(|sweeps| &sweeps.all);
        self.removed
            .iter()
            .copied()
            .chain(swept.map(Swept::removed))
    }

    /// The position of the last of them.
    pub(super) fn last_removed(&self) -> Option<u64> {
        let removed = self.removed.last().map(|removed| removed.position);
        let swept = self.swept.iter().filter_map(|sweeps| sweeps.all.last());
        let swept = swept.map(|swept| swept.tombstone.get());
        swept.chain(removed).max()
    }

    /// Brings the order of keys up to `cursor`, where the next frame comes. Gives what was
    /// missing there.
    pub(super) fn put_in_order(&mut self, engine: &Engine, cursor: u64) -> Vec<Placed> {
        // What was stored for one of these keys came later.
        for sweeps in &mut self.swept {
            sweeps.put_in_order(engine, &self.space);
        }
        let mut sorted = Vec::new();
        if !self.unordered.is_empty() {
            sorted = engine.sorted(&self.space, self.unordered.drain(..));
            engine.order_all(&self.space, &sorted);
        }
        self.ordered_upto = cursor;
        self.unordered_puts = false;
        sorted
    }

    /// As `put_in_order`, for the last time before a commit.
    pub(super) fn seal_order(&mut self, engine: &Engine, cursor: u64) {
        // Otherwise all that is not in order yet are the last tombstones.
        let has_puts = self.unordered_puts;
        let sorted = self.put_in_order(engine, cursor);
        if !has_puts {
            self.removed_sorted = sorted;
        }
    }

    /// Whether the order of keys knows everything.
    pub(super) fn is_ordered(&self) -> bool {
        let is_known = |sweeps: &Sweeps| sweeps.ordered == sweeps.all.len();
        self.unordered.is_empty() && self.swept.iter().all(is_known)
    }

    /// Whether enough waits to be sorted.
    pub(super) fn must_sort(&self) -> bool {
        self.unordered.len() >= UNORDERED
    }
}
