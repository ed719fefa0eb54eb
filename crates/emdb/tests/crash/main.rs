//! Power loss, kills and faults at random moments, on a simulated disk.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/builder.rs"]
mod support;
mod transactions;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use emdb::{Emdb, Error, FlushPolicy};
use emdb_journal::SimulatedMedium;

type Bytes = Vec<u8>;
type Map = BTreeMap<Bytes, Bytes>;
/// Every namespace with its records; the default one has the empty name.
type State = BTreeMap<String, Map>;

/// A small generator with known results for every seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn key(&mut self) -> Bytes {
        format!("key{}", self.below(40)).into_bytes()
    }

    fn value(&mut self) -> Bytes {
        let len = match self.below(40) {
            0 => 20_000,
            1..4 => 3000,
            _ => self.below(80),
        };
        vec![self.next() as u8; len as usize]
    }
}

/// Says which seed failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

/// Runs a test with many seeds; `EMDB_TEST_CASES` asks for more or fewer.
fn for_seeds(default: u64, test: impl Fn(&mut Random)) {
    let cases = std::env::var("EMDB_TEST_CASES").map_or(default, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        let seed = Seed(seed);
        let _guard = support::encrypt(seed.0 % 2 == 1);
        test(&mut Random(seed.0.wrapping_mul(0x2545_f491_4f6c_dd1d)));
    }
}

fn open_on(disk: &Arc<SimulatedMedium>, policy: FlushPolicy) -> Result<Emdb, Error> {
    open_with(disk, policy, true)
}

fn open_with(
    disk: &Arc<SimulatedMedium>,
    policy: FlushPolicy,
    ranges: bool,
) -> Result<Emdb, Error> {
    support::builder()
        .flush_policy(policy)
        .enable_range_scans(ranges)
        .build_on(Box::new(Arc::clone(disk)))
}

fn open(disk: &Arc<SimulatedMedium>) -> Emdb {
    open_on(disk, FlushPolicy::OnEachFlush).unwrap()
}

/// Ends a process: its handle never closes, so nothing is synced, trimmed or written.
fn kill(db: Emdb) {
    std::mem::forget(db);
}

fn state(db: &Emdb) -> State {
    let records = |iterator: emdb::TryIter| iterator.collect::<Result<Map, _>>().unwrap();
    let ordered = db.stats().unwrap().range_scans_enabled;
    let mut state = State::from([(String::new(), records(db.try_iter().unwrap()))]);
    assert_eq!(db.len().unwrap(), state[""].len());
    if ordered {
        check_order(&db.range(..).unwrap(), &state[""]);
    }
    for name in db.list_namespaces().unwrap() {
        let space = db.open_namespace(&name).unwrap().unwrap();
        let found = records(space.try_iter().unwrap());
        assert_eq!(space.len().unwrap(), found.len());
        if ordered {
            check_order(&space.range(..).unwrap(), &found);
        }
        for (key, value) in &found {
            assert_eq!(space.get(key).unwrap().as_ref(), Some(value));
        }
        state.insert(name, found);
    }
    state
}

fn check_order(range: &[(Bytes, Bytes)], records: &Map) {
    assert!(range.iter().map(|(key, value)| (key, value)).eq(records));
}

/// What was acknowledged, step by step, and how much of it was flushed.
struct History {
    states: Vec<State>,
    flushed: usize,
}

impl History {
    fn new() -> Self {
        Self {
            states: vec![State::from([(String::new(), Map::new())])],
            flushed: 0,
        }
    }

    fn last(&self) -> usize {
        self.states.len() - 1
    }

    fn push(&mut self, state: State) {
        self.states.push(state);
    }

    /// Checks that the state is a prefix that holds all that was flushed; it is the
    /// whole history from here on.
    fn cut_to(&mut self, state: State) {
        let at = (self.flushed..self.states.len())
            .rev()
            .find(|at| self.states[*at] == state);
        let Some(_) = at else {
            let elsewhere = self.states.iter().position(|old| *old == state);
            panic!(
                "no prefix from {} to {}; found at {elsewhere:?}",
                self.flushed,
                self.last()
            );
        };
        self.states = vec![state];
        self.flushed = 0;
    }
}

