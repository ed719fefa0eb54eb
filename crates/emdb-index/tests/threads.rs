//! Readers and writers at the same time.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use emdb_index::{Cursor, HashIndex, Verdict};
use support::{VERSIONS, find, key_of, location, mix, put, remove};

/// How much more is done where it takes less time.
const SCALE: u64 = if cfg!(debug_assertions) { 1 } else { 4 };

/// Calls `read` from two threads until `write` returns.
///
/// Threads are joined one by one: ThreadSanitizer does not see the end of a
/// scope if the standard library was built without it.
fn while_writing(write: impl FnOnce(), read: impl Fn(u64) + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = [0, 1].map(|reader| {
            let (done, read) = (&done, &read);
            scope.spawn(move || {
                let mut turn = reader;
                while !done.load(Ordering::Relaxed) {
                    read(turn);
                    turn += 2;
                }
            })
        });
        write();
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_key_that_is_always_there_is_always_found() {
    const STAYS: u64 = 1000;
    let index = HashIndex::new();
    (0..STAYS).for_each(|key| _ = put(&index, key, 0));
    while_writing(
        || {
            for _ in 0..2 {
                let others = STAYS..STAYS + 60_000 * SCALE;
                others.clone().for_each(|key| _ = put(&index, key, 0));
                others.for_each(|key| _ = remove(&index, key));
            }
        },
        |turn| {
            let key = turn % STAYS;
            assert_eq!(find(&index, key), Some(location(key, 0)));
            let absent = turn + (1 << 26);
            assert_eq!(find(&index, absent), None);
        },
    );
}

#[test]
fn a_reader_never_sees_an_older_record_than_one_seen_before() {
    const KEYS: u64 = 64;
    let index = HashIndex::new();
    let newest: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    (0..KEYS).for_each(|key| _ = put(&index, key, 0));
    while_writing(
        || {
            let mut filler = KEYS;
            for version in 1..400 * SCALE {
                for key in 0..KEYS {
                    put(&index, key, version);
                    newest[key as usize].store(version, Ordering::Release);
                }
                // Keeps segments splitting and merging.
                for _ in 0..100 {
                    put(&index, filler, 0);
                    filler += 1;
                }
                if version % 100 == 0 {
                    (KEYS..filler).for_each(|key| _ = remove(&index, key));
                    filler = KEYS;
                }
            }
        },
        |turn| {
            let key = turn % KEYS;
            let before = newest[key as usize].load(Ordering::Acquire);
            let found = index.find(mix(key), |entry| {
                Ok::<_, Infallible>(match key_of(entry.location) == key {
                    true => Verdict::FoundAndVerified(entry.location),
                    false => Verdict::Pass,
                })
            });
            let version = found.unwrap().unwrap().get() % VERSIONS;
            assert!(version >= before, "{version} after {before}");
        },
    );
}

#[test]
fn writers_of_the_same_keys_exclude_each_other() {
    const KEYS: u64 = 200;
    let index = HashIndex::new();
    let rounds = 100 * SCALE;
    thread::scope(|scope| {
        let writers = [0, 1, 2, 3].map(|writer| {
            let index = &index;
            scope.spawn(move || {
                for round in 0..rounds {
                    for key in 0..KEYS {
                        // Counts up what is there.
                        let mut guard = index.lock(mix(key)).unwrap();
                        let is_key = |entry: emdb_index::Entry| {
                            Ok::<_, Infallible>(key_of(entry.location) == key)
                        };
                        let Ok(found) = guard.find(is_key);
                        match found {
                            Some(entry) => {
                                let version = entry.location.get() % VERSIONS;
                                guard.replace(location(key, version + 1), false);
                            }
                            None => {
                                guard
                                    .make_room(|at| Ok::<_, Infallible>(mix(key_of(at))))
                                    .unwrap();
                                guard.insert(location(key, 1), false);
                            }
                        }
                    }
                    // Splits meanwhile.
                    let own = (writer + 1) * 100_000 + round * 20;
                    (own..own + 20).for_each(|key| _ = put(index, key, 0));
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
    });
    for key in 0..KEYS {
        assert_eq!(find(&index, key), Some(location(key, 4 * rounds)));
    }
    assert_eq!(
        support::walk(&index).unwrap().len() as u64,
        KEYS + 4 * rounds * 20
    );
}

#[test]
fn walks_see_what_stays_once_while_others_come_and_go() {
    const STAYS: u64 = 5000;
    let index = HashIndex::new();
    (0..STAYS).for_each(|key| _ = put(&index, key, 0));
    while_writing(
        || {
            let others = STAYS..STAYS + 40_000 * SCALE;
            others.clone().for_each(|key| _ = put(&index, key, 0));
            others.for_each(|key| _ = remove(&index, key));
        },
        |_| {
            let mut seen = vec![0; STAYS as usize];
            let (mut part, mut next) = (Vec::new(), Some(Cursor::default()));
            while let Some(at) = next {
                next = index.copy_segment(at, &mut part).unwrap();
                for entry in &part {
                    if let Some(seen) = seen.get_mut(key_of(entry.location) as usize) {
                        *seen += 1;
                    }
                }
            }
            assert!(seen.iter().all(|times| *times == 1));
        },
    );
}

#[test]
fn an_image_is_verified_by_many_at_once() {
    let index = HashIndex::new();
    (0..30_000).for_each(|key| _ = put(&index, key, 0));
    let bytes = support::image(&index);
    let len = bytes.len();
    let mut map = memmap2::MmapMut::map_anon(len).unwrap();
    map.copy_from_slice(&bytes);
    let index = HashIndex::from_image(Box::new(map), 0, len, 1 << 43).unwrap();
    while_writing(
        || (30_000..60_000).for_each(|key| _ = put(&index, key, 0)),
        |turn| {
            let key = turn * 7919 % 30_000;
            assert_eq!(find(&index, key), Some(location(key, 0)));
        },
    );
}

#[test]
fn clearing_and_releasing_does_not_disturb_readers() {
    let index = HashIndex::new();
    while_writing(
        || {
            for round in 0..30 * SCALE {
                (0..2000).for_each(|key| _ = put(&index, key, round));
                let detached = if round % 2 == 0 {
                    index.detach()
                } else {
                    let next = HashIndex::new();
                    (500..1500).for_each(|key| _ = put(&next, key, round));
                    index.exchange(index.import(&next).unwrap())
                };
                assert_eq!(
                    support::walk_detached(&index, &detached).unwrap().len(),
                    2000
                );
                index.release(detached);
            }
        },
        |turn| {
            let key = turn % 3000;
            if let Some(found) = find(&index, key) {
                assert_eq!(key_of(found), key);
                assert!(key < 2000);
            }
        },
    );
}
