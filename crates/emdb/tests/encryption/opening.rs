//! What opens an encrypted database, and what is said, and left alone, if it does not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use emdb::{Cipher, Emdb, EmdbBuilder, Error};
use emdb_journal::SimulatedMedium;

use crate::{KEY, beside, keyed};

/// A database with a checkpoint, closed.
fn stored(builder: EmdbBuilder) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let db = builder.path(directory.path().join("db")).build().unwrap();
    db.insert("key", "value").unwrap();
    db.checkpoint().unwrap();
    db.insert("another", "value").unwrap();
    db.close().unwrap();
    directory
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Tries to open, writing and read-only; the files stay as they are. Gives the error.
fn refused(directory: &Path, builder: &EmdbBuilder) -> Error {
    let before = files(directory);
    let path = directory.join("db");
    let mut errors = [false, true].map(|read_only| {
        let opened = builder.clone().path(&path).read_only(read_only).build();
        assert!(files(directory) == before, "read-only: {read_only}");
        opened.unwrap_err()
    });
    assert_eq!(errors[0].to_string(), errors[1].to_string());
    std::mem::replace(&mut errors[0], Error::Closed)
}

#[test]
fn a_wrong_key_is_told_and_writes_nothing() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let directory = stored(keyed().cipher(cipher));
        for bit in [0, 77, 255] {
            let mut key = KEY;
            key[bit / 8] ^= 1 << (bit % 8);
            let error = refused(directory.path(), &Emdb::builder().encryption_key(key));
            assert!(matches!(error, Error::EncryptionKeyMismatch), "{error:?}");
        }
    }
}

#[test]
fn a_wrong_passphrase_is_told_and_writes_nothing() {
    let directory = stored(Emdb::builder().encryption_passphrase("correct horse"));
    let path = directory.path().join("db");
    let wrong = Emdb::builder().encryption_passphrase("correct horsf");
    let error = refused(directory.path(), &wrong);
    assert!(matches!(error, Error::EncryptionKeyMismatch), "{error:?}");
    // A key where a passphrase is needed, and the other way round.
    let error = refused(directory.path(), &keyed());
    assert!(matches!(error, Error::EncryptionKeyMismatch), "{error:?}");
    let keyed = stored(keyed());
    let error = refused(keyed.path(), &wrong);
    assert!(matches!(error, Error::EncryptionKeyMismatch), "{error:?}");
    let right = Emdb::builder().encryption_passphrase("correct horse");
    let db = right.path(&path).build().unwrap();
    assert_eq!(db.len().unwrap(), 2);
}

#[test]
fn an_empty_passphrase_makes_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let opened = Emdb::builder()
        .encryption_passphrase("")
        .path(&path)
        .build();
    assert!(
        matches!(opened, Err(Error::EncryptionError(_))),
        "{opened:?}"
    );
    assert!(fs::read(&path).unwrap_or_default().is_empty());
}

#[test]
fn a_key_for_a_plaintext_database_is_told_and_writes_nothing() {
    let directory = stored(Emdb::builder());
    let error = refused(directory.path(), &keyed());
    let Error::EncryptionError(reason) = error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("not encrypted"), "{reason}");
}

#[test]
fn no_key_for_an_encrypted_database_is_told_and_writes_nothing() {
    let directory = stored(keyed());
    let error = refused(directory.path(), &Emdb::builder());
    let Error::EncryptionError(reason) = error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("is encrypted"), "{reason}");
}

#[test]
fn a_torn_tail_is_not_cut_for_who_has_a_wrong_key() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = keyed().build_on(Box::new(Arc::clone(&disk))).unwrap();
    db.insert("key", "value").unwrap();
    let mut torn = disk.live_bytes();
    std::mem::forget(db);
    let end = torn.iter().rposition(|byte| *byte != 0).unwrap();
    torn[end] ^= 1;
    let disk = Arc::new(SimulatedMedium::with_bytes(&torn));
    for builder in [Emdb::builder().encryption_key([1; 32]), Emdb::builder()] {
        let opened = builder.build_on(Box::new(Arc::clone(&disk)));
        assert!(opened.is_err());
        assert!(disk.live_bytes() == torn);
    }
    let db = keyed().build_on(Box::new(disk)).unwrap();
    assert_eq!(db.len().unwrap(), 0);
    assert!(db.stats().unwrap().torn_bytes_cut > 0);
}

#[test]
fn a_database_can_be_read_only_with_its_key() {
    let directory = stored(keyed());
    let before = files(directory.path());
    let path = directory.path().join("db");
    let db = keyed().path(&path).read_only(true).build().unwrap();
    assert_eq!(db.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(db.len().unwrap(), 2);
    assert!(matches!(db.insert("x", "y"), Err(Error::ReadOnly)));
    db.verify().unwrap();
    drop(db);
    assert!(files(directory.path()) == before);
}

#[test]
fn an_empty_file_becomes_encrypted_with_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    fs::write(&path, b"").unwrap();
    let opened = keyed().path(&path).read_only(true).build();
    assert!(matches!(opened, Err(Error::ReadOnly)), "{opened:?}");
    assert!(fs::read(&path).unwrap().is_empty());
    let db = keyed().path(&path).build().unwrap();
    assert!(db.stats().unwrap().encrypted);
    db.close().unwrap();
    assert!(!beside(&path, ".new").exists());
    // Nothing was ever appended.
    assert!(Emdb::open(&path).is_err());
    assert!(keyed().path(&path).build().unwrap().is_empty().unwrap());
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    for builder in [
        keyed().encryption_passphrase("correct horse"),
        Emdb::builder().cipher(Cipher::ChaCha20Poly1305),
    ] {
        let opened = builder.path(&path).build();
        assert!(matches!(opened, Err(Error::InvalidConfig(_))), "{opened:?}");
        assert!(!path.exists());
    }
}

#[test]
fn a_database_keeps_its_cipher() {
    for (made, asked) in [
        (Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305),
        (Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm),
    ] {
        let directory = stored(keyed().cipher(made));
        let path = directory.path().join("db");
        let cipher = |path: &Path| fs::read(path).unwrap()[96];
        let before = cipher(&path);
        let db = keyed().cipher(asked).path(&path).build().unwrap();
        db.insert("third", "value").unwrap();
        db.close().unwrap();
        assert_eq!(cipher(&path), before);
        assert_eq!(keyed().path(&path).build().unwrap().len().unwrap(), 3);
    }
}
