//! Clearing in a transaction: one frame, and nobody else sees anything of it before all.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use emdb::{Emdb, Error, Namespace, Transaction, TransactionNamespace};
use emdb_journal::SimulatedMedium;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn map<'a>(records: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map {
    let owned = |(key, value): (&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    records.into_iter().map(owned).collect()
}

fn in_memory(ordered: bool) -> Emdb {
    let builder = Emdb::builder().enable_range_scans(ordered);
    builder.build().unwrap()
}

/// What a transaction sees of a namespace, by every way to read it.
fn seen(space: &TransactionNamespace<'_>) -> Map {
    let all: Map = space.try_iter().unwrap().map(Result::unwrap).collect();
    let mut keys: Vec<_> = space.keys().unwrap().collect();
    keys.sort_unstable();
    assert!(keys.iter().eq(all.keys()));
    let mut visited = Map::new();
    let visit = |key: &[u8], value: &[u8]| {
        visited.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    space.for_each(visit).unwrap();
    assert_eq!(visited, all);
    assert_eq!(space.len().unwrap(), all.len());
    assert_eq!(space.is_empty().unwrap(), all.is_empty());
    for key in ["a", "b", "c", "d", "e", "f"] {
        let value = all.get(key.as_bytes()).cloned();
        assert_eq!(space.contains_key(key).unwrap(), value.is_some());
        assert_eq!(space.get(key).unwrap(), value);
        let zerocopy = space.get_zerocopy(key).unwrap();
        assert_eq!(zerocopy.map(|value| value.to_vec()), value);
        assert_eq!(space.get_many([key]).unwrap(), [value]);
    }
    if let Ok(range) = space.range(..) {
        assert!(range.iter().map(|(key, value)| (key, value)).eq(&all));
        let backwards = space.range_iter(..).unwrap().rev();
        assert!(backwards.eq(range.into_iter().rev()));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        assert_eq!(space.first().unwrap(), all.first_key_value().map(owned));
        assert_eq!(space.last().unwrap(), all.last_key_value().map(owned));
    }
    all
}

fn committed(db: &Emdb, name: &str) -> Map {
    if name.is_empty() {
        return db.try_iter().unwrap().map(Result::unwrap).collect();
    }
    let space = db.open_namespace(name).unwrap().unwrap();
    space.try_iter().unwrap().map(Result::unwrap).collect()
}

/// Runs a test in a namespace that is there and in one that the transaction creates; with
/// ranges and without.
fn everywhere(test: impl Fn(&Emdb, &str)) {
    for ordered in [false, true] {
        for name in ["there", "created"] {
            let db = in_memory(ordered);
            db.namespace("there").unwrap();
            test(&db, name);
            db.verify().unwrap();
        }
    }
}

fn fill(space: &TransactionNamespace<'_>) {
    for (key, value) in [("a", "1"), ("b", "1"), ("c", "1")] {
        space.insert(key, value).unwrap();
    }
}

#[test]
fn a_clear_in_a_transaction_takes_one_frame_whatever_the_size() {
    let mut appended = Vec::new();
    for records in [0, 200_000_u32] {
        let db = in_memory(true);
        let all = (0..records).map(|number| (number.to_le_bytes(), "value"));
        db.insert_many(all).unwrap();
        db.flush().unwrap();
        // The first write after a flush brings a marker with it.
        db.insert("one", "more").unwrap();
        let used = || db.stats().unwrap().file_size_bytes;
        let before = used();
        let tx = db.begin().unwrap();
        tx.clear().unwrap();
        assert!(tx.is_empty().unwrap());
        tx.commit().unwrap();
        assert!(db.is_empty().unwrap());
        appended.push(used() - before);
        db.verify().unwrap();
    }
    // The frame and the one that commits it; a marker now and then.
    assert!(appended.iter().all(|bytes| *bytes < 200), "{appended:?}");
}

#[test]
fn after_a_clear_a_transaction_sees_only_what_it_stored_since() {
    everywhere(|db, name| {
        let tx = db.begin().unwrap();
        let space = tx.namespace(name).unwrap();
        fill(&space);
        space.clear().unwrap();
        assert_eq!(seen(&space), Map::new());
        assert_eq!(space.remove("a").unwrap(), None);
        assert_eq!(space.replace("b", "2").unwrap(), None);
        assert!(space.insert_if_absent("c", "2").unwrap());
        assert_eq!(
            space.compare_and_swap("d", None, Some(b"2")).unwrap(),
            Ok(())
        );
        space
            .update("e", |old| old.map_or(Some(b"2".to_vec()), |_| None))
            .unwrap();
        space.insert_many([("f", "2")]).unwrap();
        let now = map([("b", "2"), ("c", "2"), ("d", "2"), ("e", "2"), ("f", "2")]);
        assert_eq!(seen(&space), now);
        assert_eq!(space.remove("f").unwrap().unwrap(), b"2");
        if space.first().is_ok() {
            assert_eq!(space.pop_first().unwrap().unwrap().0, b"b");
            assert_eq!(space.pop_last().unwrap().unwrap().0, b"e");
            assert_eq!(space.retain(|key, _| key == b"d").unwrap(), 1);
            assert_eq!(space.remove_range("d"..).unwrap(), 1);
            assert_eq!(seen(&space), Map::new());
            assert_eq!(space.pop_first().unwrap(), None);
        }
        space.insert("a", "3").unwrap();
        let last = seen(&space);
        assert!(db.is_empty().unwrap());
        tx.commit().unwrap();
        assert_eq!(committed(db, name), last);
        assert_eq!(db.stats().unwrap().live_records, last.len());
    });
}

#[test]
fn what_ends_a_transaction_without_a_commit_undoes_its_clears() {
    for how in 0..4 {
        let db = in_memory(how % 2 == 0);
        db.insert("a", "1").unwrap();
        db.insert("b", "1").unwrap();
        let before = committed(&db, "");
        let work = |tx: &Transaction<'_>| {
            tx.insert("a", "2").unwrap();
            tx.remove("b").unwrap();
            tx.clear().unwrap();
            tx.insert("c", "3").unwrap();
            tx.clear().unwrap();
            tx.insert("a", "4").unwrap();
        };
        match how {
            0 => {
                let failed = db.transaction::<_, ()>(|tx| {
                    work(tx);
                    Err(Error::KeyNotFound)
                });
                assert!(matches!(failed, Err(Error::KeyNotFound)));
            }
            1 => {
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    db.transaction::<_, ()>(|tx| {
                        work(tx);
                        std::panic::resume_unwind(Box::new("rolls back"))
                    })
                }));
                assert!(caught.is_err());
            }
            how => {
                let tx = db.begin().unwrap();
                work(&tx);
                match how {
                    2 => tx.rollback().unwrap(),
                    _ => drop(tx),
                }
            }
        }
        assert_eq!(committed(&db, ""), before);
        assert_eq!(db.len().unwrap(), 2);
        assert_eq!(db.get("a").unwrap().unwrap(), b"1");
        db.verify().unwrap();
        // The next transaction begins with what there is.
        db.transaction(|tx| tx.insert("d", tx.get("a")?.unwrap()))
            .unwrap();
        assert_eq!(db.len().unwrap(), 3);
        db.verify().unwrap();
    }
}

