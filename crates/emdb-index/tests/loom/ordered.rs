//! Models of a leaf that changes in place, is split, or is merged, beside a scan.
//!
//! Leaves have two slots here. The skip list is a map under a lock; what is
//! tried is the leaves' protocol, and in which order they are exchanged.

use std::convert::Infallible;

use emdb_index::{Direction, Entry, Location, OrderedIndex, RangeBatch, RangeCursor};
use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// The index, and the journal: the record at location n + 1 says n + 100.
struct World {
    index: OrderedIndex,
    records: [AtomicU64; 6],
    is_done: AtomicBool,
}

const KEYS: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];

fn location(key: usize) -> Location {
    Location::new(key as u64 + 1).unwrap()
}

impl World {
    fn new(keys: &[usize]) -> Arc<Self> {
        let world = Self {
            index: OrderedIndex::new(),
            records: std::array::from_fn(|_| AtomicU64::new(0)),
            is_done: AtomicBool::new(false),
        };
        keys.iter().for_each(|key| world.put(*key));
        Arc::new(world)
    }

    fn key_at(&self, location: Location) -> usize {
        let at = location.get() as usize - 1;
        let record = self.records[at].load(Ordering::Relaxed);
        assert_eq!(record, at as u64 + 100, "seen before its record");
        at
    }

    fn put(&self, key: usize) {
        self.records[key].store(key as u64 + 100, Ordering::Relaxed);
        let resolve = |location| Ok::<_, Infallible>(KEYS[self.key_at(location)]);
        let Ok(_) = self.index.insert(KEYS[key], location(key), resolve);
    }

    fn remove(&self, key: usize) {
        assert!(self.index.remove_at(KEYS[key], location(key)));
    }

    fn scan(&self, is_back: bool) -> Vec<usize> {
        let (mut range, mut batch, mut seen) =
            (RangeCursor::default(), RangeBatch::default(), Vec::new());
        let resolve = |location| Ok::<_, Infallible>(KEYS[self.key_at(location)]);
        loop {
            let found = match is_back {
                false => self.index.next_batch(&mut range, 8, &mut batch, resolve),
                true => self
                    .index
                    .next_back_batch(&mut range, 8, &mut batch, resolve),
            };
            let Ok(found) = found;
            if !found {
                break;
            }
            let entries = batch.entries().iter();
            seen.extend(entries.map(|entry| self.key_at(entry.location)));
        }
        if is_back {
            seen.reverse();
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        seen
    }
}

fn model(
    keys: &'static [usize],
    write: impl Fn(&World) + Copy + Send + Sync + 'static,
    others: &'static [fn(&World)],
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let world = World::new(keys);
        let others: Vec<_> = others
            .iter()
            .map(|other| {
                let world = Arc::clone(&world);
                thread::spawn(move || other(&world))
            })
            .collect();
        write(&world);
        for other in others {
            other.join().unwrap();
        }
    });
}

fn sees(world: &World, keys: &[usize]) {
    for is_back in [false, true] {
        let seen = world.scan(is_back);
        assert!(keys.iter().all(|key| seen.contains(key)), "{seen:?}");
    }
}

#[test]
fn a_scan_sees_what_stays_while_slots_move() {
    model(&[1], |world| world.put(0), &[|world| sees(world, &[1])]);
    model(
        &[0, 1],
        |world| world.remove(0),
        &[|world| sees(world, &[1])],
    );
}

#[test]
fn a_scan_sees_what_stays_while_its_leaf_splits() {
    model(
        &[0, 2],
        |world| world.put(1),
        &[|world| sees(world, &[0, 2])],
    );
}

/// One leaf becomes three, more than a branch has here.
#[test]
fn a_scan_sees_what_stays_while_branches_split() {
    model(
        &[0, 3],
        |world| {
            world.put(1);
            world.put(2);
        },
        &[|world| sees(world, &[0, 3])],
    );
}

