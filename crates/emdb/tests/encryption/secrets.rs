//! What is in an encrypted database is found nowhere: not in its files, not in temporary
//! ones, not in error messages, and not in `Debug`.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod admin;

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use emdb::{Cipher, Emdb, EmdbBuilder, EncryptionInput, Error};
use emdb_journal::SimulatedMedium;

#[cfg(unix)]
use crate::beside;
use crate::{KEY, keyed};

const SECRETS: [&str; 5] = [
    "planted-key",
    "planted-value",
    "planted-name",
    "planted-pass",
    "kkkkkkkk",
];
const NAME: &str = "planted-name";

/// Where a secret lies in bytes.
fn find(bytes: &[u8], secret: &str) -> Option<usize> {
    // Whatever becomes of other bytes, ASCII stays.
    String::from_utf8_lossy(bytes).find(secret)
}

fn check_files(directory: &Path) -> usize {
    let mut searched = 0;
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap().path();
        let bytes = fs::read(&file).unwrap();
        for secret in SECRETS {
            let found = find(&bytes, secret);
            assert_eq!(found, None, "{secret} in {}", file.display());
        }
        searched += 1;
    }
    searched
}

/// Plants secrets in every kind of record.
fn plant(db: &Emdb) {
    let name = db.namespace(NAME).unwrap();
    for number in 0..300_u32 {
        db.insert(
            format!("planted-key-{number}"),
            format!("planted-value-{number}"),
        )
        .unwrap();
        name.insert(format!("planted-key-{number}"), "planted-value")
            .unwrap();
    }
    db.insert("planted-key-large", "planted-value".repeat(100_000))
        .unwrap();
    db.insert("planted-key-3", "planted-value again").unwrap();
    db.remove("planted-key-4").unwrap();
    let tx = db.begin().unwrap();
    let savepoint = tx.savepoint().unwrap();
    tx.insert("planted-key-undone", "planted-value").unwrap();
    tx.rollback_to(savepoint).unwrap();
    tx.insert("planted-key-batch", "planted-value").unwrap();
    tx.namespace("planted-name-2").unwrap();
    tx.commit().unwrap();
    let tx = db.begin().unwrap();
    tx.insert("planted-key-never", "planted-value").unwrap();
    tx.rollback().unwrap();
    db.insert_many((0..300_u32).map(|it| (format!("planted-key-many-{it}"), "planted-value")))
        .unwrap();
    #[cfg(feature = "ttl")]
    db.insert_with_ttl("planted-key-ttl", "planted-value", emdb::Ttl::ExpiresAt(1))
        .unwrap();
}

#[test]
fn nothing_is_found_in_the_files() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let open = || {
            let builder = keyed().path(&path).cipher(cipher).enable_range_scans(true);
            builder.build().unwrap()
        };
        let db = open();
        plant(&db);
        check_files(directory.path());
        db.flush().unwrap();
        db.checkpoint().unwrap();
        // The journal, its lock note and the checkpoint.
        assert_eq!(check_files(directory.path()), 3);
        drop(db);
        check_files(directory.path());
        let db = open();
        plant(&db);
        db.clear().unwrap();
        db.close().unwrap();
        check_files(directory.path());
    }
}

/// What an attempt to write leaves that fails at any call, temporary files included.
#[test]
fn nothing_is_found_after_a_failed_write() {
    for call in 0.. {
        let disk = Arc::new(SimulatedMedium::new());
        disk.fail_call(call, std::io::ErrorKind::Other);
        let opened = keyed().build_on(Box::new(Arc::clone(&disk)));
        if let Ok(db) = &opened {
            let _ = db.insert("planted-key", "planted-value");
            let _ = db.checkpoint();
            let _ = db.insert_many([("planted-key-2", "planted-value".repeat(3000))]);
            let _ = db.flush();
        }
        drop(opened);
        for bytes in [
            disk.live_bytes(),
            disk.durable_bytes(),
            disk.sidecar_bytes().unwrap_or_default(),
        ] {
            for secret in SECRETS {
                assert_eq!(find(&bytes, secret), None, "{secret}");
            }
        }
        if disk.calls() <= call {
            assert!(call > 5);
            return;
        }
    }
}

