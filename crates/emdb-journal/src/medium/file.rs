//! A journal in a file, with its lock and its checkpoint beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use emdb_format::{HEADER_BYTES, HEADER_SLOT_BYTES, HEADER_SLOTS, Header};
use fs4::FileExt;

use super::{Medium, SidecarMemory, Store};
use crate::error::Error;
use crate::extent::Map;
use crate::lock::{self, LockKind};
use crate::sys::{self, SyncRing};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Read and write; create the file if it is missing.
    Create,
    /// Read only; the file must exist, and nothing is ever written beside it either.
    ReadOnly,
}

/// A file, locked for as long as this lives.
#[derive(Debug)]
pub struct FileMedium {
    path: PathBuf,
    mode: OpenMode,
    /// Replaced once, when a new journal moves into place.
    file: RwLock<Opened>,
    /// What syncs go through, if anything but `fdatasync`.
    ring: Mutex<Option<SyncRing>>,
    forks: u64,
    released: AtomicBool,
}

#[derive(Debug)]
struct Opened {
    file: File,
    store: Store,
    /// What brings prepared space into memory; nobody else takes this lock.
    window: Mutex<Option<sys::Window>>,
}

impl Opened {
    fn new(file: File) -> Self {
        let store = if sys::preallocation_holds(&file) {
            sys::STORE
        } else {
            Store::Written
        };
        Self {
            file,
            store,
            window: Mutex::new(None),
        }
    }
}

impl FileMedium {
    /// Opens and locks the file at `path`, following symbolic links.
    ///
    /// # Errors
    /// [`Error::AlreadyLocked`] if it is open elsewhere, in this process or another;
    /// [`Error::Io`] if the path is a directory, a dangling symbolic link, in a
    /// missing directory, or not accessible.
    pub fn open(path: impl AsRef<Path>, mode: OpenMode) -> Result<Self, Error> {
        sys::watch_forks();
        let path = resolve(path.as_ref())?;
        let kind = match mode {
            OpenMode::Create => LockKind::Exclusive,
            OpenMode::ReadOnly => LockKind::Shared,
        };
        let mut options = OpenOptions::new();
        options.read(true);
        if mode == OpenMode::Create {
            options.write(true).create(true);
            sys::private(&mut options);
        }
        // Links were followed already; one that has come since is not.
        sys::no_follow(&mut options);
        // Whoever replaces the file holds its lock, so a second look settles which
        // file the path names; more than a few rounds would be somebody's mischief.
        for _ in 0..16 {
            let file = options
                .open(&path)
                .map_err(|e| Error::io("open", &path, e))?;
            lock::lock(&file, &path, kind)?;
            match sys::is_same_file(&file, &path) {
                Ok(true) => {
                    if mode == OpenMode::Create {
                        lock::write_note(&path)?;
                    }
                    let file = RwLock::new(Opened::new(file));
                    return Ok(Self {
                        path,
                        mode,
                        file,
                        ring: Mutex::new(None),
                        forks: sys::forks(),
                        released: AtomicBool::new(false),
                    });
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("look at", &path, error)),
            }
        }
        Err(Error::AlreadyLocked)
    }

    /// Has syncs submitted through an io_uring whose queue a kernel thread polls; the
    /// thread sleeps once `idle_ms` milliseconds went by without a sync (0: the
    /// kernel's default of one second), and wakes with the next one.
    ///
    /// An ordinary `fdatasync` stays in use, silently, without the feature `iouring`,
    /// on systems other than Linux on x86-64 and ARM64, where the kernel is older than
    /// 5.12, and where it refuses the ring: a sandbox, a limit, `io_uring_disabled`.
    ///
    /// # Durability
    /// As without it: a sync that returned has reached stable storage, and the error
    /// of one that failed is the kernel's own.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use emdb_journal::{FileMedium, OpenMode};
    ///
    /// let medium = FileMedium::open("journal", OpenMode::Create)?.sqpoll(100);
    /// # Ok::<(), emdb_journal::Error>(())
    /// ```
    #[must_use]
    pub fn sqpoll(self, idle_ms: u32) -> Self {
        if self.mode == OpenMode::Create {
            *self.ring() = SyncRing::open(idle_ms);
        }
        self
    }

    fn ring(&self) -> MutexGuard<'_, Option<SyncRing>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        attempt: &str,
        action: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T, Error> {
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        action(&opened.file).map_err(|error| Error::io(attempt, &self.path, error))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    fn sync_directory(&self) -> Result<(), Error> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        sys::sync_directory(directory).map_err(|e| Error::io("sync", directory, e))
    }

