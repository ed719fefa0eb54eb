//! fjall: one keyspace, write batches, ingestion for sorted keys, a snapshot for reading.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{CACHE_BYTES, End, Engine, Outcome, Reader, Sync};

pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    fn mode(sync: Sync) -> Option<PersistMode> {
        // `SyncAll` where it must last; otherwise what it does by default.
        (sync == Sync::Durable).then_some(PersistMode::SyncAll)
    }
}

impl Engine for Fjall {
    type Reader<'a> = Snapshot<'a>;

    fn open(folder: &Path) -> Outcome<Self> {
        let database = Database::builder(folder).cache_size(CACHE_BYTES).open()?;
        let keyspace = database.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace })
    }

    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.keyspace.insert(key, value)?;
        if let Some(mode) = Self::mode(sync) {
            self.database.persist(mode)?;
        }
        Ok(())
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Self::mode(sync));
        for (key, value) in records {
            batch.insert(&self.keyspace, key.as_ref(), value.as_ref());
        }
        Ok(batch.commit()?)
    }

    fn put_sorted<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
    ) -> Outcome<()> {
        let mut ingestion = self.keyspace.start_ingestion()?;
        for (key, value) in records {
            ingestion.write(key.as_ref(), value.as_ref())?;
        }
        // Syncs the tables it wrote.
        Ok(ingestion.finish()?)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.keyspace.get(key)?.map(|value| read(&value)))
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        Ok(Snapshot {
            snapshot: self.database.snapshot(),
            keyspace: &self.keyspace,
        })
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Self::mode(Sync::Durable));
        for key in keys {
            batch.remove(&self.keyspace, key.as_ref());
        }
        Ok(batch.commit()?)
    }

    fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Self::mode(Sync::Durable));
        for guard in self.keyspace.iter() {
            let key = guard.key()?;
            if !keep(&key) {
                batch.remove(&self.keyspace, key);
            }
        }
        Ok(batch.commit()?)
    }

    fn extract_if(
        &self,
        mut wanted: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Self::mode(Sync::Durable));
        for guard in self.keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            if wanted(&key) {
                visit(&key, &value);
                batch.remove(&self.keyspace, key);
            }
        }
        Ok(batch.commit()?)
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        let mut popped = 0;
        while popped < count {
            let entry = match end {
                End::First => self.keyspace.first_key_value(),
                End::Last => self.keyspace.last_key_value(),
            };
            let Some(guard) = entry else { break };
            let (key, _) = guard.into_inner()?;
            self.keyspace.remove(key)?;
            popped += 1;
        }
        self.database.persist(PersistMode::SyncAll)?;
        Ok(popped)
    }

    fn compact(&mut self) -> Outcome<()> {
        self.compact_beside_writers()
    }

    fn compact_beside_writers(&self) -> Outcome<()> {
        // Tombstones that are still in memory would not be compacted.
        self.keyspace.rotate_memtable_and_wait()?;
        Ok(self.keyspace.major_compact()?)
    }
}

pub struct Snapshot<'a> {
    snapshot: fjall::Snapshot,
    keyspace: &'a Keyspace,
}

impl Reader for Snapshot<'_> {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        let found = self.snapshot.get(self.keyspace, key)?;
        Ok(found.map(|value| read(&value)))
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        let mut visited = 0;
        for guard in self.snapshot.range(self.keyspace, start..).take(count) {
            let (key, value) = guard.into_inner()?;
            visit(&key, &value);
            visited += 1;
        }
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        Ok(self.snapshot.len(self.keyspace)? as u64)
    }
}
