//! Nested groups: keys joined by dots.

use crate::engine::Patience;
use crate::iter::NamespaceIter;
use crate::range::NamespaceRangeIter;
use crate::{Emdb, Error, Namespace, Result, TransactionNamespace};

/// Joins two parts of a key.
const DOT: u8 = b'.';

/// The records whose keys begin with one prefix and a dot, as if they were a database of
/// their own; made by [`Emdb::focus`] and [`Namespace::focus`].
///
/// # Examples
///
/// ```
/// let db = emdb_engine::Emdb::open_in_memory();
/// let user = db.focus("user");
/// user.set("name", "ada")?;
/// user.focus("address").set("town", "London")?;
/// assert_eq!(db.get("user.name")?.as_deref(), Some(&b"ada"[..]));
/// assert_eq!(db.group("user")?.count(), 2);
/// assert_eq!(user.delete_all()?, 2);
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Focus<'a> {
    namespace: &'a Namespace,
    /// With its dot; `None` if a part of it is empty.
    prefix: Option<Vec<u8>>,
}

impl std::fmt::Debug for Focus<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The prefix is a part of keys and stays out.
        f.debug_struct("Focus")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// The records of a group: those whose keys begin with its prefix and a dot.
///
/// A snapshot, in the order of the keys where
/// [range scans](crate::EmdbBuilder::enable_range_scans) are on. Damage met on the way ends
/// the iteration; [`error`](Self::error) tells it.
pub struct GroupIter {
    prefix: Vec<u8>,
    records: Records,
}

enum Records {
    Ordered(NamespaceRangeIter),
    All(NamespaceIter),
}

impl GroupIter {
    fn new(namespace: &Namespace, prefix: Vec<u8>) -> Result<Self> {
        let records = if namespace.is_ordered() {
            Records::Ordered(namespace.range_prefix_iter(&prefix)?)
        } else {
            Records::All(namespace.iter()?)
        };
        Ok(Self { prefix, records })
    }

    /// What ended the iteration early, damage for one.
    pub fn error(&self) -> Option<&Error> {
        match &self.records {
            Records::Ordered(iter) => iter.error(),
            Records::All(iter) => iter.error(),
        }
    }
}

impl Iterator for GroupIter {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.records {
            Records::Ordered(iter) => iter.next(),
            Records::All(iter) => iter.find(|(key, _)| key.starts_with(&self.prefix)),
        }
    }
}

impl std::iter::FusedIterator for GroupIter {}

/// The prefix with its dot.
fn with_dot(prefix: &[u8]) -> Result<Vec<u8>> {
    if prefix.is_empty() {
        return Err(Error::InvalidPath);
    }
    let mut joined = Vec::with_capacity(prefix.len() + 1);
    joined.extend_from_slice(prefix);
    joined.push(DOT);
    Ok(joined)
}

impl Namespace {
    /// The group below `prefix`. An empty prefix is an error of each call on it.
    pub fn focus(&self, prefix: impl AsRef<[u8]>) -> Focus<'_> {
        Focus {
            namespace: self,
            prefix: with_dot(prefix.as_ref()).ok(),
        }
    }

    /// The records whose keys begin with `prefix` and a dot, at one point in time, with
    /// their whole keys. Costs what the group costs where range scans are on; otherwise a
    /// look at every record.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if the prefix is empty; otherwise as [`iter`](Self::iter).
    pub fn group(&self, prefix: impl AsRef<[u8]>) -> Result<GroupIter> {
        GroupIter::new(self, with_dot(prefix.as_ref())?)
    }

    /// Removes the records whose keys begin with `prefix` and a dot, all or none, and says
    /// how many they were. Costs as [`group`](Self::group).
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if the prefix is empty; otherwise as
    /// [`insert`](Self::insert): then nothing is removed.
    pub fn delete_group(&self, prefix: impl AsRef<[u8]>) -> Result<usize> {
        self.delete_below(&with_dot(prefix.as_ref())?)
    }

    fn delete_below(&self, prefix: &[u8]) -> Result<usize> {
        let open = self.engine.begin_batch("delete_group", Patience::Wait)?;
        let at = self.engine.touch(open.number, self.space())?;
        let batch = TransactionNamespace::new(&self.engine, open.number, at);
        let mut removed = 0;
        if self.is_ordered() {
            for record in batch.try_range_prefix_iter(prefix)? {
                batch.forget(&record?.0)?;
                removed += 1;
            }
        } else {
            for key in batch.try_keys()? {
                let key = key?;
                if key.starts_with(prefix) {
                    batch.forget(&key)?;
                    removed += 1;
                }
            }
        }
        open.commit()?;
        Ok(removed)
    }

    fn is_ordered(&self) -> bool {
        self.engine.check_ordered().is_ok()
    }
}

