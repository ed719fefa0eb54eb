//! redb's comparison, row for row, with the reads also shuffled.

use std::time::{Duration, Instant};

use super::reads;
use crate::data::{Records, shuffled};
use crate::engine::{End, Engine, NotAvailable, Outcome, Reader, Sync};
use crate::message::Unit::{Bytes, Micros, PerSecond, Seconds};
use crate::system;
use crate::worker::{Order, check, fresh, measure, measure_synced, note, rate, row};

const SINGLES: u64 = 1_000;
const BATCHES: u64 = 100;
const BATCH: u64 = 1_000;
const UNSYNCED: u64 = 50_000;
const LENS: u32 = 1_000;

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    let items = order.items;
    let records = Records::usual();
    let (mut db, folder) = fresh::<E>(&order.folder, "core")?;
    db.prepare(Sync::Durable)?;
    let total = writes(&db, &records, items, order)?;
    point_reads(&db, &records, items, order);
    measure(
        row("core/ranges", "range reads of 10 records", PerSecond),
        || {
            // Where nothing has an order, sorting all keys first would be in vain.
            db.reader()?.scan(&records.key(0), 1, |_, _| ())?;
            let starts = shuffled(total, items / 10, 5);
            reads::ranges(&db, &records, &records.sorted(total), &starts)
        },
    );
    removals(&db, &records, items, total)?;
    let before = measure(row("core/size", "size on disk, uncompacted", Bytes), || {
        system::disk_bytes(&folder)
    });
    let compacted = measure(row("core/compaction", "compaction", Seconds), || {
        let started = Instant::now();
        db.compact()?;
        Ok(started.elapsed().as_secs_f64())
    });
    measure(
        row("core/size_compacted", "size on disk, compacted", Bytes),
        || {
            compacted.ok_or(NotAvailable("it was not compacted"))?;
            let after = system::disk_bytes(&folder)?;
            if before.is_some_and(|before| after > before * 0.98) {
                note("compacting gave nothing back");
            }
            Ok(after)
        },
    );
    db.close()
}

/// Tells how many records there are then.
fn writes<E: Engine>(db: &E, records: &Records, items: u64, order: &Order) -> Outcome<u64> {
    measure_synced(
        row("core/load", "bulk load, one durable transaction", PerSecond),
        1,
        || {
            rate(items, || {
                db.put_all(records.records(0..items), Sync::Durable)
            })
        },
    );
    measure(
        row("core/load_rss", "peak resident memory of the load", Bytes),
        system::peak_resident_bytes,
    );
    let mut total = items;
    let mut next = |count: u64| {
        total += count;
        total - count..total
    };
    let numbers = next(SINGLES);
    measure_synced(
        row("core/singles", "durable single writes", PerSecond),
        SINGLES,
        || {
            rate(SINGLES, || {
                records.records(numbers).try_for_each(|(key, value)| {
                    db.put_transaction(&key, value.as_ref(), Sync::Durable)
                })
            })
        },
    );
    let numbers = next(BATCHES * BATCH);
    measure_synced(
        row(
            "core/batches",
            "durable batches of 1,000, records",
            PerSecond,
        ),
        BATCHES,
        || {
            rate(BATCHES * BATCH, || {
                numbers.step_by(BATCH as usize).try_for_each(|first| {
                    db.put_all(records.records(first..first + BATCH), Sync::Durable)
                })
            })
        },
    );
    measure_synced(
        row("core/sorted", "sorted bulk insert", PerSecond),
        1,
        || {
            let count = (items / 5).max(1);
            let (other, folder) = fresh::<E>(&order.folder, "sorted")?;
            other.prepare(Sync::Durable)?;
            let sorted = records.sorted(count);
            let rate = rate(count, || {
                other.put_sorted(records.records(sorted.iter().map(|number| u64::from(*number))))
            })?;
            check("records", other.reader()?.len()?, count)?;
            other.close()?;
            std::fs::remove_dir_all(folder)?;
            Ok(rate)
        },
    );
    let unsynced = UNSYNCED.min(items);
    let numbers = next(unsynced);
    db.prepare(Sync::Unsynced)?;
    measure(
        row(
            "core/unsynced",
            "unsynced single-write transactions",
            PerSecond,
        ),
        || {
            rate(unsynced, || {
                records.records(numbers).try_for_each(|(key, value)| {
                    db.put_transaction(&key, value.as_ref(), Sync::Unsynced)
                })
            })
        },
    );
    db.prepare(Sync::Durable)?;
    measure(row("core/len", "len", Micros), || {
        let reader = db.reader()?;
        let started = Instant::now();
        check("records", reader.len()?, total)?;
        let once = started.elapsed();
        // Where it only reads a counter, one call is too short for the clock.
        if once > Duration::from_millis(1) {
            return Ok(once.as_secs_f64() * 1e6);
        }
        let started = Instant::now();
        for _ in 0..LENS {
            std::hint::black_box(reader.len()?);
        }
        Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(LENS))
    });
    Ok(total)
}

