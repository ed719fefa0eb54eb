//! Faults: calls that fail lose nothing that was acknowledged, and what cannot be
//! trusted any more is refused.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::probe::{Probe, broken};
use common::{Random, Record, disk, keys, open, open_with, put, records_of, replay, simulated};
use emdb_journal::{
    Error, FileMedium, Journal, MemoryMedium, OpenMode, Opened, Opening, Options, SimulatedMedium,
    Store, SyncPolicy,
};

/// Longer than anything here takes, so that a hang fails instead of lasting for ever.
const HANG: Duration = Duration::from_secs(30);

/// What a run did before its first error.
#[derive(Default)]
struct Done {
    /// Records in the order in which they were tried.
    tried: Vec<Record>,
    /// How many of them were acknowledged, and how many of those by a sync.
    acknowledged: usize,
    synced: usize,
}

/// Appends, batches, syncs, confirms and closes, up to the first error.
fn run(journal: &Journal, done: &mut Done) -> Result<(), Error> {
    for round in 0..6_u8 {
        for number in 0..5_u8 {
            let record = (vec![round, number], vec![round + 1; 3_000]);
            done.tried.push(record.clone());
            journal.append(&put(&record.0, &record.1))?;
            done.acknowledged = done.tried.len();
        }
        let mut batch = journal.begin("test")?;
        let first = done.tried.len();
        for number in 10..13_u8 {
            let record = (vec![round, number], vec![round + 1; 5_000]);
            batch.gather(&put(&record.0, &record.1))?;
            done.tried.push(record);
        }
        if round >= 2 {
            batch.store_gathered()?;
        }
        if round % 2 == 0 {
            batch.commit(|| {})?;
            done.acknowledged = done.tried.len();
        } else {
            drop(batch);
            done.tried.truncate(first);
        }
        journal.sync()?;
        done.synced = done.acknowledged;
        if round == 3 {
            journal.confirm(journal.published())?;
        }
    }
    journal.close()
}

/// `records` are a prefix of what was tried, with the first `least` in it.
fn check_prefix(records: &[Record], done: &Done, least: usize, what: &str) {
    assert!(done.tried.starts_with(records), "{what}: no prefix");
    let found = records.len();
    assert!(found >= least, "{what}: {found} of {least} came back");
}

fn check_failing_calls(store: Store) {
    let mut failures = 0;
    for call in 0.. {
        let medium = Arc::new(SimulatedMedium::new());
        medium.fail_call(call, ErrorKind::Other);
        let mut done = Done::default();
        let probe = Probe::new(Arc::clone(&medium), |_| Ok(()));
        let probe = probe.storing(store);
        let Ok((journal, _)) = open(probe) else {
            assert_eq!(call, 0, "only creating the journal can fail to open it");
            assert!(medium.live_bytes().is_empty());
            continue;
        };
        let result = run(&journal, &mut done);
        if medium.calls() <= call {
            result.unwrap();
            assert!(failures > 10, "{failures} calls failed");
            return;
        }
        let what = format!("call {call}: {result:?}");
        if let Err(error) = &result {
            failures += 1;
            // A dropped batch has nobody to tell; the next call says it.
            let told = matches!(error, Error::Io { .. } | Error::Poisoned);
            assert!(told, "{what}");
            let attempt = error.to_string();
            let poisons = attempt.starts_with("sync") || attempt.starts_with("write");
            if poisons && done.tried.len() < 30 {
                check_poisoned(&journal, &what);
            }
            let live = replay(&journal).unwrap();
            check_prefix(&live, &done, done.acknowledged, &what);
        } else {
            failures += 1;
        }
        check_prefix(
            &records_of(&medium.live_bytes()).unwrap(),
            &done,
            done.acknowledged,
            &what,
        );
        for seed in 0..4 {
            let mut random = Random(call << 8 | seed);
            let bytes = medium.crash(|_| random.fate());
            check_prefix(&records_of(&bytes).unwrap(), &done, done.synced, &what);
        }
    }
}

fn check_poisoned(journal: &Journal, what: &str) {
    let refused = journal.append(&put(b"late", b""));
    assert!(matches!(refused, Err(Error::Poisoned)), "{what}");
    assert!(matches!(journal.sync(), Err(Error::Poisoned)), "{what}");
    let begun = journal.begin("test").map(drop);
    assert!(matches!(begun, Err(Error::Poisoned)), "{what}");
    let confirmed = journal.confirm(journal.published());
    assert!(matches!(confirmed, Err(Error::Poisoned)), "{what}");
}