/// One acknowledged operation, in the database and in the history.
fn step(db: &Emdb, history: &mut History, random: &mut Random, writes_through: bool) {
    let mut state = history.states[history.last()].clone();
    let name = ["", "", "", "a", "b"][random.below(5) as usize];
    let kind = random.below(100);
    if kind >= 94 {
        match kind {
            94..97 => db.flush().unwrap(),
            _ => db.checkpoint().unwrap(),
        }
        history.flushed = history.last();
        return;
    }
    if random.below(8) == 0 {
        let mut after = state.clone();
        let tx = db.begin().unwrap();
        transactions::change(&tx, &mut after, random);
        if random.below(3) == 0 {
            drop(tx);
            return;
        }
        tx.commit().unwrap();
        history.push(after);
        if writes_through {
            history.flushed = history.last();
        }
        return;
    }
    if !name.is_empty() && !state.contains_key(name) {
        db.namespace(name).unwrap();
        state.insert(name.to_owned(), Map::new());
        history.push(state.clone());
    }
    let records = state.get_mut(name).unwrap();
    let space = (!name.is_empty()).then(|| db.namespace(name).unwrap());
    match kind {
        0..50 => {
            let (key, value) = (random.key(), random.value());
            match &space {
                Some(space) => space.insert(&key, &value).unwrap(),
                None => db.insert(&key, &value).unwrap(),
            }
            records.insert(key, value);
        }
        50..70 => {
            let key = random.key();
            let old = match &space {
                Some(space) => space.remove(&key).unwrap(),
                None => db.remove(&key).unwrap(),
            };
            assert_eq!(old, records.remove(&key));
        }
        70..88 => {
            let batch: Vec<_> = (0..random.below(30))
                .map(|_| (random.key(), random.value()))
                .collect();
            match &space {
                Some(space) => space.insert_many(batch.clone()).unwrap(),
                None => db.insert_many(batch.clone()).unwrap(),
            }
            records.extend(batch);
        }
        88..91 => {
            match &space {
                Some(space) => space.clear().unwrap(),
                None => db.clear().unwrap(),
            }
            records.clear();
        }
        _ if space.is_some() => {
            assert!(db.drop_namespace(name).unwrap());
            state.remove(name);
        }
        _ => return,
    }
    history.push(state);
    if writes_through {
        history.flushed = history.last();
    }
}

/// The disk after a power failure that keeps, tears or drops each unsynced sector.
fn power_loss(disk: &SimulatedMedium, sidecars: &[Bytes], random: &mut Random) -> SimulatedMedium {
    let drops = random.below(4);
    let bytes = disk.crash(|_| match random.below(4) {
        n if n < drops => 0,
        3 if random.below(2) == 0 => random.below(512) as usize,
        _ => 1,
    });
    let sidecar = match random.below(4) {
        0 => None,
        1 if !sidecars.is_empty() => {
            let at = random.below(sidecars.len() as u64) as usize;
            Some(sidecars[at].clone())
        }
        _ => disk.sidecar_bytes(),
    };
    SimulatedMedium::with_bytes(&bytes).with_sidecar(sidecar)
}

fn crash_at_random(random: &mut Random, policy: FlushPolicy) {
    let writes_through = policy == FlushPolicy::WriteThrough;
    let mut disk = Arc::new(SimulatedMedium::new());
    let mut history = History::new();
    let mut sidecars = Vec::new();
    for _ in 0..1 + random.below(5) {
        let db = open_with(&disk, policy, random.below(4) > 0).unwrap();
        // Iterators keep old versions, which must not change what is recovered.
        let _iterator = (random.below(2) == 0).then(|| db.iter().unwrap());
        for _ in 0..random.below(60) {
            step(&db, &mut history, random, writes_through);
            if let Some(sidecar) = disk.sidecar_bytes()
                && sidecars.last() != Some(&sidecar)
            {
                sidecars.push(sidecar);
            }
        }
        if random.below(2) == 0 {
            db.verify().unwrap();
        }
        match random.below(5) {
            0 => {
                db.close().unwrap();
                history.flushed = history.last();
            }
            // The copy is the disk as it was then; what dropping the handle does
            // later goes to the old one.
            1 | 2 => {
                disk = Arc::new(disk.after_kill());
                // A killed process loses nothing, though it may not be durable yet.
                let seen = Arc::new(disk.after_kill());
                assert_eq!(state(&open(&seen)), history.states[history.last()]);
            }
            _ => {
                disk = Arc::new(power_loss(&disk, &sidecars, random));
                let seen = Arc::new(disk.after_kill());
                history.cut_to(state(&open(&seen)));
            }
        }
    }
    let db = open_on(&disk, policy).unwrap();
    assert_eq!(state(&db), history.states[history.last()]);
    db.verify().unwrap();
}

