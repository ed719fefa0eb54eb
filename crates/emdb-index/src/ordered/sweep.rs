//! Changes to keys that come in their order and are known by their locations, so that
//! only the first of each leaf is searched for.

use std::iter::Peekable;

use crate::Location;

use super::{
    OrderedIndex,
    change::{close, unread},
    directory::{Node, Pin},
    draft::Draft,
    fence::Bytes,
    key::Slot,
    leaf::{Leaf, State, Writer},
};

/// The most leaves that are given up at once.
const LEAVES: usize = 16;

/// In which order keys come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest.
    Rising,
    /// From the highest.
    Falling,
}

impl OrderedIndex {
    /// Stores the second location of each pair for the key that has the first. Goes on from
    /// `key`, the key of the first pair, as long as the keys are of one leaf and have their
    /// locations. Returns how many that were.
    ///
    /// Takes O(log n) for the first, and O(1) for each key of the leaf. Reads no key and so
    /// cannot fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_index::{Direction, Location, OrderedIndex};
    ///
    /// let at = |position| Location::new(position).expect("small");
    /// let index = OrderedIndex::build([("a", at(1)), ("b", at(2)), ("c", at(3))])?;
    /// let pairs = [(at(1), at(4)), (at(3), at(5))];
    /// assert_eq!(index.replace_run(b"a", pairs, Direction::Rising), 2);
    /// let run = [at(5), at(2), at(4)];
    /// assert_eq!(index.remove_run(b"c", run, Direction::Falling), 3);
    /// assert!(index.is_empty());
    /// # Ok::<(), emdb_index::Error>(())
    /// ```
    pub fn replace_run(
        &self,
        key: &[u8],
        pairs: impl IntoIterator<Item = (Location, Location)>,
        direction: Direction,
    ) -> usize {
        let pairs = pairs.into_iter();
        self.with_leaf(key, &Pin::new(), |node, _| {
            let mut run = Run::new(node.leaf(), Some(key), direction);
            let replaced =
                pairs.map_while(|(old, new)| run.next(old).map(|at| node.leaf().replace(at, new)));
            replaced.count()
        })
    }

    /// Removes the keys that have these locations. Goes on from `key`, the key of the first, as
    /// long as the keys have their locations and are of one leaf, or of some of which nothing is
    /// left but in the last. Returns how many that were.
    ///
    /// Takes O(log n) for the first, and O(1) for each key of its leaf. Reads no key and so
    /// cannot fail.
    ///
    /// # Examples
    ///
    /// See [`Self::replace_run`].
    pub fn remove_run(
        &self,
        key: &[u8],
        run: impl IntoIterator<Item = Location>,
        direction: Direction,
    ) -> usize {
        let (mut locations, pin) = (run.into_iter().peekable(), Pin::new());
        self.with_leaf(key, &pin, |node, writer| {
            let run = Run::new(node.leaf(), Some(key), direction);
            let gone = run.take(&mut locations);
            if gone.len() < node.leaf().len() || gone.is_empty() {
                self.remove_all((node, writer), &gone, &pin);
                return gone.len();
            }
            let removed = gone.len() + self.give_up(&[node], &mut locations, direction, &pin);
            writer.state = State::Retired;
            self.uncount(removed as u64);
            removed
        })
    }