#[test]
fn any_call_can_fail_without_losing_what_was_acknowledged() {
    check_failing_calls(Store::Mapped);
}

#[test]
fn any_call_can_fail_without_losing_what_was_acknowledged_when_appends_are_written() {
    check_failing_calls(Store::Written);
}

#[test]
fn any_call_can_fail_without_losing_what_was_acknowledged_when_small_appends_are_written() {
    check_failing_calls(Store::Mixed);
}

#[test]
fn failed_sync_poisons_and_reads_go_on() {
    let (medium, journal) = simulated();
    let lsn = journal.append(&put(b"a", b"1")).unwrap();
    medium.fail_call(medium.calls(), ErrorKind::Other);
    assert!(matches!(journal.sync(), Err(Error::Io { .. })));
    check_poisoned(&journal, "after the sync");
    assert!(journal.durable_lsn() <= lsn);
    let opened = Opened::new();
    let frame = journal.frame(lsn.get(), &opened).unwrap();
    journal.verify(lsn.get(), &frame).unwrap();
    assert_eq!(frame.value, b"1");
    assert_eq!(keys(&replay(&journal).unwrap()), ["a"]);
    assert!(journal.snapshot_position().is_ok());
    assert!(matches!(journal.close(), Err(Error::Poisoned)));
}

#[test]
fn batch_that_is_open_when_a_sync_fails_cannot_be_committed() {
    // Otherwise a transaction is reported as committed by a handle that is poisoned.
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"1")).unwrap();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"x", b"2")).unwrap();
    medium.fail_call(medium.calls(), ErrorKind::Other);
    assert!(matches!(journal.sync(), Err(Error::Io { .. })));
    assert!(matches!(
        batch.append(&put(b"y", b"3")),
        Err(Error::Poisoned)
    ));
    let committed = batch.commit(|| unreachable!("nothing becomes visible"));
    assert!(matches!(committed, Err(Error::Poisoned)));
    assert_eq!(keys(&records_of(&medium.live_bytes()).unwrap()), ["a"]);
}

#[test]
fn full_disk_poisons_nothing_and_writing_goes_on_once_there_is_room() {
    let (medium, journal) = simulated();
    journal.append(&put(b"a", &[1; 1000])).unwrap();
    medium.set_capacity(Some(medium.live_bytes().len() as u64));
    let before = journal.published();
    let refused = journal.append(&put(b"big", &[2; 100_000]));
    let Err(Error::Io { source, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
    assert_eq!(journal.published(), before);
    // What fits into prepared space still goes in.
    journal.append(&put(b"b", &[3; 1000])).unwrap();
    journal.sync().unwrap();
    medium.set_capacity(None);
    journal.append(&put(b"big", &[2; 100_000])).unwrap();
    let found = records_of(&medium.live_bytes()).unwrap();
    assert_eq!(keys(&found), ["a", "b", "big"]);
}

#[test]
fn journal_in_memory_says_when_it_is_full_and_loses_nothing() {
    const LIMIT: u64 = 256 << 10;
    let (journal, _) = open(MemoryMedium::with_limit(LIMIT)).unwrap();
    let is_full =
        |error: &Error| matches!(error, Error::TooLarge { max: LIMIT, len, .. } if *len > LIMIT);
    let mut appended = 0;
    let refused = loop {
        match journal.append(&put(b"a", &[1; 10_000])) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(is_full(&refused), "{refused}");
    assert!(appended > 20, "{appended}");
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"x", b"fits")).unwrap();
    let refused = batch.append(&put(b"x", &[1; 10_000])).unwrap_err();
    assert!(is_full(&refused), "{refused}");
    drop(batch);
    // What fits still goes in, and nothing is poisoned.
    journal.append(&put(b"b", b"fits")).unwrap();
    journal.sync().unwrap();
    assert_eq!(replay(&journal).unwrap().len(), appended + 1);
    journal.close().unwrap();
}

fn check_full_disk_in_batch(commit: bool) {
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"1")).unwrap();
    medium.set_capacity(Some(medium.live_bytes().len() as u64));
    let mut batch = journal.begin("test").unwrap();
    // Up to the last byte, so that only what is kept for closing is left.
    let mut appended = 0_u64;
    for len in [1000, 100, 10, 1] {
        while batch.append(&put(b"x", &vec![7; len])).is_ok() {
            appended += 1;
        }
        let refused = batch.append(&put(b"x", &vec![7; len]));
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    }
    assert_eq!(batch.count(), appended);
    let expected = if commit {
        batch.commit(|| {}).unwrap();
        1 + appended as usize
    } else {
        drop(batch);
        1
    };
    assert_eq!(replay(&journal).unwrap().len(), expected);
    medium.set_capacity(None);
    journal.append(&put(b"b", &[2; 100_000])).unwrap();
    let found = records_of(&medium.live_bytes()).unwrap();
    assert_eq!(found.len(), expected + 1);
}

