//! Every call by which a thread changes files, shown to a test before it is made.
//!
//! The functions at the end take the place of the C library's in the test's binary. So a test
//! sees each change of a file that there is, wherever it comes from, and can end the process
//! there, have the call fail, or look at the files as they are. Stores into maps are no calls;
//! journals of a few records are written by calls alone.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

/// What is shown a call by its name. The call fails with the error number that comes back.
type Watch<'a> = dyn FnMut(&'static str) -> Option<c_int> + 'a;

thread_local! {
    static WATCH: RefCell<Option<Box<Watch<'static>>>> = const { RefCell::new(None) };
}

/// Runs `action`, and shows `seen` each call of this thread that is about to change a file.
/// A write is shown twice: before its first half, which may fail, and before its second.
/// What `seen` does itself is not shown.
pub(crate) fn watch<T>(
    seen: impl FnMut(&'static str) -> Option<c_int> + 'static,
    action: impl FnOnce() -> T,
) -> T {
    /// Ends it, even by a panic.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            WATCH.take();
        }
    }
    WATCH.set(Some(Box::new(seen)));
    let _ends = Ends;
    action()
}

/// Shows a call; whether it goes on.
fn goes_on(name: &'static str) -> bool {
    let Ok(Some(mut seen)) = WATCH.try_with(RefCell::take) else {
        return true;
    };
    let failure = seen(name);
    WATCH.set(Some(seen));
    if let Some(number) = failure {
        // SAFETY: a plain call.
        let own = unsafe { libc::__errno_location() };
        // SAFETY: the address is that of this thread's own error number.
        unsafe { *own = number };
    }
    failure.is_none()
}

fn is_watched() -> bool {
    let watched = WATCH.try_with(|watch| watch.borrow().is_some());
    watched.unwrap_or(false)
}

/// Writes `len` bytes by a call that gets an offset and a length; in two halves if watched.
fn write_by(name: &'static str, len: usize, write: impl Fn(usize, usize) -> c_long) -> isize {
    if !is_watched() {
        return write(0, len) as isize;
    }
    if !goes_on(name) {
        return -1;
    }
    let first = write(0, len / 2);
    if first as usize != len / 2 || !goes_on("half of a write") {
        return first as isize;
    }
    match write(len / 2, len - len / 2) {
        -1 => first as isize,
        second => (first + second) as isize,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(file: c_int, bytes: *const c_void, len: usize) -> isize {
    write_by("write", len, |from, len| {
        // SAFETY: the caller vouches for all of the bytes, and these are among them.
        unsafe { libc::syscall(libc::SYS_write, file, bytes.wrapping_byte_add(from), len) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(file: c_int, bytes: *const c_void, len: usize, at: i64) -> isize {
    write_by("pwrite", len, |from, len| {
        let at = at + from as i64;
        // SAFETY: the caller vouches for all of the bytes, and these are among them.
        unsafe {
            libc::syscall(
                libc::SYS_pwrite64,
                file,
                bytes.wrapping_byte_add(from),
                len,
                at,
            )
        }
    })
}

/// Functions of the C library, and the system's call that each of them is.
macro_rules! watched {
    ($($name:ident($($arg:ident: $of:ty),*) is $call:ident($($passed:expr),*);)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $of),*) -> c_int {
            if !goes_on(stringify!($name)) {
                return -1;
            }
            // SAFETY: the caller vouches for what it passes, and all of it is passed on.
            unsafe { libc::syscall(libc::$call, $($passed),*) as c_int }
        }
    )*};
}

watched! {
    fsync(file: c_int) is SYS_fsync(file);
    fdatasync(file: c_int) is SYS_fdatasync(file);
    ftruncate64(file: c_int, len: i64) is SYS_ftruncate(file, len);
    fallocate(file: c_int, mode: c_int, from: i64, len: i64) is SYS_fallocate(file, mode, from, len);
    rename(from: *const c_char, to: *const c_char)
        is SYS_renameat2(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0);
    unlink(path: *const c_char) is SYS_unlinkat(libc::AT_FDCWD, path, 0);
    linkat(from_in: c_int, from: *const c_char, to_in: c_int, to: *const c_char, flags: c_int)
        is SYS_linkat(from_in, from, to_in, to, flags);
    chmod(path: *const c_char, mode: c_uint) is SYS_fchmodat(libc::AT_FDCWD, path, mode);
}
