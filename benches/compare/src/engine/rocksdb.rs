//! RocksDB: write batches, a block cache and Bloom filters as its tuning guide has them.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, Direction,
    IteratorMode, Options, WriteBatch, WriteOptions,
};

use super::{CACHE_BYTES, End, Engine, Outcome, Reader, Sync};

/// A larger batch would fill memory; every part of one keeps the sync option.
const BATCH_MAX: usize = 100_000;

pub struct Rocks(DB);

fn options(sync: Sync) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync == Sync::Durable);
    options
}

impl Rocks {
    fn write(&self, batch: WriteBatch, sync: Sync) -> Outcome<()> {
        Ok(self.0.write_opt(batch, &options(sync))?)
    }

    /// Fills batches and writes them.
    fn write_all<T>(
        &self,
        items: impl Iterator<Item = Outcome<T>>,
        sync: Sync,
        mut add: impl FnMut(&mut WriteBatch, T),
    ) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for item in items {
            add(&mut batch, item?);
            if batch.len() == BATCH_MAX {
                self.write(std::mem::take(&mut batch), sync)?;
            }
        }
        self.write(batch, sync)
    }
}

impl Engine for Rocks {
    type Reader<'a> = Snapshot<'a>;

    fn open(folder: &Path) -> Outcome<Self> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES as usize));
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        options.increase_parallelism(cores as i32);
        Ok(Self(DB::open(&options, folder)?))
    }

    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        Ok(self.0.put_opt(key, value, &options(sync))?)
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()> {
        self.write_all(records.map(Ok), sync, |batch, (key, value)| {
            batch.put(key, value);
        })
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get_pinned(key)?.map(|value| read(&value)))
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        Ok(Snapshot(self.0.snapshot()))
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        self.write_all(keys.map(Ok), Sync::Durable, |batch, key| batch.delete(key))
    }

    fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        self.extract_if(|key| !keep(key), |_, _| ())
    }

    fn extract_if(
        &self,
        mut wanted: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        let extracted = self
            .0
            .iterator(IteratorMode::Start)
            .filter_map(|entry| match entry {
                Ok((key, value)) if wanted(&key) => {
                    visit(&key, &value);
                    Some(Ok(key))
                }
                Ok(_) => None,
                Err(error) => Some(Err(error.into())),
            });
        self.write_all(extracted, Sync::Durable, |batch, key| batch.delete(key))
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        for popped in 0..count {
            let mode = match end {
                End::First => IteratorMode::Start,
                End::Last => IteratorMode::End,
            };
            let Some(entry) = self.0.iterator(mode).next() else {
                return Ok(popped);
            };
            self.0.delete(entry?.0)?;
        }
        self.0.flush_wal(true)?;
        Ok(count)
    }

    fn compact(&mut self) -> Outcome<()> {
        self.compact_beside_writers()
    }

    fn compact_beside_writers(&self) -> Outcome<()> {
        self.0.flush()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.0
            .compact_range_opt::<&[u8], &[u8]>(None, None, &options);
        Ok(())
    }
}

pub struct Snapshot<'a>(rocksdb::Snapshot<'a>);

impl Reader for Snapshot<'_> {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get_pinned(key)?.map(|value| read(&value)))
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        let mut visited = 0;
        let entries = self
            .0
            .iterator(IteratorMode::From(start, Direction::Forward));
        for entry in entries.take(count) {
            let (key, value) = entry?;
            visit(&key, &value);
            visited += 1;
        }
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        let mut len = 0;
        for entry in self.0.iterator(IteratorMode::Start) {
            entry?;
            len += 1;
        }
        Ok(len)
    }
}