impl Emdb {
    /// As [`Namespace::focus`].
    pub fn focus(&self, prefix: impl AsRef<[u8]>) -> Focus<'_> {
        self.root().focus(prefix)
    }

    /// As [`Namespace::group`].
    ///
    /// # Errors
    /// As [`Namespace::group`].
    pub fn group(&self, prefix: impl AsRef<[u8]>) -> Result<GroupIter> {
        self.root().group(prefix)
    }

    /// As [`Namespace::delete_group`].
    ///
    /// # Errors
    /// As [`Namespace::delete_group`].
    pub fn delete_group(&self, prefix: impl AsRef<[u8]>) -> Result<usize> {
        self.root().delete_group(prefix)
    }
}

impl<'a> Focus<'a> {
    fn prefix(&self) -> Result<&[u8]> {
        self.prefix.as_deref().ok_or(Error::InvalidPath)
    }

    /// The whole key.
    fn key(&self, key: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        Ok([self.prefix()?, key.as_ref()].concat())
    }

    /// Stores a record below the prefix, replacing the key's value if it has one.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if a part of the prefix is empty; otherwise as
    /// [`Namespace::insert`].
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.namespace.insert(self.key(key)?, value)
    }

    /// Another name of [`set`](Self::set).
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.set(key, value)
    }

    /// Stores a record below the prefix that expires.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if a part of the prefix is empty; otherwise as
    /// [`Namespace::insert_with_ttl`].
    #[cfg(feature = "ttl")]
    pub fn set_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: crate::Ttl,
    ) -> Result<()> {
        self.namespace.insert_with_ttl(self.key(key)?, value, ttl)
    }

    /// A copy of a value below the prefix.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if a part of the prefix is empty; otherwise as
    /// [`Namespace::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.namespace.get(self.key(key)?)
    }

    /// Removes a key below the prefix; returns the value it had.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if a part of the prefix is empty; otherwise as
    /// [`Namespace::remove`].
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.namespace.remove(self.key(key)?)
    }

    /// Whether a key below the prefix has a value.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if a part of the prefix is empty; otherwise as
    /// [`Namespace::contains_key`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.namespace.contains_key(self.key(key)?)
    }

    /// The records of the group, with their whole keys; as [`Namespace::group`].
    ///
    /// # Errors
    /// As [`Namespace::group`].
    pub fn iter(&self) -> Result<GroupIter> {
        GroupIter::new(self.namespace, self.prefix()?.to_vec())
    }

    /// Removes every record of the group; as [`Namespace::delete_group`].
    ///
    /// # Errors
    /// As [`Namespace::delete_group`].
    pub fn delete_all(&self) -> Result<usize> {
        self.namespace.delete_below(self.prefix()?)
    }

    /// The group below a part of this one.
    #[must_use]
    pub fn focus(&self, part: impl AsRef<[u8]>) -> Focus<'a> {
        let below = with_dot(part.as_ref()).ok();
        Focus {
            namespace: self.namespace,
            prefix: self
                .prefix
                .as_ref()
                .zip(below)
                .map(|(prefix, below)| [prefix.as_slice(), &below].concat()),
        }
    }
}
