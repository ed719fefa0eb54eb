//! How a database is opened.

#[cfg(feature = "encrypt")]
mod encryption;

use std::path::{Path, PathBuf};
use std::time::Duration;

use emdb_journal::{FileMedium, Medium, MemoryMedium, OpenMode, Options, SyncPolicy};

use crate::clock::TimeSource;
use crate::db::Emdb;
use crate::engine::{self, EngineOptions};
use crate::{Error, Result};

const APP_NAME: &str = "emdb";
const DATABASE_NAME: &str = "emdb-default.emdb";

/// When writes reach stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FlushPolicy {
    /// When [`flush`](crate::Emdb::flush) is called. Calls at the same time share one
    /// sync.
    #[default]
    OnEachFlush,
    /// As `OnEachFlush`, but a flush always waits a tenth of a sync for others to
    /// share it. Worth it with many threads that flush often.
    Group,
    /// Every write is on stable storage when it returns.
    WriteThrough,
}

/// When a record's checksum is verified before its bytes are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VerifyReads {
    /// When the record is first read after opening.
    #[default]
    Once,
    /// At every read: also damage that comes up while the database is open is found.
    Always,
    /// Never: a flipped bit on disk may be handed out, or hide a record.
    Never,
}

/// Options for opening a database.
///
/// The file is `path`, or `<data directory>/<app name>/<database name>`, where the
/// data directory is the platform's for applications: `$XDG_DATA_HOME` or
/// `~/.local/share` on Linux, `~/Library/Application Support` on macOS,
/// `%LOCALAPPDATA%` on Windows. With none of the four set, the database is in memory.
///
/// # Examples
///
/// ```
/// use emdb_engine::{Emdb, FlushPolicy};
///
/// let db = Emdb::builder().flush_policy(FlushPolicy::Group).build()?;
/// db.insert("key", "value")?;
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct EmdbBuilder {
    path: Option<PathBuf>,
    app_name: Option<String>,
    database_name: Option<String>,
    data_root: Option<PathBuf>,
    flush_policy: FlushPolicy,
    verify_reads: VerifyReads,
    read_only: bool,
    checkpoint_bytes: Option<u64>,
    sync_every: Option<Duration>,
    sweep_every: Option<Duration>,
    default_ttl: Option<Duration>,
    range_scans: bool,
    time_source: Option<Time>,
    sqpoll_idle_ms: Option<u32>,
    #[cfg(feature = "encrypt")]
    encryption: encryption::Wanted,
}

