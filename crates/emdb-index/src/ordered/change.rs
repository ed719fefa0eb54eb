//! Changes that one leaf has no room for: growing, splitting, merging.
//!
//! Leaves that take the place of others are made aside and exchanged, so the
//! bounds of a leaf never change under its readers.

use crate::{Location, primitive::lock};

use super::{
    OrderedIndex,
    build::next_run,
    directory::{Node, Pin},
    draft::{Draft, SLOTS_MIN},
    fence::Bytes,
    key::Slot,
    leaf::{Leaf, SLOTS_MAX, State, Trend, Writer},
};

/// A leaf made of two should not have to be split at once.
const MERGED_MAX: usize = SLOTS_MAX - SLOTS_MAX / 8;
/// What is worth filling another leaf to the brim, to be rid of a leaf.
const FEW: usize = SLOTS_MIN / 4;
/// To how much leaves are filled between which more keys may come.
const FILLED: usize = SLOTS_MAX - SLOTS_MAX / 4;

/// Where keys are not worth reading: ties may stay, and prefixes get no longer.
pub(super) fn unread(_: Location) -> Result<&'static [u8], ()> {
    Err(())
}

/// Room for half as many slots again.
fn roomy(count: usize) -> usize {
    count.saturating_add(count / 2).next_multiple_of(8)
}

/// Room for a fourth more.
pub(super) fn close(count: usize) -> usize {
    count.saturating_add(count / 4).next_multiple_of(8)
}

impl OrderedIndex {
    /// Removes keys that have the locations given beside them. Returns how many had.
    ///
    /// Much faster than single removals if they come in the order of the keys; right
    /// in any order. Readers may see a part of the batch. A location must not be that of
    /// another key.
    ///
    /// Takes O(log n) for each leaf changed, and O(1) for each key in it and each of the
    /// batch. Reads no key and so cannot fail.
    pub fn remove_sorted_batch<B: AsRef<[u8]>>(
        &self,
        batch: impl IntoIterator<Item = (B, Location)>,
    ) -> u64 {
        let mut batch = batch.into_iter().peekable();
        let mut run = Vec::new();
        let mut removed = 0;
        while next_run(&mut batch, &mut run) {
            let mut rest = run.as_slice();
            while !rest.is_empty() {
                let (count, gone) = self.remove_run_of_keys(rest);
                removed += gone;
                rest = rest.get(count..).unwrap_or_default();
            }
        }
        removed
    }

    /// Removes those of the keys, which rise, that belong to the leaf of the first.
    /// Returns how many these were, and how many of them were there.
    fn remove_run_of_keys<B: AsRef<[u8]>>(&self, run: &[(B, Location)]) -> (usize, u64) {
        let Some((first, _)) = run.first() else {
            return (0, 0);
        };
        let pin = Pin::new();
        self.with_leaf(first.as_ref(), &pin, |node, writer| {
            let leaf = node.leaf();
            let count = run.partition_point(|(key, _)| leaf.is_above(key.as_ref()));
            let places = run.iter().take(count);
            let gone: Vec<_> = places
                .filter_map(|(key, old)| leaf.search_location(key.as_ref(), *old))
                .collect();
            self.remove_all((node, writer), &gone, &pin);
            (count, gone.len() as u64)
        })
    }

