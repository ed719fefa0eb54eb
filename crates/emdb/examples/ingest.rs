//! Stores a directory tree in a database, closes it, and reads every file back.
//!
//! `cargo run --release --example ingest -- [DIR]`; without a directory, the one this
//! workspace lies in. The database lies in a temporary directory and goes away at the
//! end. Exits with an error if a single byte comes back different.

use std::error::Error;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use emdb::Emdb;
use indicatif::{ProgressBar, ProgressStyle};

/// The longest value that a record can have.
const VALUE_LEN_MAX: u64 = 1 << 30;
/// Directories that are left out: what can be built again, and what git keeps.
const DIRECTORIES_SKIPPED: [&str; 2] = ["target", ".git"];
/// Mismatches told one by one; more are only counted.
const MISMATCHES_TOLD: usize = 10;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let root = match arguments.next() {
        Some(root) => PathBuf::from(root),
        None => fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?,
    };
    if arguments.next().is_some() {
        return Err("one directory at most".into());
    }

    let mut skipped = Skipped::default();
    let found = walk(&root, &mut skipped)?;
    println!("{} files in {}", found.paths.len(), root.display());

    // Made after the walk, so that the database is not among its own records.
    let directory = tempfile::Builder::new().prefix("emdb-ingest-").tempdir()?;
    let path = directory.path().join("ingest.emdb");

    let (stored, writing) = write(&path, &root, found, &mut skipped)?;
    let size_on_disk = size_on_disk(directory.path())?;
    let reading = read_back(&path, &stored)?;

    let bytes: u64 = stored.iter().map(|file| file.len).sum();
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("records        {}", stored.len());
    println!("bytes          {bytes}");
    println!("write          {:.3} s", writing.as_secs_f64());
    println!("  throughput   {:.1} MiB/s", per_second(mib, writing));
    println!("read, compare  {:.3} s", reading.as_secs_f64());
    println!(
        "  reads        {:.0} per second",
        per_second(stored.len() as f64, reading)
    );
    println!("size on disk   {size_on_disk} bytes");
    skipped.tell();
    println!("every file came back as it was stored");

    directory.close()?;
    Ok(())
}

/// The files of a tree, by their paths relative to its root.
struct Found {
    paths: Vec<PathBuf>,
    bytes: u64,
}

/// What a stored file must come back as.
struct Stored {
    path: PathBuf,
    len: u64,
    checksum: u64,
}

/// What was left out, and why.
#[derive(Default)]
struct Skipped {
    directories: u64,
    irregular: u64,
    unreadable: u64,
    too_large: u64,
}

impl Skipped {
    fn tell(&self) {
        for (count, what) in [
            (self.directories, "directories called target or .git"),
            (self.irregular, "symlinks and other irregular files"),
            (self.unreadable, "unreadable files or directories"),
            (self.too_large, "files above 1 GiB"),
        ] {
            if count != 0 {
                println!("skipped        {count} {what}");
            }
        }
    }
}

/// Finds every regular file below `root`.
fn walk(root: &Path, skipped: &mut Skipped) -> Result<Found> {
    // Only the root must be readable.
    if let Err(error) = fs::read_dir(root) {
        return Err(format!("cannot read {}: {error}", root.display()).into());
    }
    let mut found = Found {
        paths: Vec::new(),
        bytes: 0,
    };
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(root.join(&directory)) else {
            skipped.unreadable += 1;
            continue;
        };
        for entry in entries {
            // An entry's metadata does not follow symlinks.
            let Ok((entry, metadata)) = entry.and_then(|entry| {
                let metadata = entry.metadata()?;
                Ok((entry, metadata))
            }) else {
                skipped.unreadable += 1;
                continue;
            };
            let path = directory.join(entry.file_name());
            if metadata.is_dir() {
                if DIRECTORIES_SKIPPED
                    .iter()
                    .any(|name| entry.file_name() == *name)
                {
                    skipped.directories += 1;
                } else {
                    directories.push(path);
                }
            } else if !metadata.is_file() {
                skipped.irregular += 1;
            } else if metadata.len() > VALUE_LEN_MAX {
                println!("skipped        {}: above 1 GiB", path.display());
                skipped.too_large += 1;
            } else {
                found.bytes += metadata.len();
                found.paths.push(path);
            }
        }
    }
    Ok(found)
}

/// Stores every file; returns what must come back, and the time the database took.
fn write(
    path: &Path,
    root: &Path,
    found: Found,
    skipped: &mut Skipped,
) -> Result<(Vec<Stored>, Duration)> {
    let db = Emdb::open(path)?;
    let progress = progress("writing", found.bytes)?;
    let mut stored = Vec::with_capacity(found.paths.len());
    let mut taken = Duration::ZERO;
    let mut value = Vec::new();
    for path in found.paths {
        value.clear();
        // A file may have grown since it was found.
        let read = File::open(root.join(&path))
            .and_then(|file| file.take(VALUE_LEN_MAX + 1).read_to_end(&mut value));
        match read {
            Err(_) => {
                skipped.unreadable += 1;
                continue;
            }
            Ok(len) if len as u64 > VALUE_LEN_MAX => {
                progress.suspend(|| println!("skipped        {}: above 1 GiB", path.display()));
                skipped.too_large += 1;
                continue;
            }
            Ok(_) => {}
        }
        let start = Instant::now();
        db.insert(key(&path), &value)?;
        taken += start.elapsed();
        progress.inc(value.len() as u64);
        stored.push(Stored {
            path,
            len: value.len() as u64,
            checksum: checksum(&value),
        });
    }
    let start = Instant::now();
    db.flush()?;
    taken += start.elapsed();
    progress.finish_and_clear();
    db.close()?;
    Ok((stored, taken))
}

/// Reads every record and compares it; returns the time that took.
fn read_back(path: &Path, stored: &[Stored]) -> Result<Duration> {
    let db = Emdb::open(path)?;
    let len = db.len()?;
    if len != stored.len() {
        return Err(format!("{} records stored, {len} found", stored.len()).into());
    }
    let progress = progress("reading", stored.iter().map(|file| file.len).sum())?;
    let mut mismatches = 0_usize;
    let start = Instant::now();
    for file in stored {
        let came_back = db.get_with(key(&file.path), |value| {
            (value.len() as u64, checksum(value))
        })?;
        let wrong = match came_back {
            Some(found) if found == (file.len, file.checksum) => None,
            Some((len, _)) if len != file.len => {
                Some(format!("{} bytes stored, {len} found", file.len))
            }
            Some(_) => Some("the contents differ".to_owned()),
            None => Some("missing".to_owned()),
        };
        if let Some(wrong) = wrong {
            mismatches += 1;
            if mismatches <= MISMATCHES_TOLD {
                progress.suspend(|| eprintln!("mismatch       {}: {wrong}", file.path.display()));
            }
        }
        progress.inc(file.len);
    }
    let taken = start.elapsed();
    progress.finish_and_clear();
    db.close()?;
    if mismatches == 0 {
        Ok(taken)
    } else {
        let all = stored.len();
        Err(format!("{mismatches} of {all} files came back different").into())
    }
}

/// The bytes of all files in a directory without directories.
fn size_on_disk(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn key(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn per_second(amount: f64, time: Duration) -> f64 {
    amount / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn progress(what: &'static str, bytes: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {bytes}/{total_bytes}")?;
    Ok(ProgressBar::new(bytes)
        .with_style(style.progress_chars("=> "))
        .with_message(what))
}
