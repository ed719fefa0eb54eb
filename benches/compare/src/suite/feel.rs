//! What users feel: group commit, pauses, large values, encryption, the ways to read.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::reads;
use crate::data::{Key, Records, Shape, shuffled};
use crate::engine::{Engine, Outcome, ReadWay, Sync};
use crate::message::Unit::{Micros, PerSecond};
use crate::worker::{Order, check, fresh, measure, rate, row};

/// Durable writes of each thread.
const COMMITS: u64 = 1_000;
/// Bytes of all values of one size.
const SIZED_BYTES_MAX: u64 = 256 << 20;

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    let count = (order.items / 5).max(1);
    let records = Records::usual();
    let (db, folder) = fresh::<E>(&order.folder, "feel")?;
    db.prepare(Sync::Durable)?;
    db.put_all(records.records(0..count), Sync::Durable)?;
    for threads in [1, 2] {
        let plural = if threads == 1 { "" } else { "s" };
        measure(
            row(
                format!("feel/commits_{threads}"),
                format!("insert + sync each, {threads} thread{plural}"),
                PerSecond,
            ),
            || commits(&db, &records, count, threads),
        );
    }
    compacting(&db, &records, count)?;
    ways(&db, &records, count);
    db.close()?;
    std::fs::remove_dir_all(folder)?;
    sizes::<E>(order)?;
    encrypted::<E>(&order.folder, &records, count);
    Ok(())
}

fn commits<E: Engine>(db: &E, records: &Records, first: u64, threads: u64) -> Outcome<f64> {
    rate(COMMITS * threads, || {
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|thread| {
                    let start = first + COMMITS * (thread + threads);
                    scope.spawn(move || {
                        records
                            .records(start..start + COMMITS)
                            .try_for_each(|(key, value)| {
                                db.put(&key, value.as_ref(), Sync::Durable)
                            })
                    })
                })
                .collect();
            running
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a writing thread panicked")?)
        })
    })
}

/// Inserts while the database is compacted once; and the same without, to compare.
fn compacting<E: Engine>(db: &E, records: &Records, count: u64) -> Outcome<()> {
    // Something to compact: every other record is replaced.
    db.put_all(records.records((0..count).step_by(2)), Sync::Durable)?;
    db.prepare(Sync::Unsynced)?;
    let put = |number: u64| -> Outcome<u32> {
        let (key, value) = (records.key(number), records.value(number));
        let started = Instant::now();
        db.put(&key, value.as_ref(), Sync::Unsynced)?;
        Ok(started.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32)
    };
    let start = count + 10 * COMMITS;
    measure(
        row("feel/insert_p999", "p99.9 of unsynced inserts", Micros),
        || {
            let nanos = (start..start + count.min(50_000)).map(&put);
            p999(nanos.collect::<Outcome<_>>()?)
        },
    );
    let start = start + count;
    measure(
        row(
            "feel/insert_p999_compacting",
            "the same while compacting",
            Micros,
        ),
        || {
            let done = AtomicBool::new(false);
            let nanos = std::thread::scope(|scope| {
                let compaction = scope.spawn(|| {
                    let result = db.compact_beside_writers();
                    done.store(true, Ordering::Release);
                    result
                });
                let mut nanos = Vec::new();
                let mut number = start;
                // Pairs with the Release above: what came after the end is not counted.
                while !done.load(Ordering::Acquire) {
                    nanos.push(put(number)?);
                    number += 1;
                }
                compaction
                    .join()
                    .map_err(|_| "the compacting thread panicked")??;
                Outcome::Ok(nanos)
            })?;
            p999(nanos)
        },
    );
    db.prepare(Sync::Durable)
}

fn p999(mut nanos: Vec<u32>) -> Outcome<f64> {
    nanos.sort_unstable();
    let at = (nanos.len() * 999 / 1000).min(nanos.len().saturating_sub(1));
    let nanos = nanos
        .get(at)
        .ok_or("it was over before anything was inserted")?;
    Ok(f64::from(*nanos) / 1e3)
}

fn ways<E: Engine>(db: &E, records: &Records, count: u64) {
    let numbers = shuffled(count, count, 7);
    let keys: Vec<Key> = numbers
        .iter()
        .map(|number| records.key(u64::from(*number)))
        .collect();
    let expected = records.sum(0..count);
    for (way, id, label) in [
        (ReadWay::Copy, "feel/get", "emdb get"),
        (ReadWay::Borrow, "feel/get_zerocopy", "emdb get_zerocopy"),
        (ReadWay::InPlace, "feel/get_with", "emdb get_with"),
        (
            ReadWay::Many,
            "feel/get_many",
            "emdb get_many_with, 32 keys",
        ),
    ] {
        measure(row(id, label, PerSecond), || {
            db.read_as(way, &keys)?;
            let mut sum = 0;
            let rate = rate(count, || {
                sum = db.read_as(way, &keys)?;
                Ok(())
            })?;
            check("checksum of values", sum, expected)?;
            Ok(rate)
        });
    }
}

fn sizes<E: Engine>(order: &Order) -> Outcome<()> {
    for (len, name) in [
        (16, "16 B"),
        (1 << 10, "1 KiB"),
        (64 << 10, "64 KiB"),
        (1 << 20, "1 MiB"),
    ] {
        let budget = SIZED_BYTES_MAX.min(order.items * 174);
        let count = (budget / len as u64).clamp(4, order.items.max(4));
        let records = Records::new(Shape::Random, len);
        let (db, folder) = fresh::<E>(&order.folder, &format!("sized-{len}"))?;
        db.prepare(Sync::Durable)?;
        measure(
            row(
                format!("feel/load_{len}"),
                format!("bulk load, values of {name}"),
                PerSecond,
            ),
            || {
                rate(count, || {
                    db.put_all(records.records(0..count), Sync::Durable)
                })
            },
        );
        measure(
            row(
                format!("feel/reads_{len}"),
                format!("reads, values of {name}"),
                PerSecond,
            ),
            || reads::points(&db, &records, &shuffled(count, count, 3)),
        );
        // Some verify a checksum of what is read for the first time.
        if len > 1 << 10 {
            measure(
                row(
                    format!("feel/again_{len}"),
                    format!("again, values of {name}"),
                    PerSecond,
                ),
                || reads::points(&db, &records, &shuffled(count, count, 3)),
            );
        }
        db.close()?;
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn encrypted<E: Engine>(folder: &Path, records: &Records, count: u64) {
    let folder = folder.join("encrypted");
    let mut db = None;
    measure(
        row("feel/load_encrypted", "bulk load, encrypted", PerSecond),
        || {
            std::fs::create_dir_all(&folder)?;
            let db: &E = db.insert(E::open_encrypted(&folder)?);
            rate(count, || {
                db.put_all(records.records(0..count), Sync::Durable)
            })
        },
    );
    measure(
        row(
            "feel/reads_encrypted",
            "reads, shuffled, encrypted",
            PerSecond,
        ),
        || match &db {
            Some(db) => reads::points(db, records, &shuffled(count, count, 3)),
            None => crate::engine::unavailable("no encryption"),
        },
    );
}
