//! Random operations on an ordered index, compared with a `BTreeMap`.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, ops::Bound};

use emdb_index::{Direction, Location, OrderedIndex, RangeBatch, RangeCursor};
use proptest::prelude::*;

/// How a number becomes a key.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Random,
    /// Decimal counters after a common prefix.
    Counter,
    /// 24 bytes, the first 16 of which are equal.
    Tail,
    /// Groups whose first differing byte is far behind what a leaf knows.
    Deep,
    /// Zeros, 0xFF and prefixes of one another.
    Edges,
    /// Long keys that do not differ in a place that all have.
    Runs,
}

fn key(shape: Shape, number: u16) -> Vec<u8> {
    let mixed = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    match shape {
        Shape::Random => mixed.to_le_bytes().repeat(3),
        Shape::Counter => format!("tenant-00042{number:08}").into_bytes(),
        Shape::Tail => [[7; 16].as_slice(), &mixed.to_le_bytes()].concat(),
        Shape::Deep => {
            let mut key = vec![b'a'; 40];
            key[3] = (number % 3) as u8;
            key[20] = (number / 3 % 50) as u8;
            key[39] = (number / 150 % 250) as u8;
            key
        }
        Shape::Edges => {
            let mut rest = number % 3000;
            let mut key = Vec::new();
            while rest > 0 {
                key.push([0, 0xFF, b'a'][(rest % 3) as usize]);
                rest /= 3;
            }
            key
        }
        Shape::Runs => vec![b'x'; (number % 300).into()],
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        first: u16,
        count: u16,
        stride: u16,
        is_falling: bool,
    },
    Remove {
        first: u16,
        count: u16,
        by_location: bool,
    },
    ReplaceAt {
        first: u16,
        count: u16,
    },
    Batch {
        first: u16,
        count: u16,
        stride: u16,
        is_sorted: bool,
    },
    RemoveBatch {
        first: u16,
        count: u16,
        stride: u16,
        is_sorted: bool,
    },
    /// Keys that are there, by their locations alone.
    Sweep {
        lower: Bound<u16>,
        stride: usize,
        direction: Direction,
        removes: bool,
    },
    /// Keys that a scan finds, in the leaf where it found them.
    Extract {
        lower: Bound<u16>,
        max: usize,
        stride: usize,
        is_back: bool,
        /// Others change keys meanwhile.
        is_disturbed: bool,
    },
    Rebuild,
    Scan {
        lower: Bound<u16>,
        upper: Bound<u16>,
        max: usize,
        ends: u32,
    },
}

