//! The order of keys in checkpoints: used where it is right, never believed where it is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use emdb::{Emdb, Error, VerifyReads};
use emdb_journal::SimulatedMedium;

use crate::{Map, awkward_keys, records};

/// Every namespace with its records; the default one has the empty name.
type State = BTreeMap<String, Map>;

fn try_open(disk: &Arc<SimulatedMedium>, ranges: bool) -> Result<Emdb, Error> {
    Emdb::builder()
        .enable_range_scans(ranges)
        .build_on(Box::new(Arc::clone(disk)))
}

fn open(disk: &Arc<SimulatedMedium>, ranges: bool) -> Emdb {
    try_open(disk, ranges).unwrap()
}

fn disk() -> Arc<SimulatedMedium> {
    Arc::new(SimulatedMedium::new())
}

fn killed(disk: &SimulatedMedium) -> Arc<SimulatedMedium> {
    Arc::new(disk.after_kill())
}

fn check(db: &Emdb, state: &State) {
    let ordered = db.stats().unwrap().range_scans_enabled;
    let mut names = db.list_namespaces().unwrap();
    names.push(String::new());
    names.sort();
    assert!(names.iter().eq(state.keys()), "{names:?}");
    for (name, map) in state {
        if name.is_empty() {
            let found: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(&found, map);
            if ordered {
                assert_eq!(db.range(..).unwrap(), records(map));
            }
            continue;
        }
        let space = db.namespace(name).unwrap();
        let found: Map = space.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(&found, map, "{name:?}");
        if ordered {
            assert_eq!(space.range(..).unwrap(), records(map), "{name:?}");
            let mut backwards: Vec<_> = space.range_iter(..).unwrap().rev().collect();
            backwards.reverse();
            assert_eq!(backwards, records(map), "{name:?}");
            for (key, value) in map.iter().step_by(7) {
                let first = space.range_iter(key..).unwrap().next();
                assert_eq!(first, Some((key.clone(), value.clone())), "{name:?}");
            }
        }
    }
    db.verify().unwrap();
}

/// Whether opening takes every order from the checkpoint: then it does not notice that
/// values are damaged, which reading all records would.
fn is_order_stored(disk: &SimulatedMedium) -> bool {
    let mut journal = disk.live_bytes();
    let is_canary = |at: &usize| journal[*at..].starts_with(CANARY);
    let canaries: Vec<_> = (0..journal.len()).filter(is_canary).collect();
    let stored = canaries.iter().filter(|at| {
        journal[**at] ^= 1;
        let damaged = SimulatedMedium::with_bytes(&journal).with_sidecar(disk.sidecar_bytes());
        journal[**at] ^= 1;
        match try_open(&Arc::new(damaged), true) {
            Ok(_) => true,
            Err(Error::Corrupted { .. }) => false,
            Err(error) => panic!("{error:?}"),
        }
    });
    let stored = stored.count();
    assert!(!canaries.is_empty());
    assert!(
        stored == 0 || stored == canaries.len(),
        "{stored} of {}",
        canaries.len()
    );
    stored > 0
}

const CANARY: &[u8] = b"a value that is in no other record";

/// Namespaces, replaced, removed and large records, and what comes back.
fn fill(db: &Emdb) -> State {
    let mut state = State::from([(String::new(), Map::new())]);
    for name in ["first", "full", "cleared", "refilled", "dropped", "empty"] {
        let space = db.namespace(name).unwrap();
        let map = state.entry(name.to_owned()).or_default();
        for (number, key) in awkward_keys().into_iter().enumerate() {
            if name == "empty" {
                continue;
            }
            space.insert(&key, "old").unwrap();
            match number % 4 {
                0 => _ = space.remove(&key).unwrap(),
                1 => {
                    space.insert(&key, number.to_string()).unwrap();
                    map.insert(key, number.to_string().into_bytes());
                }
                _ => _ = map.insert(key, b"old".to_vec()),
            }
        }
    }
    for (key, value) in [("canary", CANARY.to_vec()), ("large", vec![7; 20_000])] {
        db.insert(key, &value).unwrap();
        for name in ["first", "full"] {
            db.namespace(name).unwrap().insert(key, &value).unwrap();
        }
        for name in ["", "first", "full"] {
            let map = state.entry(name.to_owned()).or_default();
            map.insert(key.into(), value.clone());
        }
    }
    for name in ["cleared", "refilled"] {
        db.namespace(name).unwrap().clear().unwrap();
        state.insert(name.to_owned(), Map::new());
    }
    db.namespace("refilled").unwrap().insert("a", "b").unwrap();
    state.insert(
        "refilled".to_owned(),
        Map::from([(b"a".to_vec(), b"b".to_vec())]),
    );
    db.drop_namespace("dropped").unwrap();
    state.remove("dropped");
    state
}

