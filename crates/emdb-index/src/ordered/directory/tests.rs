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

fn check(index: &OrderedIndex, model: &BTreeSet<u64>) {
    let resolve = |location: Location| Ok::<_, Infallible>(key(location.get()));
    for is_back in [false, true] {
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
