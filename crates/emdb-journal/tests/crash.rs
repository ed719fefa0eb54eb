//! Crashes: whatever subset of unsynced sectors survives, what reopens is a prefix of
//! what was appended, cut between units, with everything synced in it.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::io::ErrorKind;
use std::sync::Arc;

use common::probe::Probe;
use common::{Random, Record, disk, keys, open, put, records_of, replay, simulated};
use emdb_journal::{Error, Journal, Medium, SimulatedMedium, Store};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// Lengths of the values, and whether the batch is committed.
    Batch(Vec<usize>, bool),
    Sync,
    Confirm,
    Close,
    /// Power fails, in the middle of a batch of so many frames.
    Crash(u64, usize),
    /// Power fails, and recovery is struck at each of its calls in turn.
    CrashTwice(u64),
    Kill,
    /// A sync fails, and the journal is opened again as that left it.
    FailedSync,
}

fn value_len() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..300_usize,
        // Often equal, so that new frames take the place of lost ones exactly.
        6 => Just(500_usize),
        2 => 3_000..6_000_usize,
        1 => 16_000..20_000_usize,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => value_len().prop_map(Step::Append),
        4 => (proptest::collection::vec(value_len(), 0..6), any::<bool>())
            .prop_map(|(lens, commit)| Step::Batch(lens, commit)),
        3 => Just(Step::Sync),
        1 => Just(Step::Confirm),
        1 => Just(Step::Close),
        3 => (any::<u64>(), 0..4_usize).prop_map(|(seed, open)| Step::Crash(seed, open)),
        1 => any::<u64>().prop_map(Step::CrashTwice),
        1 => Just(Step::Kill),
        1 => Just(Step::FailedSync),
    ]
}

fn open_disk(medium: &Arc<SimulatedMedium>, store: Store) -> Result<(Journal, Vec<Record>), Error> {
    open(Probe::new(Arc::clone(medium), |_| Ok(())).storing(store))
}

/// A journal and what it must hold.
struct World {
    medium: Arc<SimulatedMedium>,
    journal: Journal,
    /// Plain records alone, batches whole.
    units: Vec<Vec<Record>>,
    /// Units that survive power loss.
    synced: usize,
    counter: u64,
    /// How appends reach the disk.
    store: Store,
}

impl World {
    fn new(store: Store) -> Self {
        let medium = Arc::new(SimulatedMedium::new());
        let (journal, _) = open_disk(&medium, store).unwrap();
        Self {
            medium,
            journal,
            units: Vec::new(),
            synced: 0,
            counter: 0,
            store,
        }
    }

    fn record(&mut self, len: usize) -> Record {
        self.counter += 1;
        let key = format!("k{}", self.counter).into_bytes();
        // Not zero, so that lost bytes differ from kept ones.
        (key, vec![1 + (self.counter % 255) as u8; len])
    }

    fn append(&mut self, len: usize) {
        let (key, value) = self.record(len);
        self.journal.append(&put(&key, &value)).unwrap();
        self.units.push(vec![(key, value)]);
    }

    fn batch(&mut self, lens: &[usize], commit: bool) {
        let records: Vec<Record> = lens.iter().map(|len| self.record(*len)).collect();
        let mut batch = self.journal.begin("test").unwrap();
        for (number, (key, value)) in records.iter().enumerate() {
            let frame = put(key, value);
            let stored = match number % 3 {
                0 => batch.append(&frame),
                _ => batch.gather(&frame),
            };
            stored.unwrap();
        }
        if commit {
            batch.commit(|| {}).unwrap();
            self.units.push(records);
        }
    }

    fn sync(&mut self) {
        self.journal.sync().unwrap();
        self.synced = self.units.len();
    }

    /// How many units `records` are; panics if they are no acceptable prefix.
    fn prefix(&self, records: &[Record]) -> usize {
        let mut rest = records;
        let mut count = 0;
        for unit in &self.units {
            let Some(left) = rest.strip_prefix(unit.as_slice()) else {
                break;
            };
            // An empty batch leaves no trace and counts as there.
            rest = left;
            count += 1;
        }
        assert!(
            rest.is_empty(),
            "not a prefix of what was appended: {:?} after {count} of {} units",
            keys(rest),
            self.units.len()
        );
        assert!(
            count >= self.synced,
            "{count} units came back, but {} were synced",
            self.synced
        );
        count
    }

    /// Goes on with what a power failure left.
    fn reopen_durable(&mut self, bytes: &[u8]) {
        let medium = disk(bytes);
        let (journal, records) = open_disk(&medium, self.store).unwrap();
        let count = self.prefix(&records);
        assert_eq!(replay(&journal).unwrap(), records);
        self.units.truncate(count);
        self.synced = count;
        (self.medium, self.journal) = (medium, journal);
    }

