//! Growth and shrinking on one thread: nothing is lost, and memory stays in
//! bounds.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::convert::Infallible;

use emdb_index::{Cursor, Entry, Error, FindError, HashIndex, Location, Verdict};
use support::{find, location, mix, put, remove, walk};

#[test]
fn growth_to_300_000_entries_and_back_loses_nothing() {
    const COUNT: u64 = 300_000;
    let index = HashIndex::new();
    let rehashed: usize = (0..COUNT).map(|key| put(&index, key, 0)).sum();
    assert!(rehashed > 0, "tags wear out");
    assert!(rehashed < COUNT as usize / 50, "but seldom: {rehashed}");
    assert!((0..COUNT).all(|key| find(&index, key) == Some(location(key, 0))));
    assert!((COUNT..2 * COUNT).all(|key| find(&index, key).is_none()));
    assert_eq!(walk(&index).unwrap().len(), COUNT as usize);

    let full = index.memory_bytes();
    for key in 0..COUNT {
        assert!(remove(&index, key), "{key}");
    }
    assert!((0..COUNT).all(|key| find(&index, key).is_none()));
    assert_eq!(walk(&index), Ok(vec![]));
    let empty = index.memory_bytes();
    assert!(empty < full / 8, "{empty} of {full} bytes left");
}

#[test]
fn an_empty_index_is_small() {
    let index = HashIndex::new();
    assert!(index.memory_bytes() < 16 << 10, "{}", index.memory_bytes());
}

#[test]
fn a_thousand_indexes_can_be_open() {
    let indexes: Vec<_> = (0..1000).map(|_| HashIndex::new()).collect();
    for (key, index) in indexes.iter().enumerate() {
        (0..key as u64).for_each(|key| _ = put(index, key, 0));
    }
    for (key, index) in indexes.iter().enumerate() {
        assert!((0..key as u64).all(|key| find(index, key).is_some()));
    }
}

#[test]
fn a_record_takes_at_most_16_bytes_from_a_million_records_on() {
    let index = HashIndex::new();
    let end = if cfg!(debug_assertions) {
        1_500_000
    } else {
        3_000_000
    };
    for count in 1..=end {
        let mut guard = index.lock(mix(count)).unwrap();
        guard
            .make_room(|location| Ok::<_, Infallible>(mix(location.get())))
            .unwrap();
        guard.insert(Location::new(count).unwrap(), false);
        drop(guard);
        if count >= 1_000_000 && count % 50_000 == 0 {
            let bytes = index.memory_bytes();
            assert!(bytes <= 16 * count, "{bytes} bytes for {count} records");
        }
    }
}

#[test]
fn replacing_and_removing_for_long_needs_no_more_memory() {
    const LIVE: u64 = 50_000;
    let index = HashIndex::new();
    (0..LIVE).for_each(|key| _ = put(&index, key, 0));
    for key in 0..8 * LIVE {
        assert!(remove(&index, key));
        put(&index, key + LIVE, 0);
    }
    assert_eq!(walk(&index).unwrap().len(), LIVE as usize);
    let bytes = index.memory_bytes();
    assert!(bytes <= 24 * LIVE, "{bytes} bytes for {LIVE} records");
}

#[test]
fn many_equal_hashes_are_refused_and_harm_nobody() {
    for hash in [0, 1, u64::MAX, u64::MAX / 3, mix(1)] {
        let index = HashIndex::new();
        (0..2000).for_each(|key| _ = put(&index, key, 0));
        let mut inserted = 0;
        for position in 1..=2000 {
            let mut guard = index.lock(hash).unwrap();
            match guard.make_room(|at| {
                // Of the keys above, or one of the equal ones.
                let is_key = at.get() >= support::VERSIONS;
                Ok::<_, Infallible>(if is_key {
                    mix(support::key_of(at))
                } else {
                    hash
                })
            }) {
                Ok(()) => {
                    guard.insert(Location::new(position).unwrap(), false);
                    inserted += 1;
                }
                Err(error) => assert_eq!(error, FindError::Index(Error::Full)),
            }
        }
        assert!(
            (20..=512).contains(&inserted),
            "{inserted} equal hashes fit"
        );
        assert!((0..2000).all(|key| find(&index, key) == Some(location(key, 0))));
        let mut seen = 0;
        let passed: Option<()> = index
            .find(hash, |entry| {
                seen += u32::from(entry.location.get() < support::VERSIONS);
                Ok::<_, Infallible>(Verdict::Pass)
            })
            .unwrap();
        assert_eq!((passed, seen), (None, inserted));
    }
}

