//! Blocks of few children, so that a few thousand keys make many trunks.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Direction, Location, OrderedIndex, RangeBatch, RangeCursor};

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
    within(index, RangeCursor::default(), is_back, resolve)
}

/// What scans find in a range, in the order of the keys.
fn within(
    index: &OrderedIndex,
    mut range: RangeCursor<'_>,
    is_back: bool,
    resolve: impl Fn(Location) -> Result<Vec<u8>, Infallible>,
) -> Vec<u64> {
    let (mut found, mut batch) = (Vec::new(), RangeBatch::default());
    loop {
        let next = match is_back {
            false => index.next_batch(&mut range, 30, &mut batch, &resolve),
            true => index.next_back_batch(&mut range, 30, &mut batch, &resolve),
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
    let (index, writing) = (&index, &AtomicU64::new(WRITERS));
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
                writing.fetch_sub(1, Ordering::Release);
            });
        }
        for is_back in [false, true] {
            let model = &model;
            scope.spawn(move || {
                let mut is_last = false;
                while !is_last {
                    is_last = writing.load(Ordering::Acquire) == 0;
                    let found = all(index, is_back);
                    let stayed = found.into_iter().filter(|number| stays(*number));
                    assert!(stayed.eq(model.iter().copied()), "what stays was not found");
                }
            });
        }
    });
    check(index, &model);
}

/// Whoever begins to search after a change was made finds what it left, in whichever trunk,
/// branch or leaf that is by then.
#[test]
fn who_begins_after_a_change_sees_it_while_threads_split_and_merge_trunks() {
    const COUNT: u64 = if cfg!(debug_assertions) {
        3_000
    } else {
        20_000
    };
    const WRITERS: u64 = 2;
    const ROUNDS: u64 = 4;
    /// Bounds that are not kept in place.
    fn long(number: u64) -> Vec<u8> {
        format!(
            "a prefix that all of the keys have in common {:02} and more {number:08}",
            number * 7 / COUNT
        )
        .into_bytes()
    }
    let resolve = |location: Location| Ok::<_, Infallible>(long(location.get()));
    let at = |number| Location::new(number).expect("not zero");
    let index = &OrderedIndex::new();
    // Of each key: how often it has come or gone, twice, and one more while it does. It is
    // there if it has come once more than it has gone.
    let steps: &Vec<AtomicU64> = &(0..COUNT).map(|_| AtomicU64::new(0)).collect();
    let step = |numbers: &[u64]| {
        for number in numbers {
            steps[*number as usize].fetch_add(1, Ordering::AcqRel);
        }
    };
    let writing = &AtomicU64::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                // Short stretches, between those of the other.
                let own: Vec<_> = (1..COUNT).filter(|n| n / 700 % WRITERS == writer).collect();
                for round in 0..ROUNDS {
                    for part in own.chunks(if (round + writer) % 2 == 0 { 1 } else { 300 }) {
                        step(part);
                        let batch = part.iter().map(|n| (long(*n), at(*n)));
                        let Ok(new) = index.insert_sorted_batch(batch, resolve);
                        assert_eq!(new as usize, part.len());
                        step(part);
                    }
                    let mut rest = own.clone();
                    let direction = match round % 2 {
                        0 => Direction::Rising,
                        _ => {
                            rest.reverse();
                            Direction::Falling
                        }
                    };
                    for part in rest.chunks([600, 40][(round / 2 % 2) as usize]) {
                        step(part);
                        let mut rest = part;
                        while let Some(first) = rest.first() {
                            let run = || rest.iter().map(|n| at(*n));
                            let same = run().zip(run());
                            assert_ne!(index.replace_run(&long(*first), same, direction), 0);
                            let gone = index.remove_run(&long(*first), run(), direction);
                            assert_ne!(gone, 0);
                            rest = &rest[gone..];
                        }
                        step(part);
                    }
                }
                writing.fetch_sub(1, Ordering::Release);
            });
        }
        for is_back in [false, true] {
            scope.spawn(move || {
                let mut state = u64::from(is_back) + 1;
                while writing.load(Ordering::Acquire) != 0 {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let first = 1 + (state >> 33) % (COUNT - 1);
                    let last = (first + (state >> 20) % 200).min(COUNT - 1);
                    let now = || -> Vec<_> {
                        let steps = &steps[first as usize..=last as usize];
                        steps
                            .iter()
                            .map(|step| step.load(Ordering::Acquire))
                            .collect()
                    };
                    let before = now();
                    let (low, high) = (long(first), long(last));
                    let range =
                        RangeCursor::borrowing(Bound::Included(&low), Bound::Included(&high));
                    let found = within(index, range, is_back, resolve);
                    assert!(found.is_sorted_by(|a, b| a < b), "seen twice");
                    for (number, (before, after)) in (first..).zip(before.into_iter().zip(now())) {
                        if before == after && before % 2 == 0 {
                            let is_there = before % 4 == 2;
                            assert_eq!(found.binary_search(&number).is_ok(), is_there, "{number}");
                        }
                    }
                }
            });
        }
    });
    assert!(index.is_empty());
}
