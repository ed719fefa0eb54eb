//! Encrypting, decrypting and changing keys, and kills in between.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use emdb::{Cipher, Emdb, EncryptionInput, Error, RewriteProgress};

use crate::{alone, directory, in_child, spawn_child};

type Contents = BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<u64>)>;

const FAR: u64 = 1 << 50;

fn key(byte: u8) -> EncryptionInput {
    EncryptionInput::RawKey([byte; 32])
}

fn open(path: &Path, byte: Option<u8>) -> Result<Emdb, Error> {
    match byte {
        Some(byte) => Emdb::builder()
            .path(path)
            .encryption_key([byte; 32])
            .build(),
        None => Emdb::open(path),
    }
}

/// Names of namespaces, keys, values and expiries.
fn contents(db: &Emdb) -> Contents {
    let mut contents = Contents::new();
    for (key, value) in db.iter().unwrap() {
        let expiry = db.expires_at(&key).unwrap();
        contents.insert((String::new(), key), (value, expiry));
    }
    for name in db.list_namespaces().unwrap() {
        let space = db.namespace(&name).unwrap();
        contents.insert((name.clone(), vec![]), (vec![], None));
        for (key, value) in space.iter().unwrap() {
            let expiry = space.expires_at(&key).unwrap();
            contents.insert((name.clone(), key), (value, expiry));
        }
    }
    contents
}

/// Fills a database, with some of everything that a journal can hold.
fn fill(db: &Emdb) -> Contents {
    for number in 0..300_u32 {
        let value = vec![number as u8; number as usize * 7];
        db.insert(number.to_le_bytes(), &value).unwrap();
        db.insert(number.to_le_bytes(), &value[..value.len() / 2])
            .unwrap();
    }
    for number in (0..300_u32).step_by(3) {
        db.remove(number.to_le_bytes()).unwrap();
    }
    let ttl = emdb::Ttl::ExpiresAt(FAR);
    db.insert_with_ttl("mortal", "x", ttl).unwrap();
    db.insert("large", vec![7; 100_000]).unwrap();
    let space = db.namespace("space").unwrap();
    space.insert("a", "1").unwrap();
    space.clear().unwrap();
    space.insert("b", "2").unwrap();
    db.namespace("empty").unwrap();
    db.namespace("dropped").unwrap().insert("c", "3").unwrap();
    db.drop_namespace("dropped").unwrap();
    contents(db)
}