    fn crash_bytes(&mut self, seed: u64, open_frames: usize) -> Vec<u8> {
        let records: Vec<Record> = (0..open_frames).map(|_| self.record(500)).collect();
        let mut batch = self.journal.begin("test").unwrap();
        for (key, value) in &records {
            batch.gather(&put(key, value)).unwrap();
        }
        if !seed.is_multiple_of(4) {
            batch.store_gathered().unwrap();
        }
        let mut random = Random(seed);
        self.medium.crash(|_| random.fate())
    }

    /// Recovery fails at its n-th call, for every n, and then power fails again.
    fn crash_twice(&mut self, seed: u64) -> Vec<u8> {
        let bytes = self.crash_bytes(seed, (seed % 3) as usize);
        for call in 0.. {
            let medium = disk(&bytes);
            medium.fail_call(call, ErrorKind::Other);
            let opened = open_disk(&medium, self.store);
            if medium.calls() <= call {
                self.prefix(&opened.unwrap().1);
                return bytes;
            }
            let mut random = Random(seed ^ call);
            let lengths = [
                medium.live_bytes(),
                medium.durable_bytes(),
                medium.crash(|_| random.fate()),
            ];
            for bytes in lengths {
                self.prefix(&records_of(&bytes).unwrap());
            }
        }
        bytes
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(len) => self.append(*len),
            Step::Batch(lens, commit) => self.batch(lens, *commit),
            Step::Sync => self.sync(),
            Step::Confirm => {
                let position = self.journal.durable_lsn().get();
                self.journal.confirm(position).unwrap();
            }
            Step::Close => {
                self.journal.close().unwrap();
                self.synced = self.units.len();
                let bytes = self.medium.durable_bytes();
                assert_eq!(bytes.len() as u64, self.journal.published());
                self.reopen_durable(&bytes);
            }
            Step::Crash(seed, open_frames) => {
                let bytes = self.crash_bytes(*seed, *open_frames);
                self.reopen_durable(&bytes);
            }
            Step::CrashTwice(seed) => {
                let bytes = self.crash_twice(*seed);
                self.reopen_durable(&bytes);
            }
            Step::Kill => self.kill(),
            Step::FailedSync => {
                self.medium.fail_call(self.medium.calls(), ErrorKind::Other);
                if self.journal.sync().is_ok() {
                    // There was nothing to sync.
                    self.synced = self.units.len();
                }
                self.kill();
            }
        }
    }

    /// Goes on with what the death of the process left.
    fn kill(&mut self) {
        let medium = Arc::new(self.medium.after_kill());
        let (journal, records) = open_disk(&medium, self.store).unwrap();
        assert_eq!(self.prefix(&records), self.units.len());
        (self.medium, self.journal) = (medium, journal);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_reopens_is_a_prefix_with_everything_synced(
        steps in proptest::collection::vec(step(), 1..40),
        seed: u64,
        store in prop_oneof![Just(Store::Mapped), Just(Store::Mixed), Just(Store::Written)],
    ) {
        let mut world = World::new(store);
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Crash(seed, 0));
        world.append(500);
        world.step(&Step::Crash(!seed, 2));
    }
}

/// Long enough that some sectors belong to one frame alone.
const FRAME_BYTES: usize = 2048;

/// Appends a frame of exactly `FRAME_BYTES`.
fn append_frame(journal: &Journal, name: u8) {
    // Checksum, flags, one byte of key length, two of value length, the key.
    let value = vec![name; FRAME_BYTES - 9];
    journal.append(&put(&[name], &value)).unwrap();
}

/// The first sector that the value of `name` fills.
fn sector_of(bytes: &[u8], name: u8) -> u64 {
    let run = vec![name; FRAME_BYTES - 9];
    let at = bytes
        .windows(run.len())
        .position(|window| window == run)
        .unwrap();
    at.div_ceil(512) as u64
}

fn names_of(bytes: &[u8]) -> String {
    keys(&records_of(bytes).unwrap()).concat()
}

#[test]
fn hole_above_the_confirmed_position_is_cut_with_the_good_frames_behind_it() {
    let (medium, journal) = simulated();
    append_frame(&journal, b'a');
    journal.sync().unwrap();
    for name in *b"bcd" {
        append_frame(&journal, name);
    }
    let hole = sector_of(&medium.live_bytes(), b'b');
    let bytes = medium.crash(|sector| usize::from(sector != hole));
    let (journal, records) = open(disk(&bytes)).unwrap();
    assert_eq!(keys(&records), ["a"]);
    assert!(journal.stats().unwrap().torn_bytes_cut > 2 * FRAME_BYTES as u64);
}

