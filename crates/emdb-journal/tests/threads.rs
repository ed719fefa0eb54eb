//! Threads: order, wholeness, exclusion of batches, shared syncs, markers.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::probe::Probe;
use common::{open, put, replay};
use emdb_format::{Frame, MARKER_BYTES, Marker};
use emdb_journal::{Busy, Error, Journal, Kind, MemoryMedium, Opened, SimulatedMedium, Store};

const THREADS: u64 = 4;
const APPENDS: u64 = 1_500;
/// Longer than anything here takes, so that a hang fails instead of lasting for ever.
const HANG: Duration = Duration::from_secs(30);

fn memory() -> Journal {
    open(MemoryMedium::new()).unwrap().0
}

fn value(thread: u64, number: u64) -> Vec<u8> {
    vec![(thread * 31 + number) as u8; (number % 97) as usize + 1]
}

#[test]
fn publishing_calls_come_in_the_order_of_positions_and_see_whole_frames() {
    let journal = &memory();
    let last = &AtomicU64::new(0);
    let order: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut positions = Vec::new();
                    for number in 0..APPENDS {
                        let value = value(thread, number);
                        let key = thread.to_le_bytes();
                        let mut before = 0;
                        let lsn = journal
                            .append_then(&put(&key, &value), |position| {
                                // Whoever published before is seen, whoever comes
                                // after has not published.
                                before = last.swap(position, Ordering::Relaxed);
                            })
                            .unwrap()
                            .unwrap();
                        positions.push((before, lsn.get()));
                        let opened = Opened::new();
                        let frame = journal.frame(lsn.get(), &opened).unwrap();
                        journal.verify(lsn.get(), &frame).unwrap();
                        assert_eq!((frame.key, frame.value), (&key[..], &value[..]));
                        if before != 0 {
                            let earlier = journal.frame(before, &opened).unwrap();
                            journal.verify(before, &earlier).unwrap();
                        }
                    }
                    positions
                })
            })
            .collect();
        let joined = threads.into_iter().flat_map(|t| t.join().unwrap());
        joined.collect()
    });
    let mut order = order;
    order.sort_unstable_by_key(|(_, position)| *position);
    let mut previous = 0;
    for (before, position) in order {
        assert_eq!(before, previous, "at {position}");
        previous = position;
    }
    let records = replay(journal).unwrap();
    assert_eq!(records.len() as u64, THREADS * APPENDS);
    for thread in 0..THREADS {
        let key = thread.to_le_bytes();
        let mine = records.iter().filter(|record| record.0 == key);
        for (number, record) in mine.enumerate() {
            assert_eq!(record.1, value(thread, number as u64));
        }
    }
}

#[test]
fn batches_are_whole_runs_among_plain_appends() {
    let journal = &memory();
    std::thread::scope(|scope| {
        for thread in 0..2_u8 {
            scope.spawn(move || {
                for _ in 0..800 {
                    journal.append(&put(b"plain", &[thread])).unwrap();
                }
            });
            scope.spawn(move || {
                for number in 0..100_u8 {
                    let mut batch = journal.begin("test").unwrap();
                    assert_eq!(journal.hidden_from(), batch.begin());
                    for _ in 0..8 {
                        batch.append(&put(&[b'b', thread], &[number])).unwrap();
                    }
                    assert!(journal.snapshot_position().unwrap() <= batch.begin());
                    if number % 3 == 0 {
                        drop(batch);
                    } else {
                        batch.commit(|| {}).unwrap();
                    }
                }
            });
        }
    });
    let records = replay(journal).unwrap();
    let committed = (0..100).filter(|number| number % 3 != 0).count();
    assert_eq!(records.len(), 2 * 800 + 2 * committed * 8);
    let mut rest = records.as_slice();
    while let Some((key, _)) = rest.first() {
        let run = if key == b"plain" { 1 } else { 8 };
        let (unit, behind) = rest.split_at(run);
        assert!(unit.iter().all(|record| *record == unit[0]), "{unit:?}");
        rest = behind;
    }
}

#[test]
fn plain_append_is_busy_while_a_batch_is_open_and_waits_for_its_end() {
    let journal = &memory();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"batch", b"1")).unwrap();
    std::thread::scope(|scope| {
        let (tried, result) = mpsc::channel();
        let writer = scope.spawn(move || {
            let first = journal.append_then(&put(b"plain", b"2"), |_| unreachable!());
            tried.send(first.unwrap()).unwrap();
            journal.wait_for_batch("test").unwrap();
            journal.append(&put(b"plain", b"2")).unwrap()
        });
        assert_eq!(result.recv_timeout(HANG).unwrap(), Err(Busy));
        batch.append(&put(b"batch", b"3")).unwrap();
        let end = batch.commit(|| {}).unwrap();
        assert!(writer.join().unwrap() >= end);
    });
    let keys = common::keys(&replay(journal).unwrap());
    assert_eq!(keys, ["batch", "batch", "plain"]);
}

