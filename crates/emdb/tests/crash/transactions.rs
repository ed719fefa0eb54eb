//! Transactions under kills, power loss and full disks: all of each or nothing.

use std::io::ErrorKind;
use std::sync::Arc;

use emdb::{Emdb, Error, FlushPolicy, Transaction};
use emdb_journal::SimulatedMedium;

use crate::{Map, Random, State, for_seeds, kill, open, open_on, power_loss, state};

/// Random operations in a transaction, and what they make of the state.
pub(crate) fn change(tx: &Transaction<'_>, state: &mut State, random: &mut Random) {
    let mut savepoints = Vec::new();
    for _ in 0..1 + random.below(25) {
        let name = ["", "", "a", "b", "c"][random.below(5) as usize];
        let records = state.entry(name.to_owned()).or_default();
        let space = (!name.is_empty()).then(|| tx.namespace(name).unwrap());
        match random.below(24) {
            0..10 => {
                let (key, value) = (random.key(), random.value());
                match &space {
                    Some(space) => space.insert(&key, &value).unwrap(),
                    None => tx.insert(&key, &value).unwrap(),
                }
                records.insert(key, value);
            }
            10..14 => {
                let key = random.key();
                let old = match &space {
                    Some(space) => space.remove(&key).unwrap(),
                    None => tx.remove(&key).unwrap(),
                };
                assert_eq!(old, records.remove(&key));
            }
            14..16 => {
                let batch: Vec<_> = (0..random.below(20))
                    .map(|_| (random.key(), random.value()))
                    .collect();
                match &space {
                    Some(space) => space.insert_many(batch.clone()).unwrap(),
                    None => tx.insert_many(batch.clone()).unwrap(),
                }
                records.extend(batch);
            }
            16..18 => savepoints.push((tx.savepoint().unwrap(), state.clone())),
            18..20 if tx.first().is_ok() => remove_in_order(tx, name, records, random),
            20..23 if !savepoints.is_empty() => {
                let at = random.below(savepoints.len() as u64) as usize;
                savepoints.truncate(at + 1);
                let (savepoint, then) = &savepoints[at];
                tx.rollback_to(*savepoint).unwrap();
                state.clone_from(then);
            }
            23 => {
                match &space {
                    Some(space) => space.clear().unwrap(),
                    None => tx.clear().unwrap(),
                }
                records.clear();
            }
            _ => {}
        }
    }
}

/// Takes records out from an end, or by their keys.
fn remove_in_order(tx: &Transaction<'_>, name: &str, records: &mut Map, random: &mut Random) {
    let own = (!name.is_empty()).then(|| tx.namespace(name).unwrap());
    let pop_first = || match &own {
        Some(own) => own.pop_first(),
        None => tx.pop_first(),
    };
    let pop_last = || match &own {
        Some(own) => own.pop_last(),
        None => tx.pop_last(),
    };
    match random.below(3) {
        0 => {
            for _ in 0..random.below(9) {
                assert_eq!(pop_first().unwrap(), records.pop_first());
            }
        }
        1 => {
            for _ in 0..random.below(9) {
                assert_eq!(pop_last().unwrap(), records.pop_last());
            }
        }
        _ => {
            let one = random.below(2) as u8;
            let keep = |key: &[u8], _: &[u8]| key.last().is_none_or(|byte| byte & 1 == one);
            let removed = match &own {
                Some(own) => own.retain(keep).unwrap(),
                None => tx.retain(keep).unwrap(),
            };
            let before = records.len();
            records.retain(|key, value| keep(key, value));
            assert_eq!(removed as usize, before - records.len());
        }
    }
}

fn filled(disk: &Arc<SimulatedMedium>, policy: FlushPolicy, random: &mut Random) -> (Emdb, State) {
    let db = open_on(disk, policy).unwrap();
    let mut filled = State::from([(String::new(), Map::new())]);
    db.transaction(|tx| {
        change(tx, &mut filled, random);
        Ok(())
    })
    .unwrap();
    db.flush().unwrap();
    assert_eq!(state(&db), filled);
    (db, filled)
}

