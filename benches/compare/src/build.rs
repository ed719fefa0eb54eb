//! What an engine costs those who build it: a clean build, and the crates in its tree.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::engine::Outcome;
use crate::message::{Result as RowResult, Unit};
use crate::options::Options;
use crate::results::Results;
use crate::worker::row;

pub const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// The package an engine is built from.
pub fn package(engine: &str) -> &str {
    match engine {
        "emdb-range" => "emdb",
        "lmdb" => "heed",
        "sqlite" => "rusqlite",
        other => other,
    }
}

pub fn run(options: &Options, data: &Path, results: &mut Results) {
    for engine in &options.engines {
        eprintln!("building {engine}");
        for (row, figure) in [
            (
                row("build/time", "clean release build", Unit::Seconds),
                clean_build(engine, data),
            ),
            (
                row("build/crates", "crates in the tree", Unit::Pieces),
                crates(engine),
            ),
        ] {
            let result = match figure {
                Ok(value) => RowResult::Figure {
                    value,
                    syncs: 0,
                    note: None,
                },
                Err(failure) => RowResult::Failed(failure.to_string()),
            };
            results.add(engine, row, result);
        }
    }
}

/// Features that the engine's own row needs.
fn features(engine: &str) -> &str {
    match engine {
        "rocksdb" | "sqlite" => engine,
        _ => "",
    }
}

fn clean_build(engine: &str, data: &Path) -> Outcome<f64> {
    let target = data.join("build");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let started = Instant::now();
    let output = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--offline",
            "--quiet",
            "--manifest-path",
            MANIFEST,
        ])
        .args([
            "-p",
            package(engine),
            "--features",
            features(engine),
            "--target-dir",
        ])
        .arg(&target)
        .stdin(Stdio::null())
        .output()?;
    let taken = started.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&target)?;
    if output.status.success() {
        Ok(taken)
    } else {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(text.lines().last().unwrap_or("it does not build").into())
    }
}

fn crates(engine: &str) -> Outcome<f64> {
    let output = Command::new("cargo")
        .args([
            "tree",
            "--offline",
            "--manifest-path",
            MANIFEST,
            "-p",
            package(engine),
        ])
        .args(["--features", features(engine), "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()?;
    if !output.status.success() {
        return Err("cargo tree fails".into());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.len() as f64)
}
