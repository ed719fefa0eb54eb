//! YCSB A to F: zipfian 0.99, values of 1 KiB, unsynced writes, latencies of every operation.
//!
//! Each operation is one by itself, so a read begins its own transaction where an engine has
//! them: it must see the writes before it.

mod zipf;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::data::{Random, Records, Shape, sum_of};
use crate::engine::{Engine, Outcome, Reader, Sync};
use crate::message::Row;
use crate::message::Unit::{Micros, PerSecond};
use crate::worker::{Order, fresh, measure_many, row};
use zipf::Zipf;

const VALUE_BYTES: usize = 1024;
const THETA: f64 = 0.99;
const SCAN_MAX: u64 = 100;

/// Shares of the operations in percent; what is left are reads.
struct Workload {
    name: &'static str,
    what: &'static str,
    update: u64,
    insert: u64,
    scan: u64,
    modify: u64,
    latest: bool,
}

const fn workload(name: &'static str, what: &'static str) -> Workload {
    Workload {
        name,
        what,
        update: 0,
        insert: 0,
        scan: 0,
        modify: 0,
        latest: false,
    }
}

/// In YCSB's own order: those that only replace first, then those that add records.
const WORKLOADS: [Workload; 6] = [
    Workload {
        update: 50,
        ..workload("a", "half reads, half updates")
    },
    Workload {
        update: 5,
        ..workload("b", "95 % reads, 5 % updates")
    },
    workload("c", "reads only"),
    Workload {
        modify: 50,
        ..workload("f", "half reads, half read-modify-write")
    },
    Workload {
        insert: 5,
        latest: true,
        ..workload("d", "95 % reads of the latest, 5 % inserts")
    },
    Workload {
        insert: 5,
        scan: 95,
        ..workload("e", "95 % scans of up to 100, 5 % inserts")
    },
];

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    let count = (order.items / 5).max(100);
    let records = Records::new(Shape::Random, VALUE_BYTES);
    // More threads than two tell about the machine, not about the engines.
    for threads in order
        .threads
        .iter()
        .copied()
        .filter(|threads| *threads <= 2)
    {
        let (db, folder) = fresh::<E>(&order.folder, &format!("ycsb-{threads}"))?;
        db.prepare(Sync::Durable)?;
        db.put_all(
            (0..count).map(|number| (records.key(number), stamped(&records, number, 0))),
            Sync::Durable,
        )?;
        db.prepare(Sync::Unsynced)?;
        let zipf = Zipf::new(count, THETA);
        let inserted = AtomicU64::new(count);
        for workload in &WORKLOADS {
            let operations = if workload.scan > 0 { count / 10 } else { count };
            measure_many(rows(workload, threads), || {
                if workload.scan > 0 {
                    // Where nothing has an order it shows here.
                    db.reader()?.scan(&records.key(0), 1, |_, _| ())?;
                }
                let shared = Shared {
                    db: &db,
                    records: &records,
                    zipf: &zipf,
                    inserted: &inserted,
                    inserting: [const { AtomicU64::new(u64::MAX) }; 2],
                };
                shared.mix(workload, threads, operations)
            });
        }
        db.close()?;
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn rows(workload: &Workload, threads: usize) -> Vec<Row> {
    let figures = [
        ("rate", "operations", PerSecond),
        ("p50", "p50", Micros),
        ("p99", "p99", Micros),
        ("p999", "p99.9", Micros),
    ];
    let letter = workload.name.to_uppercase();
    let plural = if threads == 1 { "" } else { "s" };
    figures
        .into_iter()
        .map(|(id, label, unit)| {
            let what = if id == "rate" { workload.what } else { label };
            row(
                format!("ycsb/{}_{threads}_{id}", workload.name),
                format!("{letter}, {threads} thread{plural}: {what}"),
                unit,
            )
        })
        .collect()
}

/// A value that begins with its record's number, so that a read can be checked whichever
/// version it finds.
fn stamped(records: &Records, number: u64, version: u64) -> Vec<u8> {
    let mut value = records
        .value(number.wrapping_add(version << 32))
        .as_ref()
        .to_vec();
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

struct Shared<'a, E> {
    db: &'a E,
    records: &'a Records,
    zipf: &'a Zipf,
    /// Numbers given out.
    inserted: &'a AtomicU64,
    /// For each thread: nothing from this number on may be there yet.
    inserting: [AtomicU64; 2],
}

impl<E: Engine> Shared<'_, E> {
    /// Rate and percentiles of all operations of all threads.
    fn mix(&self, workload: &Workload, threads: usize, operations: u64) -> Outcome<Vec<f64>> {
        let share = operations / threads as u64;
        // A tenth is run before, untimed.
        self.thread(workload, share / 10, 0, 99)?;
        let started = Instant::now();
        let mut nanos = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || self.thread(workload, share, thread, thread as u64))
                })
                .collect();
            let mut all = Vec::new();
            for thread in running {
                let part = thread.join().map_err(|_| "a thread panicked")?;
                all.extend(part?);
            }
            Outcome::Ok(all)
        })?;
        let taken = started.elapsed().as_secs_f64();
        nanos.sort_unstable();
        let percentile = |share: f64| {
            let at = ((nanos.len() as f64 * share) as usize).min(nanos.len().saturating_sub(1));
            nanos.get(at).map_or(0.0, |nanos| f64::from(*nanos) / 1e3)
        };
        Ok(vec![
            nanos.len() as f64 / taken,
            percentile(0.5),
            percentile(0.99),
            percentile(0.999),
        ])
    }

    fn thread(
        &self,
        workload: &Workload,
        operations: u64,
        thread: usize,
        seed: u64,
    ) -> Outcome<Vec<u32>> {
        let inserting = self.inserting.get(thread).ok_or("too many threads")?;
        let mut random = Random::new(seed);
        let mut nanos = Vec::with_capacity(operations as usize);
        for version in 0..operations {
            let choice = random.below(100);
            let number = self.choose(workload, &mut random);
            // What is made before the clock starts is no engine's work.
            let key = self.records.key(number);
            let updates = workload.update + workload.modify;
            let value = (choice < updates).then(|| stamped(self.records, number, version));
            let started = Instant::now();
            if choice < workload.update {
                self.db
                    .put(&key, value.as_deref().unwrap_or_default(), Sync::Unsynced)?;
            } else if choice < updates {
                self.read(&key, number)?;
                self.db
                    .put(&key, value.as_deref().unwrap_or_default(), Sync::Unsynced)?;
            } else if choice < updates + workload.insert {
                // Announced before the number is taken: SeqCst, pairs with `choose`.
                inserting.store(self.inserted.load(Ordering::SeqCst), Ordering::SeqCst);
                let number = self.inserted.fetch_add(1, Ordering::SeqCst);
                let value = stamped(self.records, number, 0);
                self.db
                    .put(&self.records.key(number), &value, Sync::Unsynced)?;
                inserting.store(u64::MAX, Ordering::SeqCst);
            } else if choice < updates + workload.insert + workload.scan {
                let mut sum = 0_u64;
                let len = 1 + random.below(SCAN_MAX) as usize;
                self.db.reader()?.scan(&key, len, |_, value| {
                    sum = sum.wrapping_add(sum_of(value));
                })?;
                std::hint::black_box(sum);
            } else {
                self.read(&key, number)?;
            }
            nanos.push(started.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32);
        }
        Ok(nanos)
    }

    fn choose(&self, workload: &Workload, random: &mut Random) -> u64 {
        if workload.latest {
            // What another thread is inserting just now may not be there yet.
            let given = self.inserted.load(Ordering::SeqCst);
            let open = self
                .inserting
                .iter()
                .map(|from| from.load(Ordering::SeqCst));
            let known = open.fold(given, u64::min);
            known - 1 - self.zipf.rank(random)
        } else {
            self.zipf.scattered(random)
        }
    }

    fn read(&self, key: &[u8], number: u64) -> Outcome<()> {
        let found = self.db.get(key, |value| {
            std::hint::black_box(sum_of(value));
            value.len() == VALUE_BYTES && value.starts_with(&number.to_le_bytes())
        })?;
        match found {
            Some(true) => Ok(()),
            Some(false) => Err("a read gave another record's value".into()),
            None => Err("a record is missing".into()),
        }
    }
}