#[test]
fn a_savepoint_takes_clears_back() {
    everywhere(|db, name| {
        let tx = db.begin().unwrap();
        let space = tx.namespace(name).unwrap();
        fill(&space);
        let mut points = Vec::new();
        for round in ["1", "2", "3"] {
            points.push((tx.savepoint().unwrap(), seen(&space)));
            space.insert("d", round).unwrap();
            space.remove("a").unwrap();
            points.push((tx.savepoint().unwrap(), seen(&space)));
            space.clear().unwrap();
            points.push((tx.savepoint().unwrap(), seen(&space)));
            space.clear().unwrap();
            space.insert("a", round).unwrap();
            space.insert("e", round).unwrap();
        }
        // Back to the middle, each on the way.
        for (at, (savepoint, then)) in points.iter().enumerate().skip(4).rev() {
            tx.rollback_to(*savepoint).unwrap();
            assert_eq!(&seen(&space), then, "{at}");
            // It can go on from there, and come back once more.
            space.insert("f", "x").unwrap();
            space.clear().unwrap();
            space.insert("f", "y").unwrap();
            assert_eq!(seen(&space), map([("f", "y")]));
            tx.rollback_to(*savepoint).unwrap();
            assert_eq!(&seen(&space), then, "{at}");
        }
        let mut expected = points[4].1.clone();
        space.insert("b", "last").unwrap();
        expected.insert(b"b".to_vec(), b"last".to_vec());
        tx.commit().unwrap();
        assert_eq!(committed(db, name), expected);
    });
}