#[test]
fn hashes_that_are_not_uniform_end_in_an_error() {
    for shift in [0, 6, 20] {
        let index = HashIndex::new();
        let error = (1..100_000_u64).find_map(|count| {
            let mut guard = index.lock(count << shift).unwrap();
            let room = guard.make_room(|at| Ok::<_, Infallible>(at.get() << shift));
            if room.is_ok() {
                guard.insert(Location::new(count).unwrap(), false);
            }
            room.err()
        });
        assert_eq!(
            error,
            Some(FindError::Index(Error::Full)),
            "shifted by {shift}"
        );
        assert!(index.memory_bytes() < 64 << 20);
    }
}

#[test]
fn a_failing_rehash_leaves_everything_as_it_was() {
    let index = HashIndex::new();
    let mut refused = 0;
    let mut held = Vec::new();
    for key in 0..200_000 {
        let mut guard = index.lock(mix(key)).unwrap();
        match guard.make_room(|_| Err("unreadable")) {
            Ok(()) => {
                guard.insert(location(key, 0), false);
                held.push(key);
            }
            Err(error) => {
                assert_eq!(error, FindError::Check("unreadable"));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert!(
        held.iter()
            .all(|key| find(&index, *key) == Some(location(*key, 0)))
    );
    // A hash that cannot be the record's is not believed either.
    let wrong = (0..200_000).find_map(|key| {
        let mut guard = index.lock(mix(key)).unwrap();
        guard
            .make_room(|at| Ok::<_, Infallible>(!mix(support::key_of(at))))
            .err()
    });
    assert_eq!(wrong, Some(FindError::Index(Error::Damaged)));
}

#[test]
fn the_verified_bit_belongs_to_one_record() {
    let index = HashIndex::new();
    put(&index, 7, 0);
    let verify = || {
        let found = index.find(mix(7), |entry| {
            Ok::<_, Infallible>(Verdict::FoundAndVerified(entry))
        });
        found.unwrap().unwrap()
    };
    assert!(!verify().verified);
    assert!(verify().verified);
    put(&index, 7, 1);
    assert!(!verify().verified);
    assert_eq!(verify().location, location(7, 1));
    assert!(verify().verified);
}

#[test]
fn what_was_detached_stays_readable_and_its_memory_comes_back() {
    let index = HashIndex::new();
    let mut peak = 0;
    for round in 0..20 {
        (0..5000).for_each(|key| _ = put(&index, key, round));
        let detached = index.detach();
        assert_eq!(walk(&index), Ok(vec![]));
        assert_eq!(find(&index, 1), None);
        (0..100).for_each(|key| _ = put(&index, key, round + 1));
        let old = support::walk_detached(&index, &detached).unwrap();
        assert_eq!(old.len(), 5000);
        assert!(
            old.iter()
                .all(|entry| entry.location == location(support::key_of(entry.location), round))
        );
        let found = |key: u64| {
            let check = |entry: Entry| {
                Ok::<_, Infallible>(match support::key_of(entry.location) == key {
                    true => Verdict::Found(entry.location),
                    false => Verdict::Pass,
                })
            };
            index.find_detached(&detached, mix(key), check).unwrap()
        };
        assert!((0..5000).all(|key| found(key) == Some(location(key, round))));
        assert!((5000..6000).all(|key| found(key).is_none()));
        let other = HashIndex::new();
        assert_eq!(support::walk_detached(&other, &detached), Ok(vec![]));
        index.release(detached);
        assert_eq!(walk(&index).unwrap().len(), 100);
        if round == 1 {
            peak = index.memory_bytes();
        }
    }
    assert!(index.memory_bytes() <= peak);
}

#[test]
fn what_is_imported_takes_the_place_of_what_was_there() {
    let index = HashIndex::new();
    let mut peak = 0;
    let mut before = 0;
    for round in 0..30 {
        let next = HashIndex::new();
        let count = [5000, 3, 0, 900, 20_000][round as usize % 5];
        (0..count + 500).for_each(|key| _ = put(&next, key, round));
        (count..count + 500).for_each(|key| _ = remove(&next, key));
        let imported = index.import(&next).unwrap();
        drop(next);
        assert_eq!(walk(&index).unwrap().len() as u64, before);
        let old = index.exchange(imported);
        assert_eq!(
            support::walk_detached(&index, &old).unwrap().len() as u64,
            before
        );
        index.release(old);
        assert_eq!(walk(&index).unwrap().len() as u64, count);
        assert!((0..count).all(|key| find(&index, key) == Some(location(key, round))));
        assert!((count..count + 500).all(|key| find(&index, key).is_none()));
        // It grows and shrinks on.
        (0..count + 2000).for_each(|key| _ = put(&index, key, round + 1));
        (0..count).for_each(|key| assert!(remove(&index, key)));
        assert!((count..count + 2000).all(|key| find(&index, key).is_some()));
        before = 2000;
        match round {
            0..10 => peak = index.memory_bytes().max(peak),
            _ => assert!(index.memory_bytes() <= peak),
        }
    }
}

#[test]
fn contents_of_another_index_are_not_exchanged() {
    let (index, other) = (HashIndex::new(), HashIndex::new());
    put(&index, 1, 0);
    put(&other, 2, 0);
    let own = other.import(&other).unwrap();
    let same = index.exchange(own);
    assert_eq!(walk(&index).unwrap().len(), 1);
    assert_eq!(find(&index, 1), Some(location(1, 0)));
    // It is still what it was.
    other.release(other.exchange(same));
    assert_eq!(find(&other, 2), Some(location(2, 0)));
}

#[test]
fn a_guard_from_before_an_exchange_does_not_touch_what_is_there_now() {
    // Who removes a tombstone that nobody needs any more may hold a guard meanwhile: it
    // must not join its half of the old contents with the other half of the new ones.
    const KEYS: u64 = 460;
    let halves = |index: &HashIndex| {
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        let next = index.copy_segment(Cursor::default(), &mut lower).unwrap();
        let end = index.copy_segment(next.unwrap(), &mut upper).unwrap();
        assert_eq!(end, None, "there are two segments");
        [lower, upper].map(|half| -> Vec<u64> {
            half.iter()
                .map(|entry| support::key_of(entry.location))
                .collect()
        })
    };
    let filled = |version| {
        let index = HashIndex::new();
        (0..KEYS).for_each(|key| _ = put(&index, key, version));
        index
    };
    let (index, next) = (filled(0), filled(1));
    let [lower, _] = halves(&index);
    let (last, rest) = lower[192..].split_first().unwrap();
    rest.iter().for_each(|key| assert!(remove(&index, *key)));
    let [_, upper] = halves(&next);
    upper[190..]
        .iter()
        .for_each(|key| assert!(remove(&next, *key)));
    let imported = index.import(&next).unwrap();
    let mut guard = index.lock(mix(*last)).unwrap();
    let old = index.exchange(imported);
    let found = guard.find(|entry| Ok::<_, Infallible>(entry.location == location(*last, 0)));
    assert!(found.unwrap().is_some());
    guard.remove();
    drop(guard);
    assert_eq!(walk(&index).unwrap().len(), walk(&next).unwrap().len());
    assert!((0..KEYS).all(|key| find(&index, key) == find(&next, key)));
    index.release(old);
}

#[test]
fn first_candidate_is_an_entry_of_that_hash() {
    let index = HashIndex::new();
    assert_eq!(index.first_candidate(mix(1)), None);
    (0..10_000).for_each(|key| _ = put(&index, key, 0));
    let first = |key: u64| index.first_candidate(mix(key)).map(|entry| entry.location);
    let right = |key: &u64| first(*key) == Some(location(*key, 0));
    assert!((0..10_000).filter(right).count() > 9_900);
    index.prefetch(mix(3));
}
