//! emdb, with range scans off and on.
//!
//! A commit survives the process, and power loss after a flush: a durable write is a transaction
//! and then one flush. What the library does not have yet is `NotAvailable` here and lights up
//! where it says so.

use std::ops::ControlFlow;
use std::path::Path;

use emdb::Emdb;

use super::{End, Engine, Failure, Outcome, ReadWay, Reader, Sync, unavailable};
use crate::data::sum_of;

const NOT_YET: &str = "not in emdb yet";
const NO_ORDER: &str = "needs range scans";

/// Range scans off.
pub type Hash = Database<false>;
/// Range scans on.
pub type Ranges = Database<true>;

pub struct Database<const RANGES: bool>(Emdb);

impl<const RANGES: bool> Engine for Database<RANGES> {
    type Reader<'a> = Reads<'a, RANGES>;

    fn open(folder: &Path) -> Outcome<Self> {
        let builder = Emdb::builder()
            .path(folder.join("data.emdb"))
            .enable_range_scans(RANGES);
        Ok(Self(builder.build()?))
    }

    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.0.insert(key, value)?;
        self.end(sync)
    }

    fn put_transaction(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.0.transaction(|tx| tx.insert(key, value))?;
        self.end(sync)
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()> {
        self.0.transaction(|tx| tx.insert_many(records))?;
        self.end(sync)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get_with(key, read)?)
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        Ok(Reads(&self.0))
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        self.0.transaction(|tx| {
            for key in keys {
                tx.remove(key)?;
            }
            Ok(())
        })?;
        self.end(Sync::Durable)
    }

    fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        ordered::<RANGES>()?;
        self.0.retain(|key, _| keep(key))?;
        self.end(Sync::Durable)
    }

    // Each removal is an operation of its own, which is less than one transaction promises.
    fn extract_if(
        &self,
        mut wanted: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        ordered::<RANGES>()?;
        for record in self.0.extract_if(|key, _| wanted(key))? {
            let (key, value) = record?;
            visit(&key, &value);
        }
        crate::worker::note("one by one, then a flush: not atomic");
        self.end(Sync::Durable)
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        ordered::<RANGES>()?;
        let popped = self.0.transaction(|tx| {
            for popped in 0..count {
                let record = match end {
                    End::First => tx.pop_first()?,
                    End::Last => tx.pop_last()?,
                };
                if record.is_none() {
                    return Ok(popped);
                }
            }
            Ok(count)
        })?;
        self.end(Sync::Durable)?;
        Ok(popped)
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

    fn open_encrypted(folder: &Path) -> Outcome<Self> {
        let builder = Emdb::builder()
            .path(folder.join("data.emdb"))
            .enable_range_scans(RANGES)
            .encryption_key([7; 32]);
        Ok(Self(builder.build()?))
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

/// Whether there is an order of keys to work in.
fn ordered<const RANGES: bool>() -> Outcome<()> {
    if RANGES {
        Ok(())
    } else {
        unavailable(NO_ORDER)
    }
}

/// Reads of the database itself: each of them needs no snapshot to be of one moment.
pub struct Reads<'a, const RANGES: bool>(&'a Emdb);

impl<const RANGES: bool> Reader for Reads<'_, RANGES> {
    #[inline]
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        self.0.get_with(key, read).map_err(Failure::from)
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        ordered::<RANGES>()?;
        let mut visited = 0;
        if count == 0 {
            return Ok(visited);
        }
        self.0.scan(start.., |key, value| {
            visit(key, value);
            visited += 1;
            if visited == count {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        Ok(self.0.len()? as u64)
    }
}
