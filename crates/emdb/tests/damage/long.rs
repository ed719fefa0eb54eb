//! Journals so long that one thread verifies what another applies: the outcome is that of
//! a short one.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use emdb::{Emdb, Error};
use emdb_journal::{FrameSpec, Journal, Kind, Options, SimulatedMedium};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// More than what one thread replays alone.
const LONG_BYTES: u64 = 33 << 20;
/// Records of the batch at the end.
const BATCH: u32 = 100;

/// A long journal as a kill leaves it.
struct Killed {
    journal: Vec<u8>,
    /// Everything below was synced.
    synced: usize,
    /// What was there then; behind it is only a batch.
    then: Map,
}

fn killed() -> Killed {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    let space = db.namespace("cleared").unwrap();
    let mut then = Map::new();
    let mut number = 0_u32;
    while db.stats().unwrap().file_size_bytes < LONG_BYTES {
        number += 1;
        let (key, value) = (number.to_le_bytes(), vec![number as u8; 20_000]);
        db.insert(key, &value).unwrap();
        space.insert(key, "gone").unwrap();
        then.insert(key.to_vec(), value);
        // Replaced, removed, or new after all.
        let other = (number / 2).to_le_bytes();
        if number.is_multiple_of(3) {
            db.remove(other).unwrap();
            then.remove(&other[..]);
        } else {
            db.insert(other, key).unwrap();
            then.insert(other.to_vec(), key.to_vec());
        }
        if number == 1000 {
            space.clear().unwrap();
        }
    }
    space.clear().unwrap();
    db.flush().unwrap();
    let synced = db.stats().unwrap().file_size_bytes as usize;
    db.insert_many((0..BATCH).map(|number| (format!("batch{number}"), "value")))
        .unwrap();
    let journal = fs::read(&path).unwrap();
    Killed {
        journal,
        synced,
        then,
    }
}

fn open(journal: &[u8]) -> Result<Emdb, Error> {
    Emdb::builder().build_on(Box::new(Arc::new(SimulatedMedium::with_bytes(journal))))
}

#[track_caller]
fn check(db: &Emdb, expected: &Map) {
    assert_eq!(db.len().unwrap(), expected.len());
    assert!(&db.iter().unwrap().collect::<Map>() == expected);
    let space = db.open_namespace("cleared").unwrap().unwrap();
    assert!(space.is_empty().unwrap());
    db.verify().unwrap();
}

#[test]
fn a_long_journal_is_replayed_cut_and_refused_like_a_short_one() {
    let mut killed = killed();
    let mut all = killed.then.clone();
    for number in 0..BATCH {
        all.insert(format!("batch{number}").into_bytes(), b"value".to_vec());
    }
    check(&open(&killed.journal).unwrap(), &all);

    // The batch counts whole or not at all.
    let end = killed.journal.iter().rposition(|byte| *byte != 0).unwrap();
    for at in [end, (killed.synced + end) / 2] {
        killed.journal[at] ^= 1;
        let db = open(&killed.journal).unwrap();
        assert!(db.stats().unwrap().torn_bytes_cut > 0);
        check(&db, &killed.then);
        killed.journal[at] ^= 1;
    }

    // The marker behind the sync proves the rest.
    for at in [20_000, killed.synced / 2, killed.synced - 1] {
        killed.journal[at] ^= 1;
        match open(&killed.journal) {
            Err(Error::Corrupted { offset, .. }) => assert!(offset <= at as u64),
            other => panic!("{other:?}"),
        }
        killed.journal[at] ^= 1;
    }
}

#[test]
fn of_two_faults_in_a_long_journal_the_first_is_told() {
    let disk = Arc::new(SimulatedMedium::new());
    let journal = Journal::open(Box::new(Arc::clone(&disk)), Options::default(), |_| {}).unwrap();
    let put = |namespace, value: &[u8]| {
        let spec = FrameSpec {
            namespace,
            ..FrameSpec::new(Kind::Put, b"key", value)
        };
        journal.append(&spec).unwrap().get()
    };
    let stranger = put(77, b"of no namespace that ever was");
    let value = vec![1; 1 << 20];
    for namespace in 1000..1000 + (LONG_BYTES >> 20) as u32 {
        put(namespace, &value);
    }
    journal.sync().unwrap();
    let end = put(78, b"") as usize;
    let mut bytes = disk.live_bytes();
    bytes[end - 100_000] ^= 1;
    match open(&bytes) {
        Err(Error::Corrupted { offset, .. }) => assert_eq!(offset, stranger),
        other => panic!("{other:?}"),
    }
}
