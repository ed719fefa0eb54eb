//! sled: its batches and pops; its `flush`, and a sync of our own behind it.

use std::fs::File;
use std::path::Path;

use super::{CACHE_BYTES, End, Engine, Outcome, Reader, Sync};

/// A larger batch would take half as much memory again.
const BATCH_MAX: usize = 100_000;

pub struct Sled {
    db: sled::Db,
    /// The file its log is in.
    log: File,
}

impl Sled {
    /// Fills batches and applies them.
    fn apply<T>(
        &self,
        items: impl Iterator<Item = Outcome<T>>,
        mut add: impl FnMut(&mut sled::Batch, T),
    ) -> Outcome<()> {
        let (mut batch, mut len) = (sled::Batch::default(), 0);
        for item in items {
            add(&mut batch, item?);
            len += 1;
            if len == BATCH_MAX {
                self.db.apply_batch(std::mem::take(&mut batch))?;
                len = 0;
            }
        }
        Ok(self.db.apply_batch(batch)?)
    }

    /// `flush` ends with `sync_file_range` on Linux, which reaches neither the file's metadata
    /// nor the device's cache (spacejam/sled#1452), so the file is synced as well.
    fn end(&self, sync: Sync) -> Outcome<()> {
        if sync == Sync::Durable {
            self.db.flush()?;
            self.log.sync_data()?;
        }
        Ok(())
    }
}

impl Engine for Sled {
    type Reader<'a> = &'a sled::Db;

    fn open(folder: &Path) -> Outcome<Self> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .open()?;
        let log = File::options().write(true).open(folder.join("db"))?;
        Ok(Self { db, log })
    }

    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.db.insert(key, value)?;
        self.end(sync)
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()> {
        self.apply(records.map(Ok), |batch, (key, value)| {
            batch.insert(key.as_ref(), value.as_ref());
        })?;
        self.end(sync)
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        Ok(&self.db)
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        self.apply(keys.map(Ok), |batch, key| batch.remove(key.as_ref()))?;
        self.end(Sync::Durable)
    }

    fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        self.extract_if(|key| !keep(key), |_, _| ())
    }

    fn extract_if(
        &self,
        mut wanted: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        let extracted = self.db.iter().filter_map(|entry| match entry {
            Ok((key, value)) if wanted(&key) => {
                visit(&key, &value);
                Some(Ok(key))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        });
        self.apply(extracted, |batch, key| batch.remove(key))?;
        self.end(Sync::Durable)
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        let mut popped = 0;
        while popped < count {
            let entry = match end {
                End::First => self.db.pop_min()?,
                End::Last => self.db.pop_max()?,
            };
            if entry.is_none() {
                break;
            }
            popped += 1;
        }
        self.end(Sync::Durable)?;
        Ok(popped)
    }

    fn close(self) -> Outcome<()> {
        self.end(Sync::Durable)
    }
}

impl Reader for &sled::Db {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(sled::Tree::get(self, key)?.map(|value| read(&value)))
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        let mut visited = 0;
        for entry in self.range(start..).take(count) {
            let (key, value) = entry?;
            visit(&key, &value);
            visited += 1;
        }
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        Ok(sled::Tree::len(self) as u64)
    }
}
