//! Where the range of a leaf begins: the keys of the skip list.

use std::{borrow::Borrow, cmp::Ordering, sync::Arc};

/// A few bytes, kept in place if they are short, as most bounds are; else shared, as a bound
/// is in several places.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Arc<[u8]>),
}

/// As many as fit beside the length and the tag in three words.
const SHORT: usize = 22;

impl Bytes {
    pub(super) fn new(from: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..from.len()) {
            Some(to) => {
                to.copy_from_slice(from);
                let len = from.len() as u8;
                Self::Short { len, bytes }
            }
            None => Self::Long(from.into()),
        }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    /// Memory besides the value itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long(bytes) => bytes.len(),
        }
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::new(&[])
    }
}

/// The lower bound of a leaf, and which leaf of those with that bound it is.
///
/// A leaf that takes the place of another one has a higher version, so it can
/// stand in the list beside the other, and comes behind it.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    pub(super) low: Bytes,
    pub(super) version: u64,
}

impl Ord for Fence {
    fn cmp(&self, other: &Self) -> Ordering {
        let bytes = self.low.as_slice().cmp(other.low.as_slice());
        bytes.then(self.version.cmp(&other.version))
    }
}

impl PartialOrd for Fence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Fence {}

/// To search by bytes alone. Bounds are searched, never one fence: on which
/// side of a bound a fence lies, its bytes decide.
impl Borrow<[u8]> for Fence {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self.low.as_slice()
    }
}