    /// Writes a file beside the journal, whole and synced, and moves it to `target`.
    fn replace(
        &self,
        temporary: &Path,
        target: &Path,
        prepare: impl FnOnce(&File) -> Result<(), Error>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<File, Error> {
        let file = create_anew(temporary).map_err(|e| Error::io("create", temporary, e))?;
        let moved = prepare(&file).and_then(|()| {
            let mut out = BufWriter::with_capacity(1 << 20, &file);
            write(&mut out)
                .and_then(|()| out.flush())
                .map_err(|e| Error::io("write", temporary, e))?;
            drop(out);
            file.sync_all()
                .map_err(|e| Error::io("sync", temporary, e))?;
            fs::rename(temporary, target).map_err(|e| Error::io("rename", temporary, e))?;
            self.sync_directory()
        });
        match moved {
            Ok(()) => Ok(file),
            Err(error) => {
                // Nothing is left behind; if even that fails, the next try removes it.
                let _ = fs::remove_file(temporary);
                Err(error)
            }
        }
    }
}

/// Creates a file of the journal's owner, in the place of whatever has its name: a link
/// that somebody planted there is removed, never followed.
pub(crate) fn create_anew(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    sys::private(&mut options);
    // Only the holder of the lock creates these files, so a second look settles it;
    // more than a few rounds would be somebody's mischief.
    for _ in 0..16 {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

const NEW: &str = ".new";
const NEW_META: &str = ".new.meta";
const BACKUP: &str = ".encbak";

/// Removes what an attempt left behind that was to replace the journal at `path`, whose
/// header this is, and did not come to its end.
///
/// # Errors
/// [`Error::Io`] if a file is in the way that is no such thing.
pub fn remove_unfinished(path: &Path, header: &Header) -> Result<(), Error> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    remove_leftover(&beside(NEW), Some(header))?;
    for cache in [".new.lock", NEW_META] {
        let _ = fs::remove_file(beside(cache));
    }
    Ok(())
}

/// Removes a file that was to become a journal; one that nothing was appended to, or the
/// successor of the journal with this header.
fn remove_leftover(path: &Path, header: Option<&Header>) -> Result<(), Error> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at", path, error)),
    };
    let is_ours = !found.is_file()
        || found.len() <= HEADER_BYTES as u64
        || header.is_some_and(|header| is_successor(path, header).unwrap_or(false));
    if !is_ours {
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(Error::io(
            "replace what may be another database,",
            path,
            error,
        ));
    }
    fs::remove_file(path).map_err(|error| Error::io("remove", path, error))
}

/// Whether the file at `path` is a journal of the same database and of a later generation,
/// and nobody has it open.
fn is_successor(path: &Path, header: &Header) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut front = vec![0; HEADER_BYTES];
    io::Read::read_exact(&mut file, &mut front)?;
    let later = HEADER_SLOTS.into_iter().any(|at| {
        let slot = front
            .get(at as usize..)
            .and_then(|from| from.get(..HEADER_SLOT_BYTES));
        slot.and_then(|slot| Header::decode(slot).ok())
            .is_some_and(|found| {
                found.database_id == header.database_id && found.generation > header.generation
            })
    });
    Ok(later && lock::lock(&file, path, LockKind::Exclusive).is_ok())
}

/// How far [`put_in_place`] has come.
#[cfg(feature = "encrypt")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The old journal has its name, and that of the backup.
    BackedUp,
    /// The new journal has the old one's name.
    Replaced,
    /// And so has its sidecar. All of it survives power loss.
    Done,
}

/// Puts the journal at `<path>.new`, and its sidecar, in the place of the journal at `path`,
/// which stays as `<path>.encbak`. Whoever calls it holds the locks of both, and keeps them.
/// `path` must have its symbolic links followed.
///
/// # Durability
/// A crash leaves the old journal or the new one at `path`, whole; the next opening removes
/// what else is left.
///
/// # Errors
/// [`Error::Io`]; the old journal or the new one is at `path`.
#[cfg(feature = "encrypt")]
pub fn put_in_place(path: &Path, on: &mut dyn FnMut(Place)) -> Result<(), Error> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    };
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).map_err(|error| Error::io("rename", from, error))
    };
    let (new, backup, meta) = (beside(NEW), beside(BACKUP), beside(".meta"));
    let directory = path.parent().unwrap_or(Path::new("."));
    let sync = || sys::sync_directory(directory).map_err(|e| Error::io("sync", directory, e));
    // A mode that a user gave the file stays.
    fs::metadata(path)
        .and_then(|old| fs::set_permissions(&new, old.permissions()))
        .map_err(|error| Error::io("set the mode of", &new, error))?;
    remove(&backup)?;
    fs::hard_link(path, &backup).map_err(|error| Error::io("link", &backup, error))?;
    sync()?;
    on(Place::BackedUp);
    // It may hold names in the clear, and no longer fits.
    remove(&meta)?;
    rename(&new, path)?;
    sync()?;
    on(Place::Replaced);
    let new_meta = beside(NEW_META);
    if new_meta.exists() {
        rename(&new_meta, &meta)?;
        sync()?;
    }
    on(Place::Done);
    Ok(())
}