#[test]
fn a_power_loss_during_or_after_a_commit_leaves_all_of_it_or_nothing() {
    for_seeds(150, |random| {
        let disk = Arc::new(SimulatedMedium::new());
        let (db, before) = filled(&disk, FlushPolicy::OnEachFlush, random);
        let mut after = before.clone();
        let tx = db.begin().unwrap();
        change(&tx, &mut after, random);
        let mut lost = vec![(power_loss(&disk, &[], random), false)];
        lost.push((disk.after_kill(), false));
        tx.commit().unwrap();
        for _ in 0..6 {
            lost.push((power_loss(&disk, &[], random), true));
        }
        let killed = open(&Arc::new(disk.after_kill()));
        assert_eq!(state(&killed), after);
        killed.verify().unwrap();
        db.flush().unwrap();
        let kept = open(&Arc::new(power_loss(&disk, &[], random)));
        assert_eq!(state(&kept), after);
        for (disk, may_be_there) in lost {
            let db = open(&Arc::new(disk));
            let found = state(&db);
            assert!(found == before || may_be_there && found == after);
            db.insert("next", "x").unwrap();
            db.verify().unwrap();
        }
    });
}

#[test]
fn every_cut_through_a_transaction_leaves_nothing_of_it() {
    // A power loss may keep any beginning of what was written: every length of it.
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("a", "old").unwrap();
    db.flush().unwrap();
    let from = db.stats().unwrap().file_size_bytes as usize;
    db.transaction(|tx| {
        tx.insert("a", "new")?;
        let savepoint = tx.savepoint()?;
        tx.insert("b", "never")?;
        tx.rollback_to(savepoint)?;
        tx.namespace("space")?.insert("c", "new")?;
        tx.remove("a").map(drop)
    })
    .unwrap();
    let to = db.stats().unwrap().file_size_bytes as usize;
    kill(db);
    let bytes = disk.live_bytes();
    for end in from..=to {
        let mut cut = bytes.clone();
        cut[end..].fill(0);
        let db = open(&Arc::new(SimulatedMedium::with_bytes(&cut)));
        let committed = end == to;
        let expected = (!committed).then(|| b"old".to_vec());
        assert_eq!(db.get("a").unwrap(), expected, "{end}");
        assert_eq!(db.get("b").unwrap(), None);
        let names = db.list_namespaces().unwrap();
        assert_eq!(names.len(), usize::from(committed), "{end}");
        // Ids of the namespace that never was are free again.
        db.namespace("other").unwrap().insert("d", "x").unwrap();
        db.verify().unwrap();
        kill(db);
    }
}

#[test]
fn with_write_through_a_committed_transaction_is_never_lost() {
    for_seeds(60, |random| {
        let disk = Arc::new(SimulatedMedium::new());
        let (db, mut expected) = filled(&disk, FlushPolicy::WriteThrough, random);
        for _ in 0..3 {
            if random.below(3) == 0 {
                db.transaction(|tx| tx.insert("single", "x")).unwrap();
                let root = expected.get_mut("").unwrap();
                root.insert(b"single".to_vec(), b"x".to_vec());
            }
            let mut after = expected.clone();
            let tx = db.begin().unwrap();
            change(&tx, &mut after, random);
            if random.below(2) == 0 {
                tx.commit().unwrap();
                expected = after;
            } else {
                drop(tx);
            }
            let lost = open(&Arc::new(power_loss(&disk, &[], random)));
            assert_eq!(state(&lost), expected);
        }
    });
}

#[test]
fn a_call_that_fails_in_a_transaction_leaves_all_of_it_or_nothing() {
    for_seeds(20, |random| {
        let seed = random.next();
        let mut call = 0;
        loop {
            let mut random = Random(seed);
            let disk = Arc::new(SimulatedMedium::new());
            let (db, before) = filled(&disk, FlushPolicy::WriteThrough, &mut random);
            let first = disk.calls();
            disk.fail_call(first + call, ErrorKind::Other);
            let result = db.transaction(|tx| {
                for number in 0..40_u8 {
                    tx.insert([number], vec![number; 2000])?;
                    tx.namespace("a")?.insert([number], "x")?;
                }
                Ok(())
            });
            let reached = disk.calls() > first + call;
            let seen = state(&db);
            if result.is_ok() {
                assert_ne!(seen, before);
            } else if seen != before {
                // Only the sync failed.
                assert!(matches!(db.insert("x", "y"), Err(Error::Poisoned)));
            }
            kill(db);
            for disk in [disk.after_kill(), power_loss(&disk, &[], &mut random)] {
                let db = open(&Arc::new(disk));
                let found = state(&db);
                assert!(found == before || found == seen || found[""].len() >= 40);
                assert!(result.is_err() || found == seen);
                assert_eq!(found == before, !found[""].contains_key(&[39][..]));
                db.verify().unwrap();
            }
            if !reached {
                break;
            }
            call += 1;
        }
    });
}

