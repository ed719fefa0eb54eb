//! Counts the syncs of this process, whichever language asks for them.
//!
//! The linker prefers a program's own symbols to those of the C library, so these functions
//! stand between every engine and the system. They do what the originals do, and count. What
//! a file opened with `O_DSYNC` syncs is not seen here (LMDB writes its meta page so).

use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_long, c_uint, c_void, off64_t, size_t};

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Calls of `fsync`, `fdatasync` and `msync` so far.
pub fn count() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

fn passed_on(result: c_long) -> c_int {
    result as c_int
}

/// Stands for the C library's function.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the system checks the descriptor.
    passed_on(unsafe { libc::syscall(libc::SYS_fsync, file) })
}

/// Stands for the C library's function.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the system checks the descriptor.
    passed_on(unsafe { libc::syscall(libc::SYS_fdatasync, file) })
}

/// Stands for the C library's function.
///
/// # Safety
/// As the original: the range is mapped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(start: *mut c_void, len: size_t, flags: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promise; the system checks the range.
    passed_on(unsafe { libc::syscall(libc::SYS_msync, start, len, flags) })
}

/// Stands for the C library's function. It is passed on without being counted: it promises
/// nothing about power loss.
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(
    file: c_int,
    offset: off64_t,
    len: off64_t,
    flags: c_uint,
) -> c_int {
    // SAFETY: the system checks the descriptor.
    passed_on(unsafe { libc::syscall(libc::SYS_sync_file_range, file, offset, len, flags) })
}
