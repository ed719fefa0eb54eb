//! What a database says about itself.

/// Sizes and counts; see [`Emdb::stats`](crate::Emdb::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmdbStats {
    /// Live records in all namespaces.
    pub live_records: usize,
    /// Namespaces beside the default one.
    pub namespace_count: usize,
    /// Bytes of live keys and values.
    pub logical_size_bytes: u64,
    /// Bytes of the journal up to its last frame.
    pub file_size_bytes: u64,
    /// Bytes prepared behind the last frame.
    pub preallocated_bytes: u64,
    /// Whether range scans are enabled.
    pub range_scans_enabled: bool,
    /// Whether the database is encrypted.
    pub encrypted: bool,
    /// Bytes of the journal that replaced and removed records take, about.
    pub dead_bytes: u64,
    /// Bytes of memory that the indexes take.
    pub index_bytes: u64,
    /// Everything below this LSN survives power loss.
    pub durable_lsn: u64,
    /// The LSN behind the last frame.
    pub last_lsn: u64,
    /// Bytes of a torn tail that opening cut off.
    pub torn_bytes_cut: u64,
    /// Snapshots open, those of iterators included.
    pub snapshots_open: usize,
    /// Bytes of files kept only for snapshots.
    pub pinned_bytes: u64,
    /// Bytes that one generation of the journal can have.
    pub file_size_bytes_max: u64,
}

/// What [`Emdb::verify`](crate::Emdb::verify) looked at; damage is an error instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Frames whose checksums were computed.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Live records found through the indexes and compared with the journal.
    pub records: u64,
}
