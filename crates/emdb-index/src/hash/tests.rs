//! The index as a whole, on one thread.

use std::convert::Infallible;

use crate::{Entry, HashIndex, Location, Verdict};

/// A hash that is uniform in all bits.
fn mix(key: u64) -> u64 {
    let mut x = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn location(position: u64) -> Location {
    Location::new(position).unwrap()
}

fn find(index: &HashIndex, key: u64) -> Option<Entry> {
    let check = |entry: Entry| {
        Ok::<_, Infallible>(match entry.location.get() == key {
            true => Verdict::Found(entry),
            false => Verdict::Pass,
        })
    };
    index.find(mix(key), check).unwrap()
}

fn insert(index: &HashIndex, key: u64) -> usize {
    let mut rehashed = 0;
    let mut guard = index.lock(mix(key)).unwrap();
    let found = guard.find(|entry| Ok::<_, Infallible>(entry.location.get() == key));
    assert_eq!(found, Ok(None), "{key}");
    guard
        .make_room(|location| {
            rehashed += 1;
            Ok::<_, Infallible>(mix(location.get()))
        })
        .unwrap();
    guard.insert(location(key), false);
    rehashed
}

fn remove(index: &HashIndex, key: u64) {
    let mut guard = index.lock(mix(key)).unwrap();
    assert!(guard.find_location(location(key)).is_some());
    guard.remove();
}

#[test]
fn growth_to_300_000_entries_and_back_loses_nothing() {
    let index = HashIndex::new();
    let mut rehashed = 0;
    for key in 1..=300_000 {
        rehashed += insert(&index, key);
    }
    assert!(rehashed > 0, "tags wear out");
    for key in 1..=300_000 {
        assert!(find(&index, key).is_some(), "{key}");
    }
    for key in 300_001..=330_000 {
        assert!(find(&index, key).is_none(), "{key}");
    }
    let full = index.memory_bytes();
    for key in 1..=300_000 {
        remove(&index, key);
        assert!(find(&index, key).is_none(), "{key}");
    }
    assert!(
        index.memory_bytes() < full / 8,
        "{} of {full}",
        index.memory_bytes()
    );
}