/// Changes of every kind, to be replayed.
fn change(db: &Emdb, state: &mut State, round: u8) {
    for name in ["first", "full"] {
        let space = db.namespace(name).unwrap();
        let map = state.get_mut(name).unwrap();
        for (number, key) in awkward_keys().into_iter().enumerate() {
            match (number + usize::from(round)) % 9 {
                0 => {
                    space.insert(&key, [round]).unwrap();
                    map.insert(key, vec![round]);
                }
                1 => assert_eq!(space.remove(&key).unwrap(), map.remove(&key)),
                2 => {
                    space.remove(&key).unwrap();
                    space.insert(&key, "again").unwrap();
                    map.insert(key, b"again".to_vec());
                }
                _ => {}
            }
        }
        let batch: Vec<_> = (0..50_u8)
            .map(|n| (vec![b'b', round, n], vec![n]))
            .collect();
        space.insert_many(batch.clone()).unwrap();
        map.extend(batch);
        let tx = db.begin().unwrap();
        tx.namespace(name).unwrap().insert("never", "seen").unwrap();
        tx.namespace(name).unwrap().remove("canary").unwrap();
        drop(tx);
    }
}

#[test]
fn ranges_may_be_switched_on_and_off_at_any_time() {
    for turns in [0, 1, 2, 3, 8, 10, 13, 21, 26, 31_u8] {
        let mut disk = disk();
        let mut state = State::new();
        for round in 0..5 {
            let db = open(&disk, turns >> round & 1 == 1);
            if round == 0 {
                state = fill(&db);
            }
            check(&db, &state);
            change(&db, &mut state, round);
            if round % 3 == 0 {
                db.checkpoint().unwrap();
                change(&db, &mut state, round + 10);
            }
            if round % 2 == 0 {
                disk = killed(&disk);
            } else {
                db.close().unwrap();
            }
        }
        check(&open(&disk, true), &state);
    }
}

#[test]
fn opening_reads_no_records_if_the_checkpoint_has_the_order() {
    let disk = disk();
    let db = open(&disk, true);
    let mut state = fill(&db);
    db.checkpoint().unwrap();
    check(&open(&killed(&disk), true), &state);
    assert!(is_order_stored(&disk));

    // Nor with records behind the checkpoint, though those are replayed.
    change(&db, &mut state, 1);
    check(&open(&killed(&disk), true), &state);
    assert!(is_order_stored(&disk));

    // Nor where namespaces went and came since.
    db.namespace("full").unwrap().clear().unwrap();
    state.insert("full".to_owned(), Map::new());
    db.drop_namespace("refilled").unwrap();
    state.remove("refilled");
    db.namespace("new").unwrap().insert("x", "y").unwrap();
    state.insert(
        "new".to_owned(),
        Map::from([(b"x".to_vec(), b"y".to_vec())]),
    );
    check(&open(&killed(&disk), true), &state);
    assert!(is_order_stored(&disk));

    db.close().unwrap();
    assert!(is_order_stored(&disk));
    check(&open(&disk, true), &state);
}

#[test]
fn closing_adds_the_order_to_a_checkpoint_that_lacks_it() {
    // Otherwise every opening would read all keys, as long as little is written.
    let disk = disk();
    let db = open(&disk, false);
    let state = fill(&db);
    db.checkpoint().unwrap();
    db.close().unwrap();
    assert!(!is_order_stored(&disk));
    let db = open(&disk, true);
    check(&db, &state);
    db.close().unwrap();
    assert!(is_order_stored(&disk));
    // One that has it is left as it is.
    let before = disk.sidecar_bytes();
    open(&disk, true).close().unwrap();
    open(&disk, false).close().unwrap();
    assert!(disk.sidecar_bytes() == before);
    check(&open(&disk, true), &state);
}

#[test]
fn tombstones_kept_for_a_snapshot_are_not_in_the_order_that_is_stored() {
    let disk = disk();
    let db = open(&disk, true);
    let mut state = fill(&db);
    let (before, then) = (db.snapshot().unwrap(), records(&state["first"]));
    let (first, map) = (
        db.namespace("first").unwrap(),
        state.get_mut("first").unwrap(),
    );
    for key in awkward_keys().iter().step_by(2) {
        assert_eq!(first.remove(key).unwrap(), map.remove(key));
    }
    db.checkpoint().unwrap();
    let seen = before
        .namespace("first")
        .unwrap()
        .unwrap()
        .range(..)
        .unwrap();
    assert_eq!(seen, then);
    assert!(is_order_stored(&disk));
    check(&open(&killed(&disk), true), &state);
    drop(before);
    db.checkpoint().unwrap();
    assert!(is_order_stored(&disk));
    check(&open(&killed(&disk), true), &state);
}

