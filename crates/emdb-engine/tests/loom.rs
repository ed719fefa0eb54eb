//! Models of what batches publish and of snapshots that are taken meanwhile, with the
//! database as it is: every interleaving of two threads, up to loom's bounds.
//!
//! Loom stands behind the index, behind the words by which writers, batches and readers
//! of the journal meet, and behind the open snapshots. What is stored lies in the
//! journal's map, which loom does not see: a model fails where an order is wrong, not
//! where a store is late.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use emdb_engine::Emdb;
use emdb_journal::SimulatedMedium;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
use loom::thread;

/// A database with the same seed each time, since a model has to do the same each time.
fn open(bytes: &[u8]) -> Emdb {
    let disk = Arc::new(SimulatedMedium::with_bytes(bytes));
    Emdb::builder().build_on(Box::new(disk)).unwrap()
}

fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let model = Arc::clone(&bytes);
        // Nothing works outside of a model; this one has one thread and one run.
        loom::model(move || {
            let disk = Arc::new(SimulatedMedium::new());
            let db = Emdb::builder()
                .build_on(Box::new(Arc::clone(&disk)))
                .unwrap();
            db.insert_many([("a", "old"), ("b", "old")]).unwrap();
            db.close().unwrap();
            *model.lock().unwrap() = disk.live_bytes();
        });
        bytes.lock().unwrap().clone()
    })
}

fn get(db: &Emdb, key: &str) -> Vec<u8> {
    db.get(key).unwrap().unwrap_or_default()
}

/// Runs `write` beside `read` in every way that matters, and makes sure that there were
/// some.
fn model(
    write: impl Fn(&Emdb) + Copy + Send + Sync + 'static,
    read: impl Fn(&Emdb) + Copy + Send + Sync + 'static,
) {
    let bytes = bytes();
    let runs = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check({
        let runs = Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::Relaxed);
            let db = open(bytes);
            let reader = {
                let db = db.clone_handle();
                thread::spawn(move || read(&db))
            };
            write(&db);
            reader.join().unwrap();
        }
    });
    let runs = runs.load(Ordering::Relaxed);
    assert!(runs > 50, "the model was not explored");
}

fn replace_both(db: &Emdb) {
    db.transaction(|tx| {
        tx.insert("a", "new")?;
        tx.insert("b", "new")
    })
    .unwrap();
}

#[test]
fn who_sees_one_record_of_a_batch_sees_all_from_then_on() {
    model(replace_both, |db| {
        let first = get(db, "a");
        let then = get(db, "b");
        assert!(first == b"old" || then == b"new");
    });
}

#[test]
fn a_snapshot_sees_a_batch_or_does_not() {
    model(replace_both, |db| {
        let snapshot = db.snapshot().unwrap();
        assert_eq!(snapshot.get("a").unwrap(), snapshot.get("b").unwrap());
    });
}

#[test]
fn nobody_sees_a_batch_that_is_discarded() {
    model(
        |db| {
            let tx = db.begin().unwrap();
            // Small records would be held back, and never reach the index.
            tx.insert("a", vec![0; 5000]).unwrap();
            tx.insert("b", vec![0; 5000]).unwrap();
            assert!(tx.get("a").unwrap().unwrap().len() == 5000);
            tx.rollback().unwrap();
        },
        |db| assert_eq!(get(db, "a"), b"old"),
    );
}

#[test]
fn a_snapshot_keeps_what_a_writer_removes() {
    model(
        |db| {
            db.insert("a", "new").unwrap();
            db.remove("a").unwrap();
        },
        |db| {
            let snapshot = db.snapshot().unwrap();
            let first = snapshot.get("a").unwrap();
            let again = snapshot.get("a").unwrap();
            assert_eq!(first, again);
        },
    );
}

#[test]
fn a_snapshot_holds_what_was_seen_before_it() {
    model(
        |db| {
            db.insert("a", "new").unwrap();
            db.remove("b").unwrap();
        },
        |db| {
            let seen = get(db, "b");
            let snapshot = db.snapshot().unwrap();
            let b = snapshot.get("b").unwrap().unwrap_or_default();
            if seen.is_empty() {
                assert!(b.is_empty(), "what was removed came back");
            }
            if b.is_empty() {
                assert_eq!(snapshot.get("a").unwrap().unwrap(), b"new");
            }
        },
    );
}

/// What a compare-and-swap stores comes right behind what it compared with, never behind a
/// store that came in between. Loom does not know that: it has a thread see the bit, and the
/// value under it, behind the value that the thread itself stored over them.
///
/// Loom does keep swaps in order; so for loom the index swaps where else it stores over a
/// verified bit (`primitive::store_over_swaps`). When this test fails, loom has learned it,
/// and that is not needed any more.
#[test]
#[should_panic = "what was stored is gone"]
fn loom_loses_a_store_to_a_compare_and_swap_before_it() {
    loom::model(|| {
        let slot = Arc::new(AtomicU64::new(0));
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let _ = slot.compare_exchange(0, 1, SeqCst, SeqCst);
            })
        };
        slot.store(2, SeqCst);
        assert_eq!(slot.load(SeqCst), 2, "what was stored is gone");
        reader.join().unwrap();
    });
}