fn point_reads<E: Engine>(db: &E, records: &Records, items: u64, order: &Order) {
    let count = (items / 5).max(1);
    let in_order: Vec<u32> = (0..count as u32).collect();
    measure(
        row(
            "core/reads_inserted",
            "random reads, in the order of insertion",
            PerSecond,
        ),
        || reads::points(db, records, &in_order),
    );
    let numbers = shuffled(items, count, 3);
    measure(
        row(
            "core/reads",
            "RANDOM READS, SHUFFLED (the headline)",
            PerSecond,
        ),
        || reads::points(db, records, &numbers),
    );
    for threads in &order.threads {
        let plural = if *threads == 1 { "" } else { "s" };
        measure(
            row(
                format!("core/reads_{threads}_threads"),
                format!("random reads, shuffled, {threads} thread{plural}"),
                PerSecond,
            ),
            || reads::points_threaded(db, records, &numbers, *threads),
        );
    }
}

fn removals<E: Engine>(db: &E, records: &Records, items: u64, total: u64) -> Outcome<()> {
    let half = items / 2;
    measure_synced(
        row("core/removals", "removals of half", PerSecond),
        1,
        || {
            let removed = rate(half, || {
                db.remove_all((0..half).map(|number| records.key(number)))
            })?;
            check("records", db.reader()?.len()?, total - half)?;
            Ok(removed)
        },
    );
    // Half of the keys left, then half of the rest; a rate counts all records that are looked at.
    let rest = db.reader()?.len()?;
    let odd = |key: &[u8]| key.last().is_some_and(|byte| byte & 1 == 1);
    measure_synced(row("core/retain", "retain half", PerSecond), 1, || {
        let mut kept = 0_u64;
        let looked_at = rate(rest, || {
            db.retain(|key| {
                let keep = !odd(key);
                kept += u64::from(keep);
                keep
            })
        })?;
        check("records", db.reader()?.len()?, kept)?;
        Ok(looked_at)
    });
    let rest = db.reader()?.len()?;
    let third = |key: &[u8]| key.last().is_some_and(|byte| byte & 2 == 2);
    measure_synced(
        row("core/extract_if", "extract_if half", PerSecond),
        1,
        || {
            let mut seen = 0_u64;
            let extracted = rate(rest, || db.extract_if(third, |_, _| seen += 1))?;
            check("records", db.reader()?.len()?, rest - seen)?;
            Ok(extracted)
        },
    );
    let count = (items / 500).clamp(1, 5_000);
    for (end, id, label) in [
        (End::First, "core/pop_first", "pop_first"),
        (End::Last, "core/pop_last", "pop_last"),
    ] {
        measure_synced(row(id, label, PerSecond), 1, || {
            rate(count, || check("popped", db.pop(end, count)?, count))
        });
    }
    Ok(())
}
