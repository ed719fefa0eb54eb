//! Journals whose syncs go through an io_uring, where the kernel has one to give.
//!
//! One test, in a process of its own: it looks at the threads of the process.
#![cfg(all(
    feature = "iouring",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{keys, open, put};
use emdb_journal::{Error, FileMedium, Journal, OpenMode};

/// Longer than anything here takes.
const HANG: Duration = Duration::from_secs(30);

/// Whether the kernel makes a ring with a polling thread for this process.
fn has_rings() -> bool {
    const SQPOLL: u32 = 1 << 1;
    /// Where the flags stand, in 32-bit words, in what the call is given.
    const FLAGS_AT: usize = 2;
    let mut parameters = [0_u32; 30];
    parameters[FLAGS_AT] = SQPOLL;
    // SAFETY: the array is as large as the call's struct of parameters, 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if ring < 0 {
        return false;
    }
    // SAFETY: the descriptor was made above and is used nowhere else.
    unsafe { libc::close(ring as i32) };
    true
}

/// Threads of the kernel that poll rings of this process.
fn polling_threads() -> usize {
    let tasks = Path::new("/proc/self/task").read_dir().unwrap();
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with("iou-sqp"))
        .count()
}

fn wait_until_none_polls() {
    let deadline = Instant::now() + HANG;
    while polling_threads() > 0 {
        assert!(
            Instant::now() < deadline,
            "the polling thread is there still"
        );
        std::thread::yield_now();
    }
}

fn open_polled(path: &Path) -> Result<Journal, Error> {
    let medium = FileMedium::open(path, OpenMode::Create)?.sqpoll(50);
    Ok(open(medium)?.0)
}

#[test]
fn syncs_go_through_the_ring_for_as_long_as_the_journal_is_open_for_writing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut polled = Vec::new();
    let mut expected = Vec::new();
    for round in 0..3_u8 {
        let journal = open_polled(&path).unwrap();
        polled.push(polling_threads() > 0);
        for number in 0..50_u8 {
            let key = [b'a' + round, b'a' + number % 26];
            let lsn = journal.append(&put(&key, &[number; 100])).unwrap();
            assert!(journal.durable_lsn() <= lsn);
            journal.sync().unwrap();
            assert!(journal.durable_lsn() > lsn);
            expected.push(String::from_utf8(key.to_vec()).unwrap());
        }
        if round == 0 {
            journal.close().unwrap();
            // Also while the journal is still held.
            wait_until_none_polls();
        }
        drop(journal);
        wait_until_none_polls();
    }
    let medium = FileMedium::open(&path, OpenMode::ReadOnly).unwrap();
    let medium = medium.sqpoll(50);
    assert_eq!(polling_threads(), 0, "there is nothing to sync");
    drop(medium);
    let (journal, records) = open(FileMedium::open(&path, OpenMode::Create).unwrap()).unwrap();
    assert_eq!(keys(&records), expected);
    assert_eq!(journal.stats().unwrap().torn_bytes_cut, 0);
    assert_eq!(polling_threads(), 0, "nobody asked for it");
    // Last, since the thread of that ring may linger.
    assert_eq!(polled, [has_rings(); 3]);
}