#[test]
fn a_power_loss_leaves_a_prefix_that_holds_everything_flushed() {
    for_seeds(200, |random| {
        crash_at_random(random, FlushPolicy::OnEachFlush);
    });
}

#[test]
fn with_write_through_a_power_loss_loses_nothing() {
    for_seeds(60, |random| {
        crash_at_random(random, FlushPolicy::WriteThrough);
    });
}

#[test]
fn grouped_flushes_promise_the_same() {
    for_seeds(40, |random| crash_at_random(random, FlushPolicy::Group));
}

#[test]
fn a_crash_during_recovery_loses_nothing_more() {
    for_seeds(30, |random| {
        let disk = Arc::new(SimulatedMedium::new());
        let mut history = History::new();
        let db = open(&disk);
        for _ in 0..20 + random.below(40) {
            step(&db, &mut history, random, false);
        }
        kill(db);
        let lost = power_loss(&disk, &[], random);
        let expected = state(&open(&Arc::new(lost.after_kill())));
        history.cut_to(expected.clone());
        let mut call = 0;
        loop {
            let disk = Arc::new(lost.after_kill());
            disk.fail_call(call, ErrorKind::Other);
            let opened = open_on(&disk, FlushPolicy::OnEachFlush);
            let failed = opened.is_err();
            if let Ok(db) = opened {
                assert_eq!(state(&db), expected);
                kill(db);
            }
            // The process died there, or the power failed again.
            let again = match random.below(2) {
                0 => disk.after_kill(),
                _ => power_loss(&disk, &[], random),
            };
            assert_eq!(state(&open(&Arc::new(again))), expected);
            if !failed && disk.calls() <= call {
                break;
            }
            call += 1;
        }
    });
}

#[test]
fn a_kill_in_the_middle_of_a_batch_leaves_nothing_of_it() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("kept", "old").unwrap();
    let mut seen = Vec::new();
    let records = (0..40_u8).map(|number| {
        seen.push(disk.after_kill());
        let key = if number % 2 == 0 {
            b"kept".to_vec()
        } else {
            vec![number]
        };
        (key, vec![number; 100_000])
    });
    db.insert_many(records).unwrap();
    for disk in seen {
        let db = open(&Arc::new(disk));
        assert_eq!(db.len().unwrap(), 1);
        assert_eq!(db.get("kept").unwrap().unwrap(), b"old");
        db.insert("next", "new").unwrap();
        db.verify().unwrap();
    }
}

#[test]
fn a_flush_makes_durable_what_a_killed_process_wrote() {
    let disk = Arc::new(SimulatedMedium::new());
    let first = open(&disk);
    first.insert("key", "value").unwrap();
    first.insert_many([("a", "1"), ("b", "2")]).unwrap();
    kill(first);

    let disk = Arc::new(disk.after_kill());
    let second = open(&disk);
    second.flush().unwrap();
    kill(second);

    // Every unsynced sector is lost.
    let disk = Arc::new(SimulatedMedium::with_bytes(&disk.crash(|_| 0)));
    let db = open(&disk);
    assert_eq!(db.len().unwrap(), 3);
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
}

#[test]
fn a_checkpoint_newer_than_the_journal_is_ignored_for_good() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("old", "value").unwrap();
    db.flush().unwrap();
    let older = disk.durable_bytes();
    // As long as what is written in their place, so that the image's position fits.
    for number in 0..100_u8 {
        db.insert([200, number], "lost!").unwrap();
    }
    db.checkpoint().unwrap();
    let newer = disk.sidecar_bytes();
    assert!(newer.is_some());
    kill(db);

    let mut disk = Arc::new(SimulatedMedium::with_bytes(&older).with_sidecar(newer));
    let mut expected = Map::from([(b"old".to_vec(), b"value".to_vec())]);
    // The journal grows past the point that the stale image speaks of.
    for round in 0..40_u8 {
        let db = open(&disk);
        assert_eq!(state(&db)[""], expected, "round {round}");
        for number in 0..20_u8 {
            db.insert([round, number], "other").unwrap();
            expected.insert(vec![round, number], b"other".to_vec());
        }
        if round % 3 == 0 {
            db.close().unwrap();
        } else {
            db.flush().unwrap();
            kill(db);
        }
        disk = Arc::new(disk.after_kill());
    }
}

