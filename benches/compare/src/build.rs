//! What an engine costs those who build it: a clean build, and the crates in its tree.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::engine::Outcome;
use crate::message::{Result as RowResult, Unit};
use crate::options::Options;
use crate::results::Results;
use crate::worker::row;

const MANIFEST: &str = include_str!("../Cargo.toml");

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
        let folder = lone_crate(engine, data);
        let measured = |measure: fn(&Path) -> Outcome<f64>| match &folder {
            Ok(folder) => measure(folder).map_err(|failure| failure.to_string()),
            Err(failure) => Err(failure.to_string()),
        };
        let time = row("build/time", "clean release build", Unit::Seconds);
        let tree = row("build/crates", "crates in the tree", Unit::Pieces);
        for (row, figure) in [(time, measured(clean_build)), (tree, measured(crates))] {
            let result = match figure {
                Ok(value) => RowResult::Figure {
                    value,
                    syncs: 0,
                    note: None,
                },
                Err(why) => RowResult::Failed(why),
            };
            results.add(engine, row, result);
        }
    }
}

/// A crate that depends on one engine as this one does, and on nothing else.
fn lone_crate(engine: &str, data: &Path) -> Outcome<PathBuf> {
    let begin = format!("{} = ", package(engine));
    let (_, dependencies) = MANIFEST
        .split_once("[dependencies]")
        .ok_or("no dependencies in the manifest")?;
    let line = dependencies
        .lines()
        .find(|line| line.starts_with(&begin))
        .ok_or("the engine is not in the manifest")?
        .replace("optional = true, ", "")
        .replace("../../", concat!(env!("CARGO_MANIFEST_DIR"), "/../../"));
    let folder = data.join("build");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(folder.join("src"))?;
    std::fs::write(folder.join("src/lib.rs"), "")?;
    // The same versions as those that are measured.
    std::fs::write(folder.join("Cargo.lock"), crate::LOCK)?;
    let manifest = format!(
        "[package]\nname = \"lone\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{line}\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    Ok(folder)
}

fn clean_build(folder: &Path) -> Outcome<f64> {
    let started = Instant::now();
    let output = Command::new("cargo")
        .args(["build", "--release", "--offline", "--quiet"])
        .args(["--target-dir", "target"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    let taken = started.elapsed().as_secs_f64();
    if output.status.success() {
        Ok(taken)
    } else {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(text.lines().last().unwrap_or("it does not build").into())
    }
}

fn crates(folder: &Path) -> Outcome<f64> {
    let output = Command::new("cargo")
        .args(["tree", "--offline", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(folder)
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
    // The lone crate is not one of them.
    Ok(names.len().saturating_sub(1) as f64)
}
