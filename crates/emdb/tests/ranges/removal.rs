//! Removals in the order of keys, of which the indexes hear later, between other operations
//! of their transaction.

use emdb::{Emdb, Result};

use super::ordered;

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
