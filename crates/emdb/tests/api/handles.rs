//! Closing, placing, configuring, and what a database says about itself.

use std::collections::BTreeMap;

use emdb::{Emdb, Error, FlushPolicy, VerifyReads};

#[test]
fn close_ends_every_handle_while_iterators_and_values_read_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let space = db.namespace("a").unwrap();
    let mut expected = BTreeMap::new();
    for number in 0..3000_u32 {
        let (key, value) = (number.to_string().into_bytes(), vec![1; 40]);
        db.insert(&key, &value).unwrap();
        expected.insert(key, value);
    }
    let other = db.clone_handle();
    let value = db.get_zerocopy("5").unwrap().unwrap();
    let mut iterator = db.iter().unwrap();
    let keys = db.keys().unwrap();
    let first = iterator.next().unwrap();
    db.close().unwrap();

    fn closed<T: std::fmt::Debug>(result: Result<T, Error>) {
        assert!(matches!(result, Err(Error::Closed)), "{result:?}");
    }
    closed(other.insert("a", "b"));
    closed(other.get("5"));
    closed(other.get_zerocopy("5"));
    closed(other.get_with("5", <[u8]>::len));
    closed(other.get_many(["5"]));
    closed(other.remove("5"));
    closed(other.contains_key("5"));
    closed(other.len());
    closed(other.is_empty());
    closed(other.clear());
    closed(other.replace("5", "b"));
    closed(other.insert_many([("a", "b"), ("c", "d")]));
    closed(other.compare_and_swap("5", None, None));
    closed(other.update("5", |_| None));
    closed(other.insert_if_absent("a", "b"));
    closed(other.iter().map(drop));
    closed(other.keys().map(drop));
    closed(other.for_each(|_, _| std::ops::ControlFlow::Continue(())));
    closed(other.flush());
    closed(other.checkpoint());
    closed(other.stats());
    closed(other.verify());
    closed(other.namespace("b").map(drop));
    closed(other.open_namespace("a").map(drop));
    closed(other.drop_namespace("a"));
    closed(other.list_namespaces());
    closed(space.insert("a", "b"));
    closed(space.len());
    closed(other.clone_handle().close());

    // The lock is free although the old handles live.
    let reopened = Emdb::open(&path).unwrap();
    reopened.clear().unwrap();
    reopened.insert("new", vec![2; 200_000]).unwrap();
    assert_eq!(value, vec![1; 40]);
    assert_eq!(keys.count(), expected.len());
    let found: BTreeMap<_, _> = iterator.chain([first]).collect();
    assert_eq!(found, expected);
    drop((other, space));
    assert_eq!(reopened.len().unwrap(), 1);
    drop(reopened);
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 1);
}

#[test]
fn an_iterator_keeps_its_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    let iterator = db.iter().unwrap();
    drop(db);
    assert!(matches!(Emdb::open(&path), Err(Error::AlreadyLocked)));
    assert_eq!(iterator.count(), 1);
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 1);
}

#[test]
fn data_root_app_name_and_database_name_place_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let db = Emdb::builder()
        .data_root(directory.path())
        .app_name("app")
        .database_name("my.db")
        .build()
        .unwrap();
    db.insert("key", "value").unwrap();
    let path = directory.path().join("app").join("my.db");
    assert_eq!(db.path(), path.canonicalize().unwrap());
    drop(db);
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 1);
    let db = Emdb::builder().data_root(directory.path()).build().unwrap();
    assert!(db.path().ends_with("emdb/emdb-default.emdb"));
    for builder in [
        Emdb::builder().data_root(directory.path()).app_name("../x"),
        Emdb::builder()
            .data_root(directory.path())
            .database_name("a/b"),
        Emdb::builder().data_root(directory.path()).path(&path),
        Emdb::builder().read_only(true),
    ] {
        assert!(matches!(builder.build(), Err(Error::InvalidConfig(_))));
    }
    // Reading makes no directories.
    let missing = Emdb::builder()
        .data_root(directory.path())
        .app_name("missing")
        .read_only(true)
        .build();
    assert!(matches!(missing, Err(Error::Io(_))));
    assert!(!directory.path().join("missing").exists());
}