#[cfg(feature = "ttl")]
#[test]
fn records_that_expire_keep_their_place() {
    use std::sync::atomic::AtomicU64;

    use emdb::Ttl;

    let time = Arc::new(AtomicU64::new(1_000_000));
    let disk = disk();
    let open = |disk: &Arc<SimulatedMedium>| {
        let time = Arc::clone(&time);
        Emdb::builder()
            .enable_range_scans(true)
            .clock(move || time.load(Ordering::SeqCst))
            .build_on(Box::new(Arc::clone(disk)))
            .unwrap()
    };
    let db = open(&disk);
    let mut map = Map::new();
    let mut lasting = Map::new();
    for number in 0..200_u32 {
        let key = number.to_le_bytes();
        if number % 3 == 0 {
            let ttl = Ttl::ExpiresAt(1_500_000);
            db.insert_with_ttl(key, "value", ttl).unwrap();
        } else {
            db.insert(key, "value").unwrap();
            lasting.insert(key.to_vec(), b"value".to_vec());
        }
        map.insert(key.to_vec(), b"value".to_vec());
    }
    db.checkpoint().unwrap();
    let reopened = open(&killed(&disk));
    assert_eq!(reopened.range(..).unwrap(), records(&map));
    time.store(2_000_000, Ordering::SeqCst);
    assert_eq!(reopened.range(..).unwrap(), records(&lasting));
    let late = open(&killed(&disk));
    assert_eq!(late.range(..).unwrap(), records(&lasting));
    assert_eq!(late.sweep_expired(), 67);
    late.verify().unwrap();
    assert_eq!(late.range(..).unwrap(), records(&lasting));
}

/// A small database with two namespaces, and records behind its checkpoint.
fn small() -> (Arc<SimulatedMedium>, State) {
    let disk = disk();
    let db = open(&disk, true);
    let mut state = State::from(["", "n", "o"].map(|name| (name.to_owned(), Map::new())));
    let space = db.namespace("n").unwrap();
    let mut put = |name: &str, key: Vec<u8>| {
        db.namespace(name).unwrap().insert(&key, "v").unwrap();
        state.get_mut(name).unwrap().insert(key, b"v".to_vec());
    };
    for number in 0..12_u8 {
        put("o", vec![b'k', number, number]);
        put("n", format!("the same beginning {number}").into_bytes());
    }
    db.checkpoint().unwrap();
    put("o", b"later".to_vec());
    put("n", b"the same beginning 3, later".to_vec());
    space.remove("the same beginning 5").unwrap();
    state
        .get_mut("n")
        .unwrap()
        .remove(&b"the same beginning 5"[..]);
    let disk = killed(&disk);
    (disk, state)
}

#[test]
fn a_checkpoint_damaged_anywhere_loses_nothing() {
    let (disk, state) = small();
    let sidecar = disk.sidecar_bytes().unwrap();
    let mut tried = 0;
    for at in 0..sidecar.len() {
        // Long zeros are the inside of an index image; a few of them do.
        let is_dull = sidecar[at..].iter().take(64).all(|byte| *byte == 0);
        if is_dull && at % 97 > 0 {
            continue;
        }
        tried += 1;
        let mut damaged = sidecar.clone();
        damaged[at] ^= 1 << (at % 8);
        let disk = SimulatedMedium::with_bytes(&disk.live_bytes()).with_sidecar(Some(damaged));
        check(&open(&Arc::new(disk), true), &state);
    }
    assert!(tried > 1000, "{tried}");
    for len in (0..sidecar.len())
        .rev()
        .take(1200)
        .chain((0..sidecar.len()).step_by(500))
    {
        let cut = Some(sidecar[..len].to_vec());
        let disk = SimulatedMedium::with_bytes(&disk.live_bytes()).with_sidecar(cut);
        check(&open(&Arc::new(disk), true), &state);
    }
}

#[test]
fn a_checkpoint_of_another_moment_loses_nothing() {
    let disk = disk();
    let db = open(&disk, true);
    let mut state = fill(&db);
    let mut sidecars = vec![small().0.sidecar_bytes()];
    for round in 0..4 {
        change(&db, &mut state, round);
        db.checkpoint().unwrap();
        sidecars.push(disk.sidecar_bytes());
    }
    for sidecar in sidecars {
        let disk = disk.after_kill().with_sidecar(sidecar);
        check(&open(&Arc::new(disk), true), &state);
    }
}

