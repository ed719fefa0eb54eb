//! redb: one table, one transaction for each batch, its own cursors for what it has calls for.

use std::path::Path;

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    Table, TableDefinition,
};

use super::{CACHE_BYTES, End, Engine, Outcome, Reader, Sync};

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");

pub struct Redb(Database);

type Writer<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

impl Redb {
    fn write<T>(&self, sync: Sync, body: impl FnOnce(&mut Writer<'_>) -> Outcome<T>) -> Outcome<T> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(match sync {
            Sync::Durable => Durability::Immediate,
            Sync::Unsynced => Durability::None,
        })?;
        let result = {
            let mut table = transaction.open_table(TABLE)?;
            body(&mut table)?
        };
        transaction.commit()?;
        Ok(result)
    }
}

impl Engine for Redb {
    type Reader<'a> = ReadOnlyTable<&'static [u8], &'static [u8]>;

    fn open(folder: &Path) -> Outcome<Self> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES as usize)
            .create(folder.join("data.redb"))?;
        let this = Self(database);
        // Reading a table that was never written is an error.
        if this.reader().is_err() {
            this.write(Sync::Durable, |_| Ok(()))?;
        }
        Ok(this)
    }

    fn put(&self, key: &[u8], value: &[u8], sync: Sync) -> Outcome<()> {
        self.write(sync, |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        sync: Sync,
    ) -> Outcome<()> {
        self.write(sync, |table| {
            for (key, value) in records {
                table.insert(key.as_ref(), value.as_ref())?;
            }
            Ok(())
        })
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        Ok(self.0.begin_read()?.open_table(TABLE)?)
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        self.write(Sync::Durable, |table| {
            for key in keys {
                table.remove(key.as_ref())?;
            }
            Ok(())
        })
    }

    fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        self.write(Sync::Durable, |table| Ok(table.retain(|key, _| keep(key))?))
    }

    fn extract_if(
        &self,
        mut wanted: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        self.write(Sync::Durable, |table| {
            for entry in table.extract_if(|key, _| wanted(key))? {
                let (key, value) = entry?;
                visit(key.value(), value.value());
            }
            Ok(())
        })
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        self.write(Sync::Durable, |table| {
            for popped in 0..count {
                let entry = match end {
                    End::First => table.pop_first()?,
                    End::Last => table.pop_last()?,
                };
                if entry.is_none() {
                    return Ok(popped);
                }
            }
            Ok(count)
        })
    }

    fn compact(&mut self) -> Outcome<()> {
        // Each pass makes room for the next, so its documentation has it called until it is done.
        while self.0.compact()? {}
        Ok(())
    }

    fn compact_beside_writers(&self) -> Outcome<()> {
        super::unavailable("compacting needs the database for itself")
    }
}

impl Reader for ReadOnlyTable<&'static [u8], &'static [u8]> {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(ReadableTable::get(self, key)?.map(|value| read(value.value())))
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        let mut visited = 0;
        for entry in ReadableTable::range::<&[u8]>(self, start..)?.take(count) {
            let (key, value) = entry?;
            visit(key.value(), value.value());
            visited += 1;
        }
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        Ok(ReadableTableMetadata::len(self)?)
    }
}