#[test]
fn batch_can_be_committed_on_a_full_disk() {
    check_full_disk_in_batch(true);
}

#[test]
fn batch_can_be_dropped_on_a_full_disk() {
    check_full_disk_in_batch(false);
}

#[test]
fn opening_that_fails_behind_an_unfinished_batch_leaves_it_unfinished() {
    // Otherwise the header confirms an end inside of the batch, the next opening from
    // there closes no batch, and the records appended then make the file corrupt.
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"1")).unwrap();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"x", b"2")).unwrap();
    let medium = Arc::new(medium.after_kill());
    drop(batch);

    medium.set_capacity(Some(0));
    assert!(matches!(open(Arc::clone(&medium)), Err(Error::Io { .. })));
    medium.set_capacity(None);
    let opening = Opening::new(Box::new(Arc::clone(&medium)), Options::default()).unwrap();
    let journal = opening.finish().unwrap();
    journal.append(&put(b"b", b"3")).unwrap();
    let found = records_of(&medium.live_bytes()).unwrap();
    assert_eq!(keys(&found), ["a", "b"]);
}

#[test]
fn confirming_what_is_not_durable_syncs_it_first() {
    // Otherwise the header calls a torn tail damage, and the database does not open.
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"1")).unwrap();
    journal.confirm(journal.published()).unwrap();
    let found = records_of(&medium.crash(|_| 0)).unwrap();
    assert_eq!(keys(&found), ["a"]);
    let beyond = journal.confirm(journal.published() + 1);
    assert!(matches!(beyond, Err(Error::Corrupted { .. })));
    assert_eq!(journal.header().confirmed, journal.published());
    // Where the next opening would find no frame to go on with.
    let inside = journal.append(&put(b"b", b"2")).unwrap().get() + 3;
    let inside = journal.confirm(inside);
    assert!(matches!(inside, Err(Error::Corrupted { .. })));
}

#[test]
fn each_append_policy_makes_every_record_survive_power_loss() {
    let medium = Arc::new(SimulatedMedium::new());
    let options = Options::default().sync_policy(SyncPolicy::EachAppend);
    let (journal, _) = open_with(Arc::clone(&medium), options).unwrap();
    journal.append(&put(b"a", b"1")).unwrap();
    assert_eq!(keys(&records_of(&medium.crash(|_| 0)).unwrap()), ["a"]);
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"b", b"2")).unwrap();
    batch.append(&put(b"c", b"3")).unwrap();
    batch.commit(|| {}).unwrap();
    let found = records_of(&medium.crash(|_| 0)).unwrap();
    assert_eq!(keys(&found), ["a", "b", "c"]);
    let batch = journal.begin("test").unwrap();
    batch.commit_single(&put(b"d", b"4"), |_| {}).unwrap();
    let found = records_of(&medium.crash(|_| 0)).unwrap();
    assert_eq!(keys(&found), ["a", "b", "c", "d"]);
}

#[test]
fn read_only_journal_writes_nothing() {
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"1")).unwrap();
    journal.sync().unwrap();
    let mut bytes = medium.live_bytes();
    // A torn tail, which opening for writing would cut.
    bytes.truncate(journal.published() as usize);
    bytes.extend([0xee; 100]);

    let medium = disk(&bytes);
    let options = Options::default().read_only(true);
    let (journal, records) = open_with(Arc::clone(&medium), options).unwrap();
    assert_eq!(keys(&records), ["a"]);
    let refused = journal.append(&put(b"b", b"2"));
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    let refused = journal.begin("test").map(drop);
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    let refused = journal.confirm(journal.published());
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    let refused = journal.write_sidecar(&mut |_| Ok(()));
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    journal.sync().unwrap();
    journal.close().unwrap();
    drop(journal);
    assert_eq!(medium.live_bytes(), bytes);
    assert_eq!(medium.calls(), 0);

    let missing = open_with(SimulatedMedium::new(), options).map(drop);
    assert!(matches!(missing, Err(Error::ReadOnly)));
}