#[test]
fn a_clear_that_a_savepoint_took_back_is_not_committed() {
    let db = in_memory(true);
    db.insert("a", "1").unwrap();
    let tx = db.begin().unwrap();
    let start = tx.savepoint().unwrap();
    tx.clear().unwrap();
    tx.insert("b", "1").unwrap();
    tx.rollback_to(start).unwrap();
    tx.insert("c", "1").unwrap();
    tx.commit().unwrap();
    assert_eq!(committed(&db, ""), map([("a", "1"), ("c", "1")]));
    db.verify().unwrap();
}

#[test]
fn ten_thousand_clears_in_a_transaction_are_like_one() {
    let db = in_memory(true);
    db.insert("a", "1").unwrap();
    let tx = db.begin().unwrap();
    let start = tx.savepoint().unwrap();
    for round in 0..10_000_u32 {
        tx.insert("b", round.to_le_bytes()).unwrap();
        tx.clear().unwrap();
    }
    tx.rollback_to(start).unwrap();
    assert_eq!(tx.len().unwrap(), 1);
    for _ in 0..1_000 {
        // Each of these could be asked for.
        tx.savepoint().unwrap();
        tx.clear().unwrap();
    }
    tx.insert("c", "1").unwrap();
    tx.commit().unwrap();
    assert_eq!(committed(&db, ""), map([("c", "1")]));
    db.verify().unwrap();
}

#[test]
fn snapshots_and_iterators_keep_what_a_transaction_clears() {
    for ordered in [false, true] {
        let db = in_memory(ordered);
        let records = (0..2_000_u32).map(|number| (number.to_le_bytes(), "old"));
        db.insert_many(records).unwrap();
        let before = committed(&db, "");
        let (snapshot, iterator) = (db.snapshot().unwrap(), db.iter().unwrap());
        let tx = db.begin().unwrap();
        tx.insert(7_u32.to_le_bytes(), "staged").unwrap();
        tx.remove(8_u32.to_le_bytes()).unwrap();
        let staged: Map = tx.iter().unwrap().collect();
        let first = tx.iter().unwrap();
        tx.clear().unwrap();
        for number in 0..1_000_u32 {
            tx.insert((number * 3).to_le_bytes(), "new").unwrap();
        }
        let after: Map = tx.iter().unwrap().collect();
        let second = tx.iter().unwrap();
        tx.commit().unwrap();
        let later = db.snapshot().unwrap();
        db.insert("more", "x").unwrap();
        db.remove(0_u32.to_le_bytes()).unwrap();
        for _ in 0..2 {
            let whole = |snapshot: &emdb::Snapshot| {
                let all: Map = snapshot.iter().unwrap().collect();
                if ordered {
                    assert!(snapshot.range(..).unwrap().into_iter().eq(all.clone()));
                }
                all
            };
            assert_eq!(whole(&snapshot), before);
            assert_eq!(snapshot.len().unwrap(), 2_000);
            let keys = [7_u32, 8, 9, 2_997].map(u32::to_le_bytes);
            let old: Vec<_> = keys
                .iter()
                .map(|key| before.get(&key[..]).cloned())
                .collect();
            assert_eq!(snapshot.get_many(keys).unwrap(), old);
            assert_eq!(whole(&later), after);
            db.clear().unwrap();
        }
        assert_eq!(iterator.collect::<Map>(), before);
        assert_eq!(first.collect::<Map>(), staged);
        assert_eq!(second.collect::<Map>(), after);
        db.verify().unwrap();
    }
}