fn bound() -> impl Strategy<Value = Bound<u16>> {
    prop_oneof![
        3 => (0..4000_u16).prop_map(Bound::Included),
        3 => (0..4000_u16).prop_map(Bound::Excluded),
        2 => Just(Bound::Unbounded),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let count = || prop_oneof![Just(1_u16), 1..50_u16, 1..1500_u16];
    let stride = || prop_oneof![Just(1_u16), Just(7), Just(1001)];
    prop_oneof![
        6 => (0..4000_u16, count(), stride(), any::<bool>()).prop_map(
            |(first, count, stride, is_falling)| Step::Insert { first, count, stride, is_falling }
        ),
        5 => (0..4000_u16, count(), any::<bool>())
            .prop_map(|(first, count, by_location)| Step::Remove { first, count, by_location }),
        1 => (0..4000_u16, count()).prop_map(|(first, count)| Step::ReplaceAt { first, count }),
        3 => (0..4000_u16, count(), stride(), prop::bool::weighted(0.8)).prop_map(
            |(first, count, stride, is_sorted)| Step::Batch { first, count, stride, is_sorted }
        ),
        3 => (0..4000_u16, count(), stride(), prop::bool::weighted(0.8)).prop_map(
            |(first, count, stride, is_sorted)| {
                Step::RemoveBatch { first, count, stride, is_sorted }
            }
        ),
        3 => (bound(), 1..40_usize, any::<bool>(), any::<bool>()).prop_map(
            |(lower, stride, rises, removes)| {
                let direction = if rises { Direction::Rising } else { Direction::Falling };
                Step::Sweep { lower, stride, direction, removes }
            }
        ),
        3 => (bound(), 1..200_usize, 1..9_usize, any::<bool>(), any::<bool>()).prop_map(
            |(lower, max, stride, is_back, is_disturbed)| {
                Step::Extract { lower, max, stride, is_back, is_disturbed }
            }
        ),
        1 => Just(Step::Rebuild),
        5 => (bound(), bound(), prop_oneof![Just(1_usize), 2..40_usize, Just(1000)], any::<u32>())
            .prop_map(|(lower, upper, max, ends)| Step::Scan { lower, upper, max, ends }),
    ]
}

/// An index, what should be in it, and the journal: the keys in the order of locations.
struct World {
    shape: Shape,
    index: OrderedIndex,
    model: BTreeMap<Vec<u8>, Location>,
    journal: RefCell<Vec<Vec<u8>>>,
}

impl World {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            index: OrderedIndex::new(),
            model: BTreeMap::new(),
            journal: RefCell::default(),
        }
    }

    fn key(&self, number: u16) -> Vec<u8> {
        key(self.shape, number % 4000)
    }

    fn append(&self, key: &[u8]) -> Location {
        let mut journal = self.journal.borrow_mut();
        journal.push(key.to_vec());
        Location::new(journal.len() as u64).unwrap()
    }

    fn resolve(&self) -> impl Fn(Location) -> Result<Vec<u8>, Infallible> + '_ {
        |location| Ok(self.journal.borrow()[location.get() as usize - 1].clone())
    }

    fn numbers(first: u16, count: u16, stride: u16) -> impl Iterator<Item = u16> {
        (0..count).map(move |turn| first.wrapping_add(turn.wrapping_mul(stride)))
    }

    fn insert(&mut self, number: u16) {
        let key = self.key(number);
        let location = self.append(&key);
        let Ok(old) = self.index.insert(&key, location, self.resolve());
        assert_eq!(old, self.model.insert(key, location));
    }

    fn remove(&mut self, number: u16, by_location: bool) {
        let key = self.key(number);
        let old = self.model.remove(&key);
        match (by_location, old) {
            (true, Some(old)) => {
                let other = Location::new(Location::MAX).unwrap();
                assert!(!self.index.remove_at(&key, other));
                assert!(self.index.remove_at(&key, old));
                assert!(!self.index.remove_at(&key, old));
            }
            _ => assert_eq!(self.index.remove(&key, self.resolve()), Ok(old)),
        }
    }

    fn replace_at(&mut self, number: u16) {
        let key = self.key(number);
        let new = self.append(&key);
        let old = self.model.get(&key).copied();
        let other = Location::new(Location::MAX).unwrap();
        assert!(!self.index.replace_at(&key, other, new));
        if let Some(old) = old {
            assert!(self.index.replace_at(&key, old, new));
            self.model.insert(key, new);
        }
    }

    fn batch(&mut self, numbers: impl Iterator<Item = u16>, is_sorted: bool) {
        let mut keys: Vec<_> = numbers.map(|number| self.key(number)).collect();
        if is_sorted {
            keys.sort();
        }
        let batch: Vec<_> = keys.iter().map(|key| (key, self.append(key))).collect();
        let before = self.model.len();
        let Ok(new) = self
            .index
            .insert_sorted_batch(batch.iter().copied(), self.resolve());
        self.model
            .extend(batch.into_iter().map(|(key, at)| (key.clone(), at)));
        assert_eq!(new as usize, self.model.len() - before);
    }

    fn remove_batch(&mut self, numbers: impl Iterator<Item = u16>, is_sorted: bool) {
        let mut keys: Vec<_> = numbers.map(|number| self.key(number)).collect();
        if is_sorted {
            keys.sort();
        }
        let other = Location::new(Location::MAX).unwrap();
        let mut batch: Vec<_> = Vec::new();
        let before = self.model.len();
        for (turn, key) in keys.into_iter().enumerate() {
            // Some have another location, and stay.
            let old = match turn % 5 {
                0 => None,
                _ => self.model.remove(&key),
            };
            batch.push((key, old.unwrap_or(other)));
        }
        let removed = self.index.remove_sorted_batch(batch);
        assert_eq!(removed as usize, before - self.model.len());
    }

    fn sweep(&mut self, lower: Bound<u16>, stride: usize, direction: Direction, removes: bool) {
        let lower = lower.map(|number| self.key(number));
        let range = self.model.range((lower, Bound::Unbounded));
        let mut swept: Vec<_> = range
            .step_by(stride)
            .map(|(key, at)| (key.clone(), *at, self.append(key)))
            .collect();
        if direction == Direction::Falling {
            swept.reverse();
        }
        // One is not there: a run ends before it.
        let stranger = Location::new(Location::MAX).unwrap();
        if let Some((_, at, _)) = swept.get_mut(5) {
            *at = stranger;
        }
        let mut rest = swept.as_slice();
        while let Some((key, first, _)) = rest.first() {
            let done = if removes {
                let run = rest.iter().map(|(_, at, _)| *at);
                self.index.remove_run(key, run, direction)
            } else {
                let pairs = rest.iter().map(|(_, old, new)| (*old, *new));
                self.index.replace_run(key, pairs, direction)
            };
            assert_eq!(done == 0, *first == stranger);
            for (key, _, new) in rest.iter().take(done) {
                let _ = match removes {
                    true => self.model.remove(key),
                    false => self.model.insert(key.clone(), *new),
                };
            }
            rest = &rest[done.max(1)..];
        }
    }

    fn extract(
        &mut self,
        lower: Bound<u16>,
        max: usize,
        stride: usize,
        is_back: bool,
        is_disturbed: bool,
    ) {
        let lower = lower.map(|number| self.key(number));
        let mut range = RangeCursor::new(lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let mut batch = RangeBatch::remembering().removing();
        let mut turn = 0_u16;
        loop {
            let found = if is_back {
                let resolve = self.resolve();
                self.index
                    .next_back_batch(&mut range, max, &mut batch, resolve)
            } else {
                let resolve = self.resolve();
                self.index.next_batch(&mut range, max, &mut batch, resolve)
            };
            if found == Ok(false) {
                break;
            }
            for (at, entry) in batch.entries().to_vec().into_iter().enumerate() {
                turn = turn.wrapping_add(1);
                if !usize::from(turn).is_multiple_of(stride) {
                    batch.set_verified(at, entry);
                    continue;
                }
                if is_disturbed && turn.is_multiple_of(3) {
                    self.insert(turn.wrapping_mul(7));
                    self.remove(turn.wrapping_mul(11), true);
                }
                let Ok(key) = self.resolve()(entry.location);
                let is_there = self.model.get(&key) == Some(&entry.location);
                let removed = self.index.remove_found(&mut batch, at);
                assert!(is_there || !removed);
                assert!(is_disturbed || removed);
                if is_there {
                    let left = self.index.remove_at(&key, entry.location);
                    assert_eq!(left, !removed);
                    self.model.remove(&key);
                }
                assert!(!self.index.remove_found(&mut batch, at));
            }
            if turn.is_multiple_of(2) {
                self.index.shrink_after(&mut batch);
            }
        }
    }

    fn scan(&self, lower: Bound<u16>, upper: Bound<u16>, max: usize, mut ends: u32) {
        let (lower, upper) = (lower.map(|at| self.key(at)), upper.map(|at| self.key(at)));
        let (lower, upper) = (
            lower.as_ref().map(Vec::as_slice),
            upper.as_ref().map(Vec::as_slice),
        );
        let is_in = |key: &[u8]| {
            (match lower {
                Bound::Included(lower) => key >= lower,
                Bound::Excluded(lower) => key > lower,
                Bound::Unbounded => true,
            }) && (match upper {
                Bound::Included(upper) => key <= upper,
                Bound::Excluded(upper) => key < upper,
                Bound::Unbounded => true,
            })
        };
        let expected: Vec<_> = self
            .model
            .iter()
            .filter(|(key, _)| is_in(key))
            .map(|(_, at)| *at)
            .collect();
        let mut range = RangeCursor::borrowing(lower, upper);
        let (mut front, mut back, mut batch) = (Vec::new(), Vec::new(), RangeBatch::default());
        loop {
            let mut fetched = Vec::new();
            ends = ends.rotate_left(1);
            let (all, found) = match ends % 2 {
                0 => (
                    &mut front,
                    self.index.next_batch_fetching(
                        &mut range,
                        max,
                        &mut batch,
                        self.resolve(),
                        |entries| fetched.extend_from_slice(entries),
                    ),
                ),
                _ => (
                    &mut back,
                    self.index.next_back_batch_fetching(
                        &mut range,
                        max,
                        &mut batch,
                        self.resolve(),
                        |entries| fetched.extend_from_slice(entries),
                    ),
                ),
            };
            let Ok(found) = found;
            assert_eq!(found, !batch.entries().is_empty());
            assert!(batch.entries().len() <= max);
            assert!(batch.entries().iter().all(|entry| fetched.contains(entry)));
            all.extend(batch.entries().iter().map(|entry| entry.location));
            if !found {
                break;
            }
        }
        assert!(range.is_done());
        back.reverse();
        front.append(&mut back);
        assert_eq!(front, expected);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert {
                first,
                count,
                stride,
                is_falling,
            } => {
                let mut numbers: Vec<_> = Self::numbers(first, count, stride).collect();
                if is_falling {
                    numbers.reverse();
                }
                numbers.into_iter().for_each(|number| self.insert(number));
            }
            Step::Remove {
                first,
                count,
                by_location,
            } => {
                Self::numbers(first, count, 1).for_each(|number| self.remove(number, by_location));
            }
            Step::ReplaceAt { first, count } => {
                Self::numbers(first, count, 1).for_each(|number| self.replace_at(number));
            }
            Step::Batch {
                first,
                count,
                stride,
                is_sorted,
            } => {
                self.batch(Self::numbers(first, count, stride), is_sorted);
            }
            Step::RemoveBatch {
                first,
                count,
                stride,
                is_sorted,
            } => {
                self.remove_batch(Self::numbers(first, count, stride), is_sorted);
            }
            Step::Sweep {
                lower,
                stride,
                direction,
                removes,
            } => self.sweep(lower, stride, direction, removes),
            Step::Extract {
                lower,
                max,
                stride,
                is_back,
                is_disturbed,
            } => self.extract(lower, max, stride, is_back, is_disturbed),
            Step::Rebuild => {
                let records = self.model.iter().map(|(key, at)| (key, *at));
                self.index = OrderedIndex::build(records).unwrap();
            }
            Step::Scan {
                lower,
                upper,
                max,
                ends,
            } => self.scan(lower, upper, max, ends),
        }
        assert_eq!(self.index.len(), self.model.len() as u64);
    }
}

#[test]
fn any_number_of_entries_may_be_asked_for_at_once() {
    let mut world = World::new(Shape::Tail);
    world.batch(World::numbers(0, 1000, 3), true);
    world.scan(Bound::Unbounded, Bound::Unbounded, usize::MAX, 0);
    world.scan(Bound::Unbounded, Bound::Unbounded, usize::MAX, u32::MAX);
    let middle = Bound::Excluded(1500);
    world.scan(middle, Bound::Unbounded, usize::MAX, 0x5555_5555);
    world.scan(Bound::Unbounded, middle, usize::MAX, u32::MAX);
    world.scan(middle, Bound::Unbounded, usize::MAX, u32::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn the_ordered_index_does_what_a_map_does(
        shape in prop_oneof![
            Just(Shape::Random), Just(Shape::Counter), Just(Shape::Tail),
            Just(Shape::Deep), Just(Shape::Edges), Just(Shape::Runs),
        ],
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut world = World::new(shape);
        for step in steps {
            world.step(step);
        }
        world.scan(Bound::Unbounded, Bound::Unbounded, 100, 0);
        world.scan(Bound::Unbounded, Bound::Unbounded, 100, u32::MAX);
    }
}
