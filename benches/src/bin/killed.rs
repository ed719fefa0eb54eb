//! What opening costs after a kill: `killed [RECORDS]` has a process insert that many
//! records (20 million by default) with default settings, kills it, opens the database,
//! and tells how much of the journal was replayed.
//!
//! While the records come, it also looks at what a kill just then would have left to
//! replay, and tells the most of that.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use emdb::Emdb;
use emdb_benches::Records;
use emdb_format::{CheckpointHead, FIRST_POSITION};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The first argument of the process that is killed.
const LOAD: &str = "--load";
const SEED: u64 = 7;
const GIB: f64 = (1 << 30) as f64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(LOAD) {
        let path = arguments.next().ok_or("no path")?;
        let count = arguments.next().ok_or("no number of records")?;
        return load(Path::new(&path), count.parse()?);
    }
    let count = first.map_or(Ok(20_000_000), |count| count.parse())?;
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let path = directory.path().join("db");
    let mut child = Command::new(std::env::current_exe()?)
        .arg(LOAD)
        .args([&path, &PathBuf::from(count.to_string())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    for line in BufReader::new(out).lines() {
        let line = line?;
        println!("{line}");
        if line == "loaded" {
            child.kill()?;
        }
    }
    child.wait()?;

    let replay_from = Checkpoint::of(&path).replay_from()?;
    let started = Instant::now();
    let db = Emdb::open(&path)?;
    let opened = started.elapsed();
    let found = db.get(Records::new(SEED).key(count / 2))?;
    let answered = started.elapsed();
    assert_eq!(
        found.as_deref(),
        Some(&Records::new(SEED).value(count / 2)[..])
    );
    assert_eq!(db.len()? as u64, count);
    let tail = db.stats()?.file_size_bytes;
    println!("journal                {:8.3} GiB", tail as f64 / GIB);
    println!(
        "replayed               {:8.3} GiB",
        (tail - replay_from) as f64 / GIB
    );
    println!(
        "open                   {:8.1} ms",
        opened.as_secs_f64() * 1e3
    );
    println!(
        "open and first get     {:8.1} ms",
        answered.as_secs_f64() * 1e3
    );
    Ok(())
}

fn load(path: &Path, count: u64) -> Result<()> {
    const LOOK_EVERY: u64 = 50_000;
    let records = Records::new(SEED);
    let db = Emdb::open(path)?;
    let mut checkpoint = Checkpoint::of(path);
    let mut most = 0;
    let started = Instant::now();
    for number in 0..count {
        db.insert(records.key(number), records.value(number))?;
        if number % LOOK_EVERY == 0 {
            most = most.max(db.stats()?.file_size_bytes - checkpoint.replay_from()?);
        }
    }
    let taken = started.elapsed().as_secs_f64();
    println!(
        "loaded at              {:8.3} M records/s",
        count as f64 / taken / 1e6
    );
    println!("most left to replay    {:8.3} GiB", most as f64 / GIB);
    println!("loaded");
    std::io::stdout().flush()?;
    // Until the kill.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// The checkpoint beside a database, looked at when it has changed.
struct Checkpoint {
    path: PathBuf,
    modified: Option<SystemTime>,
    replay_from: u64,
}

impl Checkpoint {
    fn of(path: &Path) -> Self {
        Self {
            path: path.with_extension("meta"),
            modified: None,
            replay_from: FIRST_POSITION,
        }
    }

    /// From where opening replays.
    fn replay_from(&mut self) -> Result<u64> {
        let Ok(file) = File::open(&self.path) else {
            return Ok(FIRST_POSITION);
        };
        let modified = Some(file.metadata()?.modified()?);
        if self.modified != modified {
            self.modified = modified;
            // SAFETY: a checkpoint is replaced, never changed.
            let bytes = unsafe { memmap2::Mmap::map(&file)? };
            self.replay_from = CheckpointHead::decode_file(&bytes)?.replay_from;
        }
        Ok(self.replay_from)
    }
}
