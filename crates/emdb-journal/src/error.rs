//! What can go wrong with a journal.

use std::io;
use std::path::Path;

use emdb_format::FormatError;

/// Why a journal operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; the message says what was attempted on which path.
    #[error("{attempt}: {source}")]
    Io {
        /// What was attempted, with the path.
        attempt: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Another handle has the journal open; close it or try again later.
    #[error("the journal is already open elsewhere")]
    AlreadyLocked,
    /// The file is not a journal; it was left untouched.
    #[error("the file is not an emdb database")]
    MagicMismatch,
    /// The journal comes from another version of the format; it was left untouched.
    #[error("format version {found} found, {expected} expected")]
    VersionMismatch {
        /// The file's version.
        found: u32,
        /// The version this crate reads.
        expected: u32,
    },
    /// Bytes below the confirmed position are damaged or missing; the file was left untouched.
    #[error("corrupted at offset {offset}: {reason}")]
    Corrupted {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A key, value or the journal itself would be longer than the format can hold.
    #[error("{what} of {len} bytes is longer than {max}")]
    TooLarge {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The longest length in bytes.
        max: u64,
    },
    /// The journal was opened for reading only.
    #[error("opened for reading only")]
    ReadOnly,
    /// An earlier write or sync failed; reopen to continue.
    #[error("an earlier write or sync failed; reopen to continue")]
    Poisoned,
    /// The journal was closed.
    #[error("closed")]
    Closed,
    /// This thread already holds the write side; finish that first.
    #[error("{0} while this thread is writing a batch or transaction; use that one instead")]
    WriteInProgress(&'static str),
    /// The journal is encrypted and no key was given, or this build cannot decrypt (feature
    /// `encrypt`); it was left untouched.
    #[error("the journal is encrypted; it needs a key, and a build that can decrypt")]
    Sealed,
    /// A key was given for a journal that is not encrypted; it was left untouched.
    #[error("the journal is not encrypted, and a key was given")]
    NotSealed,
    /// The key or passphrase is not that of the journal; it was left untouched.
    #[error("wrong encryption key")]
    KeyMismatch,
    /// A key could not be derived, made or used; the message says why.
    #[error("{0}")]
    Encryption(String),
    /// The process was forked; open the journal anew in the child.
    #[error("opened before a fork; the child must open it anew")]
    Forked,
}

impl Error {
    pub(crate) fn io(attempt: &str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            attempt: format!("{attempt} {}", path.display()),
            source,
        }
    }

    pub(crate) fn corrupted(offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupted {
            offset,
            reason: reason.into(),
        }
    }
}

impl From<FormatError> for Error {
    /// For errors of encoding; what decoding finds wrong becomes [`Error::Corrupted`]
    /// where the position is known.
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::TooLarge { what, len, max } => Self::TooLarge { what, len, max },
            FormatError::Magic => Self::MagicMismatch,
            FormatError::Version { found } => Self::VersionMismatch {
                found,
                expected: emdb_format::FORMAT_VERSION,
            },
            other => Self::corrupted(0, other.to_string()),
        }
    }
}
