//! Paths at which no database can be.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use emdb::{Emdb, Error};

use crate::{alone, directory};

fn kind(opened: Result<Emdb, Error>) -> ErrorKind {
    match opened {
        Err(Error::Io(error)) => {
            assert!(error.to_string().contains('/'), "names no path: {error}");
            error.kind()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_path_that_cannot_be_a_database_is_an_error_and_nothing_is_left() {
    let _alone = alone();
    let (directory, path) = directory();
    let missing = directory.path().join("missing").join("db");
    assert_eq!(kind(Emdb::open(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(Emdb::open(directory.path())), ErrorKind::IsADirectory);
    assert_eq!(kind(Emdb::open_read_only(&path)), ErrorKind::NotFound);
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(&missing, &dangling).unwrap();
    assert_eq!(kind(Emdb::open(&dangling)), ErrorKind::NotFound);
    fs::remove_file(&dangling).unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(kind(Emdb::open(file.join("db"))), ErrorKind::NotADirectory);
    fs::remove_file(&file).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(Emdb::lock_holder(&path).unwrap().is_none());
}

#[test]
fn in_a_read_only_directory_a_database_can_be_read_but_not_made() {
    let _alone = alone();
    let (directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    db.close().unwrap();
    let writable = fs::metadata(directory.path()).unwrap().permissions();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // Whoever may do anything is not stopped by permissions.
    let stopped = fs::write(directory.path().join("probe"), "").is_err();
    if stopped {
        let new = directory.path().join("new");
        assert_eq!(kind(Emdb::open(new)), ErrorKind::PermissionDenied);
        assert_eq!(kind(Emdb::open(&path)), ErrorKind::PermissionDenied);
    }
    let db = Emdb::open_read_only(&path).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    drop(db);
    fs::set_permissions(directory.path(), writable).unwrap();
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 1);
}

#[test]
fn only_the_owner_may_read_the_files() {
    let _alone = alone();
    let (directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    db.checkpoint().unwrap();
    let files = fs::read_dir(directory.path()).unwrap();
    let mut count = 0;
    for file in files {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
        count += 1;
    }
    assert_eq!(count, 3);
}
