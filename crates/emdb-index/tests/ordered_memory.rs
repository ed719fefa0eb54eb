//! What the ordered index takes of memory, by its own account and the allocator's.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
};

use emdb_index::{Location, OrderedIndex, RangeBatch, RangeCursor};

struct Counting;

static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COUNT: u64 = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};
const BYTES_MAX: u64 = 32;
/// What waits to be freed, and what a thread keeps for itself.
const SLACK: u64 = 512 << 10;

fn mix(number: u64) -> u64 {
    let x = (number ^ (number >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let x = (x ^ (x >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    x ^ (x >> 33)
}

fn at(number: u64) -> Location {
    Location::new(number + 1).unwrap()
}

fn check(name: &str, key: impl Fn(u64) -> Vec<u8>) {
    let resolve = |location: Location| Ok::<_, Infallible>(key(location.get() - 1));
    let before = BYTES.load(Ordering::Relaxed);
    let index = OrderedIndex::new();
    let measure = |when: &str| {
        // Garbage is freed by those who come later.
        let mut batch = RangeBatch::default();
        for _ in 0..2000 {
            let Ok(found) = index.next_batch(&mut RangeCursor::default(), 1, &mut batch, resolve);
            assert!(found);
        }
        let taken = BYTES.load(Ordering::Relaxed).saturating_sub(before);
        let (said, most) = (index.memory_bytes(), index.len() * BYTES_MAX);
        assert!(said <= most, "{name}, {when}: {said} bytes of {most}");
        assert!(
            taken <= most + SLACK,
            "{name}, {when}: {taken} bytes of {most}"
        );
        assert!(
            taken <= said + SLACK,
            "{name}, {when}: {taken} bytes, not {said}"
        );
    };
    for number in 0..COUNT {
        let Ok(old) = index.insert(&key(number), at(number), resolve);
        assert_eq!(old, None);
    }
    measure("filled");
    let odd = || (0..COUNT).filter(|number| number % 2 == 1);
    odd().for_each(|number| assert!(index.remove_at(&key(number), at(number))));
    measure("half of it removed");
    let mut batch: Vec<_> = odd().map(|number| (key(number), at(number))).collect();
    batch.sort();
    let Ok(new) = index.insert_sorted_batch(batch.drain(..), resolve);
    drop(batch);
    assert_eq!(new, COUNT / 2);
    measure("filled again by a batch");
    (0..COUNT)
        .filter(|number| number % 20 != 3)
        .for_each(|number| {
            assert!(index.remove_at(&key(number), at(number)));
        });
    measure("nearly all removed");
}

#[test]
fn a_record_takes_at_most_32_bytes_in_whatever_order_keys_come_and_go() {
    let digits = |prefix: &str, number: u64| format!("{prefix}{number:012}").into_bytes();
    check("random", |number| mix(number).to_le_bytes().repeat(3));
    check("late", |number| {
        [[b'p'; 16].as_slice(), &mix(number).to_le_bytes()].concat()
    });
    check("rising", |number| digits("tenant-00042", number));
    check("falling", |number| digits("tenant-00042", COUNT - number));
    check("eight streams", |number| {
        digits(&format!("tenant-{:05}", number % 8), number)
    });
    check("many streams", |number| {
        digits(&format!("tenant-{:05}", number % 999), number)
    });
    check("long", |number| {
        digits(&"long ".repeat(20), mix(number) % (1 << 39))
    });

    let records: Vec<_> = (0..COUNT)
        .map(|number| (digits("", number), at(number)))
        .collect();
    let before = BYTES.load(Ordering::Relaxed);
    let index = OrderedIndex::build(records.iter().map(|(key, at)| (key, *at))).unwrap();
    let taken = BYTES.load(Ordering::Relaxed) - before;
    assert!(taken.max(index.memory_bytes()) <= BYTES_MAX * COUNT);
}
