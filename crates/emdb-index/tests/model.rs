//! Random operations, compared with a `HashMap`.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;

use emdb_index::{HashIndex, Location};
use proptest::prelude::*;
use support::{find, image, location, put, remove, walk};

#[derive(Clone, Debug)]
enum Step {
    Put { first: u64, count: u64 },
    Remove { first: u64, count: u64 },
    Clear,
    Exchange { first: u64, count: u64 },
    Reopen { in_place: bool },
    Walk,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || {
        (
            0..8000_u64,
            prop_oneof![Just(1_u64), 1..100_u64, 1..5000_u64],
        )
    };
    let step = prop_oneof![
        8 => range().prop_map(|(first, count)| Step::Put { first, count }),
        6 => range().prop_map(|(first, count)| Step::Remove { first, count }),
        1 => Just(Step::Clear),
        1 => range().prop_map(|(first, count)| Step::Exchange { first, count }),
        1 => any::<bool>().prop_map(|in_place| Step::Reopen { in_place }),
        2 => Just(Step::Walk),
    ];
    prop::collection::vec(step, 1..40)
}

fn reopen(index: &HashIndex, in_place: bool) -> HashIndex {
    let bytes = image(index);
    let len = bytes.len();
    if in_place {
        let mut map = memmap2::MmapMut::map_anon(len + 4096).unwrap();
        map[4096..].copy_from_slice(&bytes);
        HashIndex::from_image(Box::new(map), 4096, len, Location::MAX).unwrap()
    } else {
        let mut padded = vec![0; 3];
        padded.extend_from_slice(&bytes);
        HashIndex::from_image(Box::new(padded), 3, len, Location::MAX).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_index_does_what_a_map_does(steps in steps()) {
        let mut index = HashIndex::new();
        let mut model = HashMap::new();
        for (version, step) in steps.into_iter().enumerate() {
            let version = version as u64;
            match step {
                Step::Put { first, count } => for key in first..first + count {
                    put(&index, key, version);
                    model.insert(key, location(key, version));
                },
                Step::Remove { first, count } => for key in first..first + count {
                    prop_assert_eq!(remove(&index, key), model.remove(&key).is_some());
                },
                Step::Clear => {
                    let detached = index.detach();
                    prop_assert_eq!(support::walk_detached(&index, &detached).unwrap().len(), model.len());
                    index.release(detached);
                    model.clear();
                }
                Step::Exchange { first, count } => {
                    let next = HashIndex::new();
                    model.clear();
                    for key in first..first + count {
                        put(&next, key, version);
                        if key.is_multiple_of(3) {
                            remove(&next, key);
                        } else {
                            model.insert(key, location(key, version));
                        }
                    }
                    let old = index.exchange(index.import(&next).unwrap());
                    index.release(old);
                }
                Step::Reopen { in_place } => index = reopen(&index, in_place),
                Step::Walk => {
                    let mut walked: Vec<_> = walk(&index).unwrap().iter().map(|entry| entry.location).collect();
                    let mut held: Vec<_> = model.values().copied().collect();
                    walked.sort_unstable();
                    held.sort_unstable();
                    prop_assert_eq!(walked, held);
                }
            }
        }
        for key in 0..13_000 {
            prop_assert_eq!(find(&index, key), model.get(&key).copied());
        }
    }

    #[test]
    fn splits_and_merges_between_the_steps_of_a_walk_lose_and_double_nothing(
        changes in prop::collection::vec((0..60_000_u64, 0..20_000_u64, any::<bool>()), 1..30),
    ) {
        let index = HashIndex::new();
        // These stay during the whole walk; the others come and go.
        let stays = |key: u64| key.is_multiple_of(50);
        (0..60_000).for_each(|key| _ = put(&index, key, 0));
        let mut seen = HashMap::new();
        let mut part = Vec::new();
        let mut next = Some(emdb_index::Cursor::default());
        let mut changes = changes.into_iter().cycle();
        let mut calls = 0_u32;
        while let Some(at) = next {
            next = index.copy_segment(at, &mut part).unwrap();
            for entry in &part {
                *seen.entry(support::key_of(entry.location)).or_insert(0) += 1;
            }
            calls += 1;
            if calls.is_multiple_of(8)
                && let Some((first, count, is_put)) = changes.next()
            {
                for key in (first..first + count).filter(|key| !stays(*key)) {
                    match is_put {
                        true => _ = put(&index, key, 1),
                        false => _ = remove(&index, key),
                    }
                }
            }
        }
        for key in (0..60_000).filter(|key| stays(*key)) {
            prop_assert_eq!(seen.get(&key), Some(&1), "{}", key);
        }
    }
}
