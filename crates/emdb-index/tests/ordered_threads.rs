//! Scans and writers of an ordered index at the same time.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    convert::Infallible,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use emdb_index::{Direction, Location, OrderedCell, OrderedIndex, RangeBatch, RangeCursor};
use support::{key_of, location, mix};

/// How much more is done where it takes less time.
const SCALE: u64 = if cfg!(debug_assertions) { 1 } else { 4 };
const KEYS: u64 = 4000;

/// Keys with long common parts, so that they must often be read.
fn key(number: u64) -> Vec<u8> {
    let group = number % 5;
    format!("group {group} of keys that begin alike {number:06} and end alike").into_bytes()
}

fn resolve(location: Location) -> Result<Vec<u8>, Infallible> {
    Ok(key(key_of(location)))
}

fn stays(number: u64) -> bool {
    number.is_multiple_of(7)
}

/// All numbers of a scan, in the order of keys, checked to be in order.
fn scan(index: &OrderedIndex, range: &mut RangeCursor, turn: u64) -> Vec<u64> {
    let max = [1000, 7, 50][(turn % 3) as usize];
    let (mut front, mut back, mut batch) = (Vec::new(), Vec::new(), RangeBatch::default());
    let mut ends = mix(turn) | u64::from(turn.is_multiple_of(2)).wrapping_neg();
    loop {
        ends = ends.rotate_left(1);
        let (all, found) = match ends % 2 {
            0 => (
                &mut back,
                index.next_back_batch(range, max, &mut batch, resolve),
            ),
            _ => (
                &mut front,
                index.next_batch(range, max, &mut batch, resolve),
            ),
        };
        let Ok(found) = found;
        if !found {
            break;
        }
        let entries = batch.entries().iter();
        all.extend(entries.map(|entry| key_of(entry.location)));
    }
    back.reverse();
    front.append(&mut back);
    assert!(front.is_sorted_by_key(|number| key(*number)));
    assert!(front.windows(2).all(|pair| pair[0] != pair[1]));
    front
}