fn check_in_progress<T>(result: Result<T, Error>, call: &str) {
    let error = result.err();
    assert!(
        matches!(error, Some(Error::WriteInProgress(named)) if named == call),
        "{call}: {error:?}"
    );
}

#[test]
fn thread_that_holds_the_write_side_is_told_so_instead_of_waiting_for_itself() {
    let journal = memory();
    let batch = journal.begin("test").unwrap();
    check_in_progress(journal.append(&put(b"a", b"")), "append");
    check_in_progress(journal.begin("transaction").map(drop), "transaction");
    check_in_progress(journal.wait_for_batch("insert"), "insert");
    check_in_progress(journal.close(), "close");
    drop(batch);
    journal.append(&put(b"a", b"")).unwrap();
    journal.close().unwrap();
}

#[test]
fn threads_that_sync_at_the_same_time_share_one_sync() {
    const FOLLOWERS: u64 = 3;
    let syncs = Arc::new(AtomicU64::new(0));
    let (began, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let (count, ended) = (Arc::clone(&syncs), Mutex::new(ended));
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        if call == "sync" && count.fetch_add(1, Ordering::SeqCst) == 0 {
            began.send(()).unwrap();
            ended.lock().unwrap().recv_timeout(HANG).unwrap();
        }
        Ok(())
    });
    let journal = &open(probe).unwrap().0;
    journal.append(&put(b"leader", b"")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| journal.sync().unwrap());
        begun.recv_timeout(HANG).unwrap();
        let (appended, ready) = mpsc::channel();
        for _ in 0..FOLLOWERS {
            let appended = appended.clone();
            scope.spawn(move || {
                let lsn = journal.append(&put(b"follower", b"")).unwrap();
                appended.send(()).unwrap();
                journal.sync().unwrap();
                assert!(journal.durable_lsn() > lsn);
            });
        }
        for _ in 0..FOLLOWERS {
            ready.recv_timeout(HANG).unwrap();
        }
        // All are appended: whoever leads next, that sync serves everybody.
        end.send(()).unwrap();
    });
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
}

/// Positions of markers and what they confirm.
fn markers(journal: &Journal) -> Vec<(u64, u64)> {
    let header = journal.header();
    let mut markers = Vec::new();
    let mut at = 16_384;
    while at < journal.published() {
        let opened = Opened::new();
        let frame: Frame<'_> = journal.frame(at, &opened).unwrap();
        journal.verify(at, &frame).unwrap();
        if frame.kind == Kind::Filler {
            let lsn = at + (frame.len() - MARKER_BYTES) as u64;
            let tag = &header.marker_tag;
            let marker = Marker::decode(frame.value, tag, journal.stamp(), lsn).unwrap();
            markers.push((at, marker.synced));
        }
        at += frame.len() as u64;
    }
    markers
}

#[test]
fn what_follows_a_sync_lies_behind_a_marker_that_confirms_it() {
    // Otherwise damage below a sync long past is taken for a torn tail.
    let published_at_sync = Arc::new(AtomicU64::new(0));
    let journal = &memory();
    let pairs: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let published_at_sync = Arc::clone(&published_at_sync);
                scope.spawn(move || {
                    let mut pairs = Vec::new();
                    for _ in 0..APPENDS {
                        journal.append(&put(b"k", b"value")).unwrap();
                        journal.sync().unwrap();
                        let synced = journal.durable_lsn().get();
                        published_at_sync.fetch_max(synced, Ordering::Relaxed);
                        let next = journal.append(&put(b"k", b"next")).unwrap().get();
                        pairs.push((synced, next));
                    }
                    pairs
                })
            })
            .collect();
        let joined = threads.into_iter().flat_map(|t| t.join().unwrap());
        joined.collect()
    });
    let markers = markers(journal);
    for (at, synced) in &markers {
        assert!(synced <= at);
        assert!(*synced <= journal.durable_lsn().get());
    }
    // The most that is confirmed up to a marker.
    let mut most = 0;
    let proven: Vec<(u64, u64)> = markers
        .iter()
        .map(|(at, synced)| {
            most = most.max(*synced);
            (*at, most)
        })
        .collect();
    for (synced, next) in pairs {
        let before = proven.partition_point(|(at, _)| *at < next);
        let confirmed = before.checked_sub(1).map_or(0, |last| proven[last].1);
        assert!(
            confirmed >= synced,
            "{synced} was synced before {next}, but only {confirmed} is confirmed there"
        );
    }
}

