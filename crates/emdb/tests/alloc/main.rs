//! Reading in place takes nothing from the heap, and transactions take little.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use emdb::Emdb;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Notes bytes that this thread takes, or gives back.
fn note(taken: usize, given: usize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + taken as isize - given as isize);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        note(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // Both may be there at once.
        note(len, 0);
        note(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

/// Bytes that were held at once beyond those that were held before.
fn held_bytes(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    (PEAK.get() - before) as usize
}

#[test]
fn a_transaction_holds_next_to_nothing_for_each_record() {
    const RECORDS: usize = 100_000;
    let key = |number: usize| (number as u64).to_le_bytes();
    let db = Emdb::open_in_memory();
    db.insert_many((0..RECORDS).map(|number| (key(number), [0; 50])))
        .unwrap();
    let tx = db.begin().unwrap();
    // The index has an entry for each key already.
    let replacing = held_bytes(|| {
        for number in 0..RECORDS {
            tx.insert(key(number), [1; 50]).unwrap();
        }
    });
    assert!(replacing < 64 << 10, "{replacing} bytes");
    let removing = held_bytes(|| {
        for number in 0..RECORDS {
            tx.remove(key(number)).unwrap();
        }
    });
    assert!(removing < 32 * RECORDS, "{removing} bytes");
    let rolling_back = held_bytes(|| tx.rollback().unwrap());
    assert!(rolling_back < 64 << 10, "{rolling_back} bytes");
    assert_eq!(db.len().unwrap(), RECORDS);
    let committing = held_bytes(|| {
        let inserts = |tx: &mut emdb::Transaction<'_>| {
            (0..RECORDS).try_for_each(|number| tx.insert(key(number), [2; 50]))
        };
        db.transaction(inserts).unwrap();
    });
    assert!(committing < 64 << 10, "{committing} bytes");
}

#[test]
fn small_transactions_and_snapshots_allocate_nothing() {
    let db = Emdb::open_in_memory();
    db.insert("key", [0; 50]).unwrap();
    let small = |db: &Emdb| {
        for number in 0..100_u8 {
            db.transaction(|tx| tx.insert("key", [number; 50])).unwrap();
            drop(db.begin().unwrap());
            let snapshot = db.snapshot().unwrap();
            assert!(snapshot.contains_key("key").unwrap());
        }
    };
    // The first ones make the buffers that the others use again.
    small(&db);
    assert_eq!(allocations(|| small(&db)), 0);
}

#[test]
fn reading_in_place_allocates_nothing() {
    assert_ne!(allocations(|| drop(std::hint::black_box(vec![1]))), 0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let fill = |db: &Emdb| {
        for number in 0..2000_u32 {
            db.insert(number.to_le_bytes(), vec![1; (number % 300) as usize])
                .unwrap();
        }
        db.insert("large", vec![2; 100_000]).unwrap();
    };
    let on_disk = Emdb::open(&path).unwrap();
    fill(&on_disk);
    // The first reads after opening verify what they read, through a checkpoint too.
    on_disk.checkpoint().unwrap();
    on_disk.close().unwrap();
    let in_memory = Emdb::open_in_memory();
    fill(&in_memory);
    for db in [Emdb::open(&path).unwrap(), in_memory] {
        for _ in 0..2 {
            let count = allocations(|| {
                for number in 0..2500_u32 {
                    let key = number.to_le_bytes();
                    let len = db.get_with(key, <[u8]>::len).unwrap();
                    let value = db.get_zerocopy(key).unwrap();
                    assert_eq!(value.map(|value| value.len()), len);
                    assert_eq!(len.is_some(), number < 2000);
                    assert_eq!(db.contains_key(key).unwrap(), len.is_some());
                }
                let large = db.get_zerocopy("large").unwrap().unwrap();
                assert_eq!(large.len(), 100_000);
                db.len().unwrap();
            });
            assert_eq!(count, 0);
        }
    }
}
