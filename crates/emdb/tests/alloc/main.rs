//! Reading in place takes nothing from the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use emdb::Emdb;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
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
