//! Other processes: killed ones, forked ones, ones with little address space.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Record, keys, open, put};
use emdb_journal::{Error, FileMedium, Journal, MemoryMedium, OpenMode, lock_holder};
use tempfile::TempDir;

/// One test at a time: a child shares every file that its parent has open when it
/// comes to life, and thereby the locks of other tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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

const CHILD: &str = "EMDB_TEST_CHILD";

/// Runs the test `name` of this binary in a process of its own, with `CHILD` set.
fn spawn_child(name: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_process_leaves_its_records_and_no_lock() {
    if let Some(path) = std::env::var_os(CHILD) {
        let (journal, _) = open_file(Path::new(&path)).unwrap();
        journal.append(&put(b"a", b"1")).unwrap();
        let mut batch = journal.begin("test").unwrap();
        batch.append(&put(b"never", b"counts")).unwrap();
        println!("\nready");
        // Ends when the parent kills this process, or dies itself.
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    }
    let _alone = alone();
    let (directory, path) = directory();
    let mut child = spawn_child("killed_process_leaves_its_records_and_no_lock", &path);
    let out = BufReader::new(child.stdout.take().unwrap());
    let ready = out.lines().any(|line| line.unwrap() == "ready");
    assert!(ready);
    check_locked(&path);
    assert_eq!(lock_holder(&path).unwrap().unwrap().pid, child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(directory.path().join("journal.lock").exists());
    assert_eq!(lock_holder(&path).unwrap(), None);
    let (journal, records) = open_file(&path).unwrap();
    assert_eq!(keys(&records), ["a"]);
    assert!(journal.durable_lsn() < journal.end_lsn());
    journal.sync().unwrap();
    journal.append(&put(b"b", b"2")).unwrap();
    drop(journal);
    assert_eq!(keys(&open_file(&path).unwrap().1), ["a", "b"]);
}

#[cfg(target_os = "linux")]
#[test]
fn little_address_space_makes_small_maps_that_are_replaced() {
    if let Some(path) = std::env::var_os(CHILD) {
        let status = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
        let limit = libc::rlimit {
            rlim_cur: pages * 4096 + (96 << 20),
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: `limit` is a valid struct for the call to read.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(result, 0);
        let (journal, _) = open_file(Path::new(&path)).unwrap();
        for number in 0..40_u8 {
            journal.append(&put(&[number], &[number; 50_000])).unwrap();
        }
        journal.close().unwrap();
        println!("\nfits");
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    let child = spawn_child(
        "little_address_space_makes_small_maps_that_are_replaced",
        &path,
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line == "fits"), "{text}");
    assert_eq!(open_file(&path).unwrap().1.len(), 40);
}

/// Forks, runs `child` there, and gives its exit code; 101 for a panic.
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `child` alone and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let code = match catch_unwind(AssertUnwindSafe(child)) {
                Ok(()) => 0,
                Err(_) => 101,
            };
            // SAFETY: ends the child at once, as a fork in a test must.
            unsafe { libc::_exit(code) }
        }
        pid => {
            assert!(pid > 0);
            let mut status = 0;
            // SAFETY: `status` is there for the call to write.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(waited, pid);
            assert!(libc::WIFEXITED(status), "status {status}");
            libc::WEXITSTATUS(status)
        }
    }
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forked))
}

#[test]
fn forked_child_can_do_nothing_with_its_parents_journal() {
    let _alone = alone();
    let (_directory, path) = directory();
    let (journal, _) = open_file(&path).unwrap();
    journal.append(&put(b"a", b"1")).unwrap();
    let before = fs::read(&path).unwrap();
    let mut journal = Some(journal);
    let code = fork(|| {
        let journal = journal.take().unwrap();
        assert!(is_forked(journal.append(&put(b"child", b""))));
        assert!(is_forked(journal.sync()));
        assert!(is_forked(journal.begin("test").map(drop)));
        assert!(is_forked(journal.confirm(journal.published())));
        assert!(is_forked(journal.write_sidecar(&mut |_| Ok(()))));
        assert!(is_forked(journal.wait_for_batch("test")));
        assert!(is_forked(common::replay(&journal)));
        assert!(is_forked(journal.close()));
        drop(journal);
    });
    assert_eq!(code, 0);
    assert_eq!(fs::read(&path).unwrap(), before);
    check_locked(&path);
    assert!(lock_holder(&path).unwrap().unwrap().pid > 0);
    let journal = journal.unwrap();
    journal.append(&put(b"b", b"2")).unwrap();
    drop(journal);
    assert_eq!(keys(&open_file(&path).unwrap().1), ["a", "b"]);
}

#[test]
fn forked_child_can_do_nothing_with_a_journal_in_memory() {
    if std::env::var_os(CHILD).is_some() {
        // Nothing in this process ever opened a file.
        let (journal, _) = open(MemoryMedium::new()).unwrap();
        journal.append(&put(b"a", b"1")).unwrap();
        let code = fork(|| assert!(is_forked(journal.append(&put(b"child", b"")))));
        assert_eq!(code, 0);
        journal.append(&put(b"b", b"2")).unwrap();
        println!("\nrefused");
        return;
    }
    let _alone = alone();
    let child = spawn_child(
        "forked_child_can_do_nothing_with_a_journal_in_memory",
        Path::new(""),
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line == "refused"), "{text}");
}

#[test]
fn batch_in_a_forked_child_stores_nothing() {
    // The map is shared: a discard frame of the child would lie in the middle of the
    // parent's batch.
    let _alone = alone();
    let (_directory, path) = directory();
    let (journal, _) = open_file(&path).unwrap();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"a", b"1")).unwrap();
    let before = fs::read(&path).unwrap();
    let mut held = Some(batch);
    let code = fork(|| {
        let mut batch = held.take().unwrap();
        assert!(is_forked(batch.append(&put(b"child", b""))));
        drop(batch);
    });
    assert_eq!(code, 0);
    let code = fork(|| assert!(is_forked(held.take().unwrap().commit(|| {}))));
    assert_eq!(code, 0);
    assert_eq!(fs::read(&path).unwrap(), before);
    let mut batch = held.unwrap();
    batch.append(&put(b"b", b"2")).unwrap();
    batch.commit(|| {}).unwrap();
    drop(journal);
    assert_eq!(keys(&open_file(&path).unwrap().1), ["a", "b"]);
}
