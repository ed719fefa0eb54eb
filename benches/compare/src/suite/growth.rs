//! The main rows at several sizes, so that a curve shows how cost grows.

use super::reads;
use crate::data::{Records, shuffled};
use crate::engine::{Engine, Outcome, Reader, Sync};
use crate::message::Unit::{Bytes, PerSecond};
use crate::system;
use crate::worker::{Order, fresh, measure, rate, row};

/// Reads of one size at most, so that the large ones do not take hours.
const READS_MAX: u64 = 1_000_000;

/// 100 k, 1 M, 5 M and 20 M in the full run; a quick one does not go beyond what it has.
fn sizes(items: u64) -> Vec<u64> {
    if items <= 200_000 {
        vec![items / 50, items / 10, items / 2]
    } else {
        vec![items / 50, items / 5, items, items * 4]
    }
}

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    let records = Records::usual();
    for size in sizes(order.items) {
        let (db, folder) = fresh::<E>(&order.folder, &format!("growth-{size}"))?;
        let singles = 50_000.min(size);
        let total = size + singles;
        let named = |id: &str, what: &str, unit| {
            row(
                format!("growth/{id}_{size}"),
                format!("{what}, {size} records"),
                unit,
            )
        };
        db.prepare(Sync::Durable)?;
        measure(named("load", "bulk load", PerSecond), || {
            rate(size, || db.put_all(records.records(0..size), Sync::Durable))
        });
        db.prepare(Sync::Unsynced)?;
        measure(
            named("unsynced", "unsynced single writes", PerSecond),
            || {
                rate(singles, || {
                    records
                        .records(size..total)
                        .try_for_each(|(key, value)| db.put(&key, value.as_ref(), Sync::Unsynced))
                })
            },
        );
        let count = total.min(READS_MAX);
        measure(named("reads", "reads, shuffled", PerSecond), || {
            reads::points(&db, &records, &shuffled(total, count, 3))
        });
        measure(named("ranges", "range reads of 10", PerSecond), || {
            db.reader()?.scan(&records.key(0), 1, |_, _| ())?;
            let starts = shuffled(total, count / 2, 5);
            reads::ranges(&db, &records, &records.sorted(total), &starts)
        });
        // Open, some have a part of it still in memory, others have prepared space.
        db.close()?;
        measure(named("size", "size on disk, closed", Bytes), || {
            system::disk_bytes(&folder)
        });
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}
