//! Transactions: what they see, what others see, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use emdb::{Emdb, Error, Savepoint, Transaction};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn all(db: &Emdb) -> Map {
    db.iter().unwrap().collect()
}

fn seen(tx: &Transaction<'_>) -> Map {
    tx.iter().unwrap().collect()
}

fn map<const N: usize>(records: [(&str, &str); N]) -> Map {
    let records = records.into_iter();
    records
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn in_progress<T: std::fmt::Debug>(result: Result<T, Error>, call: &str) {
    match result {
        Err(Error::WriteInProgress(named)) => assert_eq!(named, call),
        other => panic!("{call}: {other:?}"),
    }
}

/// Everything that can be read of a database, and its counts.
fn whole(db: &Emdb) -> (Map, usize, u64, Vec<(String, Map, usize)>) {
    let spaces = db.list_namespaces().unwrap().into_iter().map(|name| {
        let space = db.open_namespace(&name).unwrap().unwrap();
        let records = space.iter().unwrap().collect();
        (name, records, space.len().unwrap())
    });
    let logical_bytes = db.stats().unwrap().logical_size_bytes;
    (all(db), db.len().unwrap(), logical_bytes, spaces.collect())
}

/// A transaction of everything, on a database that has some records.
fn change_all(tx: &Transaction<'_>) {
    tx.insert("new", "1").unwrap();
    tx.insert("a", "2").unwrap();
    assert_eq!(tx.remove("b").unwrap().unwrap(), b"b");
    tx.insert("b", "again").unwrap();
    assert_eq!(tx.remove("c").unwrap().unwrap(), b"c");
    tx.insert("gone", "x").unwrap();
    tx.remove("gone").unwrap();
    tx.insert_many((0..100_u32).map(|n| (n.to_le_bytes(), [1; 100])))
        .unwrap();
    tx.insert("large", vec![7; 50_000]).unwrap();
    let old = tx.namespace("old").unwrap();
    old.insert("x", "changed").unwrap();
    old.clear().unwrap();
    old.insert("y", "y").unwrap();
    let fresh = tx.namespace("fresh").unwrap();
    fresh.insert("z", "z").unwrap();
}

fn filled() -> Emdb {
    let db = Emdb::open_in_memory();
    for key in ["a", "b", "c", "d"] {
        db.insert(key, key).unwrap();
    }
    db.namespace("old").unwrap().insert("x", "x").unwrap();
    db
}

#[test]
fn a_transaction_sees_what_it_did_and_others_do_not() {
    let db = filled();
    let before = whole(&db);
    let snapshot = db.snapshot().unwrap();
    let tx = db.begin().unwrap();
    change_all(&tx);
    assert_eq!(whole(&db), before);
    assert_eq!(tx.len().unwrap(), 106 - 1);
    assert_eq!(seen(&tx).len(), 105);
    assert_eq!(tx.keys().unwrap().count(), 105);
    assert_eq!(tx.get("b").unwrap().unwrap(), b"again");
    assert_eq!(tx.get_zerocopy("a").unwrap().unwrap(), b"2"[..]);
    assert_eq!(tx.get_with("large", <[u8]>::len).unwrap(), Some(50_000));
    assert!(!tx.contains_key("c").unwrap());
    let many = tx.get_many(["a", "c", "d", "gone"]).unwrap();
    assert_eq!(many, [Some(b"2".to_vec()), None, Some(b"d".to_vec()), None]);
    let old = tx.open_namespace("old").unwrap().unwrap();
    assert_eq!(old.name().unwrap(), "old");
    assert_eq!(old.len().unwrap(), 1);
    assert_eq!(old.get("x").unwrap(), None);
    assert_eq!(tx.list_namespaces().unwrap(), ["fresh", "old"]);
    assert!(db.open_namespace("fresh").unwrap().is_none());
    assert!(tx.open_namespace("nothing").unwrap().is_none());
    let mine = seen(&tx);
    tx.commit().unwrap();
    assert_eq!(all(&db), mine);
    assert_eq!(db.len().unwrap(), 105);
    let fresh = db.open_namespace("fresh").unwrap().unwrap();
    assert_eq!(fresh.get("z").unwrap().unwrap(), b"z");
    assert_eq!(db.namespace("old").unwrap().len().unwrap(), 1);
    assert_eq!(snapshot.iter().unwrap().collect::<Map>(), before.0);
    assert_eq!(snapshot.list_namespaces().unwrap(), ["old"]);
    drop(snapshot);
    db.verify().unwrap();
}

#[test]
fn a_rollback_leaves_everything_as_it_was() {
    for how in 0..5 {
        for held in [false, true] {
            let db = filled();
            // A key that has a tombstone in the index while an iterator is open.
            let iterator = held.then(|| db.iter().unwrap());
            db.insert("e", "e").unwrap();
            db.remove("e").unwrap();
            let before = whole(&db);
            let index_bytes = db.stats().unwrap().index_bytes;
            match how {
                0 => {
                    let tx = db.begin().unwrap();
                    change_all(&tx);
                    tx.insert("e", "back").unwrap();
                    drop(tx);
                }
                1 => {
                    let tx = db.begin().unwrap();
                    tx.insert("e", "back").unwrap();
                    change_all(&tx);
                    tx.rollback().unwrap();
                }
                2 => {
                    let tx = db.begin().unwrap();
                    change_all(&tx);
                    tx.abort().unwrap();
                }
                3 => {
                    let failed = db.transaction::<_, ()>(|tx| {
                        change_all(tx);
                        Err(Error::KeyNotFound)
                    });
                    assert!(matches!(failed, Err(Error::KeyNotFound)));
                }
                _ => {
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        db.transaction::<_, ()>(|tx| {
                            change_all(tx);
                            panic!("in the middle")
                        })
                    }));
                    assert!(panicked.is_err());
                }
            }
            assert_eq!(whole(&db), before, "{how}");
            if let Some(iterator) = iterator {
                assert_eq!(iterator.count(), 4);
            }
            assert!(db.stats().unwrap().index_bytes <= index_bytes * 2);
            db.verify().unwrap();
            db.insert("after", "x").unwrap();
            assert!(db.try_begin().unwrap().is_some());
        }
    }
}