/// A journal of which one write blocks until told how to end, and every sync fails.
struct Stuck {
    journal: Arc<Journal>,
    /// Tells of every write that begins.
    begun: mpsc::Receiver<()>,
    /// Ends the blocked write; `true` makes it panic.
    end: mpsc::Sender<bool>,
    /// Tells when somebody else may own the medium.
    released: mpsc::Receiver<()>,
    events: Arc<Mutex<Vec<&'static str>>>,
}

/// The write that blocks is the one behind `free` others.
fn stuck(free: u64) -> Stuck {
    let (began, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel::<bool>();
    let (release, released) = mpsc::channel();
    let ended = Mutex::new(ended);
    let events = Arc::new(Mutex::new(Vec::new()));
    let (seen, writes) = (Arc::clone(&events), AtomicU64::new(0));
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        seen.lock().unwrap().push(call);
        match call {
            "write" => {}
            "sync" => return Err(broken()),
            "release" => {
                // A test that has ended already does not listen.
                let _ = release.send(());
                return Ok(());
            }
            _ => return Ok(()),
        }
        let blocks = writes.fetch_add(1, Ordering::SeqCst) == free;
        began.send(()).unwrap();
        if blocks {
            let panics = ended.lock().unwrap().recv_timeout(HANG).unwrap();
            assert!(!panics, "as the test asks");
            seen.lock().unwrap().push("write failed");
            return Err(broken());
        }
        Ok(())
    });
    let (journal, _) = open(probe.storing(Store::Written)).unwrap();
    Stuck {
        journal: Arc::new(journal),
        begun,
        end,
        released,
        events,
    }
}

fn check_writer_behind_a_hole(panics: bool) {
    let Stuck {
        journal,
        begun,
        end,
        ..
    } = stuck(0);
    let spawn = |key: &'static [u8]| {
        let journal = Arc::clone(&journal);
        std::thread::spawn(move || journal.append(&put(key, b"value")))
    };
    // The marker of the first append is the write that blocks.
    let first = spawn(b"first");
    begun.recv_timeout(HANG).unwrap();
    let second = spawn(b"second");
    begun.recv_timeout(HANG).unwrap();
    end.send(panics).unwrap();
    match first.join() {
        Ok(result) => assert!(matches!(result, Err(Error::Io { .. })) && !panics),
        Err(_) => assert!(panics),
    }
    assert!(matches!(second.join().unwrap(), Err(Error::Poisoned)));
    check_poisoned(&journal, "after the hole");
    assert!(replay(&journal).unwrap().is_empty());
}

#[test]
fn writer_behind_a_failed_one_returns_poisoned() {
    check_writer_behind_a_hole(false);
}

#[test]
fn writer_behind_a_panicking_one_returns_poisoned() {
    check_writer_behind_a_hole(true);
}

#[test]
fn closing_a_poisoned_journal_neither_strands_nor_outruns_its_writers() {
    // A writer that still stores when somebody else owns the file already would store
    // into the other's records.
    let Stuck {
        journal,
        begun,
        end,
        released,
        events,
    } = stuck(2);
    // A marker and a frame.
    journal.append(&put(b"whole", b"value")).unwrap();
    for _ in 0..2 {
        begun.recv_timeout(HANG).unwrap();
    }
    let spawn = |key: &'static [u8]| {
        let journal = Arc::clone(&journal);
        std::thread::spawn(move || journal.append(&put(key, b"value")))
    };
    let first = spawn(b"first");
    begun.recv_timeout(HANG).unwrap();
    let second = spawn(b"second");
    begun.recv_timeout(HANG).unwrap();
    assert!(matches!(journal.sync(), Err(Error::Io { .. })));
    assert!(matches!(second.join().unwrap(), Err(Error::Poisoned)));
    let closer = {
        let journal = Arc::clone(&journal);
        std::thread::spawn(move || journal.close())
    };
    // Gives a close that does not wait the time to go wrong.
    let early = released.recv_timeout(Duration::from_millis(200));
    end.send(false).unwrap();
    assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
    assert!(matches!(first.join().unwrap(), Err(Error::Io { .. })));
    assert!(matches!(closer.join().unwrap(), Err(Error::Poisoned)));
    released.recv_timeout(HANG).unwrap();
    let events = events.lock().unwrap();
    assert!(!events.contains(&"truncate"), "{events:?}");
    assert_eq!(keys(&replay(&journal).unwrap()), ["whole"]);
}