#[test]
fn an_iterator_over_what_was_stored_after_a_clear_ends_when_that_is_taken_back() {
    let db = in_memory(true);
    db.insert("a", "1").unwrap();
    let tx = db.begin().unwrap();
    let before = tx.try_iter().unwrap();
    let savepoint = tx.savepoint().unwrap();
    tx.clear().unwrap();
    tx.insert("b", "1").unwrap();
    let (mut any, mut ordered) = (tx.try_iter().unwrap(), tx.range_iter(..).unwrap());
    tx.rollback_to(savepoint).unwrap();
    let ended = any.next();
    assert!(
        matches!(ended, Some(Err(Error::TransactionAborted(_)))),
        "{ended:?}"
    );
    assert_eq!(ordered.next(), None);
    assert!(matches!(
        ordered.error(),
        Some(Error::TransactionAborted(_))
    ));
    assert_eq!(before.count(), 1);
    tx.commit().unwrap();
    db.verify().unwrap();
}

#[test]
fn memory_of_what_transactions_cleared_is_given_back() {
    let db = in_memory(true);
    let refill = |clears: bool| {
        db.transaction(|tx| {
            if clears {
                tx.clear()?;
            }
            tx.insert_many((0..20_000_u32).map(|number| (number.to_le_bytes(), "x")))
        })
        .unwrap();
    };
    refill(false);
    let full = db.stats().unwrap().index_bytes;
    for _ in 0..5 {
        refill(true);
    }
    // Old and new contents are there at the same time for a moment.
    let later = db.stats().unwrap().index_bytes;
    assert!(later <= full * 5 / 2, "{later} {full}");
    assert_eq!(db.len().unwrap(), 20_000);
    db.verify().unwrap();
}

#[test]
fn clears_of_transactions_survive_kills_and_closing() {
    for encrypted in [false, true] {
        for ordered in [false, true] {
            let _guard = crate::support::encrypt(encrypted);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("db");
            let open = || {
                let builder = crate::support::builder().enable_range_scans(ordered);
                builder.path(&path).build().unwrap()
            };
            let db = open();
            let stored = |tx: &Transaction<'_>, upto: u32, value: &str| {
                let space = tx.namespace("space").unwrap();
                for number in 0..upto {
                    tx.insert(number.to_le_bytes(), value).unwrap();
                    space.insert(number.to_le_bytes(), value).unwrap();
                }
            };
            let mut upto = 0;
            for round in 0..6_u32 {
                let db = if round == 0 {
                    db.clone_handle()
                } else {
                    open()
                };
                for (name, records) in [("", upto), ("space", upto)] {
                    if round > 0 {
                        assert_eq!(committed(&db, name).len() as u32, records);
                    }
                }
                db.verify().unwrap();
                let value = round.to_string();
                let tx = db.begin().unwrap();
                stored(&tx, 50, "never");
                tx.clear().unwrap();
                tx.namespace("space").unwrap().clear().unwrap();
                upto = 300 + 900 * (round % 2);
                stored(&tx, upto, &value);
                tx.commit().unwrap();
                for name in ["", "space"] {
                    let now = committed(&db, name);
                    assert_eq!(now.len() as u32, upto);
                    assert!(now.values().all(|found| found == value.as_bytes()));
                }
                if round % 3 == 1 {
                    db.checkpoint().unwrap();
                }
                db.close().unwrap();
            }
        }
    }
}