#[test]
fn a_scan_sees_what_stays_while_leaves_are_merged() {
    model(
        &[0, 1, 2, 3],
        |world| {
            world.remove(0);
            world.remove(1);
        },
        &[|world| sees(world, &[2, 3])],
    );
}

#[test]
fn a_scan_misses_no_change_to_a_leaf_that_was_split_before() {
    model(
        &[0, 2],
        |world| world.put(1),
        &[
            |world| {
                world.put(3);
                world.is_done.store(true, Ordering::Release);
            },
            |world| {
                if world.is_done.load(Ordering::Acquire) {
                    assert!(world.scan(false).contains(&3));
                }
            },
        ],
    );
}

/// Removes keys that lie side by side, in the order in which they are given.
fn sweep(world: &World, mut keys: &[usize], direction: Direction) {
    while let Some(first) = keys.first() {
        let run = keys.iter().map(|key| location(*key));
        let gone = world.index.remove_run(KEYS[*first], run, direction);
        keys = &keys[gone..];
    }
}

/// Leaves are given up across branches, of which trunks are made anew.
#[test]
fn a_scan_sees_what_stays_while_leaves_of_several_branches_are_given_up() {
    model(
        &[0, 1, 2, 3, 4],
        |world| sweep(world, &[0, 1, 2, 3], Direction::Rising),
        &[|world| sees(world, &[4])],
    );
    model(
        &[0, 1, 2, 3, 4],
        |world| sweep(world, &[4, 3, 2, 1], Direction::Falling),
        &[|world| sees(world, &[0])],
    );
}

/// Two leaves of two trunks become one. As long as the old trunks lead to the old leaves, the
/// new one must not change: here, by a batch that begins where it is found already.
#[test]
fn who_begins_after_a_change_to_leaves_merged_across_trunks_sees_it() {
    fn other() -> Location {
        Location::new(7).unwrap()
    }
    model(
        &[0, 1, 2, 3, 4, 5],
        |world| {
            world.remove(5);
            world.remove(3);
        },
        &[
            |world| {
                let batch = [(KEYS[3], location(3)), (KEYS[4], other())];
                let resolve = |_| -> Result<&[u8], Infallible> { unreachable!() };
                let Ok(_) = world.index.insert_sorted_batch(batch, resolve);
                world.is_done.store(true, Ordering::Release);
            },
            |world| {
                if world.is_done.load(Ordering::Acquire) {
                    let (mut range, mut batch) = (RangeCursor::default(), RangeBatch::default());
                    let resolve = |_| -> Result<&[u8], Infallible> { unreachable!() };
                    let index = &world.index;
                    let Ok(found) = index.next_back_batch(&mut range, 8, &mut batch, resolve);
                    let is_old = |entry: &Entry| entry.location == location(4);
                    assert!(found && !batch.entries().iter().any(is_old));
                }
            },
        ],
    );
}

#[test]
fn two_writers_of_one_leaf_lose_nothing() {
    model(&[0, 3], |world| world.put(1), &[|world| world.put(2)]);
}

/// Marks location 1, and looks that no other is marked.
fn verify(world: &World) {
    let (mut range, mut batch) = (RangeCursor::default(), RangeBatch::remembering());
    let resolve = |location| Ok::<_, Infallible>(KEYS[world.key_at(location)]);
    let Ok(_) = world.index.next_batch(&mut range, 8, &mut batch, resolve);
    for (at, entry) in batch.entries().iter().enumerate() {
        assert!(!entry.verified || entry.location == location(1));
        if entry.location == location(1) {
            batch.set_verified(at, *entry);
        }
    }
}

#[test]
fn what_was_verified_stays_with_its_location() {
    // Slots move, and one that was verified is replaced by another.
    model(
        &[1, 2],
        |world| {
            world.remove(2);
            world.put(0);
            world.records[3].store(103, Ordering::Relaxed);
            assert!(world.index.replace_at(KEYS[1], location(1), location(3)));
            verify(world);
        },
        &[verify],
    );
}
