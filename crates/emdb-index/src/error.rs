//! What can go wrong, as decisions the caller can make.

/// Why the index cannot do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image, or one segment of it, is not what was written. The index can
    /// be rebuilt from the records.
    #[error("the index image is damaged")]
    Damaged,
    /// There is no place for one more entry: too many equal hashes, or no
    /// memory. Nothing has changed.
    #[error("the index has no room for this hash")]
    Full,
    /// Records that were said to be sorted are not.
    #[error("a key is not above the one before")]
    Unsorted,
}

/// A failure of the index, or of the closure it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindError<E> {
    /// The index itself failed.
    Index(Error),
    /// The caller's closure failed; this is what it returned.
    Check(E),
}

impl<E> From<Error> for FindError<E> {
    fn from(error: Error) -> Self {
        Self::Index(error)
    }
}

impl<E: std::fmt::Display> std::fmt::Display for FindError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(error) => error.fmt(f),
            Self::Check(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for FindError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Index(error) => error.source(),
            Self::Check(error) => error.source(),
        }
    }
}
