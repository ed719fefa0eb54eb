//! Several threads at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use emdb::Emdb;

const THREADS: u32 = 4;

#[test]
fn threads_that_write_the_same_keys_leave_memory_and_journal_agreeing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for number in 0..4000_u32 {
                    let key = (number * (thread + 3) % 97).to_le_bytes();
                    let value = [thread.to_le_bytes(), number.to_le_bytes()].concat();
                    match number % 5 {
                        0 => drop(db.remove(key).unwrap()),
                        1 => db.insert_many([(key, &value), ([255; 4], &value)]).unwrap(),
                        2 => drop(db.insert_if_absent(key, &value).unwrap()),
                        _ => drop(db.replace(key, &value).unwrap()),
                    }
                }
            });
        }
    });
    let memory: BTreeMap<_, _> = db.iter().unwrap().collect();
    assert_eq!(db.len().unwrap(), memory.len());
    db.verify().unwrap();
    db.close().unwrap();
    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.iter().unwrap().collect::<BTreeMap<_, _>>(), memory);
    assert_eq!(db.len().unwrap(), memory.len());
    db.verify().unwrap();
}

#[test]
fn len_is_exact_whatever_threads_do() {
    let db = Emdb::open_in_memory();
    let expected = AtomicI64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, expected) = (&db, &expected);
            scope.spawn(move || {
                for number in 0..5000_u32 {
                    let key = (number * (thread * 2 + 1) % 211).to_le_bytes();
                    let change = match number % 3 {
                        0 => -i64::from(db.remove(key).unwrap().is_some()),
                        1 => i64::from(db.insert_if_absent(key, "x").unwrap()),
                        _ => i64::from(db.replace(key, "y").unwrap().is_none()),
                    };
                    expected.fetch_add(change, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(db.len().unwrap() as i64, expected.into_inner());
    assert_eq!(db.iter().unwrap().count(), db.len().unwrap());
    db.verify().unwrap();
}

#[test]
fn a_counter_changed_by_threads_loses_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let number = &number;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..500 {
                    let mut old = db.get("swapped").unwrap();
                    loop {
                        let new = old.as_deref().map_or(0, number) + 1;
                        let new = new.to_le_bytes();
                        match db
                            .compare_and_swap("swapped", old.as_deref(), Some(&new))
                            .unwrap()
                        {
                            Ok(()) => break,
                            Err(current) => old = current,
                        }
                    }
                    db.update("updated", |old| {
                        Some((old.map_or(0, number) + 1).to_le_bytes().to_vec())
                    })
                    .unwrap();
                }
            });
        }
    });
    drop(db);
    let db = Emdb::open(&path).unwrap();
    for key in ["swapped", "updated"] {
        let value = db.get(key).unwrap().unwrap();
        assert_eq!(number(&value), u64::from(THREADS) * 500, "{key}");
    }
}

#[test]
fn readers_see_all_of_a_batch_or_nothing() {
    let db = Emdb::open_in_memory();
    let keys: Vec<_> = (0..50_u8).map(|number| [number]).collect();
    let write = |round: u32| {
        db.insert_many(keys.iter().map(|key| (key, round.to_le_bytes())))
            .unwrap();
    };
    write(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..400 {
                write(round);
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let values = db.get_many(&keys).unwrap();
                let first = values[0].clone().unwrap();
                assert!(values.iter().all(|value| value.as_ref() == Some(&first)));
                let round = u32::from_le_bytes(first.try_into().unwrap());
                assert!(round >= last);
                last = round;
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let walked: BTreeMap<_, _> = db.iter().unwrap().collect();
                assert_eq!(walked.len(), keys.len());
                let first = &walked[&keys[0][..]];
                assert!(walked.values().all(|value| value == first));
                assert_eq!(db.len().unwrap(), keys.len());
            }
        });
    });
    db.verify().unwrap();
}

#[test]
fn namespaces_come_and_go_under_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for number in 0..150_u32 {
                    let name = ["a", "b"][(number % 2) as usize];
                    let space = db.namespace(name).unwrap();
                    for key in 0..10_u32 {
                        match space.insert(key.to_le_bytes(), thread.to_le_bytes()) {
                            Ok(()) | Err(emdb::Error::NamespaceDropped) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    match space.iter() {
                        Ok(records) => assert!(records.count() <= 10),
                        Err(error) => assert!(matches!(error, emdb::Error::NamespaceDropped)),
                    }
                    if number % 10 == thread {
                        db.drop_namespace(name).unwrap();
                    } else if number % 10 == thread + 5 {
                        match space.clear() {
                            Ok(()) | Err(emdb::Error::NamespaceDropped) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    if number % 50 == 0 {
                        db.checkpoint().unwrap();
                    }
                }
            });
        }
    });
    db.verify().unwrap();
    let state = |db: &Emdb| -> BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>> {
        let names = db.list_namespaces().unwrap().into_iter();
        names
            .map(|name| {
                let space = db.open_namespace(&name).unwrap().unwrap();
                (name, space.iter().unwrap().collect())
            })
            .collect()
    };
    let before = state(&db);
    db.close().unwrap();
    assert_eq!(state(&Emdb::open(&path).unwrap()), before);
}

#[test]
fn a_checkpoint_is_taken_however_fast_namespaces_are_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let db = Emdb::open(directory.path().join("db")).unwrap();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let (db, ends) = (&db, &ends);
        scope.spawn(move || {
            let space = db.namespace("cleared").unwrap();
            while !ends.load(Ordering::Relaxed) {
                space.insert("key", "value").unwrap();
                space.clear().unwrap();
            }
        });
        let taken: Vec<_> = (0..20).map(|_| db.checkpoint()).collect();
        ends.store(true, Ordering::Relaxed);
        taken.into_iter().for_each(Result::unwrap);
    });
}
