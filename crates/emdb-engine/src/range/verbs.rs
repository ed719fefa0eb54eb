//! The verbs for ranges, written once for everything that has keys.

use std::ops::{Bound, ControlFlow};

use super::{End as Side, ExtractIf, KeyRange, NamespaceRangeIter, RangeWalk, TryRangeIter};
use crate::engine::Patience;
use crate::space::End;
use crate::{
    Emdb, Error, Namespace, Result, Snapshot, SnapshotNamespace, Transaction, TransactionNamespace,
};

/// A key and its value.
type Record = (Vec<u8>, Vec<u8>);

macro_rules! reading {
    ($type:ty, $self:ident, $namespace:expr, $stand:ident) => {
        /// Ranges, in the order of the keys' bytes. All of them need
        /// [`enable_range_scans`](crate::EmdbBuilder::enable_range_scans) and return
        /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) without it, and
        /// [`Error::Corrupted`](crate::Error::Corrupted) if a record is damaged.
        impl $type {
            fn range_walk(&$self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Result<RangeWalk> {
                RangeWalk::new($namespace.$stand()?, lower, upper)
            }

            /// The records of a range, at one point in time. O(log n) and O(1) a record.
            ///
            /// # Errors
            /// As said above.
            pub fn range(&$self, range: impl KeyRange) -> Result<Vec<Record>> {
                $self.range_walk(range.lower(), range.upper())?.collect()
            }

            /// As [`range`](Self::range), lazily and from either end.
            ///
            /// # Errors
            /// As said above; damage ends the iterator, which tells it.
            pub fn range_iter(&$self, range: impl KeyRange) -> Result<NamespaceRangeIter> {
                let walk = $self.range_walk(range.lower(), range.upper())?;
                Ok(NamespaceRangeIter::new(walk))
            }

            /// As [`range_iter`](Self::range_iter), with damage as an item.
            ///
            /// # Errors
            /// As said above.
            pub fn try_range_iter(&$self, range: impl KeyRange) -> Result<TryRangeIter> {
                let walk = $self.range_walk(range.lower(), range.upper())?;
                Ok(TryRangeIter::new(walk))
            }

            /// The records whose keys begin with `prefix`, at one point in time.
            ///
            /// # Errors
            /// As said above.
            pub fn range_prefix(&$self, prefix: impl AsRef<[u8]>) -> Result<Vec<Record>> {
                RangeWalk::of_prefix($namespace.$stand()?, prefix.as_ref())?.collect()
            }

            /// As [`range_prefix`](Self::range_prefix), lazily and from either end.
            ///
            /// # Errors
            /// As said above; damage ends the iterator, which tells it.
            pub fn range_prefix_iter(
                &$self,
                prefix: impl AsRef<[u8]>,
            ) -> Result<NamespaceRangeIter> {
                let walk = RangeWalk::of_prefix($namespace.$stand()?, prefix.as_ref())?;
                Ok(NamespaceRangeIter::new(walk))
            }

            /// As [`range_prefix_iter`](Self::range_prefix_iter), with damage as an item.
            ///
            /// # Errors
            /// As said above.
            pub fn try_range_prefix_iter(
                &$self,
                prefix: impl AsRef<[u8]>,
            ) -> Result<TryRangeIter> {
                let walk = RangeWalk::of_prefix($namespace.$stand()?, prefix.as_ref())?;
                Ok(TryRangeIter::new(walk))
            }

            /// The records from `start` on, itself included.
            ///
            /// # Errors
            /// As said above; damage ends the iterator, which tells it.
            pub fn iter_from(&$self, start: impl AsRef<[u8]>) -> Result<NamespaceRangeIter> {
                let walk = $self.range_walk(Bound::Included(start.as_ref()), Bound::Unbounded)?;
                Ok(NamespaceRangeIter::new(walk))
            }

            /// The records after `start`, itself excluded.
            ///
            /// # Errors
            /// As said above; damage ends the iterator, which tells it.
            pub fn iter_after(&$self, start: impl AsRef<[u8]>) -> Result<NamespaceRangeIter> {
                let walk = $self.range_walk(Bound::Excluded(start.as_ref()), Bound::Unbounded)?;
                Ok(NamespaceRangeIter::new(walk))
            }

            /// The record with the lowest key.
            ///
            /// # Errors
            /// As said above.
            pub fn first(&$self) -> Result<Option<Record>> {
                let mut walk = $self.range_walk(Bound::Unbounded, Bound::Unbounded)?;
                walk.next(super::copied)
            }

            /// The record with the highest key.
            ///
            /// # Errors
            /// As said above.
            pub fn last(&$self) -> Result<Option<Record>> {
                let mut walk = $self.range_walk(Bound::Unbounded, Bound::Unbounded)?;
                walk.next_back(super::copied)
            }

            /// Calls `visit` with every record of a range in place, in order, until it
            /// breaks: no allocation for a record, and the memory of those to come is on
            /// its way.
            ///
            /// # Errors
            /// As said above; the records before were visited.
            pub fn scan(
                &$self,
                range: impl KeyRange,
                visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
            ) -> Result<()> {
                let range = (range.lower(), range.upper());
                $namespace.with_ground(|ground| ground.scan(range, Side::Front, visit))
            }

            /// As [`scan`](Self::scan), from the highest key down.
            ///
            /// # Errors
            /// As [`scan`](Self::scan).
            pub fn scan_rev(
                &$self,
                range: impl KeyRange,
                visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
            ) -> Result<()> {
                let range = (range.lower(), range.upper());
                $namespace.with_ground(|ground| ground.scan(range, Side::Back, visit))
            }
        }
    };
}