#[test]
fn space_that_is_being_prepared_is_there_before_close_cuts_the_file() {
    // Otherwise a late preparation, or what it gives back on a full disk, meets the
    // records of whoever opens the file next.
    let events = Arc::new(Mutex::new(Vec::new()));
    let (began, begun) = mpsc::channel();
    let (cut, was_cut) = mpsc::channel();
    let was_cut = Mutex::new(was_cut);
    let seen = Arc::clone(&events);
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        match call {
            "prepare" => {
                began.send(()).unwrap();
                // Gives a close that does not wait the time to go wrong.
                let _ = was_cut
                    .lock()
                    .unwrap()
                    .recv_timeout(Duration::from_millis(200));
            }
            "truncate" => cut.send(()).unwrap(),
            _ => {}
        }
        seen.lock().unwrap().push(call);
        Ok(())
    });
    let (journal, _) = open(probe).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| journal.append(&put(b"a", b"1")));
        begun.recv_timeout(HANG).unwrap();
        journal.close().unwrap();
        let written = writer.join().unwrap();
        assert!(matches!(written, Err(Error::Closed)), "{written:?}");
    });
    let events = events.lock().unwrap();
    let at = |event| events.iter().rposition(|seen| *seen == event).unwrap();
    if let Some(cut) = events.iter().position(|seen| *seen == "truncate") {
        assert!(at("prepared") < cut, "{events:?}");
    }
    assert!(at("prepared") < at("release"), "{events:?}");
}

#[test]
fn sidecar_that_is_being_written_is_there_before_close_lets_others_in() {
    // Otherwise a late checkpoint takes the place of the one of whoever opens next.
    let events = Arc::new(Mutex::new(Vec::new()));
    let (began, begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let seen = Arc::clone(&events);
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        if call == "write_sidecar" {
            began.send(()).unwrap();
            // Gives a close that does not wait the time to go wrong.
            let early = released
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_millis(200));
            seen.lock().unwrap().push("sidecar written");
            assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        }
        if call == "release" {
            seen.lock().unwrap().push("released");
            // A test that has ended already does not listen.
            let _ = release.send(());
        }
        Ok(())
    });
    let (journal, _) = open(probe).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| journal.write_sidecar(&mut |_| Ok(())));
        begun.recv_timeout(HANG).unwrap();
        journal.close().unwrap();
        writer.join().unwrap().unwrap();
    });
    let events = events.lock().unwrap();
    assert_eq!(events[..], ["sidecar written", "released"]);
    let late = journal.write_sidecar(&mut |_| Ok(()));
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
}

#[test]
fn writing_a_sidecar_can_append_while_the_journal_is_being_closed() {
    let (closing, close) = mpsc::channel();
    let (_, journal) = simulated();
    let journal = &journal;
    let (written, closed) = std::thread::scope(|scope| {
        let closer = scope.spawn(move || {
            close.recv_timeout(HANG).unwrap();
            journal.close()
        });
        let written = journal.write_sidecar(&mut |_| {
            let nested = journal.close();
            assert!(matches!(nested, Err(Error::WriteInProgress("close"))));
            let nested = journal.write_sidecar(&mut |_| Ok(()));
            assert!(matches!(nested, Err(Error::WriteInProgress(_))));
            closing.send(()).unwrap();
            while journal.append(&put(b"a", b"1")).is_ok() {}
            Ok(())
        });
        (written, closer.join().unwrap())
    });
    written.unwrap();
    closed.unwrap();
    assert!(matches!(journal.check_open(), Err(Error::Closed)));
}

#[test]
fn sync_that_ends_after_another_failed_is_not_believed() {
    // The operating system reports a lost write to one caller of fsync only: the sync
    // of a header may be the one that hears of it.
    let syncs = Arc::new(AtomicU64::new(0));
    let (count, first) = (Arc::clone(&syncs), AtomicBool::new(true));
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        if call == "sync" {
            count.fetch_add(1, Ordering::SeqCst);
        }
        if call == "write" && first.swap(false, Ordering::SeqCst) {
            return Err(broken());
        }
        Ok(())
    });
    let (journal, _) = open(probe).unwrap();
    journal.append(&put(b"a", b"1")).unwrap();
    // The header's write fails after the sync of the records.
    assert!(journal.confirm(journal.published()).is_err());
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
    assert!(matches!(journal.sync(), Err(Error::Poisoned)));
    assert!(matches!(journal.close(), Err(Error::Poisoned)));
    assert_eq!(syncs.load(Ordering::SeqCst), 1, "nothing was synced again");
}