#[test]
fn scans_see_each_key_that_stays_once_and_in_order_whatever_writers_do() {
    let index = OrderedIndex::new();
    for number in (0..KEYS).filter(|number| stays(*number)) {
        let Ok(old) = index.insert(&key(number), location(number, 0), resolve);
        assert_eq!(old, None);
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let scanners = [0, 1].map(|scanner| {
            let (index, done) = (&index, &done);
            scope.spawn(move || {
                let mut turn = scanner;
                while !done.load(Ordering::Relaxed) {
                    let first = mix(turn) % KEYS;
                    let first = key(first);
                    let mut range = match turn % 4 {
                        0 => RangeCursor::new(Bound::Included(&first), Bound::Unbounded),
                        1 => RangeCursor::new(Bound::Unbounded, Bound::Excluded(&first)),
                        _ => RangeCursor::default(),
                    };
                    let is_in = |number: &u64| match turn % 4 {
                        0 => key(*number) >= first,
                        1 => key(*number) < first,
                        _ => true,
                    };
                    let seen = scan(index, &mut range, turn);
                    let stayed = seen.iter().filter(|number| stays(**number)).count();
                    let expected = (0..KEYS).filter(|number| stays(*number)).filter(is_in);
                    assert_eq!(stayed, expected.count());
                    turn += 2;
                }
            })
        });
        // Each writer has keys of its own, among those of the other.
        let writers = [0, 1].map(|writer| {
            let index = &index;
            scope.spawn(move || {
                let own = || (0..KEYS).filter(move |n| n % 2 == writer && !stays(*n));
                for round in 0..6 * SCALE {
                    let mut batch: Vec<_> = own().map(|n| (key(n), location(n, round))).collect();
                    match round % 3 {
                        0 => {
                            batch.sort();
                            let Ok(new) = index.insert_sorted_batch(batch, resolve);
                            assert_eq!(new as usize, own().count());
                        }
                        1 => {
                            for (key, at) in batch {
                                let Ok(old) = index.insert(&key, at, resolve);
                                assert_eq!(old, None);
                            }
                        }
                        _ => {
                            let mut numbers: Vec<_> = own().collect();
                            numbers.sort_by_key(|number| mix(*number ^ round));
                            for number in numbers {
                                let Ok(old) =
                                    index.insert(&key(number), location(number, round), resolve);
                                assert_eq!(old, None);
                            }
                        }
                    }
                    // Some by key, some by location, and some locations change before.
                    for number in own() {
                        let (key, at) = (key(number), location(number, round));
                        match number % 3 {
                            0 => assert_eq!(index.remove(&key, resolve), Ok(Some(at))),
                            1 => assert!(index.remove_at(&key, at)),
                            _ => {
                                let next = location(number, round + 1);
                                assert!(index.replace_at(&key, at, next));
                                assert!(index.remove_at(&key, next));
                            }
                        }
                    }
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for scanner in scanners {
            scanner.join().unwrap();
        }
    });
    let expected = (0..KEYS).filter(|number| stays(*number)).count();
    assert_eq!(index.len() as usize, expected);
    assert_eq!(scan(&index, &mut RangeCursor::default(), 0).len(), expected);
}

/// Removes keys that come in this order, which are there, by their locations alone.
fn remove_runs(index: &OrderedIndex, mut numbers: &[u64], round: u64, direction: Direction) {
    while let Some(first) = numbers.first() {
        let run = numbers.iter().map(|number| location(*number, round));
        let removed = index.remove_run(&key(*first), run, direction);
        assert_ne!(removed, 0);
        numbers = &numbers[removed..];
    }
}

/// Removes keys while a scan passes over them, in the leaves where it finds them.
fn extract(index: &OrderedIndex, is_own: impl Fn(u64) -> bool) -> usize {
    let mut batch = RangeBatch::default().removing();
    let (mut range, mut removed) = (RangeCursor::default(), 0);
    while index.next_batch(&mut range, 50, &mut batch, resolve) == Ok(true) {
        for at in 0..batch.entries().len() {
            let location = batch.entries()[at].location;
            let number = key_of(location);
            if is_own(number) {
                let was_found = index.remove_found(&mut batch, at);
                assert!(was_found || index.remove_at(&key(number), location));
                removed += 1;
            }
        }
    }
    removed
}

#[test]
fn scans_see_each_key_that_stays_while_leaves_beside_it_are_given_up() {
    // One group of keys stays, and a few of each other one.
    let stays = |number: u64| number.is_multiple_of(5) || number % 2000 < 5;
    let index = OrderedIndex::new();
    for number in (0..KEYS).filter(|number| stays(*number)) {
        let Ok(old) = index.insert(&key(number), location(number, 0), resolve);
        assert_eq!(old, None);
    }
    let expected = (0..KEYS).filter(|number| stays(*number)).count();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let scanner = scope.spawn(|| {
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = scan(&index, &mut RangeCursor::default(), turn);
                assert_eq!(seen.iter().filter(|at| stays(**at)).count(), expected);
                turn += 1;
            }
        });
        let writers = [0, 1].map(|writer| {
            let index = &index;
            scope.spawn(move || {
                // Groups that lie beside those of the other.
                let is_own = |number: u64| number % 2 == writer && !stays(number);
                let mut own: Vec<_> = (0..KEYS).filter(|number| is_own(*number)).collect();
                own.sort_by_key(|number| key(*number));
                for round in 0..12 * SCALE {
                    let batch = own.iter().map(|at| (key(*at), location(*at, round)));
                    let Ok(new) = index.insert_sorted_batch(batch, resolve);
                    assert_eq!(new as usize, own.len());
                    match (round + writer) % 3 {
                        0 => remove_runs(index, &own, round, Direction::Rising),
                        1 => {
                            let falling: Vec<_> = own.iter().rev().copied().collect();
                            remove_runs(index, &falling, round, Direction::Falling);
                        }
                        _ => assert_eq!(extract(index, is_own), own.len()),
                    }
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        scanner.join().unwrap();
    });
    assert_eq!(index.len() as usize, expected);
    assert_eq!(scan(&index, &mut RangeCursor::default(), 0).len(), expected);
}

/// Otherwise a scan at a snapshot could see a namespace that was cleared meanwhile half empty,
/// or read what was freed.
#[test]
fn readers_see_an_index_whole_while_it_is_exchanged() {
    const LEN: u64 = 100;
    let build = || {
        let mut numbers: Vec<_> = (0..LEN).collect();
        numbers.sort_by_key(|number| key(*number));
        let sorted = numbers.iter().map(|at| (key(*at), location(*at, 0)));
        Arc::new(OrderedIndex::build(sorted).unwrap())
    };
    let cell = OrderedCell::default();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    cell.with(|index| {
                        let Some(index) = index else { return };
                        assert_eq!(index.len(), LEN);
                        let found = scan(index, &mut RangeCursor::default(), 0);
                        assert_eq!(found.len() as u64, LEN);
                    });
                }
            })
        });
        for round in 0..200 * SCALE {
            let new = (!round.is_multiple_of(5)).then(build);
            let old = cell.exchange(new.clone());
            assert_eq!(old.is_some(), round % 5 != 1 && round != 0);
            let now = cell.get();
            assert_eq!(now.is_some(), new.is_some());
            assert!(now.is_none_or(|now| new.is_some_and(|new| Arc::ptr_eq(&now, &new))));
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