    /// Inserts a new key before the slot `at` of a leaf that has no room for it, or
    /// whose prefix does not fit it.
    pub(super) fn insert_anew<K: AsRef<[u8]>, E>(
        &self,
        (node, writer): (&Node<'_>, &mut Writer),
        at: usize,
        (key, location): (&[u8], Location),
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
        pin: &Pin,
    ) {
        let leaf = node.leaf();
        let (low, high) = (node.low().clone(), leaf.high().cloned());
        let mut draft = Draft::of(leaf);
        draft.admit(key);
        let at = at.min(draft.slots.len());
        draft.slots.insert(at, Slot::new(draft.stub(key), location));
        let count = draft.slots.len();
        let trend = writer.trend();
        // Keys that come in order leave full leaves behind.
        let (cut, below_capacity, above_capacity) = match trend {
            Trend::None => (count / 2, roomy(count / 2), roomy(count - count / 2)),
            Trend::Rising if at + 1 == count => (at, at, SLOTS_MAX),
            Trend::Rising => (at + 1, SLOTS_MAX, close(count - at)),
            Trend::Falling if at == 0 => (1, SLOTS_MAX, count - 1),
            Trend::Falling => (at, close(at), SLOTS_MAX),
        };
        let new = if count > SLOTS_MAX
            && let Some((bound, above)) = draft.cut(cut, (&low, high.as_ref()), resolve)
        {
            let below = draft.leaf(Some(bound.clone()), below_capacity, resolve);
            let above = above.leaf(high, above_capacity, resolve);
            vec![(low, below), (bound, above)]
        } else {
            let capacity = match (count <= leaf.capacity(), trend) {
                (true, _) => leaf.capacity(),
                (false, Trend::None) => roomy(count),
                (false, _) => SLOTS_MAX,
            };
            vec![(low, draft.leaf(high, capacity, resolve))]
        };
        self.exchange(&[node], new, pin);
        writer.state = State::Retired;
    }

    /// Puts a draft of any size in the place of a leaf.
    pub(super) fn put_draft<K: AsRef<[u8]>, E>(
        &self,
        (node, writer): (&Node<'_>, &mut Writer),
        mut draft: Draft,
        is_appended: bool,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
        pin: &Pin,
    ) {
        let low = node.low().clone();
        let mut high = node.leaf().high().cloned();
        let mut new: Vec<(Bytes, Leaf)> = Vec::new();
        // From behind, as slots are cut off.
        while draft.slots.len() > SLOTS_MAX {
            let count = draft.slots.len();
            let at = match is_appended {
                true => (count - 1) / SLOTS_MAX * SLOTS_MAX,
                false => count - count / count.div_ceil(FILLED),
            };
            let Some((bound, above)) = draft.cut(at, (&low, high.as_ref()), resolve) else {
                break;
            };
            let capacity = match is_appended && !new.is_empty() {
                true => above.slots.len(),
                false => SLOTS_MAX,
            };
            let leaf = above.leaf(high.replace(bound.clone()), capacity, resolve);
            new.push((bound, leaf));
        }
        let capacity = match is_appended && !new.is_empty() {
            true => draft.slots.len(),
            false => roomy(draft.slots.len()),
        };
        new.push((low, draft.leaf(high, capacity, resolve)));
        new.reverse();
        self.exchange(&[node], new, pin);
        writer.state = State::Retired;
    }

    /// Gives memory back if a leaf from which a slot was removed has much to spare.
    pub(super) fn shrink(&self, node: &Node<'_>, writer: &mut Writer, pin: &Pin) {
        let leaf = node.leaf();
        let (count, capacity) = (leaf.len(), leaf.capacity());
        let is_small = capacity <= SLOTS_MIN;
        if count >= capacity * 5 / 8 || is_small && count > FEW {
            return;
        }
        if self.merge(node, pin) {
            writer.state = State::Retired;
        } else if !is_small {
            let (low, high) = (node.low().clone(), leaf.high().cloned());
            let smaller = Draft::of(leaf).leaf(high, close(count), &mut unread);
            self.exchange(&[node], vec![(low, smaller)], pin);
            writer.state = State::Retired;
        }
    }

    /// Puts one leaf in the place of this one and a neighbour, if one has room.
    fn merge(&self, node: &Node<'_>, pin: &Pin) -> bool {
        let high = node.leaf().high().map(Bytes::as_slice);
        let right = high.map(|high| self.directory.find(high, pin));
        if let Some(right) = right
            && right.low().as_slice() == high.unwrap_or_default()
            && self.merge_pair([node, &right], &right, pin)
        {
            return true;
        }
        let low = node.low().as_slice();
        let left = self.directory.find_below(Some(low), pin);
        left.is_some_and(|left| {
            left.leaf().high().map(Bytes::as_slice) == Some(low)
                && self.merge_pair([&left, node], &left, pin)
        })
    }

    /// Merges two neighbours. The caller holds the lock of one, this takes the `other`'s.
    fn merge_pair(&self, pair: [&Node<'_>; 2], other: &Node<'_>, pin: &Pin) -> bool {
        let [left, right] = pair.map(Node::leaf);
        // Only an attempt: the other's writer may be trying the same.
        let Some(mut other_writer) = other.leaf().try_lock() else {
            return false;
        };
        let total = left.len().saturating_add(right.len());
        let is_worth_it =
            total <= MERGED_MAX || left.len().min(right.len()) <= FEW && total <= SLOTS_MAX;
        if other_writer.state != State::Open || !is_worth_it {
            return false;
        }
        let mut draft = Draft::of(left);
        draft.append(Draft::of(right));
        let (low, high) = (pair[0].low().clone(), right.high().cloned());
        let merged = draft.leaf(high, close(total), &mut unread);
        self.exchange(&pair, vec![(low, merged)], pin);
        other_writer.state = State::Retired;
        true
    }

    pub(super) fn exchange(&self, old: &[&Node<'_>], new: Vec<(Bytes, Leaf)>, pin: &Pin) {
        let _structure = lock(&self.structure);
        self.directory.exchange(old, new, pin);
    }
}