#[test]
fn after_a_failed_sync_writes_fail_and_reads_go_on() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("flushed", "1").unwrap();
    db.flush().unwrap();
    db.insert("written", "2").unwrap();
    disk.fail_call(disk.calls(), ErrorKind::Other);
    assert!(matches!(db.flush(), Err(Error::Io(_))));
    assert!(matches!(db.flush(), Err(Error::Poisoned)));
    assert!(matches!(db.insert("late", "3"), Err(Error::Poisoned)));
    assert!(matches!(db.remove("flushed"), Err(Error::Poisoned)));
    assert!(matches!(db.clear(), Err(Error::Poisoned)));
    assert!(matches!(db.namespace("a"), Err(Error::Poisoned)));
    assert!(matches!(
        db.insert_many([("a", "1"), ("b", "2")]),
        Err(Error::Poisoned)
    ));
    assert!(db.checkpoint().is_err());
    assert_eq!(db.get("flushed").unwrap().unwrap(), b"1");
    assert_eq!(db.get("written").unwrap().unwrap(), b"2");
    assert_eq!(db.get("late").unwrap(), None);
    assert_eq!(db.get("a").unwrap(), None);
    assert_eq!(db.len().unwrap(), 2);
    assert_eq!(db.iter().unwrap().count(), 2);
    kill(db);
    let disk = Arc::new(disk.after_kill());
    let db = open(&disk);
    assert_eq!(db.len().unwrap(), 2);
    db.insert("late", "3").unwrap();
    db.flush().unwrap();
    assert_eq!(db.len().unwrap(), 3);
    // The flush covers what the failed one lost, too.
    let bytes = disk.crash(|_| 0);
    let db = open(&Arc::new(SimulatedMedium::with_bytes(&bytes)));
    assert_eq!(db.len().unwrap(), 3);
    db.verify().unwrap();
}

#[test]
fn verify_checks_everything_after_a_failed_sync() {
    // Otherwise the one who must decide whether to trust the file cannot ask.
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    let space = db.namespace("a").unwrap();
    for number in 0..100_u8 {
        db.insert([number % 70], [number]).unwrap();
        space.insert([number], [number]).unwrap();
    }
    db.remove([3]).unwrap();
    let filler = (0..3_u8).map(|number| (vec![200, number], vec![0; 600_000]));
    let failing = filler.inspect(|(key, _)| {
        // Once the batch has the write side.
        if key[1] == 2 {
            disk.fail_call(disk.calls(), ErrorKind::Other);
            db.flush().unwrap_err();
        }
    });
    assert!(matches!(db.insert_many(failing), Err(Error::Poisoned)));
    assert!(matches!(db.insert("late", "3"), Err(Error::Poisoned)));
    let report = db.verify().unwrap();
    assert_eq!(report.records, 69 + 100);
    assert_eq!(db.len().unwrap(), 69);
    drop((db, space));
}