/// The path with symbolic links followed; the file itself may be missing.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    match fs::canonicalize(path) {
        Ok(path) => {
            if path.is_dir() {
                let error = io::Error::from(io::ErrorKind::IsADirectory);
                return Err(Error::io("open", &path, error));
            }
            Ok(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Error::io("follow the dangling symbolic link", path, error));
            }
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let parent =
                fs::canonicalize(parent).map_err(|e| Error::io("find the directory", parent, e))?;
            let name = path
                .file_name()
                .ok_or_else(|| Error::io("open", path, error))?;
            Ok(parent.join(name))
        }
        Err(error) => Err(Error::io("resolve", path, error)),
    }
}

impl Drop for FileMedium {
    fn drop(&mut self) {
        self.release();
    }
}

impl Medium for FileMedium {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, Error> {
        self.with("look at", |file| Ok(file.metadata()?.len()))
    }

    fn create(&self, header: &[u8]) -> Result<(), Error> {
        let temporary = self.beside(NEW);
        remove_leftover(&temporary, None)?;
        let file = self.replace(
            &temporary,
            &self.path,
            // Locked before it gets its name, so nobody can slip in between.
            |file| lock::lock(file, &temporary, LockKind::Exclusive),
            |out| out.write_all(header),
        )?;
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Opened::new(file);
        Ok(())
    }

    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error> {
        self.with("map", |file| Map::file(file, needed, wanted))
    }

    fn prepare(&self, from: u64, to: u64) -> Result<(), Error> {
        // Shared: writes and syncs go on meanwhile.
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let file = &opened.file;
        if opened.store != Store::Written {
            match sys::allocate(file, to) {
                Ok(()) => return Ok(()),
                // Old file systems of the same family; written zeros hold there too.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => {
                    // Part of the space may have been taken: give it back.
                    let _ = file.set_len(from);
                    return Err(Error::io("prepare space in", &self.path, error));
                }
            }
        }
        let zeros = vec![0; 1 << 20];
        let mut at = from;
        while at < to {
            let len = (to - at).min(zeros.len() as u64);
            let part = zeros.get(..len as usize).unwrap_or(&zeros);
            if let Err(error) = sys::write_all_at(file, part, at) {
                let _ = file.set_len(from);
                return Err(Error::io("prepare space in", &self.path, error));
            }
            at += len;
        }
        Ok(())
    }

    fn populate(&self, from: u64, to: u64) {
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let mut window = opened.window.lock().unwrap_or_else(PoisonError::into_inner);
        sys::populate(&mut window, &opened.file, from, to);
    }

    fn write_back(&self, from: u64, to: u64) {
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        sys::write_back(&opened.file, from, to);
    }

    fn store(&self) -> Store {
        self.file
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .store
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        self.with("write to", |file| sys::write_all_at(file, bytes, position))
    }

    fn sync(&self) -> Result<(), Error> {
        self.with("sync", |file| {
            let mut ring = self.ring();
            if let Some(sync_ring) = ring.as_mut() {
                if let Some(result) = sync_ring.sync_data(file) {
                    return result;
                }
                // Refused, for good, before there was a sync that could have failed.
                *ring = None;
            }
            drop(ring);
            sys::sync_data(file)
        })
    }

    fn truncate(&self, len: u64) -> Result<(), Error> {
        self.with("truncate", |file| file.set_len(len))
    }

    fn release(&self) {
        if sys::forks() != self.forks || self.released.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.mode == OpenMode::Create {
            // The note goes first, while nobody else can have written a new one. It
            // is only a courtesy, so a failure does not matter.
            let _ = lock::remove_note(&self.path);
        }
        *self.ring() = None;
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        // If this fails, the lock goes when the file is closed.
        let _ = FileExt::unlock(&opened.file);
    }

    fn remove_unfinished(&self, header: &Header) {
        // What is somebody's own stays, and what cannot be removed is dead space.
        let _ = remove_unfinished(&self.path, header);
        let backup = self.beside(BACKUP);
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        // No backup yet, but this very file.
        if sys::is_same_file(&opened.file, &backup).unwrap_or(false) {
            let _ = fs::remove_file(&backup);
        }
    }

    fn next_data(&self, position: u64) -> u64 {
        let opened = self.file.read().unwrap_or_else(PoisonError::into_inner);
        sys::next_data(&opened.file, position)
    }

    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (temporary, target) = (self.beside(".meta.tmp"), self.beside(".meta"));
        self.replace(&temporary, &target, |_| Ok(()), write)
            .map(drop)
    }

    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error> {
        let path = self.beside(".meta");
        // Nothing but a file of its own: opening a pipe, for one, may never return.
        let file = fs::symlink_metadata(&path).and_then(|found| {
            if found.is_file() {
                File::open(&path)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        match sys::map_private(&file) {
            Ok(memory) => Ok(memory.map(|memory| Box::new(memory) as Box<dyn SidecarMemory>)),
            Err(error) => Err(Error::io("map", &path, error)),
        }
    }
}
