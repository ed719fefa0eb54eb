//! Opening: after a clean close, and after a death; memory then, and after reading everything.
//!
//! Every step is a process of its own, since only a fresh one shows what opening costs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Task;
use crate::data::{Records, sum_of};
use crate::engine::{Engine, Failure, Outcome, Reader, Sync};
use crate::message::Message;
use crate::message::Unit::{Bytes, Count, Millis};
use crate::system;
use crate::worker::{Order, check, measure, measure_many, row};

/// Unsynced writes before the death.
const LAST_WORDS: u64 = 1_000;

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    let clean = order.folder.join("clean");
    std::fs::create_dir_all(&clean)?;
    helper(order, Task::Load, &clean, true)?;
    // The first opening makes what later ones find, so that it is not counted.
    helper(order, Task::Survivors, &clean, true)?;
    let rows = vec![
        row(
            "opening/clean",
            "opening after a clean close, and first get",
            Millis,
        ),
        row("opening/rss_open", "resident memory after opening", Bytes),
        row("opening/anon_open", "the same without mapped files", Bytes),
        row(
            "opening/rss_read",
            "resident memory after reading everything",
            Bytes,
        ),
        row("opening/anon_read", "the same without mapped files", Bytes),
        row(
            "opening/memory",
            "memory a record after reading everything, no mapped files",
            Bytes,
        ),
    ];
    measure_many(rows, || helper(order, Task::Open, &clean, true));
    std::fs::remove_dir_all(&clean)?;

    let killed = order.folder.join("killed");
    std::fs::create_dir_all(&killed)?;
    helper(order, Task::LoadAndDie, &killed, false)?;
    let mut left = None;
    measure(
        row(
            "opening/killed",
            "opening after a kill, and first get",
            Millis,
        ),
        || {
            let figures = helper(order, Task::Survivors, &killed, true)?;
            left = figures.get(1).copied();
            Ok(figures.first().copied().ok_or("no answer")?)
        },
    );
    measure(
        row(
            "opening/survivors",
            "unsynced writes that survive a kill, of 1,000",
            Count,
        ),
        || Ok(left.ok_or("it did not open")?),
    );
    Ok(std::fs::remove_dir_all(&killed)?)
}

/// Runs one step in a process of its own; gives its figures.
pub fn helper(order: &Order, task: Task, folder: &Path, must_live: bool) -> Outcome<Vec<f64>> {
    let step = Order {
        task,
        folder: folder.to_owned(),
        ..order.clone()
    };
    let output = Command::new(std::env::current_exe()?)
        .args(step.to_args())
        .stderr(Stdio::inherit())
        .output()?;
    if must_live && !output.status.success() {
        return Err(format!(
            "the process of step `{}` died: {}",
            task.name(),
            output.status
        )
        .into());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut figures = Vec::new();
    for message in text.lines().filter_map(Message::parse) {
        match message {
            Message::Helper(found) => figures = found,
            Message::End(Some(crate::message::Result::NotAvailable(_))) => {
                return crate::engine::unavailable("not in the engine");
            }
            Message::End(Some(failed)) => return Err(Failure::from(format!("{failed:?}"))),
            _ => {}
        }
    }
    Ok(figures)
}

pub fn load<E: Engine>(order: &Order) -> Outcome<()> {
    let records = Records::usual();
    let db = E::open(&order.folder)?;
    db.prepare(Sync::Durable)?;
    db.put_all(records.records(0..order.items), Sync::Durable)?;
    db.close()
}

pub fn load_and_die<E: Engine>(order: &Order) -> Outcome<()> {
    let records = Records::usual();
    let db = E::open(&order.folder)?;
    db.prepare(Sync::Durable)?;
    db.put_all(records.records(0..order.items), Sync::Durable)?;
    db.prepare(Sync::Unsynced)?;
    for (key, value) in records.records(order.items..order.items + LAST_WORDS) {
        db.put(&key, value.as_ref(), Sync::Unsynced)?;
    }
    // SAFETY: a process may send itself any signal.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    Ok(())
}

/// Opens, gets a record, reads all; what all that took.
pub fn open<E: Engine>(order: &Order) -> Outcome<()> {
    let records = Records::usual();
    let before = system::anonymous_bytes()?;
    let started = Instant::now();
    let db = E::open(&order.folder)?;
    first_get(&db, &records)?;
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    let (resident, anonymous) = (system::resident_bytes()?, system::anonymous_bytes()?);
    {
        let reader = db.reader()?;
        let mut sum = 0_u64;
        for number in 0..order.items {
            let found = reader.get(&records.key(number), sum_of)?;
            sum = sum.wrapping_add(found.ok_or("a record is missing")?);
        }
        check("checksum of values", sum, records.sum(0..order.items))?;
    }
    let anonymous_read = system::anonymous_bytes()?;
    Message::Helper(vec![
        opened_ms,
        resident,
        anonymous,
        system::resident_bytes()?,
        anonymous_read,
        (anonymous_read - before).max(0.0) / order.items as f64,
    ])
    .print();
    db.close()
}

/// Opens, and counts the unsynced writes that are there.
pub fn survivors<E: Engine>(order: &Order) -> Outcome<()> {
    let records = Records::usual();
    let started = Instant::now();
    let db = E::open(&order.folder)?;
    first_get(&db, &records)?;
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    // All that was durable must be there, a sample of it is looked at.
    for number in (0..order.items).step_by(97) {
        let expected = sum_of(records.value(number).as_ref());
        check(
            "value",
            db.get(&records.key(number), sum_of)?.unwrap_or(0),
            expected,
        )?;
    }
    let mut left = 0.0;
    for number in order.items..order.items + LAST_WORDS {
        if db.get(&records.key(number), sum_of)?.is_some() {
            left += 1.0;
        }
    }
    Message::Helper(vec![opened_ms, left]).print();
    db.close()
}

fn first_get<E: Engine>(db: &E, records: &Records) -> Outcome<()> {
    let expected = sum_of(records.value(0).as_ref());
    let found = db.get(&records.key(0), sum_of)?;
    check("the first value", found.unwrap_or(0), expected)
}
