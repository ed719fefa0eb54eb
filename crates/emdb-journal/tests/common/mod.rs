//! What the tests of the journal share: records, reopening, a small random generator.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses a part of it"
)]

pub(crate) mod probe;

use std::sync::Arc;

use emdb_journal::{Error, FrameSpec, Journal, Kind, Medium, Options, SimulatedMedium};

/// A key and its value.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// A plain record.
pub(crate) fn put<'a>(key: &'a [u8], value: &'a [u8]) -> FrameSpec<'a> {
    FrameSpec::new(Kind::Put, key, value)
}

/// Opens the journal and collects its records.
pub(crate) fn open_with(
    medium: impl Medium + 'static,
    options: Options,
) -> Result<(Journal, Vec<Record>), Error> {
    let mut records = Vec::new();
    let journal = Journal::open(Box::new(medium), options, |replayed| {
        let frame = replayed.frame;
        records.push((frame.key.to_vec(), frame.value.to_vec()));
    })?;
    Ok((journal, records))
}

/// Opens the journal with the default options and collects its records.
pub(crate) fn open(medium: impl Medium + 'static) -> Result<(Journal, Vec<Record>), Error> {
    open_with(medium, Options::default())
}

/// A new journal on a simulated disk.
pub(crate) fn simulated() -> (Arc<SimulatedMedium>, Journal) {
    let medium = Arc::new(SimulatedMedium::new());
    let (journal, records) = open(Arc::clone(&medium)).unwrap();
    assert!(records.is_empty());
    (medium, journal)
}

/// A simulated disk with these bytes, all durable.
pub(crate) fn disk(bytes: &[u8]) -> Arc<SimulatedMedium> {
    Arc::new(SimulatedMedium::with_bytes(bytes))
}

/// The records of a journal with these bytes.
pub(crate) fn records_of(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    open(disk(bytes)).map(|(_, records)| records)
}

/// What a running journal holds.
pub(crate) fn replay(journal: &Journal) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    journal.replay(16_384, &mut |replayed| {
        let frame = replayed.frame;
        records.push((frame.key.to_vec(), frame.value.to_vec()));
        Ok::<(), Error>(())
    })?;
    Ok(records)
}

/// Keys alone, for messages that can be read.
pub(crate) fn keys(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(key).into_owned())
        .collect()
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// The fate of one unsynced sector: mostly all or nothing, so that holes in
    /// front of good frames are likely, sometimes torn.
    pub(crate) fn fate(&mut self) -> usize {
        match self.below(8) {
            0..=3 => 1,
            4..=6 => 0,
            _ => 2 + self.below(510) as usize,
        }
    }
}
