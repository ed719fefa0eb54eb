//! Who may open a journal: the lock on the file itself, and the note beside it.
//!
//! The lock that counts is the operating system's lock on the journal file, which
//! goes away with its holder. `<path>.lock` only says who holds it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use emdb_format::FORMAT_VERSION;
use fs4::{FileExt, TryLockError};

use crate::error::Error;
use crate::medium::create_anew;

/// Who holds a journal open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// Process id.
    pub pid: u32,
    /// When the lock was taken, in Unix milliseconds.
    pub acquired_at_ms: u64,
    /// Version of the on-disk format.
    pub schema_version: u32,
    /// Version of the crate.
    pub crate_version: String,
}

/// How a file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    Exclusive,
    Shared,
}

/// Takes the lock without waiting for long; a probe by `lock_holder` may hold it
/// for an instant.
pub(crate) fn lock(file: &File, path: &Path, kind: LockKind) -> Result<(), Error> {
    const ATTEMPTS: u32 = 4;
    for attempt in 1..=ATTEMPTS {
        let result = match kind {
            LockKind::Exclusive => FileExt::try_lock(file),
            LockKind::Shared => FileExt::try_lock_shared(file),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => {
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
            Err(TryLockError::WouldBlock) => return Err(Error::AlreadyLocked),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path, error)),
        }
    }
    Err(Error::AlreadyLocked)
}

/// The path of the note beside a journal.
pub(crate) fn note_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Writes the note.
pub(crate) fn write_note(path: &Path) -> Result<(), Error> {
    let note = note_path(path);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let text = format!(
        "pid={}\nacquired_at_ms={}\nschema_version={}\ncrate_version={}\n",
        std::process::id(),
        now.as_millis(),
        FORMAT_VERSION,
        env!("CARGO_PKG_VERSION"),
    );
    create_anew(&note)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Error::io("write", &note, error))
}

/// Removes the note; whether it was there does not matter.
pub(crate) fn remove_note(path: &Path) -> Result<(), Error> {
    let note = note_path(path);
    match fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &note, error))
        }
        _ => Ok(()),
    }
}

/// Who holds the journal at `path` open for writing, if anyone does.
///
/// # Errors
/// [`Error::Io`] if the file cannot be looked at.
pub fn lock_holder(path: &Path) -> Result<Option<LockHolder>, Error> {
    let Some((file, path)) = open_existing(path)? else {
        return Ok(None);
    };
    match lock(&file, &path, LockKind::Shared) {
        Ok(()) => Ok(None),
        Err(Error::AlreadyLocked) => Ok(Some(read_note(&path))),
        Err(error) => Err(error),
    }
}

/// Removes what a dead holder left beside the journal at `path`. Doing it twice, or
/// where nothing was left, is fine.
///
/// # Errors
/// [`Error::AlreadyLocked`] while someone holds the lock; nothing has changed then.
pub fn break_lock(path: &Path) -> Result<(), Error> {
    match open_existing(path)? {
        Some((file, path)) => {
            lock(&file, &path, LockKind::Exclusive)?;
            remove_note(&path)
        }
        None => remove_note(path),
    }
}

fn open_existing(path: &Path) -> Result<Option<(File, PathBuf)>, Error> {
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("resolve", path, error)),
    };
    match File::open(&real) {
        Ok(file) => Ok(Some((file, real))),
        Err(error) => Err(Error::io("open", &real, error)),
    }
}

/// What the note says; a missing or damaged note leaves zeros.
fn read_note(path: &Path) -> LockHolder {
    let mut holder = LockHolder {
        pid: 0,
        acquired_at_ms: 0,
        schema_version: 0,
        crate_version: String::new(),
    };
    let text = fs::read_to_string(note_path(path)).unwrap_or_default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("pid", value)) => holder.pid = value.parse().unwrap_or(0),
            Some(("acquired_at_ms", value)) => {
                holder.acquired_at_ms = value.parse().unwrap_or(0);
            }
            Some(("schema_version", value)) => {
                holder.schema_version = value.parse().unwrap_or(0);
            }
            Some(("crate_version", value)) => holder.crate_version = value.to_owned(),
            _ => {}
        }
    }
    holder
}