#[test]
fn one_marker_stands_in_every_mebibyte_even_without_a_sync() {
    let journal = memory();
    for _ in 0..80 {
        journal.append(&put(b"k", &[1; 50_000])).unwrap();
    }
    let mut batch = journal.begin("test").unwrap();
    for _ in 0..80 {
        batch.append(&put(b"k", &[1; 50_000])).unwrap();
    }
    batch.commit(|| {}).unwrap();
    let mut last = 16_384;
    let positions = markers(&journal).into_iter().map(|(at, _)| at);
    for at in positions.chain([journal.published()]) {
        assert!(at - last <= 1 << 20, "none between {last} and {at}");
        last = at;
    }
}

#[test]
fn close_waits_for_nothing_that_never_comes_while_threads_append() {
    let journal = &memory();
    let closed = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0_u64;
                    loop {
                        match journal.append(&put(b"k", b"value")) {
                            Ok(_) => count += 1,
                            Err(Error::Closed) => return count,
                            Err(error) => panic!("{error}"),
                        }
                        assert!(!closed.load(Ordering::Relaxed) || count < u64::MAX);
                    }
                })
            })
            .collect();
        while journal.published() < 50_000 {
            std::thread::yield_now();
        }
        journal.close().unwrap();
        closed.store(true, Ordering::Relaxed);
        let count: u64 = writers.into_iter().map(|w| w.join().unwrap()).sum();
        assert_eq!(replay(journal).unwrap().len() as u64, count);
    });
}

#[test]
fn only_what_follows_a_sync_closely_is_written() {
    let medium = Arc::new(SimulatedMedium::new());
    let writes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&writes);
    let probe = Probe::new(Arc::clone(&medium), move |call| {
        if call == "write" {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let (journal, _) = open(probe.storing(Store::Mixed)).unwrap();
    let append = |count: u64| {
        let before = writes.load(Ordering::Relaxed);
        for number in 0..count {
            journal
                .append(&put(&number.to_le_bytes(), &[7; 1000]))
                .unwrap();
        }
        writes.load(Ordering::Relaxed) - before
    };
    append(100);
    assert_eq!(append(100), 0, "far behind the sync");
    journal.sync().unwrap();
    let written = append(100);
    assert!((10..20).contains(&written), "{written} of 100 KiB");
    assert_eq!(append(100), 0, "far behind the sync");
    drop(journal);
    let (_, records) = open(medium).unwrap();
    assert_eq!(records.len(), 400);
}

/// A transaction of some hundred small records took as many writes, and had the next sync
/// write a large page.
#[test]
fn many_frames_that_are_gathered_behind_a_sync_are_written_at_once() {
    let medium = Arc::new(SimulatedMedium::new());
    let writes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&writes);
    let probe = Probe::new(Arc::clone(&medium), move |call| {
        if call == "write" {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let (journal, _) = open(probe.storing(Store::Mixed)).unwrap();
    journal.append(&put(b"first", b"value")).unwrap();
    journal.sync().unwrap();
    writes.store(0, Ordering::Relaxed);
    let mut batch = journal.begin("test").unwrap();
    let mut last = 0;
    for number in 0..1000_u64 {
        last = batch.gather(&put(&number.to_le_bytes(), b"value")).unwrap();
    }
    let opened = Opened::new();
    assert!(journal.frame(last, &opened).is_err());
    batch.store_gathered().unwrap();
    let key = journal.frame(last, &opened).unwrap().key;
    assert_eq!(key, 999_u64.to_le_bytes());
    batch.commit(|| {}).unwrap();
    // A marker, the first frame, the others, and the commit.
    assert_eq!(writes.load(Ordering::Relaxed), 4);
    drop(journal);
    let (_, records) = open(medium).unwrap();
    assert_eq!(records.len(), 1001);
}

#[test]
fn space_is_made_ready_ahead_of_the_writers() {
    let (populated, ready) = mpsc::channel();
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        if call == "populate" {
            let _ = populated.send(());
        }
        Ok(())
    });
    let (journal, _) = open(probe).unwrap();
    // A small journal is left alone.
    journal.append(&put(b"first", b"value")).unwrap();
    assert!(ready.try_recv().is_err());
    let mut number = 0_u64;
    while journal.published() < 16 << 20 {
        journal
            .append(&put(&number.to_le_bytes(), &[7; 60_000]))
            .unwrap();
        number += 1;
    }
    ready.recv_timeout(HANG).unwrap();
}

#[test]
fn what_was_stored_is_written_back_before_anybody_syncs() {
    let (called, calls) = mpsc::channel();
    let probe = Probe::new(MemoryMedium::new(), move |call| {
        if call == "write_back" || call == "sync" {
            let _ = called.send(call);
        }
        Ok(())
    });
    let (journal, _) = open(probe).unwrap();
    // Only opening may have synced.
    while calls.try_recv().is_ok() {}
    let mut number = 0_u64;
    while journal.published() < 32 << 20 {
        journal
            .append(&put(&number.to_le_bytes(), &[7; 60_000]))
            .unwrap();
        number += 1;
    }
    assert_eq!(calls.recv_timeout(HANG).unwrap(), "write_back");
}
