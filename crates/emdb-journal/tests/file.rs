//! The file medium: its lock and its neighbours on disk.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::fs;
use std::io::Write;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use common::{Record, keys, open, open_with, put, replay};
use emdb_journal::{
    Error, FileMedium, Journal, Medium, OpenMode, Opened, Options, break_lock, lock_holder,
};
use tempfile::TempDir;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    (directory, path)
}

fn open_file(path: &Path) -> Result<(Journal, Vec<Record>), Error> {
    open(FileMedium::open(path, OpenMode::Create)?)
}

fn check_locked(path: &Path) {
    let error = open_file(path).err().unwrap();
    assert!(matches!(error, Error::AlreadyLocked), "{error}");
}

/// Names in a directory, sorted.
fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = directory
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn records_come_back_and_only_the_journal_is_left_after_close() {
    let (directory, path) = directory();
    let (journal, _) = open_file(&path).unwrap();
    journal.append(&put(b"a", b"1")).unwrap();
    assert_eq!(names(&directory), ["journal", "journal.lock"]);
    journal.close().unwrap();
    assert_eq!(names(&directory), ["journal"]);
    drop(journal);
    let (journal, records) = open_file(&path).unwrap();
    assert_eq!(keys(&records), ["a"]);
    assert_eq!(journal.stats().unwrap().torn_bytes_cut, 0);
}

#[test]
fn second_open_is_refused_under_every_name_of_the_file() {
    let (directory, path) = directory();
    let (journal, _) = open_file(&path).unwrap();
    check_locked(&path);
    let symlink = directory.path().join("symlink");
    std::os::unix::fs::symlink(&path, &symlink).unwrap();
    check_locked(&symlink);
    let hard_link = directory.path().join("hard_link");
    fs::hard_link(&path, &hard_link).unwrap();
    check_locked(&hard_link);
    fs::remove_file(directory.path().join("journal.lock")).unwrap();
    check_locked(&path);
    let reader = FileMedium::open(&path, OpenMode::ReadOnly).err().unwrap();
    assert!(matches!(reader, Error::AlreadyLocked), "{reader}");
    drop(journal);
    open_file(&symlink).unwrap();
}

#[test]
fn lock_can_be_asked_about_and_broken_only_when_nobody_holds_it() {
    let (directory, path) = directory();
    assert_eq!(lock_holder(&path).unwrap(), None);
    break_lock(&path).unwrap();
    let (journal, _) = open_file(&path).unwrap();
    let holder = lock_holder(&path).unwrap().unwrap();
    assert_eq!(holder.pid, std::process::id());
    assert_eq!(holder.schema_version, 1);
    assert!(holder.acquired_at_ms > 0 && !holder.crate_version.is_empty());
    assert!(matches!(break_lock(&path), Err(Error::AlreadyLocked)));
    assert_eq!(names(&directory), ["journal", "journal.lock"]);
    journal.append(&put(b"a", b"1")).unwrap();
    drop(journal);
    assert_eq!(lock_holder(&path).unwrap(), None);

    // What a dead holder leaves is no lock.
    fs::write(directory.path().join("journal.lock"), "pid=1\n").unwrap();
    assert_eq!(lock_holder(&path).unwrap(), None);
    break_lock(&path).unwrap();
    break_lock(&path).unwrap();
    assert_eq!(names(&directory), ["journal"]);
    assert_eq!(keys(&open_file(&path).unwrap().1), ["a"]);
}

fn check_io_error(path: &Path, says: &str) {
    for mode in [OpenMode::Create, OpenMode::ReadOnly] {
        let error = FileMedium::open(path, mode).err().unwrap();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let message = error.to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        let parent = path.parent().unwrap().to_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert!(
            message.contains(name) || message.contains(parent),
            "{message}"
        );
    }
}

#[test]
fn paths_that_cannot_be_a_journal_are_told_apart() {
    let (directory, path) = directory();
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &dangling).unwrap();
    check_io_error(&dangling, "dangling symbolic link");
    assert!(!directory.path().join("nowhere").exists());
    check_io_error(
        &directory.path().join("missing/journal"),
        "find the directory",
    );
    check_io_error(directory.path(), "directory");
    let missing = FileMedium::open(&path, OpenMode::ReadOnly).err().unwrap();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    assert_eq!(names(&directory), ["dangling"]);
}

#[test]
fn what_a_creation_cannot_have_left_is_not_replaced() {
    let (directory, path) = directory();
    let other = directory.path().join("journal.new");
    let longer_than_a_header = [0xee; 16_385];
    fs::write(&other, longer_than_a_header).unwrap();
    let refused = open_file(&path).err().unwrap();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    assert!(fs::read(&other).unwrap() == longer_than_a_header);
}

#[test]
fn what_an_interrupted_creation_left_does_not_matter() {
    let (directory, path) = directory();
    // Killed between opening and renaming: an empty file, half a temporary one.
    fs::write(&path, b"").unwrap();
    fs::write(directory.path().join("journal.new"), [0xee; 10_000]).unwrap();
    let (journal, records) = open_file(&path).unwrap();
    assert_eq!(records, []);
    journal.append(&put(b"a", b"1")).unwrap();
    check_locked(&path);
    drop(journal);
    assert_eq!(names(&directory), ["journal"]);
    assert_eq!(keys(&open_file(&path).unwrap().1), ["a"]);
}