/// A source of time that users gave.
#[derive(Clone)]
struct Time(TimeSource);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl EmdbBuilder {
    /// The default options: a database in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The database's file. Its directory must exist.
    #[must_use]
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_owned());
        self
    }

    /// The application's directory below the data directory; `"emdb"` by default.
    #[must_use]
    pub fn app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = Some(name.into());
        self
    }

    /// The file's name in the application's directory; `"emdb-default.emdb"` by default.
    #[must_use]
    pub fn database_name(mut self, name: impl Into<String>) -> Self {
        self.database_name = Some(name.into());
        self
    }

    /// A directory to use in place of the platform's data directory.
    #[must_use]
    pub fn data_root(mut self, root: impl AsRef<Path>) -> Self {
        self.data_root = Some(root.as_ref().to_owned());
        self
    }

    /// When writes reach stable storage.
    #[must_use]
    pub fn flush_policy(mut self, policy: FlushPolicy) -> Self {
        self.flush_policy = policy;
        self
    }

    /// When records' checksums are verified.
    #[must_use]
    pub fn verify_reads(mut self, verify: VerifyReads) -> Self {
        self.verify_reads = verify;
        self
    }

    /// Whether to open for reading only: nothing is ever written, not even the cut of
    /// a torn tail, and many readers may have the file open at once.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Growth of the journal, in bytes, after which a checkpoint is taken in the
    /// background. By default the larger of 512 MiB and one and a half times the index.
    ///
    /// The journal goes on growing while a checkpoint is taken. Lest opening after a kill
    /// should have to replay more than twice that (by default 1 GiB or three times the
    /// index; never less than 32 MiB more than that), writers that are about to get there
    /// are slowed down: each write by at most 2 ms, and a microsecond for every byte of it
    /// up to 10 MiB. One transaction is replayed as a whole, whatever its size.
    #[must_use]
    pub fn checkpoint_every(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = Some(bytes);
        self
    }

    /// Whether to keep the keys in order, for ranges, prefixes, `first` and `last`; off by
    /// default. It takes up to 32 bytes of memory a record more, and time for each new
    /// key. Any database can be opened with and without it: opening takes the order from
    /// the last checkpoint, and reads every record where that lacks it.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_engine::Emdb;
    ///
    /// let db = Emdb::builder().enable_range_scans(true).build()?;
    /// db.insert_many([("pear", "1"), ("apple", "2"), ("plum", "3")])?;
    /// let fruit = db.range("b"..)?;
    /// assert_eq!(fruit[0].0, b"pear");
    /// assert_eq!(fruit.len(), 2);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    #[must_use]
    pub fn enable_range_scans(mut self, enable: bool) -> Self {
        self.range_scans = enable;
        self
    }

    /// Has a thread sync the journal at an interval, if something was written since the
    /// last sync; off by default. The interval is counted from the end of one sync to
    /// the beginning of the next. Writers do not take part, nor wait for it. The thread
    /// ends when the database is closed.
    ///
    /// Does nothing for a database in memory, or one that is only read.
    ///
    /// # Durability
    /// A write survives power loss once the interval and at most two syncs have passed
    /// after it: one that was under way already, and its own. Nobody is told; who has to
    /// know calls [`flush`](Emdb::flush).
    ///
    /// # Errors
    /// [`build`](Self::build) returns [`Error::InvalidConfig`] for an interval of zero,
    /// and [`Error::Io`] if the thread cannot be started. A sync that fails poisons the
    /// database as a failed `flush` does: later writes and flushes return
    /// [`Error::Poisoned`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use emdb_engine::Emdb;
    ///
    /// let directory = tempfile::tempdir()?;
    /// let db = Emdb::builder()
    ///     .path(directory.path().join("data.emdb"))
    ///     .sync_every(Duration::from_millis(200))
    ///     .build()?;
    /// // Survives power loss soon, although nobody calls `flush`.
    /// db.insert("key", "value")?;
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    #[must_use]
    pub fn sync_every(mut self, interval: Duration) -> Self {
        self.sync_every = Some(interval);
        self
    }

    /// How long records live that are stored without saying so; for ever by default.
    /// Records that are there already stay as they are.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use emdb_engine::{Emdb, Ttl};
    ///
    /// let db = Emdb::builder().default_ttl(Duration::from_secs(60)).build()?;
    /// db.insert("session", "ada")?;
    /// db.insert_with_ttl("name", "ada", Ttl::None)?;
    /// assert!(db.ttl("session")?.is_some());
    /// assert_eq!(db.ttl("name")?, None);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    #[cfg(feature = "ttl")]
    #[must_use]
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Has a thread remove expired records from every namespace at an interval; off by
    /// default. It ends when the database is closed. Does nothing for a database that
    /// is only read.
    ///
    /// # Errors
    /// [`build`](Self::build) returns [`Error::InvalidConfig`] for an interval of zero,
    /// and [`Error::Io`] if the thread cannot be started.
    #[cfg(feature = "ttl")]
    #[must_use]
    pub fn sweep_every(mut self, interval: Duration) -> Self {
        self.sweep_every = Some(interval);
        self
    }

    /// What time it is for records that expire, in milliseconds since the Unix epoch;
    /// the system's time by default. For tests. Where it goes backwards, the database
    /// goes on with the latest time it saw.
    #[cfg(feature = "ttl")]
    #[must_use]
    pub fn clock(mut self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.time_source = Some(Time(std::sync::Arc::new(now_ms)));
        self
    }

    /// Has syncs submitted through an io_uring whose queue a kernel thread polls. The
    /// thread sleeps once `idle_ms` milliseconds went by without a sync (0: the
    /// kernel's default of one second); until then it keeps a processor busy.
    ///
    /// This is Linux's, on x86-64 and ARM64, from 5.12 on, and needs the cargo feature
    /// `iouring`. Elsewhere, without the feature, where the kernel refuses (a sandbox, a
    /// limit, `io_uring_disabled`), in memory, and when only reading, it does nothing:
    /// syncs stay what they were. A sandbox may also be put on later.
    ///
    /// # Durability
    /// As without it. The error of a sync that failed is the kernel's own, and poisons;
    /// the sync is not tried again, by either way.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_engine::Emdb;
    ///
    /// let directory = tempfile::tempdir()?;
    /// let db = Emdb::builder()
    ///     .path(directory.path().join("data.emdb"))
    ///     .iouring_sqpoll(50)
    ///     .build()?;
    /// db.insert("key", "value")?;
    /// db.flush()?;
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    #[must_use]
    pub fn iouring_sqpoll(mut self, idle_ms: u32) -> Self {
        self.sqpoll_idle_ms = Some(idle_ms);
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for options that contradict each other;
    /// [`Error::AlreadyLocked`] if the file is open elsewhere;
    /// [`Error::MagicMismatch`], [`Error::VersionMismatch`] and [`Error::Corrupted`]
    /// leave the file untouched.
    pub fn build(mut self) -> Result<Emdb> {
        self.check()?;
        match self.file()? {
            Some(path) => {
                let mode = if self.read_only {
                    OpenMode::ReadOnly
                } else {
                    OpenMode::Create
                };
                let mut medium = FileMedium::open(path, mode)?;
                if let Some(idle_ms) = self.sqpoll_idle_ms {
                    medium = medium.sqpoll(idle_ms);
                }
                self.open(Box::new(medium))
            }
            None if self.read_only => {
                Err(Error::InvalidConfig("read_only needs a path".to_owned()))
            }
            None => {
                // Nothing there survives a power loss anyway.
                self.sync_every = None;
                self.open(Box::new(MemoryMedium::new()))
            }
        }
    }

    /// Opens the database on a medium of your own, such as a simulated disk in tests.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_on(self, medium: Box<dyn Medium>) -> Result<Emdb> {
        self.check()?;
        self.open(medium)
    }

    /// Refuses values that no database can work with, before anything is touched.
    fn check(&self) -> Result<()> {
        if self.sync_every == Some(Duration::ZERO) {
            return Err(Error::InvalidConfig(
                "sync_every needs an interval above zero; \
                 FlushPolicy::WriteThrough syncs every write"
                    .to_owned(),
            ));
        }
        #[cfg(feature = "encrypt")]
        self.encryption.check()?;
        if self.sweep_every == Some(Duration::ZERO) {
            return Err(Error::InvalidConfig(
                "sweep_every needs an interval above zero".to_owned(),
            ));
        }
        Ok(())
    }

    fn open(&self, medium: Box<dyn Medium>) -> Result<Emdb> {
        let policy = match self.flush_policy {
            FlushPolicy::OnEachFlush => SyncPolicy::OnRequest,
            FlushPolicy::Group => SyncPolicy::Group,
            FlushPolicy::WriteThrough => SyncPolicy::EachAppend,
        };
        let options = Options::default()
            .sync_policy(policy)
            .read_only(self.read_only);
        let opening = self.opening(medium, options)?;
        let engine = engine::open(
            opening,
            EngineOptions {
                verify_reads: self.verify_reads,
                checkpoint_bytes: self.checkpoint_bytes,
                // Who only reads has written nothing.
                sync_every: self.sync_every.filter(|_| !self.read_only),
                sweep_every: self.sweep_every.filter(|_| !self.read_only),
                default_ttl: self.default_ttl,
                range_scans: self.range_scans,
                time_source: self.time_source.clone().map(|time| time.0),
                read_only: self.read_only,
            },
        )?;
        Ok(Emdb::new(engine))
    }

    #[cfg(not(feature = "encrypt"))]
    #[expect(clippy::unused_self, reason = "options say more in other builds")]
    fn opening(&self, medium: Box<dyn Medium>, options: Options) -> Result<emdb_journal::Opening> {
        Ok(emdb_journal::Opening::new(medium, options)?)
    }

    /// The file's path; `None` for a database in memory.
    fn file(&self) -> Result<Option<PathBuf>> {
        let placed =
            self.app_name.is_some() || self.database_name.is_some() || self.data_root.is_some();
        match (&self.path, placed) {
            (Some(_), true) => Err(Error::InvalidConfig(
                "path excludes app_name, database_name and data_root".to_owned(),
            )),
            (Some(path), false) => Ok(Some(path.clone())),
            (None, false) => Ok(None),
            (None, true) => self.platform_file().map(Some),
        }
    }

    fn platform_file(&self) -> Result<PathBuf> {
        let app = self.app_name.as_deref().unwrap_or(APP_NAME);
        let database = self.database_name.as_deref().unwrap_or(DATABASE_NAME);
        check_name("app_name", app)?;
        check_name("database_name", database)?;
        let root = match &self.data_root {
            Some(root) => root.clone(),
            None => directories::BaseDirs::new()
                .ok_or_else(|| {
                    Error::InvalidConfig(
                        "there is no home directory; set data_root or path".to_owned(),
                    )
                })?
                .data_local_dir()
                .to_owned(),
        };
        let directory = root.join(app);
        if !self.read_only {
            std::fs::create_dir_all(&directory).map_err(|error| {
                let message = format!("create {}: {error}", directory.display());
                std::io::Error::new(error.kind(), message)
            })?;
        }
        Ok(directory.join(database))
    }
}