#[test]
fn what_was_committed_is_there_after_reopening_and_what_was_not_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    db.insert("a", "a").unwrap();
    drop(db.begin().unwrap());
    db.transaction(|tx| tx.insert("one", "1")).unwrap();
    db.transaction(|tx| tx.remove("a").map(drop)).unwrap();
    db.transaction(|tx| tx.remove("nothing").map(drop)).unwrap();
    db.transaction(|tx| {
        tx.insert("two", "2")?;
        tx.namespace("n")?.insert("three", "3")?;
        tx.namespace("empty").map(drop)
    })
    .unwrap();
    let tx = db.begin().unwrap();
    tx.insert("never", "x").unwrap();
    tx.namespace("never").unwrap().insert("x", "x").unwrap();
    drop(tx);
    let before = whole(&db);
    assert_eq!(before.0, map([("one", "1"), ("two", "2")]));
    db.verify().unwrap();
    db.close().unwrap();
    let db = Emdb::open(&path).unwrap();
    assert_eq!(whole(&db), before);
    assert_eq!(db.list_namespaces().unwrap(), ["empty", "n"]);
    // The id of the namespace that never was must not come to life.
    assert!(db.namespace("again").unwrap().is_empty().unwrap());
    db.verify().unwrap();
}

#[test]
fn a_transaction_of_one_record_is_a_plain_frame() {
    let used = |db: &Emdb| db.stats().unwrap().file_size_bytes;
    let plain = Emdb::open_in_memory();
    plain.insert("a", "a").unwrap();
    plain.insert("key", "value").unwrap();
    plain.remove("key").unwrap();
    let db = Emdb::open_in_memory();
    db.insert("a", "a").unwrap();
    db.transaction(|tx| tx.insert("key", "value")).unwrap();
    db.transaction(|tx| tx.remove("key").map(drop)).unwrap();
    assert_eq!(used(&db), used(&plain));
    // One that did nothing takes no space at all.
    let before = used(&db);
    db.transaction(|tx| tx.get("a").map(drop)).unwrap();
    drop(db.begin().unwrap());
    assert_eq!(used(&db), before);
}

