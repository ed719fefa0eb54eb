//! Blocks of few children, so that a few thousand keys make many trunks.

use std::{collections::BTreeSet, convert::Infallible};

use crate::{Location, OrderedIndex, RangeBatch, RangeCursor};

fn key(number: u64) -> Vec<u8> {
    [
        b"prefix".as_slice(),
        &(number * number).swap_bytes().to_le_bytes(),
    ]
    .concat()
}

/// What scans find, from the front or from the back, in the order of the keys.
fn all(index: &OrderedIndex, is_back: bool) -> Vec<u64> {
    let resolve = |location: Location| Ok::<_, Infallible>(key(location.get()));
    let (mut range, mut batch) = (RangeCursor::default(), RangeBatch::default());
    let mut found = Vec::new();
    loop {
        let next = match is_back {
            false => index.next_batch(&mut range, 100, &mut batch, resolve),
            true => index.next_back_batch(&mut range, 100, &mut batch, resolve),
        };
        let Ok(more) = next;
        if !more {
            break;
        }
        let entries = batch.entries().iter();
        found.extend(entries.map(|entry| entry.location.get()));
    }
    if is_back {
        found.reverse();
    }
    found
}

fn check(index: &OrderedIndex, model: &BTreeSet<u64>) {
    for is_back in [false, true] {
        let found = all(index, is_back);
        assert!(found.iter().eq(model), "the order is not that of the keys");
    }
}

#[test]
fn keys_stay_found_while_trunks_are_split_and_merged() {
    const COUNT: u64 = 40_000;
    let resolve = |location: Location| Ok::<_, Infallible>(key(location.get()));
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        1 + (state >> 33) % COUNT
    };
    let (index, mut model) = (OrderedIndex::new(), BTreeSet::new());
    // More come than go, then the other way round.
    for inserts in [90, 50, 10, 60, 3] {
        for step in 0..COUNT {
            let number = random();
            let location = Location::new(number).expect("not zero");
            if random() % 100 < inserts {
                let Ok(old) = index.insert(&key(number), location, resolve);
                assert_eq!(old.is_none(), model.insert(number));
            } else {
                assert_eq!(
                    index.remove_at(&key(number), location),
                    model.remove(&number)
                );
            }
            if step % (COUNT / 4) == 0 {
                check(&index, &model);
            }
        }
        check(&index, &model);
        for number in 1..=COUNT {
            let location = Location::new(number).expect("not zero");
            let is_there = index.replace_at(&key(number), location, location);
            assert_eq!(is_there, model.contains(&number));
        }
    }
    for number in &model {
        let location = Location::new(*number).expect("not zero");
        assert!(index.remove_at(&key(*number), location));
    }
    let (left, fresh) = (index.memory_bytes(), OrderedIndex::new().memory_bytes());
    assert!(left <= 4 * fresh, "{left} bytes are left of {fresh}");
}

#[test]
fn scans_find_what_stays_while_threads_split_and_merge_trunks() {
    const COUNT: u64 = if cfg!(debug_assertions) {
        3_000
    } else {
        30_000
    };
    const WRITERS: u64 = 2;
    let resolve = |location: Location| Ok::<_, Infallible>(key(location.get()));
    let at = |number| Location::new(number).expect("not zero");
    // Every third key stays; the others come and go, each by one writer.
    let stays = |number: u64| number.is_multiple_of(3);
    let index = OrderedIndex::new();
    let model: BTreeSet<_> = (1..=COUNT).filter(|number| stays(*number)).collect();
    for number in &model {
        let Ok(_) = index.insert(&key(*number), at(*number), resolve);
    }
    let (index, writing) = (&index, &std::sync::atomic::AtomicU64::new(WRITERS));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let own = |number: &u64| !stays(*number) && number % WRITERS == writer;
                for _ in 0..3 {
                    for number in (1..=COUNT).filter(own) {
                        let Ok(old) = index.insert(&key(number), at(number), resolve);
                        assert_eq!(old, None);
                    }
                    for number in (1..=COUNT).filter(own) {
                        assert!(index.remove_at(&key(number), at(number)));
                    }
                }
                writing.fetch_sub(1, std::sync::atomic::Ordering::Release);
            });
        }
        for is_back in [false, true] {
            let model = &model;
            scope.spawn(move || {
                let mut is_last = false;
                while !is_last {
                    is_last = writing.load(std::sync::atomic::Ordering::Acquire) == 0;
                    let found = all(index, is_back);
                    let stayed = found.into_iter().filter(|number| stays(*number));
                    assert!(stayed.eq(model.iter().copied()), "what stays was not found");
                }
            });
        }
    });
    check(index, &model);
}
