//! Writing many keys at once: all of them or none, for readers, for crashes, and
//! when an error stops the writer in the middle.

use std::sync::Arc;
use std::time::Duration;

use emdb_journal::{FrameSpec, Kind};

use super::write::Step;
use super::{Engine, Patience};
use crate::space::Space;
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
            return self.put(space, key.as_ref(), CALL, || Step::Put(value, ()));
        }
        if chunk.is_empty() {
            return Ok(());
        }
        // From the second chunk on the iterator runs with the write side held.
        let batch = self.begin_batch(CALL, Patience::Wait)?;
        let at = self.touch(batch.number, space)?;
        loop {
            self.put_all_in(batch.number, at, &chunk)?;
            if !more {
                break;
            }
            chunk.clear();
            more = fill(&mut chunk, &mut records)?;
        }
        batch.commit()
    }

    /// Stores every record in a transaction, or none.
    pub(crate) fn insert_many_in<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        number: u64,
        at: usize,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let attempt = Attempt::new(self, number)?;
        let mut records = records.into_iter();
        let mut chunk = Vec::new();
        let mut more = true;
        while more {
            chunk.clear();
            more = fill(&mut chunk, &mut records)?;
            self.put_all_in(number, at, &chunk)?;
        }
        attempt.succeed();
        Ok(())
    }

    /// Takes the write side for as long as the result lives.
    pub(crate) fn begin_batch(
        &self,
        call: &'static str,
        patience: Patience,
    ) -> Result<OpenBatch<'_>> {
        // Without a limit to its patience it never gives up.
        let number = self.begin(call, None, patience)?.ok_or(Error::Closed)?;
        Ok(OpenBatch {
            engine: self,
            number,
        })
    }

    /// As `begin_batch` for a transaction, but `None` once the time is up.
    pub(crate) fn begin_batch_within(
        &self,
        call: &'static str,
        timeout: Duration,
    ) -> Result<Option<OpenBatch<'_>>> {
        let number = self.begin(call, Some(timeout), Patience::RollBack)?;
        Ok(number.map(|number| OpenBatch {
            engine: self,
            number,
        }))
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

/// A transaction that is rolled back when this is dropped.
pub(crate) struct OpenBatch<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) number: u64,
}

impl OpenBatch<'_> {
    /// Makes everything visible.
    pub(crate) fn commit(self) -> Result<()> {
        self.engine.commit(self.number)?;
        std::mem::forget(self);
        Ok(())
    }

    /// Undoes everything.
    pub(crate) fn roll_back(self) -> Result<()> {
        let rolled_back = self.engine.roll_back(self.number);
        std::mem::forget(self);
        rolled_back
    }
}

impl Drop for OpenBatch<'_> {
    fn drop(&mut self) {
        // There is nothing to be done once it was committed, or the database closed.
        let _ = self.engine.roll_back(self.number);
    }
}

/// Several steps in a transaction that happen all or not at all: takes the
/// transaction back when it is dropped before it succeeds.
struct Attempt<'a> {
    engine: &'a Engine,
    number: u64,
    savepoint: u64,
    succeeded: bool,
}

impl<'a> Attempt<'a> {
    fn new(engine: &'a Engine, number: u64) -> Result<Self> {
        Ok(Self {
            engine,
            number,
            savepoint: engine.savepoint(number)?,
            succeeded: false,
        })
    }

    fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let engine = self.engine;
        if !self.succeeded && engine.roll_back_to(self.number, self.savepoint).is_err() {
            // Half of the steps must not be committed.
            engine.fail(self.number, "a part of it could not be taken back");
        }
        engine.forget_savepoint(self.number, self.savepoint);
    }
}