#[test]
fn writes_around_the_transaction_of_the_thread_are_refused() {
    let db = filled();
    let space = db.namespace("old").unwrap();
    db.transaction(|tx| {
        tx.insert("mine", "1")?;
        in_progress(db.insert("a", "x"), "insert");
        in_progress(db.replace("a", "x"), "replace");
        in_progress(db.remove("a"), "remove");
        in_progress(space.insert("x", "y"), "insert");
        in_progress(db.insert_many([("a", "1"), ("b", "2")]), "insert_many");
        in_progress(db.insert_if_absent("z", "x"), "insert_if_absent");
        in_progress(
            db.compare_and_swap("a", Some(b"a"), None),
            "compare_and_swap",
        );
        in_progress(db.clear(), "clear");
        in_progress(db.drop_namespace("old"), "drop_namespace");
        in_progress(db.namespace("fresh").map(drop), "namespace");
        in_progress(db.begin().map(drop), "begin");
        in_progress(db.try_begin().map(drop), "try_begin");
        in_progress(
            db.begin_timeout(Duration::from_secs(9)).map(drop),
            "begin_timeout",
        );
        in_progress(db.transaction(|_| Ok(())), "transaction");
        in_progress(db.checkpoint(), "checkpoint");
        in_progress(db.verify().map(drop), "verify");
        in_progress(db.clone_handle().close(), "close");
        // Reading is allowed, and syncing.
        assert_eq!(db.get("a")?.unwrap(), b"a");
        assert_eq!(db.get("mine")?, None);
        assert_eq!(db.iter()?.count(), 4);
        assert_eq!(db.snapshot()?.len()?, 4);
        assert!(db.namespace("old").is_ok());
        db.stats()?;
        db.flush()
    })
    .unwrap();
    assert_eq!(db.len().unwrap(), 5);
    db.verify().unwrap();
}

#[test]
fn closures_and_iterators_in_a_transaction_may_use_it() {
    let db = filled();
    db.transaction(|tx| {
        let copied = tx.update("a", |old| {
            tx.insert("copy", old.unwrap()).unwrap();
            Some(b"updated".to_vec())
        })?;
        assert_eq!(copied.unwrap(), b"updated");
        tx.insert_many(
            tx.iter()?
                .map(|(key, value)| ([b"x-", &key[..]].concat(), value)),
        )?;
        assert_eq!(tx.len()?, 10);
        for key in tx.keys()? {
            if key.starts_with(b"x-") {
                tx.remove(key)?;
            }
        }
        tx.get_with("b", |value| tx.insert("b", [value, b"!"].concat()))?
            .unwrap()?;
        assert_eq!(tx.get("b")?.unwrap(), b"b!");
        assert!(tx.insert_if_absent("z", "1")?);
        assert!(!tx.insert_if_absent("z", "2")?);
        assert_eq!(tx.replace("z", "3")?.unwrap(), b"1");
        assert_eq!(
            tx.compare_and_swap("z", None, None)?,
            Err(Some(b"3".to_vec()))
        );
        assert_eq!(tx.compare_and_swap("z", Some(b"3"), None)?, Ok(()));
        Ok(())
    })
    .unwrap();
    let expected = [
        ("a", "updated"),
        ("b", "b!"),
        ("c", "c"),
        ("copy", "a"),
        ("d", "d"),
    ];
    assert_eq!(all(&db), map(expected));
    db.verify().unwrap();
}

#[test]
fn iterators_in_a_transaction_stand_still() {
    let db = filled();
    let tx = db.begin().unwrap();
    tx.insert("a", "1").unwrap();
    tx.remove("b").unwrap();
    tx.insert("e", "1").unwrap();
    let then = seen(&tx);
    let (early, late) = (tx.try_iter().unwrap(), tx.try_keys().unwrap());
    tx.insert("a", "2").unwrap();
    tx.insert("b", "2").unwrap();
    tx.remove("c").unwrap();
    tx.clear().unwrap();
    assert_eq!(early.collect::<Result<Map, _>>().unwrap(), then);
    tx.insert("last", "x").unwrap();
    tx.commit().unwrap();
    // It may outlive the transaction.
    let late: BTreeSet<_> = late.map(Result::unwrap).collect();
    assert!(late.iter().eq(then.keys()));
    assert_eq!(all(&db), map([("last", "x")]));
    db.verify().unwrap();
}

