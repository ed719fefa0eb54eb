//! Platforms without Unix calls: maps end with the file, and appends are written.

use std::fs::File;
use std::io;
use std::path::Path;

/// Whether a map may reach past the end of its file.
pub(crate) const CAN_MAP_PAST_END: bool = false;

/// Bytes of a page.
pub(crate) fn page_bytes() -> u64 {
    64 << 10
}

/// Makes whole pages writable or read-only; maps stay read-only here.
///
/// # Safety
/// None: nothing is done.
pub(crate) unsafe fn protect(_start: *mut u8, _len: usize, _writable: bool) -> io::Result<()> {
    Ok(())
}

/// Writes all of `bytes` at `position`.
#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, position)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or(&[]);
        position += written as u64;
    }
    Ok(())
}

/// Writes all of `bytes` at `position`.
#[cfg(not(windows))]
pub(crate) fn write_all_at(mut file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(position))?;
    file.write_all(bytes)
}

/// Allocates every byte of the file below `end`; not possible here.
pub(crate) fn allocate(_file: &File, _end: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// First position at or after `position` that is not a hole.
pub(crate) fn next_data(_file: &File, position: u64) -> u64 {
    position
}

/// Whether stores into a map of preallocated space cannot fail on this file system.
pub(crate) fn preallocation_holds(_file: &File) -> bool {
    false
}

/// Makes the file's bytes survive power loss.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes a directory's entries survive power loss; not needed or not possible here.
pub(crate) fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether the open file is still the one that `path` names.
pub(crate) fn is_same_file(_file: &File, path: &Path) -> io::Result<bool> {
    // An open file cannot be renamed over here.
    std::fs::exists(path)
}

/// Restricts a new file to its owner; directories do that here.
pub(crate) fn private(_options: &mut std::fs::OpenOptions) {}

/// Has opening fail where the last part of the path is a symbolic link; making one takes
/// rights here that few have.
pub(crate) fn no_follow(_options: &mut std::fs::OpenOptions) {}

/// How bytes are stored where preallocation holds.
pub(crate) const STORE: crate::medium::Store = crate::medium::Store::Mapped;

/// What [`populate`] would work through.
#[derive(Debug)]
pub(crate) struct Window;

/// Has the system begin to write what was stored; left to the system here.
pub(crate) fn write_back(_file: &File, _from: u64, _to: u64) {}

/// Brings bytes of the file into memory; left to the system here.
pub(crate) fn populate(_window: &mut Option<Window>, _file: &File, _from: u64, _to: u64) {}

/// How many forks lie between this process and the one that first asked.
#[inline]
pub(crate) fn forks() -> u64 {
    0
}

/// Starts counting forks; there are none here.
pub(crate) fn watch_forks() {}

/// Maps a whole file copy-on-write; `None` if it is empty.
pub(crate) fn map_private(file: &File) -> io::Result<Option<memmap2::MmapMut>> {
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: the map is private, and the file is never rewritten in place, only
    // replaced; docs/durability.md says what another program's truncation does.
    unsafe { memmap2::MmapOptions::new().map_copy(file) }.map(Some)
}