#[test]
fn a_checkpoint_taken_while_transactions_clear_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let open = || {
        let builder = Emdb::builder().enable_range_scans(true);
        builder.path(&path).build().unwrap()
    };
    let db = open();
    let done = AtomicBool::new(false);
    let clear = |round: u32| {
        let tx = db.begin().unwrap();
        tx.clear().unwrap();
        // Sometimes many, sometimes few: indexes of different shapes.
        let records = [3_000, 500, 1, 1_500][round as usize % 4];
        tx.insert_many((0..records).map(|number: u32| (number.to_le_bytes(), round.to_le_bytes())))
            .unwrap();
        tx.commit().unwrap();
    };
    clear(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..60 {
                clear(round);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            db.checkpoint().unwrap();
        }
    });
    let last = committed(&db, "");
    db.verify().unwrap();
    // As it would be found after a kill: with the last checkpoint that was taken.
    let copy = directory.path().join("copy");
    for suffix in ["", ".meta"] {
        let file = |path: &std::path::Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            name
        };
        std::fs::copy(file(&path), file(&copy)).unwrap();
    }
    let copied = Emdb::builder()
        .enable_range_scans(true)
        .path(&copy)
        .build()
        .unwrap();
    assert_eq!(committed(&copied, ""), last);
    copied.verify().unwrap();
    drop((copied, db));
    assert_eq!(committed(&open(), ""), last);
}

#[test]
fn a_clear_needs_none_of_the_records_that_it_removes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let value = |number: u32| format!("value number {number:06}");
    db.insert_many((0..20_000_u32).map(|number| (number.to_le_bytes(), value(number))))
        .unwrap();
    db.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let damaged = value(10_000).into_bytes();
    let at = bytes
        .windows(damaged.len())
        .position(|part| part == damaged);
    bytes[at.unwrap()] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let db = Emdb::open(&path).unwrap();
    let key = 10_000_u32.to_le_bytes();
    assert!(matches!(db.get(key), Err(Error::Corrupted { .. })));
    let tx = db.begin().unwrap();
    tx.clear().unwrap();
    assert_eq!(tx.get(key).unwrap(), None);
    tx.insert(key, "again").unwrap();
    assert_eq!(tx.len().unwrap(), 1);
    tx.commit().unwrap();
    assert_eq!(db.get(key).unwrap().unwrap(), b"again");
    assert_eq!(db.iter().unwrap().count(), 1);
}

/// Records in each of two namespaces that all have the number of their round.
const KEYS: u32 = 700;

fn round_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

#[test]
fn readers_see_all_of_a_clear_and_what_follows_or_nothing() {
    for ordered in [false, true] {
        let db = in_memory(ordered);
        let space = db.namespace("space").unwrap();
        let write = |round: u64| {
            let tx = db.begin().unwrap();
            let inner = tx.namespace("space").unwrap();
            if round.is_multiple_of(3) {
                // Nobody ever sees this.
                let never = u64::MAX.to_le_bytes();
                for key in 0..KEYS / 2 {
                    tx.insert(key.to_le_bytes(), never).unwrap();
                    inner.insert((key + KEYS).to_le_bytes(), never).unwrap();
                }
            }
            tx.clear().unwrap();
            inner.clear().unwrap();
            for key in 0..KEYS {
                tx.insert(key.to_le_bytes(), round.to_le_bytes()).unwrap();
                inner
                    .insert(key.to_le_bytes(), round.to_le_bytes())
                    .unwrap();
            }
            tx.commit().unwrap();
        };
        write(1);
        let written = AtomicU64::new(1);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for reader in 0..3_u32 {
                let (db, space, done, written) = (&db, &space, &done, &written);
                scope.spawn(move || {
                    let mut last = 0;
                    let mut turn = reader;
                    while !done.load(Ordering::Acquire) {
                        turn = turn.wrapping_add(1);
                        let key = (turn.wrapping_mul(7919) % KEYS).to_le_bytes();
                        let acknowledged = written.load(Ordering::Acquire);
                        let mut see = |round: u64| {
                            assert!(round >= last, "{round} after {last}");
                            assert!(round >= acknowledged);
                            assert_ne!(round, u64::MAX);
                            last = round;
                        };
                        see(round_of(&db.get(key).unwrap().expect("it is always there")));
                        see(round_of(
                            &space.get(key).unwrap().expect("it is always there"),
                        ));
                        assert!(space.get((KEYS + 1).to_le_bytes()).unwrap().is_none());
                        match turn % 8 {
                            0 => {
                                let keys = (0..KEYS).map(u32::to_le_bytes);
                                let values = space.get_many(keys).unwrap();
                                let first = values[0].clone().expect("all or none");
                                assert!(values.iter().all(|value| value.as_ref() == Some(&first)));
                                see(round_of(&first));
                            }
                            1 => {
                                let all: Vec<_> = db.iter().unwrap().collect();
                                assert_eq!(all.len() as u32, KEYS);
                                assert!(all.iter().all(|(_, value)| *value == all[0].1));
                                see(round_of(&all[0].1));
                            }
                            2 => {
                                let snapshot = db.snapshot().unwrap();
                                let inner = snapshot.namespace("space").unwrap().unwrap();
                                let first = snapshot.get(key).unwrap();
                                assert_eq!(inner.get(key).unwrap(), first);
                                see(round_of(&first.unwrap()));
                            }
                            3 => {
                                assert_eq!(db.len().unwrap() as u32, KEYS);
                                assert_eq!(space.len().unwrap() as u32, KEYS);
                            }
                            4 if ordered => {
                                let all = space.range(..).unwrap();
                                assert_eq!(all.len() as u32, KEYS);
                                assert!(all.iter().all(|(_, value)| *value == all[0].1));
                                see(round_of(&all[0].1));
                            }
                            _ => assert!(db.contains_key(key).unwrap()),
                        }
                    }
                });
            }
            for round in 2..150 {
                write(round);
                written.store(round, Ordering::Release);
            }
            done.store(true, Ordering::Release);
        });
        db.verify().unwrap();
    }
}

