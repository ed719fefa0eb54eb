//! Journals whose syncs go through an io_uring, where the kernel has one to give.
#![cfg(all(
    feature = "iouring",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{keys, open, put};
use emdb_journal::{Error, FileMedium, Journal, OpenMode};

/// One test at a time: they count the threads of this process.
static ALONE: Mutex<()> = Mutex::new(());

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
fn what_was_synced_through_the_ring_is_there_as_ever() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let has_rings = has_rings();
    wait_until_none_polls();
    let mut expected = Vec::new();
    for round in 0..3_u8 {
        let journal = open_polled(&path).unwrap();
        assert_eq!(polling_threads(), usize::from(has_rings));
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
    let (journal, records) = open(FileMedium::open(&path, OpenMode::Create).unwrap()).unwrap();
    assert_eq!(keys(&records), expected);
    assert_eq!(journal.stats().unwrap().torn_bytes_cut, 0);
    assert_eq!(polling_threads(), 0);
}

#[test]
fn who_only_reads_has_no_ring() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    open_polled(&path).unwrap().close().unwrap();
    wait_until_none_polls();
    let medium = FileMedium::open(&path, OpenMode::ReadOnly).unwrap();
    let _medium = medium.sqpoll(50);
    assert_eq!(polling_threads(), 0);
}
