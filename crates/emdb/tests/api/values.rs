//! Values: kept alive, large, empty, too long.

use emdb::{Emdb, Error};

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    (directory, path)
}

#[test]
fn a_zero_copy_value_stays_as_it_was_whatever_happens() {
    let (_directory, path) = file();
    let db = Emdb::open(&path).unwrap();
    let expected = vec![7; 5000];
    db.insert("key", &expected).unwrap();
    let value = db.get_zerocopy("key").unwrap().unwrap();
    for number in 0..200_u8 {
        db.insert("key", vec![number; 30_000]).unwrap();
    }
    assert_eq!(value, expected);
    db.remove("key").unwrap();
    db.insert_many([("key", "x"), ("other", "y")]).unwrap();
    db.clear().unwrap();
    db.checkpoint().unwrap();
    assert_eq!(value, expected);
    let copy = value.clone();
    db.close().unwrap();
    assert_eq!(value, expected);
    // Also while another handle writes where the file was trimmed.
    let db = Emdb::open(&path).unwrap();
    for number in 0..100_u8 {
        db.insert("key", vec![number; 30_000]).unwrap();
    }
    drop(value);
    assert_eq!(copy.len(), 5000);
    assert_eq!(copy.as_slice(), expected);
    assert_eq!(copy.into_vec(), expected);
}

#[test]
fn keys_and_values_up_to_the_limits_are_stored() {
    let (_directory, path) = file();
    let longest = vec![b'k'; 64 << 10];
    let large: Vec<_> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let db = Emdb::open(&path).unwrap();
    db.insert("", "").unwrap();
    db.insert("empty", "").unwrap();
    db.insert(&longest, "longest").unwrap();
    db.insert("large", &large).unwrap();
    for _ in 0..2 {
        let db = Emdb::open(&path);
        assert!(matches!(db, Err(Error::AlreadyLocked)));
    }
    let check = |db: &Emdb| {
        assert_eq!(db.len().unwrap(), 4);
        assert_eq!(db.get("").unwrap().unwrap(), b"");
        assert_eq!(db.get("empty").unwrap().unwrap(), b"");
        assert!(db.contains_key("").unwrap());
        assert_eq!(db.get(&longest).unwrap().unwrap(), b"longest");
        assert!(db.get("large").unwrap().unwrap() == large);
        assert_eq!(db.keys().unwrap().count(), 4);
    };
    check(&db);
    db.close().unwrap();
    let db = Emdb::open(&path).unwrap();
    check(&db);
    db.verify().unwrap();
    assert_eq!(db.remove("").unwrap().unwrap(), b"");
    assert_eq!(db.get("").unwrap(), None);
}

#[test]
fn what_is_too_long_is_refused_and_nothing_is_written() {
    let db = Emdb::open_in_memory();
    db.insert("key", "value").unwrap();
    let before = db.stats().unwrap();
    let long = vec![0; (64 << 10) + 1];
    // Zeros that nobody touches take no memory.
    let huge = vec![0; (1 << 30) + 1];
    let too_large = |result: Result<(), Error>, expected: &str| match result {
        Err(Error::TooLarge { what, len, max }) => {
            assert_eq!(what, expected);
            assert_eq!(len, max + 1);
        }
        other => panic!("{other:?}"),
    };
    too_large(db.insert(&long, "value"), "key");
    too_large(db.insert("key", &huge), "value");
    too_large(db.replace("key", &huge).map(drop), "value");
    too_large(db.insert_if_absent("new", &huge).map(drop), "value");
    too_large(db.update("key", |_| Some(huge.clone())).map(drop), "value");
    too_large(
        db.compare_and_swap("key", Some(b"value"), Some(&huge))
            .map(drop),
        "value",
    );
    too_large(
        db.insert_many([(&b"a"[..], &b"b"[..]), (&long, b"")]),
        "key",
    );
    too_large(
        db.insert_many([(&b"a"[..], &b"b"[..]), (b"c", &huge)]),
        "value",
    );
    // A key that is too long to be stored is not there.
    assert_eq!(db.get(&long).unwrap(), None);
    assert_eq!(db.remove(&long).unwrap(), None);
    let after = db.stats().unwrap();
    assert_eq!(after.last_lsn, before.last_lsn);
    assert_eq!(db.len().unwrap(), 1);
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    let name = "n".repeat((64 << 10) + 1);
    assert!(matches!(db.namespace(name), Err(Error::TooLarge { .. })));
    assert!(matches!(db.namespace(""), Err(Error::InvalidConfig(_))));
    assert!(db.list_namespaces().unwrap().is_empty());
}

#[test]
fn get_many_answers_in_the_order_of_the_keys() {
    let db = Emdb::open_in_memory();
    for number in (0..1000_u32).step_by(2) {
        db.insert(number.to_string(), number.to_le_bytes()).unwrap();
    }
    let keys: Vec<_> = (0..1000_u32).rev().chain([4, 4, 4]).collect();
    let found = db.get_many(keys.iter().map(u32::to_string)).unwrap();
    assert_eq!(found.len(), keys.len());
    for (key, found) in keys.iter().zip(found) {
        let expected = (key % 2 == 0).then(|| key.to_le_bytes().to_vec());
        assert_eq!(found, expected, "{key}");
    }
    let mut order = Vec::new();
    let names = ["2", "never", "4"];
    db.get_many_with(&names, |at, value| order.push((at, value.is_some())))
        .unwrap();
    assert_eq!(order, [(0, true), (1, false), (2, true)]);
    assert!(db.get_many(Vec::<String>::new()).unwrap().is_empty());
}