#[test]
fn a_builder_without_a_place_opens_in_memory() {
    for builder in [
        Emdb::builder(),
        Emdb::builder().flush_policy(FlushPolicy::WriteThrough),
        Emdb::builder().flush_policy(FlushPolicy::Group),
        Emdb::builder().verify_reads(VerifyReads::Always),
        Emdb::builder().verify_reads(VerifyReads::Never),
        Emdb::builder().checkpoint_every(1000),
    ] {
        let db = builder.build().unwrap();
        for number in 0..1000_u32 {
            db.insert(number.to_string(), "value").unwrap();
        }
        db.flush().unwrap();
        assert_eq!(db.len().unwrap(), 1000);
        assert!(!db.path().exists());
        db.verify().unwrap();
        db.close().unwrap();
    }
}

#[test]
fn checkpoints_in_the_background_do_not_disturb() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut expected = BTreeMap::new();
    for round in 0..3_u32 {
        let db = Emdb::builder()
            .path(&path)
            .checkpoint_every(20_000)
            .build()
            .unwrap();
        for number in 0..4000_u32 {
            let key = (number % 1500).to_string().into_bytes();
            if number % 7 == round {
                assert_eq!(db.remove(&key).unwrap(), expected.remove(&key));
            } else {
                db.insert(&key, number.to_le_bytes()).unwrap();
                expected.insert(key, number.to_le_bytes().to_vec());
            }
        }
        // Dropping the handle waits for what goes on in the background.
    }
    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.iter().unwrap().collect::<BTreeMap<_, _>>(), expected);
    db.verify().unwrap();
}

#[test]
fn stats_follow_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let empty = db.stats().unwrap();
    assert_eq!(empty.live_records, 0);
    assert_eq!(empty.namespace_count, 0);
    assert_eq!(empty.logical_size_bytes, 0);
    assert!(!empty.encrypted && !empty.range_scans_enabled);
    for number in 0..1000_u32 {
        db.insert(format!("{number:04}"), [0; 96]).unwrap();
    }
    db.namespace("a").unwrap().insert("abc", "de").unwrap();
    let full = db.stats().unwrap();
    assert_eq!(full.live_records, 1001);
    assert_eq!(full.namespace_count, 1);
    assert_eq!(full.logical_size_bytes, 100_005);
    assert!(full.file_size_bytes - empty.file_size_bytes >= full.logical_size_bytes);
    assert!(full.file_size_bytes <= full.logical_size_bytes + 16 * 1001 + (32 << 10));
    let on_disk = std::fs::metadata(&path).unwrap().len();
    assert_eq!(full.file_size_bytes + full.preallocated_bytes, on_disk);
    assert!(full.index_bytes > 0);
    assert!(full.durable_lsn < full.last_lsn);
    assert_eq!(full.torn_bytes_cut, 0);
    db.flush().unwrap();
    assert_eq!(db.stats().unwrap().durable_lsn, full.last_lsn);

    let iterator = db.iter().unwrap();
    assert_eq!(db.stats().unwrap().snapshots_open, 1);
    drop(iterator);
    assert_eq!(db.stats().unwrap().snapshots_open, 0);

    for number in 0..500_u32 {
        db.remove(format!("{number:04}")).unwrap();
    }
    let half = db.stats().unwrap();
    assert_eq!(half.live_records, 501);
    assert_eq!(half.logical_size_bytes, 50_005);
    assert!(half.dead_bytes >= 50_000);
    db.clear().unwrap();
    let cleared = db.stats().unwrap();
    assert_eq!(cleared.live_records, 1);
    assert_eq!(cleared.logical_size_bytes, 5);
    assert!(cleared.dead_bytes >= 100_000);
    assert!(cleared.dead_bytes <= cleared.file_size_bytes);
    db.close().unwrap();
    let db = Emdb::open(&path).unwrap();
    let reopened = db.stats().unwrap();
    assert_eq!(reopened.live_records, 1);
    assert_eq!(reopened.logical_size_bytes, 5);
    assert_eq!(reopened.durable_lsn, reopened.last_lsn);
    assert_eq!(reopened.dead_bytes, cleared.dead_bytes);
}
