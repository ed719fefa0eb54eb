//! What the system knows: memory, disk, the machine. Linux; elsewhere figures are missing.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::engine::Outcome;

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(field));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .ok_or("no such field")?
        .parse()?;
    Ok(kib * 1024.0)
}

/// Resident memory, the page cache that is mapped included.
pub fn resident_bytes() -> Outcome<f64> {
    status("VmRSS:")
}

/// Resident memory that is not the page cache's.
pub fn anonymous_bytes() -> Outcome<f64> {
    status("RssAnon:")
}

pub fn peak_resident_bytes() -> Outcome<f64> {
    status("VmHWM:")
}

/// What the files of a folder take on the disk: holes do not count, preallocation does.
pub fn disk_bytes(folder: &Path) -> Outcome<f64> {
    let mut bytes = 0;
    each_file(folder, &mut |path| {
        bytes += fs::metadata(path)?.blocks() * 512;
        Ok(())
    })?;
    Ok(bytes as f64)
}

/// Has the system forget the pages of all files of a folder; tells how many bytes stayed.
/// Pages that a process maps stay, so no database may be open.
pub fn evict(folder: &Path) -> Outcome<u64> {
    let mut stayed = 0;
    each_file(folder, &mut |path| {
        let file = fs::File::open(path)?;
        // Dirty pages stay, too.
        file.sync_all()?;
        // SAFETY: the descriptor is open.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        stayed += cached_bytes(&file)?;
        Ok(())
    })?;
    Ok(stayed)
}

fn cached_bytes(file: &fs::File) -> io::Result<u64> {
    let len = file.metadata()?.len() as usize;
    if len == 0 {
        return Ok(0);
    }
    let page = 4096;
    let mut resident = vec![0_u8; len.div_ceil(page)];
    // SAFETY: a new shared mapping of an open file, at a place of the system's choice.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has `len` bytes, the vector one for each page of them.
    let asked = unsafe { libc::mincore(map, len, resident.as_mut_ptr().cast()) };
    // SAFETY: the mapping made above, used nowhere else.
    unsafe { libc::munmap(map, len) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    let pages = resident.iter().filter(|byte| *byte & 1 == 1).count();
    Ok((pages * page) as u64)
}

fn each_file(folder: &Path, action: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let done = if path.is_dir() {
            each_file(&path, action)
        } else {
            action(&path)
        };
        match done {
            // Engines delete files in the background.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Has this process end with the one that began it, and be the first to go when memory runs out.
pub fn belong_to_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // Where it is refused, the system chooses.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// What the report says about where it was made.
pub fn machine(folder: &Path) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, field: &str| {
        let line = text.lines().find(|line| line.starts_with(field));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let kib: f64 = memory
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default();
    let facts = [
        ("processor", after(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", format!("{:.1} GiB", kib / f64::from(1 << 20))),
        (
            "system",
            read("/proc/version")
                .chars()
                .take_while(|c| *c != '(')
                .collect(),
        ),
        ("file system", file_system(folder)),
        ("rustc", said("rustc", &["--version"])),
        (
            "commit",
            said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        ),
    ];
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The type of the file system that holds the folder.
pub fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(place, _)| folder.starts_with(place))
        // The deepest, and of those at one place the last mounted.
        .max_by_key(|(place, _)| place.len())
        .map(|(_, kind)| kind.to_owned())
        .unwrap_or_default()
}

pub fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