#[test]
fn whoever_sees_a_clear_sees_it_in_snapshots_too() {
    let db = Emdb::open_in_memory();
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..3_000_u64 {
                db.insert("key", round.to_le_bytes()).unwrap();
                written.store(round, Ordering::Release);
                match round % 2 {
                    0 => db.clear().unwrap(),
                    _ => db.transaction(|tx| tx.clear()).unwrap(),
                }
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let acknowledged = written.load(Ordering::Acquire);
            if db.get("key").unwrap().is_none() {
                let snapshot = db.snapshot().unwrap();
                if let Some(value) = snapshot.get("key").unwrap() {
                    assert!(round_of(&value) > acknowledged, "it was cleared before");
                }
            }
        }
    });
    assert!(db.is_empty().unwrap());
}

#[test]
fn what_clears_and_drops_leave_dead_is_the_same_after_a_replay() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = Emdb::builder()
        .build_on(Box::new(Arc::clone(&disk)))
        .unwrap();
    let fill = |space: &Namespace| space.insert_many((0..50_u8).map(|key| ([key], [7; 30])));
    let spaces = ["cleared", "dropped", "in transaction"].map(|name| db.namespace(name).unwrap());
    for space in &spaces {
        fill(space).unwrap();
    }
    db.insert_many((0..50_u8).map(|key| ([key], [7; 30])))
        .unwrap();
    spaces[0].clear().unwrap();
    db.drop_namespace("dropped").unwrap();
    db.transaction(|tx| {
        let space = tx.namespace("in transaction")?;
        space.insert("staged", "value")?;
        space.remove([3])?;
        let savepoint = tx.savepoint()?;
        space.clear()?;
        tx.rollback_to(savepoint)?;
        tx.clear()?;
        tx.insert("staged", "value")?;
        tx.clear()?;
        let space = tx.namespace("new")?;
        space.insert("staged", "value")?;
        space.clear()?;
        space.insert("kept", "value")
    })
    .unwrap();
    fill(&spaces[0]).unwrap();
    let before = db.stats().unwrap();
    let replayed = disk.after_kill().with_sidecar(None);
    let replayed = Emdb::builder().build_on(Box::new(replayed)).unwrap();
    let after = replayed.stats().unwrap();
    assert!(before.dead_bytes > 100 * 31);
    assert_eq!(after.dead_bytes, before.dead_bytes);
    assert_eq!(after.live_records, before.live_records);
    assert_eq!(after.logical_size_bytes, before.logical_size_bytes);
}