/// Refuses names that are no single file name on some platform.
fn check_name(option: &str, name: &str) -> Result<()> {
    const RESERVED: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];
    let refuse = |why: &str| Err(Error::InvalidConfig(format!("{option} {name:?} {why}")));
    let stem = name
        .split('.')
        .next()
        .unwrap_or("")
        .trim_end()
        .to_ascii_uppercase();
    let numbered = ["COM", "LPT"].iter().any(|device| {
        stem.strip_prefix(device)
            .is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_digit()))
    });
    if name.is_empty() {
        refuse("is empty")
    } else if name.contains(['/', '\\', '\0']) {
        refuse("holds a separator or NUL")
    } else if name == "." || name == ".." {
        refuse("is no name")
    } else if numbered || RESERVED.contains(&stem.as_str()) {
        refuse("is reserved on Windows")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_single_file_name_are_refused() {
        for name in [
            "", "a/b", "a\\b", "a\0", ".", "..", "con", "NUL.txt", "com1", "LPT9.x",
        ] {
            assert!(
                matches!(check_name("app_name", name), Err(Error::InvalidConfig(_))),
                "{name:?}"
            );
        }
        for name in [
            "a",
            "app",
            "console",
            "com",
            "com10",
            "my.db",
            "emdb-default.emdb",
        ] {
            assert!(check_name("app_name", name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn path_excludes_the_placing_options() {
        let mixed = EmdbBuilder::new().path("x").app_name("y").build();
        assert!(matches!(mixed, Err(Error::InvalidConfig(_))));
    }
}