#[test]
fn iterators_over_what_was_taken_back_end_with_an_error() {
    let db = filled();
    let tx = db.begin().unwrap();
    let before = tx.iter().unwrap();
    let savepoint = tx.savepoint().unwrap();
    tx.insert("taken back", "x").unwrap();
    let mut walks = [tx.try_iter().unwrap(), tx.try_iter().unwrap()];
    assert!(walks[1].next().unwrap().is_ok());
    tx.rollback_to(savepoint).unwrap();
    for mut walk in walks {
        assert!(matches!(
            walk.next(),
            Some(Err(Error::TransactionAborted(_)))
        ));
        assert!(walk.next().is_none());
    }
    assert_eq!(before.count(), 4);
    tx.insert("kept", "x").unwrap();
    let (mut lost, after) = (tx.keys().unwrap(), db.iter().unwrap());
    assert!(lost.next().is_some());
    drop(tx);
    assert_eq!(lost.by_ref().count(), 0);
    assert!(matches!(lost.error(), Some(Error::TransactionAborted(_))));
    assert_eq!(after.count(), 4);
    db.verify().unwrap();
}

#[test]
fn savepoints_take_back_what_came_after_them() {
    let db = filled();
    let tx = db.begin().unwrap();
    let start = tx.savepoint().unwrap();
    tx.insert("a", "1").unwrap();
    tx.remove("b").unwrap();
    tx.namespace("old").unwrap().insert("x", "1").unwrap();
    let first = tx.savepoint().unwrap();
    let then = (seen(&tx), tx.len().unwrap());
    tx.insert("a", "2").unwrap();
    tx.insert("b", "2").unwrap();
    tx.remove("c").unwrap();
    let fresh = tx.namespace("fresh").unwrap();
    fresh.insert("x", "x").unwrap();
    let second = tx.savepoint().unwrap();
    tx.clear().unwrap();
    tx.rollback_to(second).unwrap();
    assert_eq!(tx.get("b").unwrap().unwrap(), b"2");
    tx.rollback_to(first).unwrap();
    assert_eq!((seen(&tx), tx.len().unwrap()), then);
    assert!(matches!(
        fresh.insert("x", "x"),
        Err(Error::NamespaceDropped)
    ));
    assert!(tx.open_namespace("fresh").unwrap().is_none());
    void(tx.rollback_to(second));
    // Twice, and with something in between.
    tx.insert("c", "other").unwrap();
    tx.namespace("fresh").unwrap().insert("y", "y").unwrap();
    tx.rollback_to(first).unwrap();
    tx.rollback_to(first).unwrap();
    assert_eq!((seen(&tx), tx.len().unwrap()), then);
    tx.commit().unwrap();
    assert_eq!(all(&db), then.0);
    assert_eq!(db.list_namespaces().unwrap(), ["old"]);
    db.verify().unwrap();
    let tx = db.begin().unwrap();
    void(tx.rollback_to(first));
    void(tx.rollback_to(start));
    // Back to the beginning is as good as nothing.
    let start = tx.savepoint().unwrap();
    tx.clear().unwrap();
    tx.rollback_to(start).unwrap();
    tx.commit().unwrap();
    assert_eq!(all(&db), then.0);
    db.verify().unwrap();

    fn void(result: Result<(), Error>) {
        assert!(matches!(result, Err(Error::InvalidConfig(_))), "{result:?}");
    }
    fn _copies(savepoint: Savepoint) -> (Savepoint, Savepoint) {
        (savepoint, savepoint)
    }
}

#[test]
fn an_operation_that_fails_leaves_the_transaction_usable() {
    let db = filled();
    let tx = db.begin().unwrap();
    tx.insert("a", "1").unwrap();
    let long = vec![0; 70_000];
    assert!(matches!(tx.insert(&long, "x"), Err(Error::TooLarge { .. })));
    assert!(matches!(
        tx.replace(&long, "x"),
        Err(Error::TooLarge { .. })
    ));
    let records = (0..50_000_u32).map(|number| (number.to_le_bytes().to_vec(), "x"));
    let records = records.chain([(long.clone(), "x")]);
    assert!(matches!(
        tx.insert_many(records),
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(tx.len().unwrap(), 4);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let records = (0..50_000_u32).map(|number| {
            assert!(number < 49_999);
            (number.to_le_bytes(), "x")
        });
        tx.insert_many(records)
    }));
    assert!(panicked.is_err());
    assert_eq!(tx.len().unwrap(), 4);
    tx.insert("b", "2").unwrap();
    tx.commit().unwrap();
    let expected = [("a", "1"), ("b", "2"), ("c", "c"), ("d", "d")];
    assert_eq!(all(&db), map(expected));
    db.verify().unwrap();
}