#[test]
fn links_planted_beside_the_journal_are_replaced_and_not_followed() {
    // Otherwise whoever can write to the directory has its owner overwrite any file.
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    for hard in [false, true] {
        let (directory, path) = directory();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o644)).unwrap();
        let beside = |suffix: &str| directory.path().join(format!("journal{suffix}"));
        for suffix in [".new", ".meta.tmp", ".lock"] {
            if hard {
                fs::hard_link(&victim, beside(suffix)).unwrap();
            } else {
                symlink(&victim, beside(suffix)).unwrap();
            }
        }
        // A link to what is not there must not bring it into being either.
        symlink(directory.path().join("nowhere"), beside(".meta")).unwrap();
        let (journal, _) = open_file(&path).unwrap();
        journal
            .write_sidecar(&mut |out| out.write_all(b"checkpoint"))
            .unwrap();
        journal.append(&put(b"a", b"1")).unwrap();
        for suffix in ["", ".lock", ".meta"] {
            let file = fs::symlink_metadata(beside(suffix)).unwrap();
            assert!(file.is_file(), "{suffix}");
            assert_eq!(file.mode() & 0o777, 0o600, "{suffix}");
        }
        drop(journal);
        assert_eq!(fs::read(beside(".meta")).unwrap(), b"checkpoint");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(names(&directory), ["journal", "journal.meta", "victim"]);
        assert_eq!(keys(&open_file(&path).unwrap().1), ["a"]);
    }
}

#[test]
fn what_is_no_file_in_the_place_of_the_sidecar_is_no_sidecar() {
    let (directory, path) = directory();
    let meta = directory.path().join("journal.meta");
    let target = directory.path().join("target");
    fs::write(&target, "elsewhere").unwrap();
    let pipe = std::ffi::CString::new(meta.to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let medium = FileMedium::open(&path, OpenMode::Create).unwrap();
    // Opening a pipe waits for a writer.
    assert!(medium.sidecar().unwrap().is_none());
    fs::remove_file(&meta).unwrap();
    std::os::unix::fs::symlink(&target, &meta).unwrap();
    assert!(medium.sidecar().unwrap().is_none());
}

#[test]
fn read_only_open_writes_nothing_and_is_shared() {
    let (directory, path) = directory();
    let (journal, _) = open_file(&path).unwrap();
    journal.append(&put(b"a", b"1")).unwrap();
    drop(journal);
    // A torn tail, which opening for writing would cut.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[0xee; 100]).unwrap();
    let bytes = fs::read(&path).unwrap();
    let changed = fs::metadata(&path).unwrap().modified().unwrap();

    let options = Options::default().read_only(true);
    let open_reader = || {
        let medium = FileMedium::open(&path, OpenMode::ReadOnly).unwrap();
        open_with(medium, options).unwrap()
    };
    let (first, second) = (open_reader(), open_reader());
    assert_eq!(keys(&first.1), ["a"]);
    assert_eq!(keys(&replay(&second.0).unwrap()), ["a"]);
    assert!(matches!(
        first.0.append(&put(b"b", b"")),
        Err(Error::ReadOnly)
    ));
    check_locked(&path);
    drop((first, second));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), changed);
    assert_eq!(names(&directory), ["journal"]);
}

#[test]
fn closed_journal_can_be_opened_while_the_old_handle_still_reads() {
    let (_directory, path) = directory();
    let (old, _) = open_file(&path).unwrap();
    let lsn = old.append(&put(b"a", b"1")).unwrap();
    old.close().unwrap();
    let (new, records) = open_file(&path).unwrap();
    assert_eq!(keys(&records), ["a"]);
    new.append(&put(b"b", &[2; 100_000])).unwrap();
    assert_eq!(old.frame(lsn.get(), &Opened::new()).unwrap().value, b"1");
    assert!(matches!(old.append(&put(b"c", b"")), Err(Error::Closed)));
    assert!(matches!(old.confirm(16_384), Err(Error::Closed)));
    drop(old);
    check_locked(&path);
    drop(new);
    assert_eq!(keys(&open_file(&path).unwrap().1), ["a", "b"]);
}

#[cfg(target_os = "linux")]
#[test]
fn space_allocated_behind_the_end_of_the_file_does_not_pass_for_prepared() {
    // File systems count such blocks, and blocks of their own, as the file's. Taken
    // for prepared space, the first append behind the end is a SIGBUS.
    let (_directory, path) = directory();
    drop(open_file(&path).unwrap());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // SAFETY: the descriptor is open.
    let result =
        unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, 4 << 20) };
    if result != 0 {
        println!("skipped: this file system does not preallocate");
        return;
    }
    drop(file);
    let (journal, _) = open_file(&path).unwrap();
    for _ in 0..20 {
        journal.append(&put(b"a", &[1; 50_000])).unwrap();
    }
    drop(journal);
    assert_eq!(open_file(&path).unwrap().1.len(), 20);
}
