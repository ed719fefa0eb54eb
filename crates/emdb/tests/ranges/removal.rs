//! Removals in the order of keys, of which the indexes hear later, between other operations
//! of their transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use emdb::{Emdb, Error, Result};

use super::{Map, open, ordered, records};

const RECORDS: u32 = 3000;

fn key(number: u32) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

fn numbered() -> Result<Emdb> {
    let db = ordered();
    db.insert_many((0..RECORDS).map(|number| (key(number), number.to_string())))?;
    Ok(db)
}

fn numbers(db: &Emdb) -> Result<Vec<u32>> {
    let range = db.range(..)?.into_iter();
    let number = |(key, _): (Vec<u8>, _)| String::from_utf8_lossy(&key).parse().unwrap();
    Ok(range.map(number).collect())
}

#[test]
fn pops_from_both_ends_meet_in_the_middle() -> Result<()> {
    for many in [1, 7, 400] {
        let db = numbered()?;
        let tx = db.begin()?;
        let (mut first, mut last) = (0, RECORDS);
        while first < last {
            for _ in 0..many.min(last - first) {
                assert_eq!(tx.pop_first()?.unwrap().0, key(first));
                first += 1;
            }
            for _ in 0..many.min(last - first) {
                last -= 1;
                assert_eq!(tx.pop_last()?.unwrap().0, key(last));
            }
        }
        assert_eq!(tx.pop_first()?, None);
        assert_eq!(tx.pop_last()?, None);
        // Nobody else sees any of it yet.
        assert_eq!(db.len()?, RECORDS as usize);
        assert_eq!(db.range(..)?.len(), RECORDS as usize);
        tx.commit()?;
        assert_eq!(numbers(&db)?, []);
        assert_eq!(db.len()?, 0);
        db.verify()?;
    }
    Ok(())
}

#[test]
fn a_transaction_reads_and_stores_what_it_popped() -> Result<()> {
    let db = numbered()?;
    let snapshot = db.snapshot()?;
    let tx = db.begin()?;
    for number in 0..100 {
        assert!(tx.pop_first()?.is_some());
        assert_eq!(tx.get(key(number))?, None);
        assert_eq!(tx.len()?, (RECORDS - number - 1) as usize);
    }
    for _ in 0..100 {
        assert!(tx.pop_first()?.is_some());
    }
    let savepoint = tx.savepoint()?;
    for _ in 0..100 {
        assert!(tx.pop_first()?.is_some());
    }
    tx.insert(key(50), "again")?;
    assert_eq!(tx.pop_first()?.unwrap(), (key(50), b"again".to_vec()));
    assert_eq!(tx.pop_first()?.unwrap().0, key(300));
    tx.insert(key(300), "back")?;
    tx.rollback_to(savepoint)?;
    assert_eq!(tx.pop_first()?.unwrap().0, key(200));
    tx.insert(key(7), "seven")?;
    assert_eq!(tx.first()?.unwrap().0, key(7));
    assert_eq!(tx.retain(|_, value| value == b"seven")?, 2799);
    tx.commit()?;
    assert_eq!(numbers(&db)?, [7]);
    assert_eq!(snapshot.range(..)?.len(), RECORDS as usize);
    db.verify()?;
    drop(snapshot);
    db.insert("x", "y")?;
    db.remove("x")?;
    assert_eq!(numbers(&db)?, [7]);
    db.verify()?;
    Ok(())
}

/// Records that come in while `retain` asks about others are left alone; whatever else the
/// closure does in the transaction counts as if it had been done before or after.
#[test]
fn what_the_closure_of_retain_does_in_the_transaction_counts() -> Result<()> {
    for from in [0, 1, 500] {
        let db = numbered()?;
        let tx = db.begin()?;
        let mut asked = 0;
        let removed = tx.retain(|at, _| {
            if asked >= from {
                // What was removed so far is gone, and what is to come may change.
                let number: u32 = String::from_utf8_lossy(at).parse().unwrap();
                if number > 0 {
                    assert_eq!(tx.get(key(number - 1)).unwrap(), None);
                }
                tx.insert(key(number + 10_000), "new").unwrap();
                if number.is_multiple_of(3) {
                    tx.insert(key(number + 1), "changed").unwrap();
                }
            }
            asked += 1;
            false
        })?;
        assert_eq!((removed, asked), (u64::from(RECORDS), RECORDS));
        let expected: Vec<_> = (from..RECORDS).map(|number| number + 10_000).collect();
        tx.commit()?;
        assert_eq!(numbers(&db)?, expected);
        assert_eq!(db.len()?, expected.len());
        db.verify()?;
    }
    Ok(())
}