#[test]
fn ranges_stay_whole_while_an_index_is_rebuilt() {
    // The first to meet a damaged part of an index has it built again; whoever looks
    // at a range meanwhile must not find nothing.
    let disk = disk();
    let db = open(&disk, true);
    let keys = || (0..3000_u32).map(|number| format!("{number:09}"));
    db.insert_many(keys().map(|key| (key, "value"))).unwrap();
    db.checkpoint().unwrap();
    let mut sidecar = disk.sidecar_bytes().unwrap();
    sidecar[100] ^= 1;
    let damaged = disk.after_kill().with_sidecar(Some(sidecar));
    let db = open(&Arc::new(damaged), true);
    let rebuilt = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _rebuilt = Stop(&rebuilt);
            assert!(keys().all(|key| db.contains_key(key).unwrap()));
        });
        while !rebuilt.load(Ordering::Relaxed) {
            assert!(db.first().unwrap().is_some());
        }
    });
    assert!(
        db.range(..)
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .eq(keys().map(String::into_bytes))
    );
    db.verify().unwrap();
}

#[test]
fn a_damaged_key_is_an_error_and_hides_no_other() {
    // Keys which only their records tell apart, and which opening does not read.
    let disk = disk();
    let db = open(&disk, true);
    let keys: Vec<_> = (0..9_u8)
        .map(|n| {
            [
                b"twelve bytes".as_slice(),
                &[0; 20],
                &[b'a' + n],
                &[0; 20],
                &[n],
            ]
            .concat()
        })
        .chain([b"other".to_vec()])
        .collect();
    for key in &keys {
        db.insert(key, "value").unwrap();
    }
    db.checkpoint().unwrap();
    let journal = disk.live_bytes();
    let find = |key: &[u8]| {
        journal
            .windows(key.len())
            .position(|part| part == key)
            .unwrap()
    };
    for damaged in &keys[..9] {
        let mut journal = journal.clone();
        journal[find(damaged) + 32] ^= 0x40;
        let disk = SimulatedMedium::with_bytes(&journal).with_sidecar(disk.sidecar_bytes());
        let db = Emdb::builder()
            .enable_range_scans(true)
            .verify_reads(VerifyReads::Once)
            .build_on(Box::new(disk))
            .unwrap();
        for from in &keys {
            let expected = keys[..9].iter().filter(|key| *key >= from).count();
            match db.range(from.as_slice()..) {
                Ok(found) => assert_eq!(found.len(), expected),
                Err(error) => assert!(matches!(error, Error::Corrupted { .. }), "{error:?}"),
            }
        }
        // Where this key belongs cannot be told any more, so the ranges are incomplete for
        // good, of what a snapshot keeps too; what is written after a clear is in order.
        db.insert([damaged, b"!".as_slice()].concat(), "").unwrap();
        let is_damaged = |error| matches!(error, Error::Corrupted { .. });
        assert!(db.range(..).is_err_and(is_damaged));
        let snapshot = db.snapshot().unwrap();
        db.clear().unwrap();
        assert!(snapshot.range(..).is_err_and(is_damaged));
        assert_eq!(db.range(..).unwrap(), []);
        db.insert("key", "value").unwrap();
        assert_eq!(db.range(..).unwrap().len(), 1);
    }
}

#[test]
fn a_checkpoint_taken_among_writers_has_the_order() {
    let disk = disk();
    let db = open(&disk, true);
    for name in ["a", "b", "c"] {
        let space = db.namespace(name).unwrap();
        space.insert("canary", CANARY).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for thread in 0..3_u64 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let space = db.namespace(["a", "b", "c"][thread as usize]).unwrap();
                let mut seed = thread;
                while !stop.load(Ordering::Relaxed) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
                    let key = format!("a common beginning {}", (seed >> 40) % 3000);
                    match seed >> 33 & 15 {
                        0..9 => space.insert(&key, seed.to_le_bytes()).unwrap(),
                        9..14 => _ = space.remove(&key).unwrap(),
                        14 => {
                            let tx = db.begin().unwrap();
                            tx.insert(&key, "tx").unwrap();
                            tx.remove(format!("{key}0")).unwrap();
                            if seed >> 60 & 1 == 0 {
                                tx.commit().unwrap();
                            }
                        }
                        _ if seed >> 50 & 255 == 0 && thread == 2 => space.clear().unwrap(),
                        _ => _ = space.range(key..).unwrap().len(),
                    }
                }
            });
        }
        for _ in 0..10 {
            let _snapshot = db.snapshot().unwrap();
            db.checkpoint().unwrap();
            let seen = killed(&disk);
            assert!(is_order_stored(&seen));
            let reopened = open(&seen, true);
            reopened.verify().unwrap();
            for name in ["a", "b", "c"] {
                let space = reopened.namespace(name).unwrap();
                let found: Map = space.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
                assert_eq!(space.range(..).unwrap(), records(&found));
            }
        }
    });
}

/// Also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