#[test]
fn good_frames_behind_a_cut_stay_dead_when_a_new_frame_takes_the_bad_ones_place() {
    let (medium, journal) = simulated();
    append_frame(&journal, b'a');
    // Confirms `a` by a marker in front of `b`, so that reopening adds none.
    journal.sync().unwrap();
    for name in *b"bcd" {
        append_frame(&journal, name);
    }
    let hole = sector_of(&medium.live_bytes(), b'b');
    let torn = medium.crash(|sector| usize::from(sector != hole));

    let medium = disk(&torn);
    let (journal, _) = open(Arc::clone(&medium)).unwrap();
    let bytes = medium.durable_bytes();
    assert!(
        !bytes.windows(64).any(|window| window == [b'c'; 64]),
        "the cut must be durable before anything is appended"
    );
    append_frame(&journal, b'B');
    for seed in 0..64 {
        let mut random = Random(seed);
        let bytes = medium.crash(|_| random.fate());
        let found = names_of(&bytes);
        assert!(found == "a" || found == "aB", "seed {seed}: {found}");
    }
    assert_eq!(names_of(&medium.live_bytes()), "aB");
}

#[test]
fn hole_below_the_position_a_marker_confirms_is_refused_and_left_untouched() {
    let (medium, journal) = simulated();
    for name in *b"abc" {
        append_frame(&journal, name);
    }
    journal.sync().unwrap();
    append_frame(&journal, b'd');
    let mut bytes = medium.live_bytes();
    let hole = sector_of(&bytes, b'b') as usize * 512;
    bytes[hole..hole + 512].fill(0);
    let medium = disk(&bytes);
    let error = open(Arc::clone(&medium)).err().unwrap();
    assert!(matches!(error, Error::Corrupted { .. }), "{error}");
    assert_eq!(medium.live_bytes(), bytes);
    assert_eq!(medium.calls(), 0);
}

#[test]
fn hole_below_the_position_the_header_confirms_is_refused() {
    let (medium, journal) = simulated();
    for name in *b"abc" {
        append_frame(&journal, name);
    }
    journal.sync().unwrap();
    journal.confirm(journal.durable_lsn().get()).unwrap();
    let mut bytes = medium.durable_bytes();
    let hole = sector_of(&bytes, b'b') as usize * 512;
    bytes[hole..hole + 512].fill(0);
    assert!(matches!(records_of(&bytes), Err(Error::Corrupted { .. })));
}

#[test]
fn hole_that_only_the_last_sync_covers_is_cut() {
    // The last sync before a crash has no marker behind it yet; the contract says so.
    let (medium, journal) = simulated();
    for name in *b"abc" {
        append_frame(&journal, name);
    }
    journal.sync().unwrap();
    let mut bytes = medium.durable_bytes();
    let hole = sector_of(&bytes, b'b') as usize * 512;
    bytes[hole..hole + 512].fill(0);
    assert_eq!(names_of(&bytes), "a");
}

#[test]
fn sync_without_any_append_makes_what_a_killed_process_left_durable() {
    let (medium, journal) = simulated();
    append_frame(&journal, b'a');
    append_frame(&journal, b'b');

    let medium = Arc::new(medium.after_kill());
    assert_eq!(names_of(&medium.durable_bytes()), "");
    let (journal, records) = open(Arc::clone(&medium)).unwrap();
    assert_eq!(keys(&records), ["a", "b"]);
    assert!(journal.durable_lsn() < journal.end_lsn());
    journal.sync().unwrap();
    assert_eq!(journal.durable_lsn(), journal.end_lsn());
    assert_eq!(names_of(&medium.crash(|_| 0)), "ab");
}

/// A journal whose sync of `names` failed, as the next process finds it.
fn after_failed_sync(names: &[u8]) -> Arc<SimulatedMedium> {
    let (medium, journal) = simulated();
    append_frame(&journal, b'a');
    journal.sync().unwrap();
    for name in names {
        append_frame(&journal, *name);
    }
    medium.fail_call(medium.calls(), ErrorKind::Other);
    assert!(matches!(journal.sync(), Err(Error::Io { .. })));
    // As systems do it: what failed to be written counts as written.
    medium.sync().unwrap();
    assert_eq!(names_of(&medium.durable_bytes()), "a");
    Arc::new(medium.after_kill())
}

fn check_durable_after_failed_sync(sync: impl Fn(&Journal) -> Result<(), Error>) {
    // Otherwise a flush is acknowledged, and power loss takes what it covered.
    let medium = after_failed_sync(b"bcd");
    let (journal, records) = open(Arc::clone(&medium)).unwrap();
    assert_eq!(keys(&records), ["a", "b", "c", "d"]);
    sync(&journal).unwrap();
    assert_eq!(names_of(&medium.crash(|_| 0)), "abcd");
    drop(journal);
    assert_eq!(names_of(&medium.crash(|_| 0)), "abcd");
}

