//! Snapshots: one moment, whatever comes after it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::thread;

use emdb::{Emdb, Snapshot, SnapshotNamespace};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn all(snapshot: &Snapshot) -> Map {
    snapshot.iter().unwrap().collect()
}

#[test]
fn a_snapshot_does_not_move() {
    let db = Emdb::open_in_memory();
    let users = db.namespace("users").unwrap();
    for number in 0..100_u8 {
        db.insert([number], [number]).unwrap();
        users.insert([number], [number]).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    let then = all(&snapshot);
    let empty = Emdb::open_in_memory().snapshot().unwrap();
    assert!(empty.is_empty().unwrap());
    for round in 0..4_u8 {
        for number in 0..100_u8 {
            match number % 4 {
                0 => drop(db.remove([number]).unwrap()),
                1 => db.insert([number], [round; 100]).unwrap(),
                2 => db.insert([number, round], "new").unwrap(),
                _ => {}
            }
        }
        match round {
            0 => db.transaction(|tx| tx.clear()).unwrap(),
            1 => {
                db.clear().unwrap();
                users.clear().unwrap();
                users.insert("after", "x").unwrap();
            }
            2 => assert!(db.drop_namespace("users").unwrap()),
            _ => drop(db.namespace("users").unwrap().insert("again", "x")),
        }
        assert_eq!(all(&snapshot), then);
        assert_eq!(snapshot.len().unwrap(), 100);
        assert!(!snapshot.is_empty().unwrap());
        assert_eq!(snapshot.get([4]).unwrap().unwrap(), [4]);
        assert_eq!(snapshot.get_zerocopy([5]).unwrap().unwrap(), [5][..]);
        assert_eq!(snapshot.get_with([6], <[u8]>::len).unwrap(), Some(1));
        assert!(snapshot.contains_key([7]).unwrap());
        assert!(!snapshot.contains_key([2, round]).unwrap());
        let many = snapshot.get_many([[8], [200]]).unwrap();
        assert_eq!(many, [Some(vec![8]), None]);
        assert_eq!(snapshot.keys().unwrap().count(), 100);
        assert_eq!(snapshot.list_namespaces().unwrap(), ["users"]);
        let users = snapshot.namespace("users").unwrap().unwrap();
        assert_eq!(users.name(), "users");
        assert_eq!(users.iter().unwrap().collect::<Map>(), then);
        assert_eq!(users.get([9]).unwrap().unwrap(), [9]);
        assert_eq!(users.get("after").unwrap(), None);
        assert_eq!(users.len().unwrap(), 100);
        assert!(snapshot.namespace("nothing").unwrap().is_none());
        assert!(snapshot.namespace("").unwrap().is_none());
        let mut visited = 0;
        snapshot
            .for_each(|key, value| {
                assert_eq!(key, value);
                visited += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(visited, 100);
        let now = db.snapshot().unwrap();
        assert_eq!(all(&now), db.iter().unwrap().collect::<Map>());
        assert_eq!(now.len().unwrap(), db.len().unwrap());
    }
    db.verify().unwrap();
}

#[test]
fn snapshots_are_counted_and_let_go_of() {
    let db = Emdb::open_in_memory();
    let open = |expected| assert_eq!(db.stats().unwrap().snapshots_open, expected);
    open(0);
    let snapshots: Vec<_> = (0..100).map(|_| db.snapshot().unwrap()).collect();
    open(100);
    db.namespace("a").unwrap();
    let snapshot = db.snapshot().unwrap();
    let space = snapshot.namespace("a").unwrap().unwrap();
    let iterator = snapshot.iter().unwrap();
    open(103);
    drop(snapshot);
    assert!(space.is_empty().unwrap());
    drop((iterator, space, snapshots));
    open(0);
}

#[test]
fn memory_of_what_was_cleared_is_given_back_with_the_last_snapshot() {
    let db = Emdb::open_in_memory();
    let fill = |db: &Emdb| {
        db.insert_many((0..20_000_u32).map(|n| (n.to_le_bytes(), "x")))
            .unwrap();
    };
    fill(&db);
    let full = db.stats().unwrap().index_bytes;
    let (first, second) = (db.snapshot().unwrap(), db.snapshot().unwrap());
    for _ in 0..5 {
        db.clear().unwrap();
        fill(&db);
    }
    drop(first);
    assert_eq!(second.len().unwrap(), 20_000);
    let pinned = db.stats().unwrap().index_bytes;
    assert!(pinned > full, "{pinned} {full}");
    drop(second);
    for _ in 0..5 {
        db.clear().unwrap();
        fill(&db);
    }
    assert!(db.stats().unwrap().index_bytes <= pinned);
}

#[test]
fn entries_of_removed_keys_go_with_the_last_snapshot_that_needs_them() {
    let db = Emdb::open_in_memory();
    let key = |number: u32| number.to_le_bytes();
    db.insert_many((0..50_000).map(|number| (key(number), "x")))
        .unwrap();
    let full = db.stats().unwrap().index_bytes;
    let snapshot = db.snapshot().unwrap();
    for number in 0..25_000 {
        db.remove(key(number)).unwrap();
    }
    db.transaction(|tx| {
        for number in 25_000..49_000 {
            tx.remove(key(number))?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(db.len().unwrap(), 1000);
    assert_eq!(snapshot.len().unwrap(), 50_000);
    assert_eq!(snapshot.get(key(30_000)).unwrap().unwrap(), b"x");
    drop(snapshot);
    for number in 0..20_000_u32 {
        db.insert("some further writes", key(number)).unwrap();
    }
    db.insert_many((50_000..98_000).map(|number| (key(number), "x")))
        .unwrap();
    assert!(db.stats().unwrap().index_bytes <= full + full / 4);
    db.verify().unwrap();
}

#[test]
fn a_key_that_was_overwritten_very_often_is_found_in_few_steps() {
    let db = Emdb::open_in_memory();
    db.insert("key", "first").unwrap();
    let snapshot = db.snapshot().unwrap();
    for number in 0..100_000_u32 {
        db.insert("key", number.to_le_bytes()).unwrap();
    }
    for _ in 0..100_000 {
        assert_eq!(snapshot.get("key").unwrap().unwrap(), b"first");
    }
}

#[test]
fn snapshots_read_on_after_close() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    db.namespace("a").unwrap().insert("x", "y").unwrap();
    let snapshot = db.snapshot().unwrap();
    db.insert("key", "other").unwrap();
    db.clone_handle().close().unwrap();
    assert!(matches!(db.snapshot().map(drop), Err(emdb::Error::Closed)));
    let again = Emdb::open(&path).unwrap();
    again.clear().unwrap();
    assert_eq!(snapshot.get("key").unwrap().unwrap(), b"value");
    assert_eq!(snapshot.len().unwrap(), 1);
    let space = snapshot.namespace("a").unwrap().unwrap();
    assert_eq!(space.get("x").unwrap().unwrap(), b"y");
}

#[test]
fn threads_share_a_snapshot() {
    fn shared<T: Send + Sync>() {}
    shared::<Snapshot>();
    shared::<SnapshotNamespace>();
    let db = Emdb::open_in_memory();
    for number in 0..1000_u32 {
        db.insert(number.to_le_bytes(), [1; 8]).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for number in 0..1000_u32 {
                    let value = snapshot.get(number.to_le_bytes()).unwrap();
                    assert_eq!(value.unwrap(), [1; 8]);
                }
                assert_eq!(snapshot.len().unwrap(), 1000);
            });
        }
        for number in 0..1000_u32 {
            match number % 3 {
                0 => drop(db.remove(number.to_le_bytes()).unwrap()),
                1 => db.insert(number.to_le_bytes(), "x").unwrap(),
                _ if number % 100 == 2 => db.clear().unwrap(),
                _ => {}
            }
        }
    });
}
