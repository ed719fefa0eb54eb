//! Reads that several suites share, each checked by the sum of the values read.

use std::time::Instant;

use crate::data::{Records, sum_of};
use crate::engine::{Engine, Outcome, Reader};
use crate::worker::check;

/// Records of a range read.
pub const SCAN_LEN: usize = 10;

/// Fewer reads are over before they can be timed: they are done over again, up to so many
/// reads or bytes.
const READS_MIN: u64 = 100_000;
const BYTES_MIN: u64 = 64 << 20;

fn passes(records: &Records, reads: usize) -> u64 {
    let wanted = READS_MIN.min(BYTES_MIN / records.value_len().max(1) as u64);
    (wanted / (reads as u64).max(1)).max(1)
}

/// Reads the records of these numbers in one thread; reads a second.
pub fn points<E: Engine>(db: &E, records: &Records, numbers: &[u32]) -> Outcome<f64> {
    points_threaded(db, records, numbers, 1)
}

fn sum_points<E: Engine>(db: &E, records: &Records, numbers: &[u32]) -> Outcome<u64> {
    let reader = db.reader()?;
    let mut sum = 0_u64;
    for number in numbers {
        let found = reader.get(&records.key(u64::from(*number)), sum_of)?;
        sum = sum.wrapping_add(found.ok_or("a record is missing")?);
    }
    Ok(sum)
}

/// The same, the numbers shared among threads.
pub fn points_threaded<E: Engine>(
    db: &E,
    records: &Records,
    numbers: &[u32],
    threads: usize,
) -> Outcome<f64> {
    let expected = records.sum(numbers.iter().map(|number| u64::from(*number)));
    // The first pass over anything is slower: a twentieth of the reads is not timed.
    let warm = numbers.len() / 20;
    sum_points(db, records, numbers.get(..warm).unwrap_or_default())?;
    let passes = passes(records, numbers.len());
    let started = Instant::now();
    let sum = match threads {
        1 => passes_sum(db, records, numbers, passes)?,
        _ => shared_sum(db, records, numbers, passes, threads)?,
    };
    let taken = started.elapsed().as_secs_f64();
    check("checksum of values", sum, expected.wrapping_mul(passes))?;
    Ok((passes * numbers.len() as u64) as f64 / taken)
}

fn passes_sum<E: Engine>(db: &E, records: &Records, numbers: &[u32], passes: u64) -> Outcome<u64> {
    let mut sum = 0_u64;
    for _ in 0..passes {
        sum = sum.wrapping_add(sum_points(db, records, numbers)?);
    }
    Ok(sum)
}

fn shared_sum<E: Engine>(
    db: &E,
    records: &Records,
    numbers: &[u32],
    passes: u64,
    threads: usize,
) -> Outcome<u64> {
    std::thread::scope(|scope| {
        let share = numbers.len().div_ceil(threads).max(1);
        let running: Vec<_> = numbers
            .chunks(share)
            .map(|numbers| scope.spawn(move || passes_sum(db, records, numbers, passes)))
            .collect();
        let mut sum = 0_u64;
        for thread in running {
            let part = thread.join().map_err(|_| "a reading thread panicked")??;
            sum = sum.wrapping_add(part);
        }
        Ok(sum)
    })
}

/// Range reads that start at random records; ranges a second. `sorted` are the numbers of all
/// records in the order of their keys.
pub fn ranges<E: Engine>(
    db: &E,
    records: &Records,
    sorted: &[u32],
    starts: &[u32],
) -> Outcome<f64> {
    // Where nothing has an order it shows here, before anything expensive.
    let reader = db.reader()?;
    reader.scan(&records.key(0), 1, |_, _| ())?;
    let values: Vec<u64> = sorted
        .iter()
        .map(|number| sum_of(records.value(u64::from(*number)).as_ref()))
        .collect();
    let expected = starts.iter().fold(0_u64, |sum, start| {
        let from = *start as usize;
        let to = (from + SCAN_LEN).min(values.len());
        let part = values.get(from..to).unwrap_or_default();
        part.iter().fold(sum, |sum, value| sum.wrapping_add(*value))
    });
    let started = Instant::now();
    let mut sum = 0_u64;
    for start in starts {
        let number = sorted.get(*start as usize).copied().unwrap_or_default();
        reader.scan(&records.key(u64::from(number)), SCAN_LEN, |_, value| {
            sum = sum.wrapping_add(sum_of(value));
        })?;
    }
    let taken = started.elapsed().as_secs_f64();
    check("checksum of values", sum, expected)?;
    Ok(starts.len() as f64 / taken)
}