/// A few records and namespaces, and a checkpoint.
fn fill_a_little(db: &Emdb) -> Contents {
    for number in 0..5_u8 {
        db.insert([number], vec![number; 20]).unwrap();
    }
    db.namespace("space").unwrap().insert("a", "1").unwrap();
    db.checkpoint().unwrap();
    contents(db)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Checks that the database is whole under this key and under no other.
fn check(path: &Path, byte: Option<u8>, expected: &Contents) {
    for other in [None, Some(1), Some(2), Some(3)] {
        if other != byte {
            assert!(open(path, other).is_err(), "{byte:?} and {other:?} open it");
        }
    }
    let db = open(path, byte).unwrap();
    assert_eq!(contents(&db), *expected);
    db.verify().unwrap();
}

#[test]
fn a_database_is_encrypted_rotated_and_decrypted_with_all_it_holds() {
    let _alone = alone();
    let (_directory, path) = directory();
    let backup = beside(&path, ".encbak");
    let expected = fill(&Emdb::open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

    Emdb::enable_encryption_with(&path, key(1), Cipher::ChaCha20Poly1305, |_| {}).unwrap();
    check(&backup, None, &expected);
    check(&path, Some(1), &expected);

    // Generations go on, whatever is written in between.
    let db = open(&path, Some(1)).unwrap();
    db.insert("later", "x").unwrap();
    let expected = contents(&db);
    drop(db);
    let mut steps = Vec::new();
    Emdb::rotate_encryption_key_with(&path, key(1), key(2), |step| steps.push(step)).unwrap();
    assert!(
        matches!(
            steps[..],
            [
                RewriteProgress::Copied {
                    records: 0,
                    of: 204
                },
                RewriteProgress::Copied {
                    records: 204,
                    of: 204
                },
                RewriteProgress::Synced,
                RewriteProgress::BackedUp,
                RewriteProgress::Replaced,
                RewriteProgress::Done,
            ]
        ),
        "{steps:?}"
    );
    check(&backup, Some(1), &expected);
    check(&path, Some(2), &expected);

    Emdb::disable_encryption(&path, key(2)).unwrap();
    check(&backup, Some(2), &expected);
    check(&path, None, &expected);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    let mut left: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["db", "db.encbak", "db.encbak.meta", "db.meta"]);
}

#[test]
fn what_cannot_be_rewritten_is_left_untouched() {
    let _alone = alone();
    let (_directory, path) = directory();
    let missing = Emdb::enable_encryption(&path, key(1));
    assert!(matches!(missing, Err(Error::Io(_))), "{missing:?}");
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    let empty = Emdb::enable_encryption(&path, key(1));
    assert!(matches!(empty, Err(Error::EncryptionError(_))), "{empty:?}");
    fs::remove_file(&path).unwrap();

    let db = Emdb::open(&path).unwrap();
    fill(&db);
    let locked = Emdb::enable_encryption(&path, key(1));
    assert!(matches!(locked, Err(Error::AlreadyLocked)), "{locked:?}");
    drop(db);
    let plain = fs::read(&path).unwrap();
    let nothing = Emdb::enable_encryption(&path, EncryptionInput::Passphrase(String::new()));
    assert!(
        matches!(nothing, Err(Error::EncryptionError(_))),
        "{nothing:?}"
    );
    for not_encrypted in [
        Emdb::disable_encryption(&path, key(1)),
        Emdb::rotate_encryption_key(&path, key(1), key(2)),
        Emdb::change_passphrase(&path, key(1), key(2)),
    ] {
        let error = not_encrypted.unwrap_err();
        assert!(matches!(error, Error::EncryptionError(_)), "{error:?}");
    }
    assert!(fs::read(&path).unwrap() == plain);

    Emdb::enable_encryption(&path, key(1)).unwrap();
    let sealed = fs::read(&path).unwrap();
    for wrong in [
        Emdb::disable_encryption(&path, key(2)),
        Emdb::rotate_encryption_key(&path, key(2), key(3)),
        Emdb::change_passphrase(&path, key(2), key(3)),
    ] {
        let error = wrong.unwrap_err();
        assert!(matches!(error, Error::EncryptionKeyMismatch), "{error:?}");
    }
    let twice = Emdb::enable_encryption(&path, key(2));
    assert!(matches!(twice, Err(Error::EncryptionError(_))), "{twice:?}");
    assert!(fs::read(&path).unwrap() == sealed);
    assert!(!beside(&path, ".new").exists());
}

#[test]
fn a_changed_passphrase_is_the_only_one() {
    let _alone = alone();
    let (_directory, path) = directory();
    let db = open(&path, Some(1)).unwrap();
    let expected = fill(&db);
    drop(db);
    let passphrase = || EncryptionInput::Passphrase("correct horse".to_owned());
    Emdb::change_passphrase(&path, key(1), passphrase()).unwrap();
    assert!(matches!(
        open(&path, Some(1)),
        Err(Error::EncryptionKeyMismatch)
    ));
    // Not even with the newer header gone.
    let bytes = fs::read(&path).unwrap();
    for slot in [0, 8192] {
        let mut damaged = bytes.clone();
        damaged[slot + 20] ^= 1;
        let copy = beside(&path, "copy");
        fs::write(&copy, damaged).unwrap();
        assert!(matches!(
            open(&copy, Some(1)),
            Err(Error::EncryptionKeyMismatch)
        ));
    }
    Emdb::change_passphrase(&path, passphrase(), key(2)).unwrap();
    check(&path, Some(2), &expected);
}

/// The key before and after each of the operations.
fn keys(operation: &str) -> (Option<u8>, Option<u8>) {
    match operation {
        "enable" => (None, Some(1)),
        "rotate" | "change" => (Some(1), Some(2)),
        _ => (Some(1), None),
    }
}

fn run(operation: &str, path: &Path, progress: impl FnMut(RewriteProgress)) {
    match operation {
        "enable" => Emdb::enable_encryption_with(path, key(1), Cipher::default(), progress),
        "rotate" => Emdb::rotate_encryption_key_with(path, key(1), key(2), progress),
        "change" => Emdb::change_passphrase(path, key(1), key(2)),
        _ => Emdb::disable_encryption_with(path, key(1), progress),
    }
    .unwrap();
}

#[test]
fn a_kill_leaves_the_old_database_or_the_new_one() {
    if let Some(path) = in_child() {
        let plan = fs::read_to_string(beside(&path, ".plan")).unwrap();
        let (operation, last) = plan.split_once(' ').unwrap();
        let mut left: u32 = last.parse().unwrap();
        run(operation, &path, |_| {
            if left == 0 {
                std::process::abort();
            }
            left -= 1;
        });
        return;
    }
    let _alone = alone();
    for operation in ["enable", "rotate", "disable"] {
        let (before, after) = keys(operation);
        for step in 0..6 {
            let (_directory, path) = directory();
            let db = open(&path, before).unwrap();
            let expected = fill(&db);
            drop(db);
            fs::write(beside(&path, ".plan"), format!("{operation} {step}")).unwrap();
            let name = "encryption::a_kill_leaves_the_old_database_or_the_new_one";
            let status = spawn_child(name, &path).wait().unwrap();
            assert!(!status.success(), "{operation} {step}");

            // Copied twice, synced, backed up: the old one until it is replaced.
            let now = if step < 4 { before } else { after };
            check(&path, now, &expected);
            for left in [".new", ".new.meta", ".new.lock", ".meta.tmp"] {
                assert!(!beside(&path, left).exists(), "{operation} {step}: {left}");
            }
            // A backup is a file of its own, or it is not there.
            if let Ok(backup) = fs::metadata(beside(&path, ".encbak")) {
                assert_ne!(backup.ino(), fs::metadata(&path).unwrap().ino());
            }
            if step < 4 {
                run(operation, &path, |_| {});
                check(&path, after, &expected);
                check(&beside(&path, ".encbak"), before, &expected);
            }
        }
    }
}

/// Checks what a kill left of an operation: the old database or the new one, and nothing
/// beside it that only the other key opens. Tells whether it is the new one.
fn check_left(path: &Path, operation: &str, expected: &Contents) -> bool {
    let (before, after) = keys(operation);
    let is_new = open(path, after).is_ok();
    check(path, if is_new { after } else { before }, expected);
    for left in [".new", ".new.meta", ".new.lock", ".meta.tmp"] {
        assert!(!beside(path, left).exists(), "{left}");
    }
    // A backup is a file of its own, or it is not there.
    if let Ok(backup) = fs::metadata(beside(path, ".encbak")) {
        assert_ne!(backup.ino(), fs::metadata(path).unwrap().ino());
        check(&beside(path, ".encbak"), before, expected);
    }
    if operation == "change" {
        // The other key is gone from both headers.
        let bytes = fs::read(path).unwrap();
        let gone = if is_new { 1 } else { 2 };
        for slot in [0, 8192] {
            let mut damaged = bytes.clone();
            damaged[slot + 20] ^= 1;
            let copy = beside(path, "copy");
            fs::write(&copy, damaged).unwrap();
            // The other header may be one that was cut short.
            assert!(open(&copy, Some(gone)).is_err());
        }
    }
    is_new
}

/// A file is changed by calls alone where there are few records, and each write is one of
/// two halves; so every state is met that a kill could leave.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_kill_at_any_change_of_a_file_leaves_the_old_database_or_the_new_one() {
    if let Some(path) = in_child() {
        let plan = fs::read_to_string(beside(&path, ".plan")).unwrap();
        let (operation, call) = plan.split_once(' ').unwrap();
        let mut left: u32 = call.parse().unwrap();
        let kill = move |_| {
            if left == 0 {
                // SAFETY: a plain call; it does not return.
                unsafe { libc::raise(libc::SIGKILL) };
            }
            left -= 1;
            None
        };
        crate::file_calls::watch(kill, || run(operation, &path, |_| {}));
        return;
    }
    let _alone = alone();
    for operation in ["enable", "rotate", "disable", "change"] {
        let (before, _) = keys(operation);
        let (_template, template) = directory();
        let expected = fill_a_little(&open(&template, before).unwrap());
        let (mut olds, mut news) = (0, 0);
        for call in 0.. {
            let (_directory, path) = directory();
            fs::copy(&template, &path).unwrap();
            fs::copy(beside(&template, ".meta"), beside(&path, ".meta")).unwrap();
            fs::write(beside(&path, ".plan"), format!("{operation} {call}")).unwrap();
            let name =
                "encryption::a_kill_at_any_change_of_a_file_leaves_the_old_database_or_the_new_one";
            let status = spawn_child(name, &path).wait().unwrap();
            let is_new = check_left(&path, operation, &expected);
            if status.success() {
                assert!(is_new);
                break;
            }
            if is_new {
                news += 1;
            } else {
                olds += 1;
                run(operation, &path, |_| {});
                assert!(check_left(&path, operation, &expected));
            }
        }
        assert!(olds > 3 && news > 1, "{operation}: {olds} {news}");
    }
}

#[test]
fn a_database_of_the_name_of_a_temporary_file_is_left_alone() {
    let _alone = alone();
    let (_directory, path) = directory();
    let other = beside(&path, ".new");
    drop(Emdb::open(&path).unwrap());
    let expected = fill(&Emdb::open(&other).unwrap());
    drop(Emdb::open(&path).unwrap());
    check(&other, None, &expected);
    let refused = Emdb::enable_encryption(&path, key(1));
    assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
    check(&other, None, &expected);
    fs::remove_file(&path).unwrap();
    let refused = Emdb::open(&path);
    assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
    check(&other, None, &expected);
}