#[test]
fn a_transaction_on_a_full_disk_can_go_on_once_there_is_room() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("a", "old").unwrap();
    let tx = db.begin().unwrap();
    tx.insert("a", "new").unwrap();
    let capacity = disk.live_bytes().len() as u64;
    disk.set_capacity(Some(capacity));
    let mut stored = 0_u32;
    let error = loop {
        match tx.insert(stored.to_le_bytes(), vec![1; 3000]) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Io(_)), "{error:?}");
    // Neither reading nor storing goes on before what is held back has its room.
    assert!(matches!(tx.get("a"), Err(Error::Io(_))));
    assert_eq!(db.get("a").unwrap().unwrap(), b"old");
    disk.set_capacity(None);
    assert_eq!(tx.get("a").unwrap().unwrap(), b"new");
    assert_eq!(tx.len().unwrap() as u32, stored + 1);
    tx.insert("b", "x").unwrap();
    tx.commit().unwrap();
    assert_eq!(db.len().unwrap() as u32, stored + 2);
    db.verify().unwrap();
    // One that ends while the disk is full is rolled back, and nothing is poisoned.
    let capacity = disk.live_bytes().len() as u64;
    disk.set_capacity(Some(capacity));
    let failed = db.transaction(|tx| {
        for number in 0..10_000_u32 {
            tx.insert(number.to_le_bytes(), vec![2; 3000])?;
        }
        Ok(())
    });
    assert!(matches!(failed, Err(Error::Io(_))), "{failed:?}");
    disk.set_capacity(None);
    assert_eq!(db.len().unwrap() as u32, stored + 2);
    assert_eq!(db.get(0_u32.to_le_bytes()).unwrap().unwrap(), [1; 3000]);
    db.insert("after", "x").unwrap();
    db.verify().unwrap();
    kill(db);
    let db = open(&Arc::new(disk.after_kill()));
    assert_eq!(db.len().unwrap() as u32, stored + 3);
    db.verify().unwrap();
}

#[test]
fn a_kill_between_any_two_steps_leaves_nothing_of_the_transaction() {
    for_seeds(20, |random| {
        let disk = Arc::new(SimulatedMedium::new());
        let (db, before) = filled(&disk, FlushPolicy::OnEachFlush, random);
        let mut killed = Vec::new();
        let tx = db.begin().unwrap();
        let mut after = before.clone();
        for _ in 0..6 {
            change(&tx, &mut after, random);
            killed.push(disk.after_kill());
            // A snapshot and an iterator change nothing of what is written.
            let _held = (db.snapshot().unwrap(), tx.iter().unwrap());
        }
        if random.below(2) == 0 {
            tx.rollback().unwrap();
            killed.push(disk.after_kill());
        } else {
            tx.commit().unwrap();
            assert_eq!(state(&db), after);
        }
        for disk in killed {
            let db = open(&Arc::new(disk));
            assert_eq!(state(&db), before);
            db.verify().unwrap();
        }
    });
}

