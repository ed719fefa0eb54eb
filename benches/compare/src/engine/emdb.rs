//! emdb, with range scans off and on.
//!
//! What the library does not have yet is `NotAvailable` here and lights up where it says so.

use std::path::Path;

use emdb::Emdb;

use super::{End, Engine, Failure, Outcome, ReadWay, Reader, Sync, unavailable};
use crate::data::sum_of;

const NOT_YET: &str = "not in emdb yet";

/// Range scans off.
pub type Hash = Database<false>;
/// Range scans on.
pub type Ranges = Database<true>;

pub struct Database<const RANGES: bool>(Emdb);

impl<const RANGES: bool> Engine for Database<RANGES> {
    type Reader<'a> = &'a Emdb;

    fn open(folder: &Path) -> Outcome<Self> {
        let builder = Emdb::builder().path(folder.join("data.emdb"));
        // Becomes `builder.enable_range_scans(RANGES)`.
        if RANGES {
            return unavailable(NOT_YET);
        }
        Ok(Self(builder.build()?))
    }

    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.0.insert(key, value)?;
        self.end(sync)
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()> {
        self.0.insert_many(records)?;
        self.end(sync)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get_with(key, read)?)
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        Ok(&self.0)
    }

    // One by one, which is less than the others promise, until there are transactions.
    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        for key in keys {
            self.0.remove(key)?;
        }
        crate::worker::note("one by one, then a flush: not atomic");
        self.end(Sync::Durable)
    }

    fn retain(&self, _keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        unavailable(NOT_YET)
    }

    fn extract_if(
        &self,
        _wanted: impl FnMut(&[u8]) -> bool,
        _visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        unavailable(NOT_YET)
    }

    fn pop(&self, _end: End, _count: u64) -> Outcome<u64> {
        unavailable(NOT_YET)
    }

    fn compact(&mut self) -> Outcome<()> {
        self.compact_beside_writers()
    }

    fn compact_beside_writers(&self) -> Outcome<()> {
        // Becomes `self.0.compact()`.
        unavailable(NOT_YET)
    }

    fn read_as<K: AsRef<[u8]>>(&self, way: ReadWay, keys: &[K]) -> Outcome<u64> {
        let mut sum = 0_u64;
        let mut add = |value: Option<&[u8]>| {
            sum = sum.wrapping_add(value.map_or(0, sum_of));
        };
        match way {
            ReadWay::Copy => {
                for key in keys {
                    add(self.0.get(key)?.as_deref());
                }
            }
            ReadWay::Borrow => {
                for key in keys {
                    add(self.0.get_zerocopy(key)?.as_deref());
                }
            }
            ReadWay::InPlace => {
                for key in keys {
                    self.0.get_with(key, |value| add(Some(value)))?;
                }
            }
            ReadWay::Many => {
                for keys in keys.chunks(32) {
                    self.0.get_many_with(keys, |_, value| add(value))?;
                }
            }
        }
        Ok(sum)
    }

    fn open_encrypted(_folder: &Path) -> Outcome<Self> {
        // Becomes `encryption_key` of the builder.
        unavailable(NOT_YET)
    }

    fn close(self) -> Outcome<()> {
        Ok(self.0.close()?)
    }
}

impl<const RANGES: bool> Database<RANGES> {
    fn end(&self, sync: Sync) -> Outcome<()> {
        match sync {
            Sync::Durable => Ok(self.0.flush()?),
            Sync::Unsynced => Ok(()),
        }
    }
}

impl Reader for &Emdb {
    #[inline]
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        self.get_with(key, read).map_err(Failure::from)
    }

    fn scan(
        &self,
        _start: &[u8],
        _count: usize,
        _visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        // Becomes `Emdb::scan`, for range scans on.
        unavailable("needs range scans")
    }

    fn len(&self) -> Outcome<u64> {
        Ok(Emdb::len(self)? as u64)
    }
}
