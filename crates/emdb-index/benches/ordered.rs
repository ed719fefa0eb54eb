//! What inserts, building, seeks and scans of the ordered index cost, for keys
//! that differ at once and for keys that differ late.

use std::{convert::Infallible, hint::black_box, ops::Bound};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use emdb_index::{Location, OrderedIndex, RangeBatch, RangeCursor};

const COUNT: u64 = 1_000_000;
const KEY_LEN: usize = 24;

type Key = [u8; KEY_LEN];
type Shape = fn(u64) -> Key;

fn mix(number: u64) -> u64 {
    let x = (number ^ (number >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let x = (x ^ (x >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    x ^ (x >> 33)
}

/// Keys that differ in their first bytes.
fn random(number: u64) -> Key {
    let mut key = [0; KEY_LEN];
    for (part, turn) in key.chunks_exact_mut(8).zip(0..) {
        part.copy_from_slice(&mix(number + (turn << 40)).to_le_bytes());
    }
    key
}

/// Keys whose first 16 bytes are equal.
fn late(number: u64) -> Key {
    let mut key = [b'p'; KEY_LEN];
    if let Some(tail) = key.last_chunk_mut() {
        *tail = mix(number).to_le_bytes();
    }
    key
}

/// Decimal counters after a prefix of 12 bytes.
fn counter(number: u64) -> Key {
    let mut key = *b"tenant-00042000000000000";
    let mut rest = mix(number) % (COUNT * 8);
    for digit in key.iter_mut().rev().take(12) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The journal: keys in the order in which they came, which is not that of the keys.
struct Journal(Vec<Key>);

impl Journal {
    fn new(shape: Shape) -> Self {
        let mut keys: Vec<_> = (0..COUNT).map(shape).collect();
        keys.sort_unstable();
        keys.dedup();
        // So that each is there once.
        keys.sort_by_key(|key| mix(key.iter().fold(0, |sum, byte| mix(sum) ^ u64::from(*byte))));
        Self(keys)
    }

    fn resolve(&self) -> impl Fn(Location) -> Result<Key, Infallible> + Copy + '_ {
        |location| Ok(self.0[location.get() as usize - 1])
    }

    fn records(&self) -> impl Iterator<Item = (Key, Location)> + '_ {
        let keys = self.0.iter().copied().zip(1..);
        keys.filter_map(|(key, at)| Some((key, Location::new(at)?)))
    }

    fn filled(&self) -> OrderedIndex {
        let index = OrderedIndex::new();
        for (key, location) in self.records() {
            let Ok(_) = index.insert(&key, location, self.resolve());
        }
        index
    }
}

fn scan(index: &OrderedIndex, journal: &Journal, from: &Key, out: &mut RangeBatch) -> u64 {
    let mut range = RangeCursor::new(Bound::Included(from), Bound::Unbounded);
    let (mut left, mut sum) = (10, 0);
    while left > 0 {
        let Ok(found) = index.next_batch(&mut range, left, out, journal.resolve());
        if !found {
            break;
        }
        left -= out.entries().len();
        for entry in out.entries() {
            sum += u64::from(journal.0[entry.location.get() as usize - 1][KEY_LEN - 1]);
        }
    }
    sum
}

fn benches(criterion: &mut Criterion) {
    let shapes: [(&str, Shape); 3] = [("random", random), ("late", late), ("counter", counter)];
    for (name, shape) in shapes {
        let journal = Journal::new(shape);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        group.bench_function("insert_1m", |bencher| {
            bencher.iter_batched(|| (), |()| journal.filled(), BatchSize::PerIteration);
        });
        let mut sorted: Vec<_> = journal.records().collect();
        sorted.sort_unstable();
        group.bench_function("build_1m", |bencher| {
            bencher.iter(|| OrderedIndex::build(sorted.iter().map(|(key, at)| (key, *at))));
        });
        group.bench_function("batch_1m", |bencher| {
            bencher.iter(|| {
                let index = OrderedIndex::new();
                let records = sorted.iter().map(|(key, at)| (key, *at));
                let Ok(new) = index.insert_sorted_batch(records, journal.resolve());
                (index, new)
            });
        });
        let index = journal.filled();
        println!(
            "{name}: {:.1} bytes a record",
            index.memory_bytes() as f64 / index.len() as f64
        );
        let (mut turn, mut out) = (0_u64, RangeBatch::default());
        group.sample_size(50);
        group.bench_function("scan_10", |bencher| {
            bencher.iter(|| {
                turn += 1;
                let from = journal.0[(mix(turn) % journal.0.len() as u64) as usize];
                black_box(scan(&index, &journal, &from, &mut out))
            });
        });
        group.bench_function("scan_all", |bencher| {
            bencher.iter(|| {
                let mut range = RangeCursor::default();
                let mut sum = 0;
                while let Ok(true) =
                    index.next_batch(&mut range, usize::MAX, &mut out, journal.resolve())
                {
                    sum += out.entries().len();
                }
                sum
            });
        });
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