/// Keys, values and secrets as text, and as the numbers of their bytes. What a namespace
/// is called may be told.
fn check_text(text: &str) {
    for secret in SECRETS.iter().filter(|secret| **secret != NAME) {
        let decimal = format!("{:?}", secret.as_bytes());
        let decimal = decimal.trim_matches(['[', ']']);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret, decimal, &hex] {
            assert!(!text.contains(form), "{text}");
        }
    }
}

fn check_debug(value: &dyn Debug) {
    check_text(&format!("{value:?}"));
    check_text(
        &format!("{value:#?}")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    );
}

fn check_error(error: &Error) {
    check_debug(error);
    check_text(&error.to_string());
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        check_text(&error.to_string());
        source = error.source();
    }
}

#[test]
fn nothing_is_found_in_debug_output() {
    check_debug(&EncryptionInput::RawKey(KEY));
    check_debug(&EncryptionInput::Passphrase("planted-pass".to_owned()));
    let builder: EmdbBuilder = keyed().enable_range_scans(true);
    check_debug(&builder);
    check_debug(&Emdb::builder().encryption_passphrase("planted-pass"));
    let db = builder.build().unwrap();
    plant(&db);
    let name = db.namespace(NAME).unwrap();
    check_debug(&db);
    check_debug(&name);
    check_debug(&db.get_zerocopy("planted-key-1").unwrap());
    check_debug(&db.snapshot().unwrap());
    check_debug(&db.snapshot().unwrap().namespace(NAME).unwrap());
    check_debug(&db.stats().unwrap());
    check_debug(&db.verify().unwrap());
    let tx = db.begin().unwrap();
    tx.insert("planted-key", "planted-value").unwrap();
    check_debug(&tx);
    check_debug(&tx.savepoint().unwrap());
    check_debug(&tx.namespace(NAME).unwrap());
    drop(tx);
    #[cfg(feature = "nested")]
    check_debug(&db.focus("planted-key"));
}

#[test]
fn nothing_is_found_in_error_messages() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = keyed().build_on(Box::new(Arc::clone(&disk))).unwrap();
    plant(&db);
    check_error(
        &db.insert("planted-key".repeat(10_000), "planted-value")
            .unwrap_err(),
    );
    check_error(&db.range("planted-key"..).unwrap_err());
    let tx = db.begin().unwrap();
    check_error(&db.insert("planted-key", "planted-value").unwrap_err());
    drop(tx);
    let bytes = disk.live_bytes();
    disk.fail_call(disk.calls(), std::io::ErrorKind::Other);
    check_error(&db.flush().unwrap_err());
    check_error(&db.insert("planted-key", "planted-value").unwrap_err());
    drop(db);
    let wrong = Emdb::builder().encryption_passphrase("planted-pass");
    check_error(
        &wrong
            .build_on(Box::new(SimulatedMedium::with_bytes(&bytes)))
            .unwrap_err(),
    );
    // Damage at many places.
    let errors = Mutex::new(0);
    for at in (16_384..bytes.len().min(60_000)).step_by(997) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let disk = SimulatedMedium::with_bytes(&damaged);
        if let Err(error) = keyed().build_on(Box::new(disk)) {
            check_error(&error);
            *errors.lock().unwrap() += 1;
        }
    }
}

#[cfg(unix)]
#[test]
fn files_are_private_unless_somebody_changed_that() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let write = || {
        let db = keyed().path(&path).build().unwrap();
        db.insert("planted-key", "planted-value").unwrap();
        db.checkpoint().unwrap();
        db
    };
    let db = write();
    for suffix in ["", ".meta", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    drop(db);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    write().close().unwrap();
    assert_eq!(mode(&path), 0o640);
    assert_eq!(mode(&beside(&path, ".meta")), 0o600);
}
