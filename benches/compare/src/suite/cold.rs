//! Reads with nothing in the page cache.
//!
//! One process loads and closes; this one evicts the files (`posix_fadvise`, after a sync, while
//! nobody has them open) and sees that they are gone (`mincore`); a third one reads a hundredth.

use std::time::Instant;

use super::Task;
use super::opening::helper;
use crate::data::{Records, shuffled, sum_of};
use crate::engine::{Engine, Outcome, Reader};
use crate::message::Message;
use crate::message::Unit::{Millis, PerSecond};
use crate::system;
use crate::worker::{Order, check, measure_many, row};

pub fn run(order: &Order) -> Outcome<()> {
    let folder = order.folder.join("cold");
    std::fs::create_dir_all(&folder)?;
    helper(order, Task::Load, &folder, true)?;
    let rows = vec![
        row("cold/open", "opening and first get, cold", Millis),
        row(
            "cold/reads",
            "reads of a hundredth, shuffled, cold",
            PerSecond,
        ),
    ];
    measure_many(rows, || {
        let whole = system::disk_bytes(&folder)?;
        let stayed = system::evict(&folder)? as f64;
        if stayed > whole / 50.0 {
            return Err(format!("{stayed} of {whole} bytes stayed in the page cache").into());
        }
        helper(order, Task::ReadCold, &folder, true)
    });
    Ok(std::fs::remove_dir_all(&folder)?)
}

pub fn read<E: Engine>(order: &Order) -> Outcome<()> {
    let records = Records::usual();
    let mut numbers = shuffled(order.items, order.items, 11);
    numbers.truncate((order.items / 100).max(1) as usize);
    let expected = records.sum(numbers.iter().map(|number| u64::from(*number)));
    let started = Instant::now();
    let db = E::open(&order.folder)?;
    db.get(&records.key(0), sum_of)?;
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    let started = Instant::now();
    let mut sum = 0_u64;
    {
        let reader = db.reader()?;
        for number in &numbers {
            let found = reader.get(&records.key(u64::from(*number)), sum_of)?;
            sum = sum.wrapping_add(found.ok_or("a record is missing")?);
        }
    }
    let taken = started.elapsed().as_secs_f64();
    check("checksum of values", sum, expected)?;
    Message::Helper(vec![opened_ms, numbers.len() as f64 / taken]).print();
    db.close()
}
