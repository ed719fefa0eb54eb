//! How far pops have to look.

use emdb_index::RangeBatch;
use emdb_journal::{Kind, Opened};

use crate::engine::Extent;
use crate::space::End;
use crate::{Emdb, Result};

const RECORDS: u32 = 500;

fn filled() -> Result<Emdb> {
    let db = Emdb::builder().enable_range_scans(true).build()?;
    db.insert_many((0..RECORDS).map(|number| (format!("{number:04}"), "value")))?;
    Ok(db)
}

/// Keys that a pop would pass before it meets one that is alive.
fn passed(db: &Emdb, end: End) -> Result<usize> {
    let (engine, mut batch) = (db.engine(), RangeBatch::default());
    let (order, mut rest) = (engine.root.order(), engine.root.dead_ends.rest());
    let resolve = |location| engine.key_at(location);
    let mut passed = 0;
    while match end {
        End::First => order.next_batch(&mut rest, 1, &mut batch, resolve)?,
        End::Last => order.next_back_batch(&mut rest, 1, &mut batch, resolve)?,
    } {
        let position = batch
            .entries()
            .first()
            .map_or(0, |entry| entry.location.get());
        let (key, opened) = (engine.journal.key(position)?, Opened::new());
        // The order may not know yet that the transaction removed it.
        let alive = engine.find_own_frame(
            &engine.root,
            engine.hash(&key),
            &key,
            Extent::Head,
            u64::MAX,
            &opened,
        )?;
        if alive.is_some_and(|frame| frame.kind == Kind::Put) {
            break;
        }
        passed += 1;
    }
    Ok(passed)
}

/// A queue that was emptied from the front in one transaction, or while somebody read,
/// became slower with every record taken.
#[test]
fn a_pop_passes_at_most_one_of_the_tombstones_of_earlier_pops() -> Result<()> {
    for end in [End::First, End::Last] {
        let db = filled()?;
        let tx = db.begin()?;
        for number in 0..RECORDS {
            assert_eq!(tx.len()?, (RECORDS - number) as usize);
            // The first pop is held back, and may yet come to nothing.
            assert!(passed(&db, end)? <= 1, "{end:?} {number}");
            assert!(tx.root().pop(end)?.is_some());
            // Others that are stored, or taken back, do not matter behind it.
            let savepoint = tx.savepoint()?;
            tx.insert("0250", "again")?;
            if number == 100 {
                tx.range(..)?;
            }
            if number % 2 == 0 {
                tx.rollback_to(savepoint)?;
            }
            if number == RECORDS / 2 - 10 {
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn a_pop_beside_a_snapshot_passes_at_most_the_tombstone_of_the_one_before() -> Result<()> {
    for end in [End::First, End::Last] {
        let db = filled()?;
        let snapshot = db.snapshot()?;
        for number in 0..RECORDS {
            assert!(passed(&db, end)? <= 1, "{end:?} {number}");
            let popped = match end {
                End::First => db.pop_first()?,
                End::Last => db.pop_last()?,
            };
            assert!(popped.is_some());
        }
        assert_eq!(db.pop_first()?, None);
        drop(db.snapshot()?);
        assert_eq!(snapshot.range(..)?.len(), RECORDS as usize);
        // What comes back is seen.
        db.insert("new", "value")?;
        assert_eq!(db.pop_last()?, Some((b"new".to_vec(), b"value".to_vec())));
    }
    Ok(())
}
