//! How a journal is opened.

/// When appended records are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Only when [`Journal::sync`](crate::Journal::sync) is called. Callers at the
    /// same time share one sync.
    #[default]
    OnRequest,
    /// As `OnRequest`, but whoever leads a sync always waits a tenth of a sync for
    /// others to join. Worth it with many threads that sync often.
    Group,
    /// Every append is on stable storage when it returns. Appenders at the same
    /// time share one sync.
    EachAppend,
}

/// Options of a journal.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Options {
    /// When appended records are synced.
    pub sync_policy: SyncPolicy,
    /// Largest stretch of the file that is prepared at once, in bytes. The default
    /// of 64 MiB makes preparation rare without wasting much of a small disk.
    pub extent_bytes_max: u64,
    /// Open without ever writing anything, not even the cut of a torn tail.
    pub read_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync_policy: SyncPolicy::default(),
            extent_bytes_max: 64 << 20,
            read_only: false,
        }
    }
}

impl Options {
    /// Sets the sync policy.
    #[must_use]
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.sync_policy = policy;
        self
    }

    /// Sets whether the journal is only read.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}
