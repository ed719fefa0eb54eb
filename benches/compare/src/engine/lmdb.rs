//! LMDB through heed: append mode for sorted keys, a copy for compaction, a map that never fills.

use std::fs;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{
    CompactionOption, EnvFlags, EnvOpenOptions, FlagSetMode, PutFlags, RoTxn, RwTxn, WithTls,
};

use super::{End, Engine, Outcome, Reader, Sync};

type Table = heed::Database<Bytes, Bytes>;

/// Address space only; the default of 1 MiB would be full at once.
const MAP_BYTES: usize = 256 << 30;

pub struct Lmdb {
    folder: PathBuf,
    /// None only within `compact`, or after its failure.
    open: Option<Open>,
}

struct Open {
    env: heed::Env<WithTls>,
    table: Table,
}

impl Open {
    fn new(folder: &Path) -> Outcome<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: nobody else has the files of this folder.
        let env = unsafe { options.open(folder)? };
        let mut txn = env.write_txn()?;
        let table = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Self { env, table })
    }

    fn write<T>(&self, body: impl FnOnce(&mut RwTxn<'_>) -> Outcome<T>) -> Outcome<T> {
        let mut txn = self.env.write_txn()?;
        let result = body(&mut txn)?;
        txn.commit()?;
        Ok(result)
    }
}

impl Lmdb {
    fn opened(&self) -> Outcome<&Open> {
        self.open
            .as_ref()
            .ok_or_else(|| "the environment was closed".into())
    }
}

impl Engine for Lmdb {
    type Reader<'a> = Snapshot<'a>;

    fn open(folder: &Path) -> Outcome<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            open: Some(Open::new(folder)?),
        })
    }

    fn prepare(&self, sync: Sync) -> Outcome<()> {
        let mode = match sync {
            Sync::Durable => FlagSetMode::Disable,
            Sync::Unsynced => FlagSetMode::Enable,
        };
        // SAFETY: `prepare` is called while no other thread writes. Without syncs a crash of
        // the system can break the files; they do not outlive the run.
        unsafe { self.opened()?.env.set_flags(EnvFlags::NO_SYNC, mode)? };
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8], _sync: Sync) -> Outcome<()> {
        let open = self.opened()?;
        open.write(|txn| Ok(open.table.put(txn, key, value)?))
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        _sync: Sync,
    ) -> Outcome<()> {
        let open = self.opened()?;
        open.write(|txn| {
            for (key, value) in records {
                open.table.put(txn, key.as_ref(), value.as_ref())?;
            }
            Ok(())
        })
    }

    fn put_sorted<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
    ) -> Outcome<()> {
        let open = self.opened()?;
        open.write(|txn| {
            for (key, value) in records {
                let (key, value) = (key.as_ref(), value.as_ref());
                open.table
                    .put_with_flags(txn, PutFlags::APPEND, key, value)?;
            }
            Ok(())
        })
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        let open = self.opened()?;
        Ok(Snapshot {
            txn: open.env.read_txn()?,
            table: open.table,
        })
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        let open = self.opened()?;
        open.write(|txn| {
            for key in keys {
                open.table.delete(txn, key.as_ref())?;
            }
            Ok(())
        })
    }

    fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        self.extract_if(|key| !keep(key), |_, _| ())
    }

    fn extract_if(
        &self,
        mut wanted: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<()> {
        let open = self.opened()?;
        open.write(|txn| {
            let mut entries = open.table.iter_mut(txn)?;
            while let Some(entry) = entries.next() {
                let (key, value) = entry?;
                if wanted(key) {
                    visit(key, value);
                    // SAFETY: key and value are not used any more.
                    unsafe { entries.del_current()? };
                }
            }
            Ok(())
        })
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        let open = self.opened()?;
        open.write(|txn| {
            let mut popped = 0;
            match end {
                End::First => {
                    let mut entries = open.table.iter_mut(txn)?;
                    while popped < count && entries.next().transpose()?.is_some() {
                        // SAFETY: no reference to the entry is kept.
                        unsafe { entries.del_current()? };
                        popped += 1;
                    }
                }
                End::Last => {
                    let mut entries = open.table.rev_iter_mut(txn)?;
                    while popped < count && entries.next().transpose()?.is_some() {
                        // SAFETY: no reference to the entry is kept.
                        unsafe { entries.del_current()? };
                        popped += 1;
                    }
                }
            }
            Ok(popped)
        })
    }

    fn compact(&mut self) -> Outcome<()> {
        self.compact_beside_writers()?;
        if let Some(open) = self.open.take() {
            open.env.prepare_for_closing().wait();
        }
        fs::rename(self.folder.join("copy.mdb"), self.folder.join("data.mdb"))?;
        self.open = Some(Open::new(&self.folder)?);
        Ok(())
    }

    fn compact_beside_writers(&self) -> Outcome<()> {
        crate::worker::note("into a copy, which then takes the place of the original");
        let copy = self.folder.join("copy.mdb");
        let file = self
            .opened()?
            .env
            .copy_to_path(copy, CompactionOption::Enabled)?;
        Ok(file.sync_all()?)
    }

    fn close(self) -> Outcome<()> {
        if let Some(open) = self.open {
            open.env.prepare_for_closing().wait();
        }
        Ok(())
    }
}

pub struct Snapshot<'a> {
    txn: RoTxn<'a, WithTls>,
    table: Table,
}

impl Reader for Snapshot<'_> {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.table.get(&self.txn, key)?.map(read))
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        let range = (std::ops::Bound::Included(start), std::ops::Bound::Unbounded);
        let mut visited = 0;
        for entry in self.table.range(&self.txn, &range)?.take(count) {
            let (key, value) = entry?;
            visit(key, value);
            visited += 1;
        }
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        Ok(self.table.len(&self.txn)?)
    }
}