#[test]
fn one_record_that_is_swept_alone_is_a_plain_frame() -> Result<()> {
    let db = numbered()?;
    let before = db.stats()?.file_size_bytes;
    assert_eq!(db.retain(|at, _| at != key(5))?, 1);
    let swept = db.stats()?.file_size_bytes - before;
    let before = db.stats()?.file_size_bytes;
    assert!(db.remove(key(6))?.is_some());
    assert_eq!(swept, db.stats()?.file_size_bytes - before);
    assert_eq!(db.remove_range(key(0)..key(10))?, 8);
    assert_eq!(db.len()?, RECORDS as usize - 10);
    Ok(())
}

#[test]
fn a_rollback_brings_back_what_was_swept() -> Result<()> {
    let db = numbered()?;
    let all: Vec<_> = (0..RECORDS).collect();
    let tx = db.begin()?;
    assert_eq!(tx.remove_range(..)?, u64::from(RECORDS));
    assert_eq!(tx.first()?, None);
    tx.rollback()?;
    assert_eq!(numbers(&db)?, all);
    let failed: Result<u64> = db.transaction(|tx| {
        tx.pop_first()?;
        tx.pop_last()?;
        tx.retain(|_, _| false)?;
        Err(emdb::Error::Closed)
    });
    assert!(failed.is_err());
    assert_eq!(numbers(&db)?, all);
    assert_eq!(db.pop_first()?.unwrap().0, key(0));
    db.verify()?;
    Ok(())
}

/// Numbers below a limit, the same in every run of a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}

fn check(db: &Emdb, map: &Map) -> Result<()> {
    assert_eq!(db.range(..)?, records(map));
    assert_eq!(db.len()?, map.len());
    db.verify()?;
    Ok(())
}

/// Pops trusted the order of keys about what the transaction itself had changed.
#[test]
fn pops_among_other_changes_of_their_transaction_are_those_of_a_map() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let path = directory.path().join(seed.to_string());
        let mut db = open(&path);
        let (mut numbers, mut map) = (Numbers(seed), Map::new());
        for _ in 0..12 {
            let before = map.clone();
            let snapshot = (numbers.below(3) == 0).then(|| db.snapshot()).transpose()?;
            let tx = db.begin()?;
            let mut savepoints = Vec::new();
            for _ in 0..numbers.below(60) {
                let from = numbers.below(2 * RECORDS);
                let many = [1, 2, 5, 70, 400][numbers.below(5) as usize];
                match numbers.below(12) {
                    0..3 => (0..many).try_for_each(|_| {
                        assert_eq!(tx.pop_first()?, map.pop_first());
                        Ok::<_, Error>(())
                    })?,
                    3..6 => (0..many).try_for_each(|_| {
                        assert_eq!(tx.pop_last()?, map.pop_last());
                        Ok::<_, Error>(())
                    })?,
                    6 => {
                        let new = (from..from + 3 * many).map(key);
                        let new: Vec<_> = new.map(|key| (key, seed.to_string())).collect();
                        tx.insert_many(new.iter().map(|(key, value)| (key, value)))?;
                        map.extend(new.into_iter().map(|(key, value)| (key, value.into())));
                    }
                    7 => {
                        tx.insert(key(from), "one")?;
                        map.insert(key(from), b"one".to_vec());
                    }
                    // Those that come next, and others.
                    8 => {
                        let next = map.keys().skip(numbers.below(80) as usize).step_by(3);
                        let mut gone: Vec<_> = next.take(many as usize).cloned().collect();
                        gone.push(key(from));
                        for key in gone {
                            assert_eq!(tx.remove(&key)?, map.remove(&key));
                        }
                    }
                    9 => {
                        let removed = tx.remove_range(key(from)..key(from + many))?;
                        let is_in = |at: &Vec<u8>| (key(from)..key(from + many)).contains(at);
                        let length = map.len();
                        map.retain(|at, _| !is_in(at));
                        assert_eq!(removed as usize, length - map.len());
                    }
                    10 => savepoints.push((tx.savepoint()?, map.clone())),
                    _ => {
                        if let Some((savepoint, then)) = savepoints.pop() {
                            tx.rollback_to(savepoint)?;
                            map = then;
                        }
                    }
                }
            }
            if numbers.below(4) == 0 {
                tx.rollback()?;
                map.clone_from(&before);
            } else {
                tx.commit()?;
            }
            check(&db, &map)?;
            if let Some(snapshot) = snapshot {
                assert_eq!(snapshot.range(..)?, records(&before));
            }
            if numbers.below(3) == 0 {
                db.close()?;
                db = open(&path);
                check(&db, &map)?;
            }
        }
    }
    Ok(())
}

