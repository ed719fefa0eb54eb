//! One writer or many readers, however the file is named.

use std::fs;

use emdb::{Emdb, Error};

use crate::{alone, directory, in_child, spawn_child, wait_for, wait_for_the_end};

fn is_locked(opened: Result<Emdb, Error>) -> bool {
    matches!(opened, Err(Error::AlreadyLocked))
}

#[test]
fn a_second_opening_fails_by_whatever_name() {
    let _alone = alone();
    let (directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    let (symbolic, hard) = (directory.path().join("sym"), directory.path().join("hard"));
    std::os::unix::fs::symlink(&path, &symbolic).unwrap();
    fs::hard_link(&path, &hard).unwrap();
    for name in [&path, &symbolic, &hard] {
        assert!(is_locked(Emdb::open(name)), "{}", name.display());
        assert!(is_locked(Emdb::open_read_only(name)), "{}", name.display());
    }
    fs::remove_file(directory.path().join("db.lock")).unwrap();
    assert!(is_locked(Emdb::open(&path)));
    assert!(matches!(Emdb::break_lock(&path), Err(Error::AlreadyLocked)));
    // A second handle keeps the lock, a failed opening does not take it away.
    let second = db.clone_handle();
    drop(db);
    assert!(is_locked(Emdb::open(&path)));
    drop(second);
    let db = Emdb::open(&symbolic).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    assert!(is_locked(Emdb::open(&path)));
}

#[test]
fn a_second_process_is_told_who_holds_the_lock() {
    if let Some(path) = in_child() {
        let db = Emdb::open(path).unwrap();
        db.insert("key", "value").unwrap();
        println!("\nready");
        wait_for_the_end();
    }
    let _alone = alone();
    let (_directory, path) = directory();
    let mut child = spawn_child("lock::a_second_process_is_told_who_holds_the_lock", &path);
    wait_for(&mut child, "ready");
    assert!(is_locked(Emdb::open(&path)));
    assert!(is_locked(Emdb::open_read_only(&path)));
    let holder = Emdb::lock_holder(&path).unwrap().unwrap();
    assert_eq!(holder.pid, child.id());
    assert!(holder.acquired_at_ms > 0);
    assert!(matches!(Emdb::break_lock(&path), Err(Error::AlreadyLocked)));
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(Emdb::lock_holder(&path).unwrap(), None);
    Emdb::break_lock(&path).unwrap();
    Emdb::break_lock(&path).unwrap();
    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    assert_eq!(
        Emdb::lock_holder(&path).unwrap().unwrap().pid,
        std::process::id()
    );
}

#[test]
fn many_readers_share_a_file_and_write_nothing() {
    let _alone = alone();
    let (directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    db.namespace("a").unwrap().insert("in", "a").unwrap();
    db.close().unwrap();
    let listed = || {
        let mut files: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    let before = listed();
    let readers: Vec<_> = (0..3)
        .map(|_| Emdb::open_read_only(&path).unwrap())
        .collect();
    assert!(is_locked(Emdb::open(&path)));
    for db in &readers {
        assert_eq!(db.get("key").unwrap().unwrap(), b"value");
        assert_eq!(db.iter().unwrap().count(), 1);
        let space = db.open_namespace("a").unwrap().unwrap();
        assert_eq!(space.get("in").unwrap().unwrap(), b"a");
        db.verify().unwrap();
        assert!(matches!(db.insert("a", "b"), Err(Error::ReadOnly)));
        assert!(matches!(db.remove("key"), Err(Error::ReadOnly)));
        assert!(matches!(db.clear(), Err(Error::ReadOnly)));
        assert!(matches!(db.namespace("new"), Err(Error::ReadOnly)));
        assert!(matches!(db.drop_namespace("a"), Err(Error::ReadOnly)));
        assert!(matches!(db.checkpoint(), Err(Error::ReadOnly)));
        assert!(matches!(
            db.insert_many([("a", "1"), ("b", "2")]),
            Err(Error::ReadOnly)
        ));
        assert_eq!(db.len().unwrap(), 1);
    }
    for db in readers {
        db.close().unwrap();
    }
    assert!(listed() == before);
}
