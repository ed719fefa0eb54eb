//! Other processes and the operating system: kills, locks, forks, limits, odd paths.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[cfg(feature = "encrypt")]
mod encryption;
#[cfg(all(feature = "encrypt", target_os = "linux", target_env = "gnu"))]
#[path = "../support/file_calls.rs"]
mod file_calls;
mod kill;
mod limits;
mod lock;
mod paths;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Set in a child: the path it works on.
const CHILD: &str = "EMDB_TEST_CHILD";

/// One test at a time: a child shares every file that its parent has open when it
/// comes to life, and thereby the locks of other tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    (directory, path)
}

/// The path a child is to work on; `None` in the parent.
fn in_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs the test `name` of this binary in a process of its own.
fn spawn_child(name: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the test `name` in a process of its own, and checks that it succeeds there.
fn run_child(name: &str, path: &Path) {
    let output = spawn_child(name, path).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// Waits until the child has printed this line.
fn wait_for(child: &mut Child, line: &str) {
    let out = BufReader::new(child.stdout.as_mut().unwrap());
    assert!(out.lines().any(|printed| printed.unwrap() == line));
}

/// Waits, in a child, until the parent ends it.
fn wait_for_the_end() -> ! {
    let _ = std::io::stdin().read_line(&mut String::new());
    std::process::exit(0)
}