#[test]
fn extract_if_gives_what_is_there_when_it_comes_whatever_happens_between() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..8 {
        let path = directory.path().join(seed.to_string());
        let db = open(&path);
        let mut numbers = Numbers(seed);
        let mut map: Map = (0..RECORDS)
            .map(|at| (key(at), at.to_string().into()))
            .collect();
        db.insert_many(&map)?;
        let is_wanted = |value: &[u8]| value.last().is_some_and(|last| last % 2 == 0);
        let mut unchanged = map.clone();
        let snapshot = (seed % 3 == 0).then(|| db.snapshot()).transpose()?;
        let before = records(&map);
        let mut extracted = db.extract_if(|_, value| is_wanted(value))?;
        let mut last = None;
        while let Some(record) = extracted.next().transpose()? {
            let (at, value) = record;
            assert!(is_wanted(&value));
            assert!(
                last.replace(at.clone()) < Some(at.clone()),
                "in order, and once"
            );
            assert_eq!(map.remove(&at), Some(value));
            let other = key(numbers.below(RECORDS + 100));
            match numbers.below(if seed < 2 { 4 } else { 40 }) {
                0 => {
                    let value = numbers.below(1000).to_string();
                    db.insert(&other, &value)?;
                    map.insert(other.clone(), value.into());
                    unchanged.remove(&other);
                }
                1 => {
                    assert_eq!(db.remove(&other)?, map.remove(&other));
                    unchanged.remove(&other);
                }
                2 => {
                    let last = map.pop_last();
                    assert_eq!(db.pop_last()?, last);
                    unchanged.remove(&last.map(|(at, _)| at).unwrap_or_default());
                }
                3 if numbers.below(200) == 0 => {
                    db.clear()?;
                    map.clear();
                    unchanged.clear();
                    db.insert(&other, "2")?;
                    map.insert(other, b"2".to_vec());
                }
                _ => {}
            }
            // Dropped on the way.
            if seed == 5 && map.len() < 2000 {
                break;
            }
        }
        if seed != 5 {
            let left = unchanged.iter().filter(|(at, _)| map.contains_key(*at));
            assert_eq!(left.filter(|(_, value)| is_wanted(value)).count(), 0);
        }
        drop(extracted);
        check(&db, &map)?;
        if let Some(snapshot) = snapshot {
            assert_eq!(snapshot.range(..)?, before);
        }
        db.close()?;
        check(&open(&path), &map)?;
    }
    Ok(())
}

#[test]
fn extract_if_beside_writers_takes_each_record_once() -> Result<()> {
    let db = numbered()?;
    let is_over = AtomicBool::new(false);
    let taken = thread::scope(|scope| {
        let writers = [1, 2].map(|seed| {
            let (db, is_over) = (&db, &is_over);
            scope.spawn(move || -> Result<usize> {
                let (mut numbers, mut removed) = (Numbers(seed), 0);
                while !is_over.load(Ordering::Relaxed) {
                    let at = numbers.below(RECORDS);
                    match numbers.below(4) {
                        // Behind all others: they are not met.
                        0 => db.insert(key(RECORDS + at), "new")?,
                        1 => removed += usize::from(db.remove(key(at))?.is_some()),
                        2 => {
                            let old = db.get(key(at))?;
                            if let Some(old) = old.as_deref() {
                                let _ = db.compare_and_swap(key(at), Some(old), Some(b"x"))?;
                            }
                        }
                        _ => drop(db.transaction(|tx| {
                            removed += usize::from(tx.remove(key(at))?.is_some());
                            tx.insert(key(RECORDS + at), "new")
                        })?),
                    }
                }
                Ok(removed)
            })
        });
        let mut taken = 0;
        let mut last = None;
        for record in db.extract_if(|at, _| at < key(RECORDS).as_slice())? {
            let (at, _) = record?;
            assert!(last.replace(at.clone()) < Some(at));
            taken += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            taken += writer.join().unwrap()?;
        }
        Ok::<_, Error>(taken)
    })?;
    assert_eq!(taken, RECORDS as usize);
    assert!(db.range(..key(RECORDS))?.is_empty());
    assert_eq!(db.range(..)?.len(), db.len()?);
    db.verify()?;
    Ok(())
}