#[test]
fn sync_after_reopening_makes_durable_what_a_failed_sync_did_not_write() {
    check_durable_after_failed_sync(Journal::sync);
}

#[test]
fn close_after_reopening_makes_durable_what_a_failed_sync_did_not_write() {
    check_durable_after_failed_sync(Journal::close);
}

#[test]
fn confirming_after_reopening_makes_durable_what_a_failed_sync_did_not_write() {
    check_durable_after_failed_sync(|journal| journal.confirm(journal.published()));
}

#[test]
fn large_records_that_a_failed_sync_did_not_write_are_durable_after_reopening() {
    let (medium, journal) = simulated();
    for (number, len) in (0..).zip([3_000_000, 10, 1 << 20, 700, 2_000_000]) {
        journal
            .append(&put(&[b'a' + number], &vec![7; len]))
            .unwrap();
    }
    medium.fail_call(medium.calls(), ErrorKind::Other);
    assert!(matches!(journal.sync(), Err(Error::Io { .. })));
    let medium = Arc::new(medium.after_kill());
    let (journal, _) = open(Arc::clone(&medium)).unwrap();
    journal.append(&put(b"f", b"")).unwrap();
    journal.sync().unwrap();
    assert_eq!(names_of(&medium.crash(|_| 0)), "abcdef");
}

#[test]
fn header_that_a_failed_sync_did_not_write_is_durable_before_the_other_slot_changes() {
    // Otherwise a torn write of the other slot leaves no header at all.
    let (medium, journal) = simulated();
    append_frame(&journal, b'a');
    journal.sync().unwrap();
    // Behind the write of the slot.
    medium.fail_call(medium.calls() + 1, ErrorKind::Other);
    assert!(journal.confirm(journal.published()).is_err());
    let medium = Arc::new(medium.after_kill());
    let (journal, _) = open(Arc::clone(&medium)).unwrap();
    let (sequence, confirmed) = (journal.header().sequence, journal.header().confirmed);
    assert_eq!(confirmed, journal.published());
    journal
        .name_checkpoint(journal.published(), [0; 16])
        .unwrap();
    let mut bytes = medium.durable_bytes();
    let other = (sequence as usize + 1) % 2 * 8192;
    bytes[other..other + 4096].fill(0xee);
    let (journal, records) = open(disk(&bytes)).unwrap();
    assert_eq!(keys(&records), ["a"]);
    assert_eq!(journal.header().confirmed, confirmed);
}

#[test]
fn sync_fails_if_what_was_replayed_is_gone_from_memory_and_was_never_on_disk() {
    let medium = after_failed_sync(b"bcd");
    let (journal, records) = open(Arc::clone(&medium)).unwrap();
    assert_eq!(keys(&records), ["a", "b", "c", "d"]);
    medium.evict().unwrap();
    let lost = journal.sync();
    assert!(matches!(lost, Err(Error::Corrupted { .. })), "{lost:?}");
    assert!(matches!(journal.sync(), Err(Error::Poisoned)));
    assert!(matches!(
        journal.append(&put(b"late", b"")),
        Err(Error::Poisoned)
    ));
    drop(journal);
    let (journal, records) = open(Arc::new(medium.after_kill())).unwrap();
    assert_eq!(keys(&records), ["a"]);
    journal.close().unwrap();
}

#[test]
fn batch_cut_short_by_a_kill_does_not_count_and_appending_goes_on() {
    let (medium, journal) = simulated();
    append_frame(&journal, b'a');
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"x", b"1")).unwrap();
    batch.append(&put(b"y", b"2")).unwrap();
    let bytes = medium.live_bytes();
    drop(batch);

    let medium = disk(&bytes);
    let (journal, records) = open(Arc::clone(&medium)).unwrap();
    assert_eq!(keys(&records), ["a"]);
    append_frame(&journal, b'b');
    assert_eq!(names_of(&medium.live_bytes()), "ab");
    assert_eq!(keys(&replay(&journal).unwrap()), ["a", "b"]);
}

#[test]
fn every_call_of_close_can_be_the_last_without_losing_a_record() {
    for call in 0..8 {
        for seed in 0..16 {
            let (medium, journal) = simulated();
            append_frame(&journal, b'a');
            journal.sync().unwrap();
            append_frame(&journal, b'b');
            medium.fail_call(medium.calls() + call, ErrorKind::Other);
            let closed = journal.close();
            let mut random = Random(seed);
            let found = names_of(&medium.crash(|_| random.fate()));
            let expected: &[&str] = match closed {
                Ok(()) => &["ab"],
                Err(_) => &["a", "ab"],
            };
            assert!(
                expected.contains(&found.as_str()),
                "call {call}, seed {seed}: {found}"
            );
            assert_eq!(names_of(&medium.live_bytes()), "ab");
        }
    }
}
