//! The same for what changes the keys of a database: its files at each of their changes, and
//! what it says.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

use emdb::{Emdb, EncryptionInput, Error, RewriteProgress};

use super::{SECRETS, check_debug, check_error, find};
use crate::file_calls::watch;
use crate::{KEY, keyed};

const PASSPHRASE: &str = "planted-pass";

fn raw() -> EncryptionInput {
    EncryptionInput::RawKey(KEY)
}

fn passphrase() -> EncryptionInput {
    EncryptionInput::Passphrase(PASSPHRASE.to_owned())
}

fn apply(operation: &str, path: &Path) -> Result<(), Error> {
    let mut steps = Vec::new();
    let result = match operation {
        "enable" => {
            let note = |step: RewriteProgress| steps.push(step);
            Emdb::enable_encryption_with(path, raw(), emdb::Cipher::default(), note)
        }
        "rotate" => Emdb::rotate_encryption_key(path, raw(), passphrase()),
        "change" => Emdb::change_passphrase(path, raw(), passphrase()),
        _ => Emdb::disable_encryption(path, raw()),
    };
    check_debug(&steps);
    result
}

fn planted(operation: &str, path: &Path) {
    let builder = match operation {
        "enable" => Emdb::builder(),
        _ => keyed(),
    };
    let builder = builder.path(path).enable_range_scans(true);
    let db = builder.build().unwrap();
    for number in 0..20_u8 {
        let key = format!("planted-key-{number}");
        db.insert(&key, "planted-value").unwrap();
        let name = db.namespace("planted-name").unwrap();
        name.insert(&key, "planted-value").unwrap();
    }
    let large = "planted-value".repeat(2000);
    db.insert("planted-key-large", large).unwrap();
    db.checkpoint().unwrap();
}

/// Each file by its number, with its name and mode.
fn files(folder: &Path) -> BTreeMap<u64, (String, u32)> {
    let files = fs::read_dir(folder).unwrap().map(|file| {
        let file = file.unwrap();
        let (found, name) = (file.metadata().unwrap(), file.file_name());
        let name = name.into_string().unwrap();
        (found.ino(), (name, found.permissions().mode() & 0o777))
    });
    files.collect()
}

/// Searches every file that was not there before; at least `least` of them.
fn check_new_files(folder: &Path, old: &BTreeMap<u64, (String, u32)>, least: usize) {
    let mut searched = 0;
    for (number, (name, mode)) in files(folder) {
        if !old.contains_key(&number) {
            assert_eq!(mode, 0o600, "{name}");
            let bytes = fs::read(folder.join(&name)).unwrap_or_default();
            for secret in SECRETS {
                assert_eq!(find(&bytes, secret), None, "{secret} in {name}");
            }
            searched += 1;
        }
    }
    assert!(searched >= least, "{searched}");
}

#[test]
fn nothing_is_found_in_the_files_while_keys_change() {
    for operation in ["enable", "rotate", "change"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        planted(operation, &path);
        // The plaintext of one that is not encrypted yet, and nothing of others.
        let plain = match operation {
            "enable" => files(directory.path()),
            _ => BTreeMap::new(),
        };
        let (folder, old) = (directory.path().to_owned(), plain.clone());
        let see = move |_| {
            check_new_files(&folder, &old, 0);
            None
        };
        watch(see, || apply(operation, &path)).unwrap();
        check_new_files(directory.path(), &plain, 2);
        // Only the backup has plaintext.
        let left = files(directory.path());
        let mut left = left.iter().filter(|file| plain.contains_key(file.0));
        assert!(left.all(|(_, (name, _))| name == "db.encbak"));
    }
}

#[test]
fn files_stay_private_while_keys_change() {
    for operation in ["enable", "rotate", "change", "disable"] {
        for mode in [0o600, 0o640, 0o400] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("db");
            planted(operation, &path);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let folder = directory.path().to_owned();
            let see = move |_| {
                for (name, found) in files(&folder).into_values() {
                    let own = ["db", "db.encbak", "db.new"].contains(&name.as_str());
                    assert!(found == 0o600 || own && found == mode, "{name}: {found:o}");
                }
                None
            };
            // Who may not write it may still be root.
            let Ok(()) = watch(see, || apply(operation, &path)) else {
                assert_eq!(mode, 0o400);
                continue;
            };
            for (name, found) in files(directory.path()).into_values() {
                let expected = if name.ends_with(".meta") { 0o600 } else { mode };
                assert_eq!(found, expected, "{name}");
            }
        }
    }
}

#[test]
fn nothing_is_found_in_the_errors_of_changing_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    planted("rotate", &path);
    for operation in ["enable", "rotate", "disable"] {
        for call in (0..).step_by(9) {
            let copy = directory.path().join(format!("{operation} {call}"));
            fs::copy(&path, &copy).unwrap();
            if operation == "enable" {
                Emdb::disable_encryption(&copy, raw()).unwrap();
            }
            let left = Rc::new(Cell::new(call));
            let counted = Rc::clone(&left);
            let fail = move |_| {
                let now = counted.replace(counted.get() - 1);
                (now == 0).then_some(libc::EIO)
            };
            if let Err(error) = watch(fail, || apply(operation, &copy)) {
                check_error(&error);
            }
            if left.get() >= 0 {
                assert!(call > 9);
                break;
            }
        }
    }
    for wrong in [
        Emdb::change_passphrase(&path, passphrase(), raw()),
        Emdb::rotate_encryption_key(&path, passphrase(), raw()),
        Emdb::disable_encryption(&path, EncryptionInput::RawKey([0; 32])),
        Emdb::enable_encryption(&path, passphrase()),
    ] {
        check_error(&wrong.unwrap_err());
    }
    let mut bytes = fs::read(&path).unwrap();
    bytes[20_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    check_error(&Emdb::rotate_encryption_key(&path, raw(), passphrase()).unwrap_err());
}
