//! A value that is not copied out of the database.

use std::ops::Deref;

use emdb_journal::PinnedBytes;

/// A stored value, borrowed from the map it lies in.
///
/// The bytes stay valid and unchanged for as long as this lives, whatever is written,
/// removed or compacted meanwhile, and after the database is closed. It keeps the
/// map alive, not the lock.
///
/// # Examples
///
/// ```
/// let db = emdb_engine::Emdb::open_in_memory();
/// db.insert("key", "old")?;
/// let value = db.get_zerocopy("key")?.expect("just inserted");
/// db.insert("key", "new")?;
/// assert_eq!(value, b"old"[..]);
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct ValueRef(PinnedBytes);

impl ValueRef {
    pub(crate) fn new(bytes: PinnedBytes) -> Self {
        Self(bytes)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// A copy of the bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl Deref for ValueRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ValueRef {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for ValueRef {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ValueRef {}

impl PartialEq<[u8]> for ValueRef {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for ValueRef {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl PartialEq<Vec<u8>> for ValueRef {
    fn eq(&self, other: &Vec<u8>) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for ValueRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes are users' data and stay out.
        f.debug_struct("ValueRef")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
