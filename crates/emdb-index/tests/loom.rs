//! Models of what one slot and one split publish, tried in every interleaving.
//!
//! Segments have two buckets of two slots here, and split at the third entry.
//! A record is an atomic written with Relaxed, so a reader sees it only if the
//! index orders it.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "loom/ordered.rs"]
mod ordered;

use std::{convert::Infallible, sync::atomic::AtomicUsize};

use emdb_index::{Entry, HashIndex, Location, Verdict};
use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Different homes and halves.
const HASHES: [u64; 6] = [
    0x1111_0000_0000_0000,
    0xD222_0000_0000_0001,
    0x6666_0000_0000_0000,
    0xB444_0000_0000_0000,
    0x2555_0000_0000_0001,
    0xF666_0000_0000_0000,
];

/// The index, and the journal: the record at location n + 1 says n + 100.
struct World {
    index: HashIndex,
    records: [AtomicU64; 6],
}

impl World {
    fn new(keys: &[usize]) -> Arc<Self> {
        let world = Self {
            index: HashIndex::new(),
            records: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        keys.iter().for_each(|key| world.put(*key));
        Arc::new(world)
    }

    fn is(&self, key: usize, entry: Entry) -> bool {
        let at = entry.location.get() as usize - 1;
        let record = self.records[at].load(Ordering::Relaxed);
        assert_eq!(
            record,
            at as u64 + 100,
            "an entry was seen before its record"
        );
        at == key
    }

    /// Whether it was new.
    fn put(&self, key: usize) {
        assert!(self.try_put(key));
    }

    fn try_put(&self, key: usize) -> bool {
        let mut guard = self.index.lock(HASHES[key]).unwrap();
        let Ok(found) = guard.find(|entry| Ok::<_, Infallible>(self.is(key, entry)));
        if found.is_some() {
            return false;
        }
        let rehash = |at: Location| Ok::<_, Infallible>(HASHES[at.get() as usize - 1]);
        guard.make_room(rehash).unwrap();
        self.records[key].store(key as u64 + 100, Ordering::Relaxed);
        guard.insert(Location::new(key as u64 + 1).unwrap(), false);
        true
    }

    fn remove(&self, key: usize) {
        let mut guard = self.index.lock(HASHES[key]).unwrap();
        assert!(
            guard
                .find_location(Location::new(key as u64 + 1).unwrap())
                .is_some()
        );
        guard.remove();
    }

    fn has(&self, key: usize) -> bool {
        let found = self.index.find(HASHES[key], |entry| {
            Ok::<_, Infallible>(match self.is(key, entry) {
                true => Verdict::FoundAndVerified(()),
                false => Verdict::Pass,
            })
        });
        found.unwrap().is_some()
    }
}

/// Runs `write` beside `read` in every way that matters, and makes sure that
/// there were some.
///
/// The writer is the thread that goes on first: loom forgets a load when the
/// other thread loads the same word, and tries too little the other way round.
fn model(
    keys: &'static [usize],
    write: impl Fn(&World) + Copy + Send + Sync + 'static,
    read: impl Fn(&World) + Copy + Send + Sync + 'static,
) {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.check({
        let runs = std::sync::Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::Relaxed);
            let world = World::new(keys);
            let reader = {
                let world = Arc::clone(&world);
                thread::spawn(move || read(&world))
            };
            write(&world);
            reader.join().unwrap();
        }
    });
    let runs = runs.load(Ordering::Relaxed);
    assert!(runs > 5, "the model was not explored");
}

#[test]
fn a_slot_is_published_after_its_record() {
    model(&[], |world| world.put(0), |world| _ = world.has(0));
}

#[test]
fn a_key_is_found_while_its_segment_splits() {
    model(&[0, 1], |world| world.put(2), |world| assert!(world.has(0)));
}

#[test]
fn a_key_is_found_while_its_segment_splits_in_the_same_directory() {
    model(
        &[0, 1, 3, 5, 2],
        |world| world.put(4),
        |world| assert!(world.has(2)),
    );
}

#[test]
fn a_key_is_found_while_the_segment_of_an_old_leaf_is_used_anew() {
    model(
        &[0, 1],
        |world| {
            // The second split uses the segment that the first one gave up.
            world.put(3);
            world.put(5);
        },
        |world| assert!(world.has(1)),
    );
}

#[test]
fn a_key_is_found_while_its_segment_is_merged() {
    model(
        &[0, 1, 2],
        |world| {
            world.remove(2);
            world.remove(1);
        },
        |world| assert!(world.has(0)),
    );
}

#[test]
fn one_of_two_writers_inserts_the_key() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let world = World::new(&[0, 1]);
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.try_put(2))
        };
        let mine = world.try_put(2);
        assert!(mine != other.join().unwrap());
        assert!(world.has(0) && world.has(1) && world.has(2));
    });
}
