//! The same while databases are encrypted, decrypted and given other keys: killed at every
//! change of a file, failing at every one, done again, and going on from there side by side.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::rc::Rc;

use emdb::{Emdb, EncryptionInput, Error};
use emdb_crypto::audit;
use tempfile::TempDir;

use crate::file_calls::watch;

fn key(byte: u8) -> EncryptionInput {
    EncryptionInput::RawKey([byte; 32])
}

fn apply(operation: &str, path: &Path) -> Result<(), Error> {
    match operation {
        "enable" => Emdb::enable_encryption(path, key(1)),
        "rotate" => Emdb::rotate_encryption_key(path, key(1), key(2)),
        "rotate to the same" => Emdb::rotate_encryption_key(path, key(1), key(1)),
        "change" => Emdb::change_passphrase(path, key(1), key(2)),
        _ => Emdb::disable_encryption(path, key(1)),
    }
}

/// Opens a database with whatever opens it, and writes in every way.
fn go_on(path: &Path) {
    let builder = || Emdb::builder().path(path);
    let keyed = |byte| builder().encryption_key([byte; 32]).build();
    let opened = builder().build().or_else(|_| keyed(1));
    let db = opened.or_else(|_| keyed(2)).unwrap();
    db.insert("key", "value").unwrap();
    db.flush().unwrap();
    db.insert_many([("many", "value"), ("more", "value")])
        .unwrap();
    db.remove("many").unwrap();
    db.namespace("space").unwrap().insert("in", "it").unwrap();
    db.checkpoint().unwrap();
    db.insert("large", vec![1; 17_000]).unwrap();
    db.close().unwrap();
}

/// The files as they are, in a folder of their own: what another process finds if this one is
/// killed now.
fn copy(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn database(operation: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    if operation != "enable" {
        let builder = Emdb::builder().path(&path).encryption_key([1; 32]);
        builder.build().unwrap().close().unwrap();
    }
    go_on(&path);
    folder
}

const OPERATIONS: [&str; 5] = [
    "enable",
    "rotate",
    "rotate to the same",
    "change",
    "disable",
];

#[test]
fn no_nonce_is_used_twice_wherever_changing_keys_is_killed() {
    let before = audit::pairs();
    for operation in OPERATIONS {
        let database = database(operation);
        let path = database.path().join("db");
        let killed = Rc::new(RefCell::new(Vec::new()));
        let (folder, copies) = (database.path().to_owned(), Rc::clone(&killed));
        let see = move |_| {
            copies.borrow_mut().push(copy(&folder));
            None
        };
        watch(see, || apply(operation, &path)).unwrap();
        go_on(&path);
        let killed = killed.take();
        assert!(killed.len() > 4, "{operation}: {}", killed.len());
        for killed in killed {
            let path = killed.path().join("db");
            // The files once more, for a process that does it again before it writes.
            let again = copy(killed.path());
            go_on(&path);
            // Fails if it was done.
            let _ = apply(operation, &path);
            go_on(&path);
            let path = again.path().join("db");
            let _ = apply(operation, &path);
            go_on(&path);
        }
        assert_eq!(audit::repeated(), [], "{operation}");
    }
    assert!(audit::pairs() > before + 2000, "{}", audit::pairs());
}

#[test]
fn no_nonce_is_used_twice_wherever_changing_keys_fails() {
    for operation in OPERATIONS {
        let database = database(operation);
        for call in 0.. {
            let database = copy(database.path());
            let path = database.path().join("db");
            let left = Rc::new(Cell::new(call));
            let counted = Rc::clone(&left);
            let fail = move |_| {
                let now = counted.replace(counted.get() - 1);
                (now == 0).then_some(libc::EIO)
            };
            let failed = watch(fail, || apply(operation, &path)).is_err();
            let _ = failed && apply(operation, &path).is_ok();
            go_on(&path);
            if left.get() >= 0 {
                assert!(call > 4);
                break;
            }
        }
        assert_eq!(audit::repeated(), [], "{operation}");
    }
}