#[test]
fn any_one_failing_call_loses_nothing_acknowledged() {
    for_seeds(8, |random| {
        let script = random.next();
        for call in 0.. {
            let disk = Arc::new(SimulatedMedium::new());
            disk.fail_call(call, ErrorKind::Other);
            let Ok(db) = open_on(&disk, FlushPolicy::OnEachFlush) else {
                let again = open(&Arc::new(disk.after_kill()));
                assert!(again.is_empty().unwrap());
                continue;
            };
            let mut random = Random(script);
            let mut history = History::new();
            for _ in 0..60 {
                let mut state = history.states[history.last()].clone();
                let (key, value) = (random.key(), vec![random.next() as u8; 3000]);
                let (result, flushes) = match random.below(8) {
                    0 => (db.flush(), true),
                    1 => (db.checkpoint(), true),
                    2 => (db.insert_many([(&key, &value)]), false),
                    _ => (db.insert(&key, &value), false),
                };
                if result.is_ok() && flushes {
                    history.flushed = history.last();
                } else if result.is_ok() {
                    state.get_mut("").unwrap().insert(key, value);
                    history.push(state);
                }
            }
            let last = &history.states[history.last()];
            assert_eq!(&state(&db), last);
            kill(db);
            assert_eq!(&state(&open(&Arc::new(disk.after_kill()))), last);
            let lost = SimulatedMedium::with_bytes(&disk.crash(|_| 0));
            let lost = lost.with_sidecar(disk.sidecar_bytes());
            history.cut_to(state(&open(&Arc::new(lost))));
            if disk.calls() <= call {
                break;
            }
        }
    });
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_loses_nothing() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("first", "1").unwrap();
    disk.set_capacity(Some(disk.live_bytes().len() as u64 + 300_000));
    let mut expected = state(&db)[""].clone();
    let mut refused = 0;
    for number in 0..1000_u32 {
        let (key, value) = (number.to_le_bytes().to_vec(), vec![1; 3000]);
        match db.insert(&key, &value) {
            Ok(()) => drop(expected.insert(key, value)),
            Err(Error::Io(error)) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    assert_eq!(state(&db)[""], expected);

    // A batch that does not fit leaves nothing, also of what it overwrote.
    let records = (0..1000_u32).map(|number| (number.to_le_bytes(), vec![2; 3000]));
    let error = db.insert_many(records.clone()).unwrap_err();
    assert!(matches!(&error, Error::Io(error) if error.kind() == ErrorKind::StorageFull));
    assert_eq!(state(&db)[""], expected);
    db.flush().unwrap();
    db.verify().unwrap();
    assert_eq!(
        state(&open(&Arc::new(disk.after_kill())))[""],
        expected,
        "as another process sees it"
    );

    disk.set_capacity(None);
    db.insert("last", "2").unwrap();
    db.insert_many(records.clone()).unwrap();
    expected.insert(b"last".to_vec(), b"2".to_vec());
    expected.extend(records.map(|(key, value)| (key.to_vec(), value)));
    assert_eq!(state(&db)[""], expected);
    db.verify().unwrap();
    db.close().unwrap();
    assert_eq!(state(&open(&Arc::new(disk.after_kill())))[""], expected);
}

/// Whoever puts an older copy of the file back, and leaves the checkpoint that lies
/// beside it, must not lose records once the copy has grown past it.
#[test]
fn a_checkpoint_that_an_older_copy_of_the_journal_overtakes_stays_ignored() {
    let write = |disk: &Arc<SimulatedMedium>, first: u8| {
        let db = open(disk);
        for number in 0..100_u8 {
            db.insert([first, number], "value").unwrap();
        }
        db
    };
    let disk = Arc::new(SimulatedMedium::new());
    open(&disk).close().unwrap();
    let older = disk.live_bytes();
    let db = write(&disk, 1);
    db.checkpoint().unwrap();
    kill(db);

    let copy = SimulatedMedium::with_bytes(&older).with_sidecar(disk.sidecar_bytes());
    let copy = Arc::new(copy);
    let db = write(&copy, 2);
    db.insert("one", "more").unwrap();
    db.close().unwrap();
    let db = open(&Arc::new(copy.after_kill()));
    assert_eq!(db.get([2, 5]).unwrap().unwrap(), b"value");
    assert_eq!(db.len().unwrap(), 101);
    db.verify().unwrap();
}

#[test]
fn a_checkpoint_of_another_history_of_the_same_database_is_ignored() {
    // Two copies of a database went on by themselves, and one's checkpoint lies beside
    // the other's journal: records would silently be missing.
    let write = |disk: &Arc<SimulatedMedium>, first: u8| {
        let db = open(disk);
        for number in 0..100_u8 {
            db.insert([first, number], "value").unwrap();
        }
        db
    };
    let disk = Arc::new(SimulatedMedium::new());
    open(&disk).close().unwrap();
    let older = disk.live_bytes();
    let db = write(&disk, 1);
    db.checkpoint().unwrap();
    kill(db);
    let copy = Arc::new(SimulatedMedium::with_bytes(&older));
    let db = write(&copy, 2);
    db.insert("one", "more").unwrap();
    db.close().unwrap();
    let copy = copy.after_kill().with_sidecar(disk.sidecar_bytes());
    let db = open(&Arc::new(copy));
    assert_eq!(db.get([2, 5]).unwrap().unwrap(), b"value");
}