#[test]
fn a_transaction_may_move_to_another_thread() {
    let db = filled();
    let tx = db.begin().unwrap();
    tx.insert("here", "1").unwrap();
    thread::scope(|scope| {
        let (done, wait) = mpsc::channel();
        let db = &db;
        scope.spawn(move || {
            tx.insert("there", "2").unwrap();
            in_progress(db.insert("a", "x"), "insert");
            done.send(()).unwrap();
            // The other thread's write waits for this.
            tx.commit().unwrap();
        });
        wait.recv().unwrap();
        db.insert("a", "after").unwrap();
    });
    assert_eq!(db.len().unwrap(), 6);
    assert_eq!(db.get("a").unwrap().unwrap(), b"after");
}

#[test]
fn closing_rolls_back_the_transactions_of_other_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    db.insert("a", "a").unwrap();
    thread::scope(|scope| {
        let (begun, wait) = mpsc::channel();
        let (closed, wait_closed) = mpsc::channel();
        let db = &db;
        let other = scope.spawn(move || {
            let tx = db.begin().unwrap();
            tx.insert("b", "b").unwrap();
            begun.send(()).unwrap();
            wait_closed.recv().unwrap();
            assert!(matches!(tx.insert("c", "c"), Err(Error::Closed)));
            assert!(matches!(tx.get("a"), Err(Error::Closed)));
            assert!(matches!(tx.commit(), Err(Error::Closed)));
            assert!(matches!(db.begin().map(drop), Err(Error::Closed)));
        });
        wait.recv().unwrap();
        db.clone_handle().close().unwrap();
        closed.send(()).unwrap();
        other.join().unwrap();
    });
    let db = Emdb::open(&path).unwrap();
    assert_eq!(all(&db), map([("a", "a")]));
    db.verify().unwrap();
}

#[test]
fn a_leaked_transaction_does_not_keep_the_database_from_closing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let tx = db.begin().unwrap();
    tx.insert("a", "a").unwrap();
    std::mem::forget(tx);
    in_progress(db.insert("b", "b"), "insert");
    drop(db);
    let db = Emdb::open(&path).unwrap();
    assert!(db.is_empty().unwrap());
    db.verify().unwrap();
}

#[test]
fn a_second_transaction_waits_or_gives_up() {
    let db = Emdb::open_in_memory();
    let tx = db.begin().unwrap();
    thread::scope(|scope| {
        let (tried, wait) = mpsc::channel();
        let db = &db;
        scope.spawn(move || {
            assert!(db.try_begin().unwrap().is_none());
            let short = Duration::from_millis(2);
            assert!(db.begin_timeout(short).unwrap().is_none());
            tried.send(()).unwrap();
            let tx = db.begin_timeout(Duration::MAX).unwrap().unwrap();
            assert_eq!(tx.get("first").unwrap().unwrap(), b"x");
            tx.insert("second", "x").unwrap();
            tx.commit().unwrap();
        });
        wait.recv().unwrap();
        tx.insert("first", "x").unwrap();
        tx.commit().unwrap();
    });
    assert_eq!(db.len().unwrap(), 2);
}

#[test]
fn removed_keys_leave_the_index_once_the_transaction_is_committed() {
    let db = Emdb::open_in_memory();
    let key = |number: u32| number.to_le_bytes();
    db.insert_many((0..50_000).map(|number| (key(number), "x")))
        .unwrap();
    let full = db.stats().unwrap().index_bytes;
    db.transaction(|tx| {
        for number in 100..50_000 {
            tx.remove(key(number))?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(db.len().unwrap(), 100);
    assert_eq!(db.iter().unwrap().count(), 100);
    assert_eq!(db.get(key(100)).unwrap(), None);
    db.verify().unwrap();
    // Entries are gone, so the same number fits in again without growing.
    db.insert_many((50_000..99_000).map(|number| (key(number), "x")))
        .unwrap();
    assert!(db.stats().unwrap().index_bytes <= full + full / 4);
    db.verify().unwrap();
}

#[test]
fn read_only_databases_begin_no_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    Emdb::open(&path).unwrap().insert("a", "a").unwrap();
    let db = Emdb::open_read_only(&path).unwrap();
    assert!(matches!(db.begin().map(drop), Err(Error::ReadOnly)));
    assert_eq!(db.snapshot().unwrap().get("a").unwrap().unwrap(), b"a");
}
