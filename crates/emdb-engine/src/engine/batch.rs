//! Writing many keys at once: all of them or none, for readers, for crashes, and
//! when an error stops the writer in the middle.

use std::sync::Arc;

use emdb_index::Location;
use emdb_journal::{Batch, FrameSpec, Kind};

use super::Engine;
use super::write::{Newest, Step, delta};
use crate::space::{Delta, Space};
use crate::{Error, Result};

/// Bytes of keys and values that are pulled from the iterator at once.
const CHUNK_BYTES: usize = 1 << 20;

impl Engine {
    /// Stores every record, or none.
    pub(crate) fn insert_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        space: &Arc<Space>,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        const CALL: &str = "insert_many";
        self.check_open()?;
        let mut records = records.into_iter();
        let mut chunk = Vec::new();
        let mut more = fill(&mut chunk, &mut records)?;
        if let [(key, value)] = &chunk[..]
            && !more
        {
            // One record needs no batch around it.
            let value = value.as_ref();
            return self.change(space, key.as_ref(), CALL, |_| Step::Put(value, ()));
        }
        if chunk.is_empty() {
            return Ok(());
        }
        if more {
            // The iterator runs with the write side held, and may wait for reads in other
            // namespaces. One that found a damaged index would need the write side.
            for other in self.spaces() {
                // An index that cannot be rebuilt says so when it is read.
                let _ = self.check_index(&other);
            }
        }
        let mut writer = BatchWriter::begin(self, space, CALL)?;
        loop {
            writer.put_all(&chunk)?;
            if !more {
                break;
            }
            chunk.clear();
            more = fill(&mut chunk, &mut records)?;
        }
        writer.commit()?;
        self.checkpoint_when_due();
        Ok(())
    }
}

/// Pulls records up to the chunk's size; tells whether there may be more. Lengths are
/// checked here, so that a record that is too long stops a batch before it begins.
fn fill<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    chunk: &mut Vec<(K, V)>,
    records: &mut impl Iterator<Item = (K, V)>,
) -> Result<bool> {
    let mut bytes = 0_usize;
    while bytes < CHUNK_BYTES {
        let Some((key, value)) = records.next() else {
            return Ok(false);
        };
        let (key_bytes, value_bytes) = (key.as_ref(), value.as_ref());
        bytes =
            bytes.saturating_add(FrameSpec::new(Kind::Put, key_bytes, value_bytes).encoded_len()?);
        chunk.push((key, value));
    }
    Ok(true)
}

/// A batch in one namespace. Its versions are in the index at once, hidden from
/// readers; dropping it puts the index back as it was.
struct BatchWriter<'a> {
    engine: &'a Engine,
    space: &'a Arc<Space>,
    id: u32,
    batch: Option<Batch>,
    delta: Delta,
}

impl<'a> BatchWriter<'a> {
    fn begin(engine: &'a Engine, space: &'a Arc<Space>, call: &'static str) -> Result<Self> {
        engine.check_index(space)?;
        let batch = engine.journal.begin(call)?;
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        let id = space.id();
        Ok(Self {
            engine,
            space,
            id,
            batch: Some(batch),
            delta: Delta::default(),
        })
    }

    fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, records: &[(K, V)]) -> Result<()> {
        const AHEAD: usize = 16;
        let mut hashes = std::collections::VecDeque::with_capacity(AHEAD);
        let mut ahead = records.iter();
        for (key, value) in records {
            while hashes.len() < AHEAD {
                let Some((key, _)) = ahead.next() else { break };
                let hash = self.engine.hash(key.as_ref());
                self.space.index.prefetch(hash);
                hashes.push_back(hash);
            }
            let Some(hash) = hashes.pop_front() else {
                break;
            };
            self.put(hash, key.as_ref(), value.as_ref())?;
        }
        Ok(())
    }

    fn put(&mut self, hash: u64, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(batch) = &mut self.batch else {
            return Err(Error::Closed);
        };
        let engine = self.engine;
        let mut guard = engine.lock_in_batch(self.space, hash)?;
        let newest = engine.newest(&mut guard, self.id, key)?;
        let spec = FrameSpec {
            namespace: self.id,
            previous: newest.as_ref().map(|newest| engine.link(newest)),
            ..FrameSpec::new(Kind::Put, key, value)
        };
        if newest.is_none() {
            engine.make_room(&mut guard)?;
        }
        let position = batch.append(&spec)?;
        let location = Location::new(position)
            .ok_or_else(|| Error::corrupted(position, "impossible position"))?;
        match newest {
            Some(_) => guard.replace(location, false),
            None => guard.insert(location, false),
        }
        drop(guard);
        self.delta
            .add(delta(&spec, newest.as_ref().and_then(Newest::live)));
        Ok(())
    }

    fn commit(mut self) -> Result<()> {
        if let Some(batch) = &mut self.batch {
            // An error drops the writer, which undoes all of it while it is still hidden.
            batch.seal()?;
        }
        let Some(batch) = self.batch.take() else {
            return Ok(());
        };
        batch.commit(|| {
            self.space.apply(&self.delta);
            self.engine.add_dead(self.delta.dead_bytes);
        })?;
        Ok(())
    }

    /// Puts every entry that the batch changed back to what it was before.
    fn undo(&self, begin: u64, end: u64) {
        let engine = self.engine;
        let mut position = begin;
        while position < end {
            let Ok(frame) = engine.journal.frame(position) else {
                return;
            };
            if frame.kind == Kind::Put && frame.batch {
                // Only the first version of a key in the batch leads out of it.
                let before = frame.previous.map(|link| link.position);
                if before.is_none_or(|before| before < begin) {
                    self.undo_key(frame.key, before);
                }
            }
            position += frame.len() as u64;
        }
    }

    fn undo_key(&self, key: &[u8], before: Option<u64>) {
        let engine = self.engine;
        let Ok(mut guard) = engine.lock_in_batch(self.space, engine.hash(key)) else {
            return;
        };
        let Ok(Some(_)) = engine.newest(&mut guard, self.id, key) else {
            return;
        };
        match before.and_then(Location::new) {
            Some(location) => {
                let tombstone = engine
                    .journal
                    .frame(location.get())
                    .is_ok_and(|frame| frame.kind == Kind::Tombstone);
                guard.replace(location, tombstone);
            }
            None => guard.remove(),
        }
    }
}

impl Drop for BatchWriter<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.undo(batch.begin(), batch.cursor());
            // Dropping the batch now discards its frames and gives the write side back.
            drop(batch);
        }
    }
}
