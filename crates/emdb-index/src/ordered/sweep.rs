//! Changes to keys that come in their order and are known by their locations, so that
//! only the first of each leaf is searched for.

use crate::Location;

use super::{
    OrderedIndex,
    directory::{Node, Pin},
    leaf::{Leaf, Writer},
};

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
            let mut run = Run::new(node.leaf(), key, direction);
            let replaced =
                pairs.map_while(|(old, new)| run.next(old).map(|at| node.leaf().replace(at, new)));
            replaced.count()
        })
    }

    /// Removes the keys that have these locations. Goes on from `key`, the key of the first, as
    /// long as the keys are of one leaf and have their locations. Returns how many that were.
    ///
    /// Takes O(log n) for the first, and O(1) for each key of the leaf. Reads no key and so
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
        let (locations, pin) = (run.into_iter(), Pin::new());
        self.with_leaf(key, &pin, |node, writer| {
            let mut run = Run::new(node.leaf(), key, direction);
            let mut gone: Vec<_> = locations.map_while(|old| run.next(old)).collect();
            if direction == Direction::Falling {
                gone.reverse();
            }
            self.remove_all((node, writer), &gone, &pin);
            gone.len()
        })
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
                let mut next = gone.iter().peekable();
                let left: Vec<_> = leaf
                    .slots()
                    .enumerate()
                    .filter(|(at, _)| next.next_if_eq(&at).is_none())
                    .map(|(_, slot)| slot)
                    .collect();
                leaf.refill(&left);
                self.uncount(gone.len() as u64);
                self.shrink(node, writer, pin);
            }
        }
    }
}

/// Places of a leaf that are looked for one behind the other.
struct Run<'a> {
    leaf: &'a Leaf,
    key: &'a [u8],
    direction: Direction,
    last: Option<usize>,
}

impl<'a> Run<'a> {
    fn new(leaf: &'a Leaf, key: &'a [u8], direction: Direction) -> Self {
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
        let at = match (self.last, self.direction) {
            (None, _) => self.leaf.search_location(self.key, location),
            (Some(last), Direction::Rising) => (last + 1..self.leaf.len()).find(is_it),
            (Some(last), Direction::Falling) => (0..last).rev().find(is_it),
        }?;
        self.last = Some(at);
        Some(at)
    }
}
