//! Unix: Linux first, then macOS and the BSDs.

use std::fs::File;
use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(any(target_os = "linux", target_os = "android"))]
use memmap2::{Advice, MmapOptions, UncheckedAdvice};

use crate::medium::Store;

/// Whether a map may reach past the end of its file.
pub(crate) const CAN_MAP_PAST_END: bool = true;

/// Bytes of a page.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: `sysconf` has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes)
        .ok()
        .filter(|bytes| bytes.is_power_of_two())
        .unwrap_or(4096)
}

/// Makes whole pages writable or read-only.
///
/// # Safety
/// The pages belong to a map of the caller's, and nobody stores into pages that
/// become read-only.
pub(crate) unsafe fn protect(start: *mut u8, len: usize, writable: bool) -> io::Result<()> {
    let protection = if writable {
        libc::PROT_READ | libc::PROT_WRITE
    } else {
        libc::PROT_READ
    };
    // SAFETY: as this function's own conditions say; the call checks alignment.
    match unsafe { libc::mprotect(start.cast(), len, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes all of `bytes` at `position`.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    file.write_all_at(bytes, position)
}

/// Allocates every byte of the file below `end`, and makes it that long.
///
/// Never believes the number of allocated blocks: file systems count blocks of their
/// own and blocks behind the end, so it says nothing about the bytes below `end`.
pub(crate) fn allocate(file: &File, end: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let len = libc::off_t::try_from(end).map_err(|_| io::ErrorKind::FileTooLarge)?;
        loop {
            // SAFETY: the descriptor is open for as long as `file` is borrowed.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, end);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How bytes are stored where preallocation holds: only Linux keeps files in pages
/// larger than a block, and dirties them whole.
pub(crate) const STORE: Store = if cfg!(any(target_os = "linux", target_os = "android")) {
    Store::Mixed
} else {
    Store::Mapped
};

/// A part of a file through which [`populate`] works: changing what is mapped for every
/// few pages would hold up whoever else touches the process's memory, since the
/// system does that under the lock that page faults take, and waits there for a sync
/// that is going over the file's maps.
#[derive(Debug)]
pub(crate) struct Window {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    from: u64,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    map: memmap2::MmapRaw,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Window {
    const BYTES: u64 = 256 << 20;

    fn new(file: &File, position: u64) -> Option<Self> {
        let from = position - position % Self::BYTES;
        // In a map of its own: whatever a read maps is mapped read-only, and in the
        // journal's map the first store into each page would then fault once more.
        let map = MmapOptions::new()
            .offset(from)
            .len(usize::try_from(Self::BYTES).ok()?)
            .map_raw_read_only(file)
            .ok()?;
        // In pages as large as a reader's map can have, where there are any.
        let _ = map.advise(Advice::HugePage);
        Some(Self { from, map })
    }

    /// Where in the map these bytes are, as far as they are.
    fn range(&self, from: u64, to: u64) -> Option<(usize, usize)> {
        let at = from.checked_sub(self.from)?;
        let len = to.checked_sub(from)?.min(Self::BYTES.checked_sub(at)?);
        if len == 0 {
            return None;
        }
        Some((usize::try_from(at).ok()?, usize::try_from(len).ok()?))
    }
}

/// Brings bytes of the file into memory, as far as that is possible; `window` is of the
/// same file, and moves with them.
pub(crate) fn populate(window: &mut Option<Window>, file: &File, from: u64, to: u64) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if window
            .as_ref()
            .is_none_or(|window| window.range(from, to).is_none())
        {
            *window = None;
            *window = Window::new(file, from);
        }
        let Some(window) = window else { return };
        let Some((at, len)) = window.range(from, to) else {
            return;
        };
        let _ = window.map.advise_range(Advice::PopulateRead, at, len);
        // The pages stay in memory; only this map forgets them, so that a sync has one map less
        // to look at.
        // SAFETY: nothing ever refers to the bytes of this map.
        let _ = unsafe {
            window
                .map
                .unchecked_advise_range(UncheckedAdvice::DontNeed, at, len)
        };
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (window, file, from, to);
}

/// Has the system begin to write bytes of the file that were stored, and not wait for that.
pub(crate) fn write_back(file: &File, from: u64, to: u64) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let (Ok(from), Ok(len)) = (from.try_into(), to.saturating_sub(from).try_into()) {
        // SAFETY: the descriptor is open.
        let _ = unsafe {
            libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE)
        };
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (file, from, to);
}

/// Whether the page that begins at `page` is in memory; yes where the system does not tell.
pub(crate) fn is_resident(page: *const u8) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut state = 0_u8;
        // SAFETY: the call writes one byte, for the one page that is asked about; an address
        // where nothing is mapped, or no page begins, is an error.
        let asked = unsafe { libc::mincore(page.cast_mut().cast(), 1, &raw mut state) };
        asked != 0 || state & 1 == 1
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = page;
        true
    }
}

/// First position at or after `position` that is not a hole.
pub(crate) fn next_data(file: &File, position: u64) -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let Ok(offset) = libc::off_t::try_from(position) else {
            return position;
        };
        // SAFETY: the descriptor is open for as long as `file` is borrowed.
        let found = unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_DATA) };
        if let Ok(found) = u64::try_from(found) {
            return found;
        }
        if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) {
            return u64::MAX;
        }
    }
    let _ = file;
    position
}

