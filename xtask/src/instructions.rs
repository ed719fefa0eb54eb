//! `instructions`: how many instructions a call takes, against the stored figures.
//!
//! Counts repeat where times do not, so a change that makes a hot path longer is seen
//! on any machine. They belong to one version of Rust, named in the stored file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::step::{Step, ask, skipped, timed};

const STORED: &str = "benches/instructions.txt";
const RECORDS: u64 = 100_000;
/// More than this many percent above the stored figure is a failure.
const TOLERANCE_PERCENT: u64 = 5;

pub(crate) fn run(root: &Path) -> Result<(), String> {
    let stored = read(root)?;
    let Some(counted) = count(root, &stored)? else {
        return Ok(());
    };
    let mut grown = Vec::new();
    for ((verb, old), (_, new)) in stored.counts.iter().zip(&counted) {
        println!("{verb:16} {new:>8} instructions, {old:>8} stored");
        if *new * 100 > *old * (100 + TOLERANCE_PERCENT) {
            grown.push(verb.as_str());
        }
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} takes over {TOLERANCE_PERCENT} % more instructions than {STORED} says; if that is worth \
         it, run `cargo xtask instructions --bless` and say why in the commit",
        grown.join(", ")
    ))
}

/// Stores the counts of now.
pub(crate) fn bless(root: &Path) -> Result<(), String> {
    let stored = read(root)?;
    let Some(counted) = count(root, &stored)? else {
        return Err("nothing was counted".to_owned());
    };
    let mut text = stored.comment;
    let _ = writeln!(text, "rust {}", stored.rust);
    for (verb, count) in counted {
        println!("{verb:16} {count:>8} instructions");
        let _ = writeln!(text, "{verb} {count}");
    }
    fs::write(root.join(STORED), text).map_err(|error| format!("{STORED}: {error}"))
}

struct Stored {
    comment: String,
    rust: String,
    counts: Vec<(String, u64)>,
}

fn read(root: &Path) -> Result<Stored, String> {
    let text =
        fs::read_to_string(root.join(STORED)).map_err(|error| format!("{STORED}: {error}"))?;
    let mut stored = Stored {
        comment: String::new(),
        rust: String::new(),
        counts: Vec::new(),
    };
    for line in text.lines() {
        if line.starts_with('#') {
            let _ = writeln!(stored.comment, "{line}");
            continue;
        }
        let parsed = match line.split_once(' ') {
            Some(("rust", version)) => {
                version.clone_into(&mut stored.rust);
                continue;
            }
            Some((verb, count)) => count.parse().ok().map(|count| (verb.to_owned(), count)),
            None => None,
        };
        let Some(parsed) = parsed else {
            return Err(format!("{STORED}: cannot make sense of `{line}`"));
        };
        stored.counts.push(parsed);
    }
    Ok(stored)
}

/// Instructions a call, verb by verb; `None` where they cannot be counted.
fn count(root: &Path, stored: &Stored) -> Result<Option<Vec<(String, u64)>>, String> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        skipped("instructions", "they are counted on Linux on x86-64");
        return Ok(None);
    }
    if ask("valgrind", &["--version"]).is_none() {
        skipped("instructions", "valgrind is not installed");
        return Ok(None);
    }
    let version = format!("rustc {} ", stored.rust);
    let is_it = |answer: Option<String>| answer.is_some_and(|answer| answer.starts_with(&version));
    let toolchain = format!("+{}", stored.rust);
    let cargo = if is_it(ask("rustc", &["--version"])) {
        Step::cargo("instructions: build", "")
    } else if is_it(ask("rustc", &[&toolchain, "--version"])) {
        Step::cargo("instructions: build", &toolchain)
    } else {
        let why = format!("Rust {} is not installed", stored.rust);
        skipped("instructions", &why);
        return Ok(None);
    };
    cargo
        .args("build --release -p emdb-benches --bin instructions".split(' '))
        .target_dir(root, "instructions")
        .run(root)?;
    let base = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |folder| root.join(folder));
    let program = base.join("instructions/release/instructions");
    let mut counted = Vec::new();
    timed("instructions", "valgrind --tool=callgrind", || {
        for (verb, _) in &stored.counts {
            counted.push((verb.clone(), count_verb(&program, verb)? / RECORDS));
        }
        Ok(())
    })?;
    Ok(Some(counted))
}

fn count_verb(program: &Path, verb: &str) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=instructions::measured*",
        ])
        .arg(program)
        .arg(verb)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said
        .lines()
        .filter_map(|line| line.split_once("Collected : "))
        .find_map(|(_, count)| count.trim().parse().ok());
    match count {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        _ => Err(format!("counting `{verb}` failed:\n{said}")),
    }
}
