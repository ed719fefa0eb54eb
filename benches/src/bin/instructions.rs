//! One verb, run for `cargo xtask instructions`, which counts what the processor does in
//! [`measured`] and nothing else.
//!
//! The database begins as a copy of `data/empty.emdb`, so that the seed of its hashes, and
//! with it every count, is the same in each run.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;

use emdb::Emdb;
use emdb_benches::Records;

const RECORDS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let verb = std::env::args().nth(1).unwrap_or_default();
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("records");
    std::fs::write(&path, include_bytes!("../../data/empty.emdb"))?;
    let builder = Emdb::builder().path(&path);
    let db = builder.enable_range_scans(verb == "scan").build()?;
    let records = Records::new(7);
    let insert = || -> emdb::Result<()> {
        (0..RECORDS).try_for_each(|number| db.insert(records.key(number), records.value(number)))
    };
    if verb == "insert" {
        return Ok(measured(insert)?);
    }
    insert()?;
    let keys: Vec<_> = (0..RECORDS).map(|number| records.key(number)).collect();
    // The first read of a record verifies it.
    for key in &keys {
        black_box(db.get(key)?);
    }
    match verb.as_str() {
        "get" => measured(|| {
            keys.iter()
                .try_for_each(|key| db.get(key).map(black_box_drop))
        })?,
        "get_zerocopy" => measured(|| {
            keys.iter()
                .try_for_each(|key| db.get_zerocopy(key).map(black_box_drop))
        })?,
        // Ten records each.
        "scan" => measured(|| {
            keys.iter().step_by(10).try_for_each(|key| {
                let mut left = 10;
                db.scan(key.., |_, value| {
                    black_box(value);
                    left -= 1;
                    if left == 0 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            })
        })?,
        "recovery" => {
            // As a kill would leave it, but without prepared space: how much of that there
            // is depends on how fast another thread was.
            let copy = directory.path().join("copy");
            std::fs::copy(&path, &copy)?;
            let used = db.stats()?.file_size_bytes;
            File::options().write(true).open(&copy)?.set_len(used)?;
            measured(|| open(&copy))?;
        }
        other => return Err(format!("no verb `{other}`").into()),
    }
    Ok(())
}

fn open(path: &Path) -> emdb::Result<()> {
    let db = Emdb::open(path)?;
    // Closing is not what is counted.
    std::mem::forget(db);
    Ok(())
}

fn black_box_drop<T>(value: T) {
    drop(black_box(value));
}

/// Counted: this and what it calls.
#[inline(never)]
fn measured(run: impl FnOnce() -> emdb::Result<()>) -> emdb::Result<()> {
    black_box(run())
}
