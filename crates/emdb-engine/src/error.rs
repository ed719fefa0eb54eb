//! The error every call returns, and how the layers' errors become it.

use std::io;

use emdb_format::FormatError;

/// Why a call failed, as decisions the caller can make.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; the message says what was attempted on which path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another handle or process has the database open; close it there, or try later.
    #[error("the database is already open elsewhere")]
    AlreadyLocked,
    /// The file is not an emdb database; it was left untouched.
    #[error("the file is not an emdb database")]
    MagicMismatch,
    /// The file comes from another version of the format; it was left untouched.
    #[error("format version {found} found, {expected} expected")]
    VersionMismatch {
        /// The file's version.
        found: u32,
        /// The version this crate reads.
        expected: u32,
    },
    /// Stored bytes are damaged or missing. Nothing was changed; restore a backup.
    #[error("corrupted at offset {offset}: {reason}")]
    Corrupted {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The options contradict each other or the call; the message says which.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),
    /// A key that must be there is not.
    #[error("key not found")]
    KeyNotFound,
    /// Encryption failed or is not available; the message says how.
    #[error("encryption: {0}")]
    EncryptionError(String),
    /// The key or passphrase is not this database's.
    #[error("wrong encryption key")]
    EncryptionKeyMismatch,
    /// What was done in the transaction was taken back, or can only be rolled back.
    #[error("transaction aborted: {0}")]
    TransactionAborted(&'static str),
    /// The path of a nested group is empty or malformed.
    #[error("invalid path")]
    InvalidPath,
    /// A time to live reaches past the end of time.
    #[error("time to live overflows")]
    TtlOverflow,
    /// A key, a value or the database is longer than it can be; nothing was written.
    #[error("{what} of {len} bytes is longer than {max}")]
    TooLarge {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The longest length in bytes.
        max: u64,
    },
    /// The database was opened for reading only.
    #[error("the database was opened for reading only")]
    ReadOnly,
    /// An earlier write or sync failed. Reading goes on; reopen to write again.
    #[error("an earlier write or sync failed; reopen the database to write again")]
    Poisoned,
    /// The database was closed, through this handle or another.
    #[error("the database is closed")]
    Closed,
    /// This thread already holds the write side; finish that, or write through it.
    #[error(
        "{0} called while this thread has a transaction or a batch open; write through that, or end it first"
    )]
    WriteInProgress(&'static str),
    /// The namespace was dropped after this handle was made.
    #[error("the namespace was dropped")]
    NamespaceDropped,
}

impl Error {
    pub(crate) fn corrupted(offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupted {
            offset,
            reason: reason.into(),
        }
    }
}

impl From<emdb_journal::Error> for Error {
    fn from(error: emdb_journal::Error) -> Self {
        use emdb_journal::Error as Journal;
        match error {
            Journal::Io { attempt, source } => {
                Self::Io(io::Error::new(source.kind(), IoContext { attempt, source }))
            }
            Journal::AlreadyLocked => Self::AlreadyLocked,
            Journal::MagicMismatch => Self::MagicMismatch,
            Journal::VersionMismatch { found, expected } => {
                Self::VersionMismatch { found, expected }
            }
            Journal::Corrupted { offset, reason } => Self::Corrupted { offset, reason },
            Journal::TooLarge { what, len, max } => Self::TooLarge { what, len, max },
            Journal::ReadOnly => Self::ReadOnly,
            Journal::Poisoned => Self::Poisoned,
            Journal::Closed => Self::Closed,
            Journal::WriteInProgress(call) => Self::WriteInProgress(call),
            Journal::Sealed if cfg!(feature = "encrypt") => Self::EncryptionError(
                "the database is encrypted; open it with its key or passphrase".to_owned(),
            ),
            Journal::Sealed => Self::EncryptionError(
                "the database is encrypted, and this build lacks the feature `encrypt`".to_owned(),
            ),
            Journal::NotSealed => Self::EncryptionError(
                "the database is not encrypted; open it without a key".to_owned(),
            ),
            Journal::KeyMismatch => Self::EncryptionKeyMismatch,
            Journal::Encryption(reason) => Self::EncryptionError(reason),
            Journal::Forked => Self::InvalidConfig(
                "the database was opened before a fork; the child must open it anew".to_owned(),
            ),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

/// An I/O error with what was attempted.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {source}")]
struct IoContext {
    attempt: String,
    source: io::Error,
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        emdb_journal::Error::from(error).into()
    }
}