    /// Puts one leaf in the place of some that lie side by side, of which no key is to stay, and
    /// of the next one in the direction, if that can be had; the caller holds their locks and
    /// retires them. Goes on there as [`Self::remove_run`] does, and returns how many more keys
    /// are gone.
    fn give_up(
        &self,
        empty: &[&Node<'_>],
        locations: &mut Peekable<impl Iterator<Item = Location>>,
        direction: Direction,
        pin: &Pin,
    ) -> usize {
        let next = empty
            .last()
            .and_then(|last| self.beside(last, direction, pin));
        // Only an attempt, as when leaves are merged.
        let lock = next.as_ref().and_then(|next| next.leaf().try_lock());
        let lock = lock.filter(|writer| writer.state == State::Open);
        let (Some(next), Some(mut writer)) = (&next, lock) else {
            self.exchange_for(empty, None, direction, pin);
            return 0;
        };
        let leaf = next.leaf();
        let gone = Run::new(leaf, None, direction).take(locations);
        let all: Vec<_> = empty.iter().copied().chain([next]).collect();
        let more = if gone.len() == leaf.len() && all.len() < LEAVES {
            self.give_up(&all, locations, direction, pin)
        } else {
            let mut draft = Draft::of(leaf);
            draft.slots = without(leaf, &gone);
            self.exchange_for(&all, Some(draft), direction, pin);
            0
        };
        writer.state = State::Retired;
        gone.len() + more
    }

    /// The leaf beside one, whose lock the caller holds.
    fn beside<'g>(
        &'g self,
        node: &Node<'_>,
        direction: Direction,
        pin: &'g Pin,
    ) -> Option<Node<'g>> {
        match direction {
            Direction::Rising => {
                let high = node.leaf().high()?;
                let right = self.directory.find(high.as_slice(), pin);
                (right.low().as_slice() == high.as_slice()).then_some(right)
            }
            Direction::Falling => {
                let low = node.low().as_slice();
                let left = self.directory.find_below(Some(low), pin)?;
                (left.leaf().high().map(Bytes::as_slice) == Some(low)).then_some(left)
            }
        }
    }

    /// Puts a leaf with what is left in the place of some.
    fn exchange_for(
        &self,
        old: &[&Node<'_>],
        left: Option<Draft>,
        direction: Direction,
        pin: &Pin,
    ) {
        let mut old = old.to_vec();
        if direction == Direction::Falling {
            old.reverse();
        }
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return;
        };
        let (low, high) = (first.low().clone(), last.leaf().high().cloned());
        let draft = left.unwrap_or_default();
        let capacity = close(draft.slots.len());
        let new = draft.leaf(high, capacity, &mut unread);
        self.exchange(&old, vec![(low, new)], pin);
    }

    /// Removes the slots at these rising places of a leaf.
    pub(super) fn remove_all(
        &self,
        (node, writer): (&Node<'_>, &mut Writer),
        gone: &[usize],
        pin: &Pin,
    ) {
        let leaf = node.leaf();
        match gone {
            [] => {}
            [at] => self.remove_from((node, writer), *at, pin),
            _ => {
                leaf.refill(&without(leaf, gone));
                self.uncount(gone.len() as u64);
                self.shrink(node, writer, pin);
            }
        }
    }
}

/// The slots of a leaf but those at these rising places.
fn without(leaf: &Leaf, gone: &[usize]) -> Vec<Slot> {
    let mut next = gone.iter().peekable();
    let slots = leaf.slots().enumerate();
    let left = slots.filter(|(at, _)| next.next_if_eq(&at).is_none());
    left.map(|(_, slot)| slot).collect()
}

/// Places of a leaf that are looked for one behind the other.
struct Run<'a> {
    leaf: &'a Leaf,
    /// The first key, if it is known.
    key: Option<&'a [u8]>,
    direction: Direction,
    last: Option<usize>,
}

impl<'a> Run<'a> {
    fn new(leaf: &'a Leaf, key: Option<&'a [u8]>, direction: Direction) -> Self {
        Self {
            leaf,
            key,
            direction,
            last: None,
        }
    }

    /// Where the next key is, if it has this location.
    fn next(&mut self, location: Location) -> Option<usize> {
        let is_it = |at: &usize| self.leaf.slot(*at).is_at(location);
        let len = self.leaf.len();
        let at = match (self.last, self.key, self.direction) {
            (None, Some(key), _) => self.leaf.search_location(key, location),
            (None, None, Direction::Rising) => (0..len).find(is_it),
            (None, None, Direction::Falling) => (0..len).rev().find(is_it),
            (Some(last), _, Direction::Rising) => (last + 1..len).find(is_it),
            (Some(last), _, Direction::Falling) => (0..last).rev().find(is_it),
        }?;
        self.last = Some(at);
        Some(at)
    }

    /// The places, rising, of as many as the leaf has.
    fn take(mut self, locations: &mut Peekable<impl Iterator<Item = Location>>) -> Vec<usize> {
        let mut places = Vec::new();
        while let Some(at) = locations.peek().and_then(|location| self.next(*location)) {
            places.push(at);
            locations.next();
        }
        if self.direction == Direction::Falling {
            places.reverse();
        }
        places
    }
}
