//! SQLite: one table without row ids, the write-ahead log, cached statements.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use super::{CACHE_BYTES, End, Engine, Outcome, Reader, Sync};

const CREATE: &str =
    "CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";
const PUT: &str = "INSERT OR REPLACE INTO records (key, value) VALUES (?1, ?2)";
const GET: &str = "SELECT value FROM records WHERE key = ?1";
const SCAN: &str = "SELECT key, value FROM records WHERE key >= ?1 ORDER BY key LIMIT ?2";
const REMOVE: &str = "DELETE FROM records WHERE key = ?1";
const ALL: &str = "SELECT key, value FROM records ORDER BY key";
const POP_FIRST: &str =
    "DELETE FROM records WHERE key = (SELECT min(key) FROM records) RETURNING key, value";
const POP_LAST: &str =
    "DELETE FROM records WHERE key = (SELECT max(key) FROM records) RETURNING key, value";

pub struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// A connection belongs to one thread at a time.
    idle: Mutex<Vec<Connection>>,
}

fn connect(path: &Path) -> Outcome<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Negative: KiB.
    connection.pragma_update(None, "cache_size", -((CACHE_BYTES >> 10) as i64))?;
    Ok(connection)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sqlite {
    fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Outcome<T>) -> Outcome<T> {
        let mut writer = locked(&self.writer);
        let transaction = writer.transaction()?;
        let result = body(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    fn borrow(&self) -> Outcome<Borrowed<'_>> {
        let connection = match locked(&self.idle).pop() {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        Ok(Borrowed {
            pool: &self.idle,
            connection: Some(connection),
        })
    }
}

impl Engine for Sqlite {
    type Reader<'a> = Borrowed<'a>;

    fn open(folder: &Path) -> Outcome<Self> {
        let path = folder.join("data.sqlite");
        let writer = connect(&path)?;
        writer.execute(CREATE, [])?;
        Ok(Self {
            path,
            writer: Mutex::new(writer),
            idle: Mutex::default(),
        })
    }

    fn prepare(&self, sync: Sync) -> Outcome<()> {
        // With the log, FULL syncs at every commit, NORMAL only at its checkpoints.
        let level = match sync {
            Sync::Durable => "FULL",
            Sync::Unsynced => "NORMAL",
        };
        Ok(locked(&self.writer).pragma_update(None, "synchronous", level)?)
    }

    fn put(&self, key: &[u8], value: &[u8], _sync: Sync) -> Outcome<()> {
        locked(&self.writer)
            .prepare_cached(PUT)?
            .execute(params![key, value])?;
        Ok(())
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        records: impl Iterator<Item = (K, V)>,
        _sync: Sync,
    ) -> Outcome<()> {
        self.write(|transaction| {
            let mut put = transaction.prepare_cached(PUT)?;
            for (key, value) in records {
                put.execute(params![key.as_ref(), value.as_ref()])?;
            }
            Ok(())
        })
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        self.borrow()?.get(key, read)
    }

    fn reader(&self) -> Outcome<Self::Reader<'_>> {
        let reader = self.borrow()?;
        // One transaction for all reads; without it each statement is one by itself.
        reader.statement("BEGIN")?.execute([])?;
        Ok(reader)
    }

    fn remove_all<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) -> Outcome<()> {
        self.write(|transaction| {
            let mut remove = transaction.prepare_cached(REMOVE)?;
            for key in keys {
                remove.execute(params![key.as_ref()])?;
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
        self.write(|transaction| {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut all = transaction.prepare_cached(ALL)?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                let key = row.get_ref(0)?.as_blob()?;
                if wanted(key) {
                    visit(key, row.get_ref(1)?.as_blob()?);
                    keys.push(key.to_vec());
                }
            }
            let mut remove = transaction.prepare_cached(REMOVE)?;
            for key in keys {
                remove.execute(params![key])?;
            }
            Ok(())
        })
    }

    fn pop(&self, end: End, count: u64) -> Outcome<u64> {
        let statement = match end {
            End::First => POP_FIRST,
            End::Last => POP_LAST,
        };
        self.write(|transaction| {
            let mut pop = transaction.prepare_cached(statement)?;
            for popped in 0..count {
                let found = pop.query_row([], |_| Ok(())).optional()?;
                if found.is_none() {
                    return Ok(popped);
                }
            }
            Ok(count)
        })
    }

    fn compact(&mut self) -> Outcome<()> {
        locked(&self.idle).clear();
        let writer = locked(&self.writer);
        writer.execute("VACUUM", [])?;
        // What was vacuumed is still in the log.
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn compact_beside_writers(&self) -> Outcome<()> {
        super::unavailable("vacuuming needs the database for itself")
    }
}

/// A connection that goes back when its reader goes.
pub struct Borrowed<'a> {
    pool: &'a Mutex<Vec<Connection>>,
    connection: Option<Connection>,
}

impl Borrowed<'_> {
    fn statement(&self, text: &str) -> Outcome<CachedStatement<'_>> {
        let connection = self.connection.as_ref().ok_or("no connection")?;
        Ok(connection.prepare_cached(text)?)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let ended = connection.is_autocommit() || connection.execute_batch("COMMIT").is_ok();
        if ended {
            locked(self.pool).push(connection);
        }
    }
}

impl Reader for Borrowed<'_> {
    fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        let mut statement = self.statement(GET)?;
        let mut rows = statement.query(params![key])?;
        match rows.next()? {
            Some(row) => match row.get_ref(0)? {
                ValueRef::Blob(value) => Ok(Some(read(value))),
                _ => Err("not a blob".into()),
            },
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        start: &[u8],
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Outcome<usize> {
        let mut statement = self.statement(SCAN)?;
        let mut rows = statement.query(params![start, count as i64])?;
        let mut visited = 0;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            visited += 1;
        }
        Ok(visited)
    }

    fn len(&self) -> Outcome<u64> {
        let mut statement = self.statement("SELECT count(*) FROM records")?;
        let len: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(len as u64)
    }
}
