//! The ring against the kernel at hand. Where that has none to give, there is nothing
//! to check but that it says so.

use super::*;

fn ring(idle_ms: u32) -> Option<SyncRing> {
    let ring = SyncRing::open(idle_ms);
    let given: io::Result<IoUring> = IoUring::builder().setup_sqpoll(idle_ms).build(1);
    assert_eq!(
        ring.is_some(),
        given.is_ok(),
        "a ring that is to be had is used"
    );
    ring
}

/// From here on the kernel answers this thread's system call `number` with EPERM.
fn forbid(number: libc::c_long) {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The call's number is the first field of what the filter sees.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            u32::try_from(number).unwrap(),
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is whole, and the call copies it.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(filtered, 0);
}

/// Runs `action` on a thread of its own, whose sandbox ends with it.
fn on_a_thread(action: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(action).join().unwrap();
    });
}

fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    file
}

#[test]
fn every_sync_is_one_request_to_the_ring() {
    let Some(mut ring) = ring(10) else { return };
    let trials = ring.requests;
    let file = file();
    for number in 1..=20 {
        ring.sync_data(&file).unwrap().unwrap();
        assert_eq!(ring.requests, trials + number);
    }
}

#[test]
fn a_failed_sync_is_the_error_of_fdatasync() {
    let Some(mut ring) = ring(10) else { return };
    // No file system behind it to sync.
    let device = File::open("/dev/null").unwrap();
    let ordinary = device.sync_data().unwrap_err().raw_os_error();
    assert!(ordinary.is_some());
    let error = ring.sync_data(&device).unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), ordinary);
    // The ring itself is as good as before.
    ring.sync_data(&file()).unwrap().unwrap();
}

#[test]
fn a_ring_that_is_forbidden_is_not_there() {
    on_a_thread(|| {
        forbid(libc::SYS_io_uring_setup);
        assert!(SyncRing::open(10).is_none());
    });
    on_a_thread(|| {
        forbid(libc::SYS_io_uring_enter);
        assert!(SyncRing::open(10).is_none());
    });
}

#[test]
fn a_sandbox_put_on_later_is_met_before_the_sync() {
    // Its polling thread sleeps soon, or never in this test.
    for idle_ms in [1, 60_000] {
        let Some(mut ring) = ring(idle_ms) else {
            return;
        };
        let file = file();
        ring.sync_data(&file).unwrap().unwrap();
        let requests = ring.requests;
        on_a_thread(|| {
            forbid(libc::SYS_io_uring_enter);
            assert!(ring.sync_data(&file).is_none());
        });
        assert_eq!(ring.requests, requests);
        assert!(ring.ring.submission().is_empty(), "nothing is under way");
    }
}
