//! Keys as people have them: a common prefix, a counter in decimal.

use super::reads;
use crate::data::{Records, Shape, VALUE_BYTES, shuffled};
use crate::engine::{Engine, Outcome, Reader, Sync};
use crate::message::Unit::PerSecond;
use crate::worker::{Order, fresh, measure, rate, row};

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    for (shape, id, label) in [
        (Shape::Prefixed, "prefixed", "16 equal bytes first"),
        (Shape::Decimal, "decimal", "decimal counters"),
    ] {
        one::<E>(order, shape, id, label)?;
    }
    Ok(())
}

fn one<E: Engine>(order: &Order, shape: Shape, id: &str, label: &str) -> Outcome<()> {
    let items = (order.items / 5).max(1);
    let singles = 50_000.min(items);
    let total = items + singles;
    let records = Records::new(shape, VALUE_BYTES);
    let (db, folder) = fresh::<E>(&order.folder, id)?;
    let named = |row_id: &str, what: &str| {
        row(
            format!("keys/{id}_{row_id}"),
            format!("{what}, {label}"),
            PerSecond,
        )
    };
    db.prepare(Sync::Durable)?;
    measure(named("load", "bulk load"), || {
        rate(items, || {
            db.put_all(records.records(0..items), Sync::Durable)
        })
    });
    db.prepare(Sync::Unsynced)?;
    measure(named("unsynced", "unsynced single writes"), || {
        rate(singles, || {
            records
                .records(items..total)
                .try_for_each(|(key, value)| db.put(&key, value.as_ref(), Sync::Unsynced))
        })
    });
    measure(named("reads", "reads, shuffled"), || {
        reads::points(&db, &records, &shuffled(total, items, 3))
    });
    measure(named("ranges", "range reads of 10"), || {
        db.reader()?.scan(&records.key(0), 1, |_, _| ())?;
        let starts = shuffled(total, items / 2, 5);
        reads::ranges(&db, &records, &records.sorted(total), &starts)
    });
    db.close()?;
    Ok(std::fs::remove_dir_all(folder)?)
}