fn check_panicking_sync(panics_in: impl Fn(&Journal) -> Result<(), Error> + Send + Sync + 'static) {
    // Otherwise whoever syncs next waits for a leader that is gone.
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let probe = Probe::new(MemoryMedium::new(), |call| {
            assert_ne!(call, "sync", "as the test asks");
            Ok(())
        });
        let (journal, _) = open(probe).unwrap();
        let lsn = journal.append(&put(b"a", b"1")).unwrap();
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| panics_in(&journal));
            // Before the panic, in it or after it, as it comes.
            let others: Vec<_> = (0..3).map(|_| scope.spawn(|| journal.sync())).collect();
            let mut panicked = usize::from(leader.join().is_err());
            for other in others {
                match other.join() {
                    Ok(result) => assert!(matches!(result, Err(Error::Poisoned)), "{result:?}"),
                    // Whoever comes first leads.
                    Err(_) => panicked += 1,
                }
            }
            assert_eq!(panicked, 1, "nothing is synced once a sync has panicked");
        });
        check_poisoned(&journal, "after the panic");
        assert!(journal.durable_lsn() <= lsn);
        assert_eq!(keys(&replay(&journal).unwrap()), ["a"]);
        assert!(matches!(journal.close(), Err(Error::Poisoned)));
        done.send(()).unwrap();
    });
    assert_eq!(ended.recv_timeout(HANG), Ok(()));
}

#[test]
fn medium_that_panics_in_a_sync_poisons_and_strands_nobody() {
    check_panicking_sync(Journal::sync);
}

#[test]
fn medium_that_panics_while_a_position_is_confirmed_poisons_and_strands_nobody() {
    check_panicking_sync(|journal| journal.confirm(journal.published()));
}

#[test]
fn dropping_a_journal_whose_batch_was_leaked_on_another_thread_does_not_hang() {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let (_, journal) = simulated();
        // Leaked for as long as the journal is there.
        let batch = std::thread::scope(|scope| {
            let begun = scope.spawn(|| journal.begin("test").unwrap());
            begun.join().unwrap()
        });
        drop(journal);
        done.send(()).unwrap();
        drop(batch);
    });
    ended.recv_timeout(HANG).unwrap();
}

#[test]
fn panic_in_what_makes_a_batch_visible_leaves_it_committed() {
    let (medium, journal) = simulated();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"a", b"1")).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        batch.commit(|| panic!("as the test asks"))
    }));
    assert!(panicked.is_err());
    journal.append(&put(b"b", b"2")).unwrap();
    assert_eq!(keys(&replay(&journal).unwrap()), ["a", "b"]);
    let found = records_of(&medium.live_bytes()).unwrap();
    assert_eq!(keys(&found), ["a", "b"]);
}

#[test]
fn replay_position_behind_the_end_of_the_file_is_refused() {
    // Otherwise a file that lost its end opens empty behind a checkpoint.
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"1")).unwrap();
    journal.close().unwrap();
    let opening = Opening::new(Box::new(disk(&medium.live_bytes())), Options::default()).unwrap();
    let replayed = opening.replay(journal.published() + 10, &mut |_| Ok::<(), Error>(()));
    assert!(matches!(replayed, Err(Error::Corrupted { .. })));
}

#[test]
fn close_trims_what_the_growing_thread_prepared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let medium = FileMedium::open(&path, OpenMode::Create).unwrap();
    let (journal, _) = open(medium).unwrap();
    let value = vec![5; 1 << 18];
    for _ in 0..48 {
        journal.append(&put(b"k", &value)).unwrap();
    }
    journal.close().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), journal.published());
    assert!(matches!(
        journal.append(&put(b"k", b"")),
        Err(Error::Closed)
    ));
    drop(journal);
    let medium = FileMedium::open(&path, OpenMode::Create).unwrap();
    assert_eq!(open(medium).unwrap().1.len(), 48);
}
