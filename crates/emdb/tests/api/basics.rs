//! Single keys, reopening, namespaces, iterators.

use std::collections::BTreeMap;

use emdb::{Emdb, Error};

fn contents(db: &Emdb) -> BTreeMap<Vec<u8>, Vec<u8>> {
    db.try_iter().unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut model = BTreeMap::new();
    for round in 0..4_u32 {
        let db = Emdb::open(&path).unwrap();
        assert_eq!(contents(&db), model);
        assert_eq!(db.len().unwrap(), model.len());
        for number in 0..3000_u32 {
            let key = (number * 7 % 5000 + round * 100).to_string().into_bytes();
            if number % 5 == 0 {
                assert_eq!(db.remove(&key).unwrap(), model.remove(&key));
            } else {
                let value = vec![round as u8; (number % 300) as usize];
                db.insert(&key, &value).unwrap();
                model.insert(key, value);
            }
        }
        for (key, value) in &model {
            assert_eq!(db.get(key).unwrap().as_ref(), Some(value));
        }
        db.verify().unwrap();
        if round % 2 == 0 {
            db.checkpoint().unwrap();
            db.close().unwrap();
        }
    }
    let db = Emdb::open(&path).unwrap();
    assert_eq!(contents(&db), model);
    db.verify().unwrap();
}

#[test]
fn an_iterator_is_a_snapshot_of_its_beginning() {
    let db = Emdb::open_in_memory();
    let mut model = BTreeMap::new();
    for number in 0..2000_u32 {
        db.insert(number.to_le_bytes(), [1]).unwrap();
        model.insert(number.to_le_bytes().to_vec(), vec![1]);
    }
    let (before_changes, before_clear) = (db.iter().unwrap(), db.iter().unwrap());
    for number in 0..1000_u32 {
        db.remove(number.to_le_bytes()).unwrap();
        db.insert((number + 1000).to_le_bytes(), [2]).unwrap();
        db.insert((number + 5000).to_le_bytes(), [3]).unwrap();
    }
    assert_eq!(before_changes.collect::<BTreeMap<_, _>>(), model);
    db.clear().unwrap();
    assert_eq!(before_clear.collect::<BTreeMap<_, _>>(), model);
    assert!(db.is_empty().unwrap());
    assert_eq!(db.iter().unwrap().count(), 0);
    // Whatever was kept for the iterators goes with later writes.
    for number in 0..2000_u32 {
        db.insert(number.to_le_bytes(), [4]).unwrap();
    }
    assert_eq!(db.len().unwrap(), 2000);
    db.verify().unwrap();
}

#[test]
fn insert_many_is_all_or_nothing() {
    let db = Emdb::open_in_memory();
    db.insert("kept", "old").unwrap();
    let long = vec![0; 70_000];
    let records = (0..100_000_u32).map(|number| {
        let key = if number == 99_999 {
            long.clone()
        } else {
            number.to_le_bytes().to_vec()
        };
        (key, vec![7; 50])
    });
    let records = std::iter::once((b"kept".to_vec(), b"new".to_vec())).chain(records);
    assert!(matches!(
        db.insert_many(records),
        Err(Error::TooLarge { what: "key", .. })
    ));
    assert_eq!(db.len().unwrap(), 1);
    assert_eq!(db.get("kept").unwrap().unwrap(), b"old");
    db.verify().unwrap();

    db.insert_many((0..100_000_u32).map(|n| ((n % 60_000).to_le_bytes(), n.to_le_bytes())))
        .unwrap();
    assert_eq!(db.len().unwrap(), 60_001);
    assert_eq!(
        db.get(5_u32.to_le_bytes()).unwrap().unwrap(),
        60_005_u32.to_le_bytes()
    );
    db.verify().unwrap();
}

#[test]
fn namespaces_are_independent_and_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let (a, b) = (db.namespace("a").unwrap(), db.namespace("b").unwrap());
    a.insert("key", "in a").unwrap();
    b.insert("key", "in b").unwrap();
    db.insert("key", "in the default one").unwrap();
    b.clear().unwrap();
    b.insert("other", "in b").unwrap();
    let dropped = db.namespace("dropped").unwrap();
    dropped.insert("key", "gone").unwrap();
    assert!(db.drop_namespace("dropped").unwrap());
    assert!(!db.drop_namespace("dropped").unwrap());
    assert!(matches!(dropped.get("key"), Err(Error::NamespaceDropped)));
    assert!(matches!(
        dropped.insert("key", ""),
        Err(Error::NamespaceDropped)
    ));
    assert!(db.namespace("dropped").unwrap().is_empty().unwrap());
    drop((a, b, dropped, db));

    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.list_namespaces().unwrap(), ["a", "b", "dropped"]);
    let (a, b) = (
        db.namespace("a").unwrap(),
        db.open_namespace("b").unwrap().unwrap(),
    );
    assert_eq!(a.get("key").unwrap().unwrap(), b"in a");
    assert_eq!(b.get("key").unwrap(), None);
    assert_eq!(b.get("other").unwrap().unwrap(), b"in b");
    assert_eq!(db.get("key").unwrap().unwrap(), b"in the default one");
    assert!(db.namespace("dropped").unwrap().is_empty().unwrap());
    assert!(db.open_namespace("never").unwrap().is_none());
}

#[test]
fn writing_inside_the_iterator_of_insert_many_is_an_error_not_a_deadlock() {
    let db = Emdb::open_in_memory();
    let mut inner = None;
    let records = (0..3_u8).map(|number| {
        if number == 2 {
            inner = Some(db.insert("x", "y"));
        }
        ([number], vec![0; 600_000])
    });
    db.insert_many(records).unwrap();
    assert!(matches!(inner, Some(Err(Error::WriteInProgress("insert")))));
}