#[test]
fn a_pop_that_a_full_disk_refuses_leaves_its_record_to_the_next() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    let key = |number: u32| format!("{number:05}{}", "x".repeat(2000)).into_bytes();
    db.insert_many((0..500).map(|number| (key(number), b"value")))
        .unwrap();
    disk.set_capacity(Some(disk.live_bytes().len() as u64));
    let tx = db.begin().unwrap();
    let (mut popped, mut refused) = (0, 0);
    while popped < 500 {
        match tx.pop_first() {
            Ok(record) => {
                assert_eq!(record.unwrap().0, key(popped));
                popped += 1;
            }
            Err(Error::Io(error)) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                assert_eq!(tx.len().unwrap() as u32, 500 - popped);
                refused += 1;
                if refused == 3 {
                    disk.set_capacity(None);
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 3);
    tx.commit().unwrap();
    assert_eq!(state(&db)[""], Map::new());
    db.verify().unwrap();
    let killed = open(&Arc::new(disk.after_kill()));
    assert_eq!(state(&killed)[""], Map::new());
}

/// Clears two namespaces between changes of them.
fn clear_among_others(tx: &Transaction<'_>, value: &[u8]) -> Result<(), Error> {
    let space = tx.namespace("a")?;
    tx.insert("before", value)?;
    space.insert("before", value)?;
    tx.remove("old")?;
    tx.clear()?;
    let savepoint = tx.savepoint()?;
    tx.insert("taken back", value)?;
    space.clear()?;
    tx.clear()?;
    tx.rollback_to(savepoint)?;
    space.clear()?;
    for number in 0..20_u8 {
        tx.insert([number], value)?;
        space.insert([number], value)?;
    }
    Ok(())
}

fn cleared(value: &[u8]) -> State {
    let records: Map = (0..20_u8)
        .map(|number| (vec![number], value.to_vec()))
        .collect();
    State::from([(String::new(), records.clone()), ("a".to_owned(), records)])
}

fn to_be_cleared(disk: &Arc<SimulatedMedium>, policy: FlushPolicy) -> (Emdb, State) {
    let db = open_on(disk, policy).unwrap();
    for name in ["old", "older"] {
        db.insert(name, "x").unwrap();
        db.namespace("a").unwrap().insert(name, "y").unwrap();
    }
    db.flush().unwrap();
    let before = state(&db);
    (db, before)
}

#[test]
fn every_cut_through_a_transaction_that_clears_leaves_what_it_would_have_cleared() {
    for encrypted in [false, true] {
        let _guard = crate::support::encrypt(encrypted);
        let disk = Arc::new(SimulatedMedium::new());
        let (db, before) = to_be_cleared(&disk, FlushPolicy::OnEachFlush);
        let from = db.stats().unwrap().file_size_bytes as usize;
        db.transaction(|tx| clear_among_others(tx, b"new")).unwrap();
        let to = db.stats().unwrap().file_size_bytes as usize;
        assert_eq!(state(&db), cleared(b"new"));
        kill(db);
        let bytes = disk.live_bytes();
        for end in from..=to {
            let mut cut = bytes.clone();
            cut[end..].fill(0);
            let db = open(&Arc::new(SimulatedMedium::with_bytes(&cut)));
            let found = state(&db);
            if end == to {
                assert_eq!(found, cleared(b"new"));
            } else {
                assert_eq!(found, before, "{end}");
            }
            // Ids of what never was are free again.
            db.clear().unwrap();
            db.insert("next", "x").unwrap();
            db.verify().unwrap();
        }
    }
}

#[test]
fn a_call_that_fails_in_a_transaction_that_clears_leaves_all_of_it_or_nothing() {
    for encrypted in [false, true] {
        let _guard = crate::support::encrypt(encrypted);
        let mut random = Random(7);
        let value = vec![3; 2500];
        let (mut call, mut failed) = (0, 0);
        loop {
            let disk = Arc::new(SimulatedMedium::new());
            let (db, before) = to_be_cleared(&disk, FlushPolicy::WriteThrough);
            let snapshot = db.snapshot().unwrap();
            let first = disk.calls();
            disk.fail_call(first + call, ErrorKind::Other);
            let result = db.transaction(|tx| clear_among_others(tx, &value));
            let reached = disk.calls() > first + call;
            let seen = state(&db);
            assert!(seen == before || seen == cleared(&value));
            if result.is_ok() {
                assert_eq!(seen, cleared(&value));
            } else {
                failed += 1;
            }
            assert_eq!(snapshot.iter().unwrap().collect::<Map>(), before[""]);
            drop(snapshot);
            kill(db);
            for disk in [disk.after_kill(), power_loss(&disk, &[], &mut random)] {
                let db = open(&Arc::new(disk));
                let found = state(&db);
                assert!(found == before || found == cleared(&value));
                assert!(result.is_err() || found == seen);
                db.verify().unwrap();
            }
            if !reached {
                break;
            }
            call += 1;
        }
        assert!(call > 1 && failed > 0, "{call} {failed}");
    }
}

#[test]
fn a_clear_on_a_full_disk_changes_nothing() {
    let disk = Arc::new(SimulatedMedium::new());
    let (db, before) = to_be_cleared(&disk, FlushPolicy::OnEachFlush);
    let tx = db.begin().unwrap();
    tx.insert("kept", "x").unwrap();
    disk.set_capacity(Some(disk.live_bytes().len() as u64));
    let mut stored = 0_u32;
    while tx.insert(stored.to_le_bytes(), vec![1; 3000]).is_ok() {
        stored += 1;
    }
    assert!(matches!(tx.clear(), Err(Error::Io(_))));
    disk.set_capacity(None);
    assert_eq!(tx.len().unwrap() as u32, stored + 3);
    assert_eq!(tx.get("kept").unwrap().unwrap(), b"x");
    tx.clear().unwrap();
    assert!(tx.is_empty().unwrap());
    drop(tx);
    assert_eq!(state(&db), before);
    db.verify().unwrap();
}
