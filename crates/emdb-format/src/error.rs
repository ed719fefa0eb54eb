//! What can be wrong with bytes.

/// Why bytes were not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no frame here: the flags byte is zero, as in prepared space.
    #[error("no frame: prepared but never written")]
    Empty,
    /// The bytes end before the structure does.
    #[error("the bytes end before the {0} does")]
    Truncated(&'static str),
    /// A field has a value that no writer produces.
    #[error("impossible value in the {0}")]
    Malformed(&'static str),
    /// A checksum does not match.
    #[error("checksum mismatch in the {0}")]
    Checksum(&'static str),
    /// The bytes do not belong to this format at all.
    #[error("not an emdb file")]
    Magic,
    /// The layout's version is not [`FORMAT_VERSION`](crate::FORMAT_VERSION).
    #[error("format version {found} is not supported")]
    Version {
        /// The version in the bytes.
        found: u32,
    },
    /// A key, value or name is longer than the format can hold.
    #[error("{what} of {len} bytes is longer than {max}")]
    TooLarge {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The longest length in bytes.
        max: u64,
    },
}