reading!(Namespace, self, self, stand);
reading!(Emdb, self, self.root(), stand);
reading!(SnapshotNamespace, self, self, stand);
reading!(Snapshot, self, self.root(), stand);
reading!(TransactionNamespace<'_>, self, self, ordered_stand);
reading!(Transaction<'_>, self, self.root(), ordered_stand);

impl TransactionNamespace<'_> {
    /// Removes the record with the lowest key, and returns it.
    ///
    /// # Errors
    /// As [`first`](Self::first) and [`remove`](Self::remove).
    pub fn pop_first(&self) -> Result<Option<Record>> {
        self.pop(End::First)
    }

    /// Removes the record with the highest key, and returns it.
    ///
    /// # Errors
    /// As [`last`](Self::last) and [`remove`](Self::remove).
    pub fn pop_last(&self) -> Result<Option<Record>> {
        self.pop(End::Last)
    }

    /// Removes the records of a range, and says how many they were.
    ///
    /// # Errors
    /// As [`range`](Self::range) and [`remove`](Self::remove); then some may be removed.
    pub fn remove_range(&self, range: impl KeyRange) -> Result<u64> {
        let walk = self.range_walk(range.lower(), range.upper())?;
        self.remove_where(walk, |_, _| true)
    }

    /// Removes the records for which `keep` says no, and says how many they were.
    ///
    /// # Errors
    /// As [`range`](Self::range) and [`remove`](Self::remove); then some may be removed.
    pub fn retain(&self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        let walk = self.range_walk(Bound::Unbounded, Bound::Unbounded)?;
        self.remove_where(walk, |key, value| !keep(key, value))
    }

    fn remove_where(
        &self,
        mut walk: RangeWalk,
        mut is_wanted: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<u64> {
        let mut sweep = self.begin_sweep()?;
        let mut removed = 0;
        while let Some(was_removed) = walk.next_placed(|location, frame| {
            if !is_wanted(frame.key, frame.value) {
                return Ok::<_, Error>(false);
            }
            match location {
                Some(location) => self.sweep(&mut sweep, location, frame)?,
                None => self.forget(frame.key)?,
            }
            Ok(true)
        })? {
            removed += u64::from(was_removed?);
        }
        Ok(removed)
    }
}

impl Transaction<'_> {
    /// As [`TransactionNamespace::pop_first`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::pop_first`].
    pub fn pop_first(&self) -> Result<Option<Record>> {
        self.root().pop_first()
    }

    /// As [`TransactionNamespace::pop_last`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::pop_last`].
    pub fn pop_last(&self) -> Result<Option<Record>> {
        self.root().pop_last()
    }

    /// As [`TransactionNamespace::remove_range`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::remove_range`].
    pub fn remove_range(&self, range: impl KeyRange) -> Result<u64> {
        self.root().remove_range(range)
    }

    /// As [`TransactionNamespace::retain`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::retain`].
    pub fn retain(&self, keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        self.root().retain(keep)
    }
}

impl Namespace {
    /// Runs `work` in a transaction of its own, all or nothing.
    fn atomically<T>(
        &self,
        call: &'static str,
        work: impl FnOnce(&TransactionNamespace<'_>) -> Result<T>,
    ) -> Result<T> {
        self.engine.check_ordered()?;
        let open = self.engine.begin_batch(call, Patience::Wait)?;
        let at = self.engine.touch(open.number, self.space())?;
        let answer = work(&TransactionNamespace::new(&self.engine, open.number, at))?;
        open.commit()?;
        Ok(answer)
    }

    /// Removes the record with the lowest key, and returns it.
    ///
    /// # Errors
    /// As [`first`](Self::first) and [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::builder().enable_range_scans(true).build()?;
    /// db.insert_many([("b", "2"), ("a", "1")])?;
    /// assert_eq!(db.pop_first()?, Some((b"a".to_vec(), b"1".to_vec())));
    /// assert_eq!(db.len()?, 1);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn pop_first(&self) -> Result<Option<Record>> {
        self.atomically("pop_first", |tx| tx.pop_first())
    }

    /// Removes the record with the highest key, and returns it.
    ///
    /// # Errors
    /// As [`last`](Self::last) and [`insert`](Self::insert).
    pub fn pop_last(&self) -> Result<Option<Record>> {
        self.atomically("pop_last", |tx| tx.pop_last())
    }

    /// Removes the records of a range, all or none, and says how many they were.
    ///
    /// # Errors
    /// As [`range`](Self::range) and [`insert`](Self::insert); then nothing is removed.
    pub fn remove_range(&self, range: impl KeyRange) -> Result<u64> {
        self.atomically("remove_range", |tx| tx.remove_range(range))
    }

    /// Removes the records for which `keep` says no, all or none, and says how many they
    /// were. Nobody else writes meanwhile; `keep` must not write to this database.
    ///
    /// # Errors
    /// As [`range`](Self::range) and [`insert`](Self::insert); then nothing is removed.
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::builder().enable_range_scans(true).build()?;
    /// db.insert_many([("a", "keep"), ("b", "drop")])?;
    /// assert_eq!(db.retain(|_, value| value == b"keep")?, 1);
    /// assert_eq!(db.len()?, 1);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn retain(&self, keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        self.atomically("retain", |tx| tx.retain(keep))
    }

    /// Removes the records for which `is_wanted` says yes, one by one as the iterator is
    /// pulled, and gives them. Each removal is an operation of its own, and nothing is held
    /// between two; dropping the iterator leaves the rest.
    ///
    /// Visits the records that were there at the call; of one that has changed since, the
    /// new value is asked about.
    ///
    /// # Errors
    /// As [`range`](Self::range). The iterator's items are as
    /// [`compare_and_swap`](Self::compare_and_swap); an error ends it.
    pub fn extract_if<F: FnMut(&[u8], &[u8]) -> bool>(&self, is_wanted: F) -> Result<ExtractIf<F>> {
        let walk = self.range_walk(Bound::Unbounded, Bound::Unbounded)?;
        Ok(ExtractIf::new(self.clone(), walk, is_wanted))
    }
}

impl Emdb {
    /// As [`Namespace::pop_first`].
    ///
    /// # Errors
    /// As [`Namespace::pop_first`].
    pub fn pop_first(&self) -> Result<Option<Record>> {
        self.root().pop_first()
    }

    /// As [`Namespace::pop_last`].
    ///
    /// # Errors
    /// As [`Namespace::pop_last`].
    pub fn pop_last(&self) -> Result<Option<Record>> {
        self.root().pop_last()
    }

    /// As [`Namespace::remove_range`].
    ///
    /// # Errors
    /// As [`Namespace::remove_range`].
    pub fn remove_range(&self, range: impl KeyRange) -> Result<u64> {
        self.root().remove_range(range)
    }

    /// As [`Namespace::retain`].
    ///
    /// # Errors
    /// As [`Namespace::retain`].
    pub fn retain(&self, keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        self.root().retain(keep)
    }

    /// As [`Namespace::extract_if`].
    ///
    /// # Errors
    /// As [`Namespace::extract_if`].
    pub fn extract_if<F: FnMut(&[u8], &[u8]) -> bool>(&self, is_wanted: F) -> Result<ExtractIf<F>> {
        self.root().extract_if(is_wanted)
    }
}