/// Whether stores into a map of preallocated space cannot fail on this file system.
pub(crate) fn preallocation_holds(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        // statfs(2): file systems that write in place and keep what fallocate reserved.
        const EXT: i64 = 0xef53;
        const XFS: i64 = 0x5846_5342;
        const TMPFS: i64 = 0x0102_1994;
        let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the descriptor is open, and `stat` has room for the answer.
        if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: the call succeeded, so it filled `stat` in.
        let stat = unsafe { stat.assume_init() };
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_cast,
            reason = "the type differs by target"
        )]
        let kind = stat.f_type as i64;
        matches!(kind, EXT | XFS | TMPFS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// Makes the file's bytes survive power loss.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    // std asks for F_FULLFSYNC on Apple systems. Elsewhere than on Linux a file
    // sync need not include pages dirtied through a map, but there the journal
    // writes with `pwrite` (see `preallocation_holds`).
    file.sync_data()
}

/// Makes a directory's entries survive power loss.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whether the open file is still the one that `path` names.
pub(crate) fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, std::fs::metadata(path)?);
    Ok(opened.dev() == named.dev() && opened.ino() == named.ino())
}

/// Restricts a new file to its owner.
pub(crate) fn private(options: &mut std::fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

/// Has opening fail where the last part of the path is a symbolic link.
pub(crate) fn no_follow(options: &mut std::fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NOFOLLOW);
}

static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between this process and the one that first asked.
#[inline]
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Starts counting forks.
pub(crate) fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler only touches an atomic, which is allowed after a fork.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
    });
}

/// Maps a whole file copy-on-write; `None` if it is empty.
pub(crate) fn map_private(file: &File) -> io::Result<Option<memmap2::MmapMut>> {
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: the map is private, and the file is never rewritten in place, only
    // replaced; docs/durability.md says what another program's truncation does.
    unsafe { memmap2::MmapOptions::new().map_copy(file) }.map(Some)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{is_resident, page_bytes};

    #[test]
    fn a_page_is_resident_once_it_was_touched() {
        let page = usize::try_from(page_bytes()).unwrap();
        let mut map = memmap2::MmapMut::map_anon(2 * page).unwrap();
        map[0] = 1;
        assert!(is_resident(map.as_ptr()));
        assert!(!is_resident(map.as_ptr().wrapping_add(page)));
        // Nothing is known: not a page, not mapped.
        assert!(is_resident(map.as_ptr().wrapping_add(1)));
        assert!(is_resident(std::ptr::null()));
    }
}
