//! What a transaction has done in one namespace.

use std::sync::Arc;

use emdb_journal::Kind;

use super::pop::Ahead;
use crate::engine::Engine;
use crate::space::{Delta, Space};

/// Records that are sorted by their keys at once. More take more memory and less time.
pub(super) const UNORDERED: usize = 1 << 21;

/// A namespace that the transaction uses.
pub(super) struct Touched {
    pub(super) space: Arc<Space>,
    pub(super) id: u32,
    pub(super) delta: Delta,
    /// None of its records that the transaction stored expires before.
    pub(super) earliest_expiry_ms: u64,
    /// Positions of tombstones: they stay in the indexes until it is committed.
    pub(super) removed: Vec<u64>,
    /// Positions of records and tombstones that the order of keys does not know yet, and
    /// where they begin.
    pub(super) unordered: Vec<u64>,
    pub(super) ordered_upto: u64,
    /// Whether one of them stores a record.
    pub(super) unordered_puts: bool,
    pub(super) first: Ahead,
    pub(super) last: Ahead,
    /// The transaction creates it.
    pub(super) created: bool,
    /// It was created, and then discarded.
    pub(super) gone: bool,
}

impl Touched {
    pub(super) fn new(space: Arc<Space>, created: bool) -> Self {
        Self {
            id: space.id(),
            space,
            delta: Delta::default(),
            earliest_expiry_ms: u64::MAX,
            removed: Vec::new(),
            unordered: Vec::new(),
            ordered_upto: 0,
            unordered_puts: false,
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
        self.unordered = Vec::new();
        self.ordered_upto = 0;
        self.unordered_puts = false;
        self.forget_ahead();
    }

    /// Forgets what came from this position on, but for what the order knows of it.
    pub(super) fn forget_from(&mut self, from: u64) {
        for positions in [&mut self.removed, &mut self.unordered] {
            positions.truncate(positions.partition_point(|position| *position < from));
        }
        self.forget_ahead();
    }

    /// Notes a frame that the indexes other than the order of keys know.
    pub(super) fn note(&mut self, position: u64, kind: Kind, engine: &Engine, key: &[u8]) {
        if kind == Kind::Tombstone {
            self.removed.push(position);
        }
        if engine.range_scans {
            self.unordered.push(position);
            if kind == Kind::Put {
                self.unordered_puts = true;
                self.stored(key);
            }
        }
    }

    /// Brings the order of keys up to `cursor`, where the next frame comes.
    pub(super) fn put_in_order(&mut self, engine: &Engine, cursor: u64) {
        if !self.unordered.is_empty() {
            engine.order_all(&self.space, &self.unordered);
            self.unordered.clear();
        }
        self.ordered_upto = cursor;
        self.unordered_puts = false;
    }

    /// Whether enough waits to be sorted.
    pub(super) fn must_sort(&self) -> bool {
        self.unordered.len() >= UNORDERED
    }
}
