//! `ci`: everything that must hold before a change is taken, in the order in
//! which it fails fastest. `.ci/run` runs exactly this.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::step::{Step, ask, skipped, timed};
use crate::{fuzz, instructions, loom, sanitize, tidy};

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What every change goes through.
    Usual,
    /// A minute of fuzzing as well.
    Full,
}

pub(crate) fn run(root: &Path, extent: Extent) -> Result<(), String> {
    let start = Instant::now();
    Step::cargo("format", "fmt --all --check").run(root)?;
    // Workspaces of their own: the rivals are looked at, never compiled.
    for other in ["fuzz", "benches/compare"] {
        Step::cargo(
            format!("format {other}"),
            &format!("fmt --manifest-path {other}/Cargo.toml --check"),
        )
        .run(root)?;
    }
    timed("tidy", "cargo xtask tidy", || tidy::run(root))?;
    Step::cargo(
        "clippy",
        "clippy --workspace --all-targets --all-features -- -D warnings",
    )
    .run(root)?;
    Step::cargo("test", "test").run(root)?;
    // What features add, through the database and in the crates that have code of theirs.
    Step::cargo(
        "test features",
        "test -p emdb -p emdb-journal -p emdb-crypto --all-features",
    )
    .env("EMDB_TORTURE_OPERATIONS", "1000000")
    .run(root)?;
    Step::cargo("docs", "doc --workspace --no-deps --all-features")
        .env("RUSTDOCFLAGS", "-Dwarnings")
        .run(root)?;
    let crates = crates(root)?;
    for krate in crates.iter().filter(|krate| krate.published) {
        for features in ["--no-default-features", "--all-features"] {
            Step::cargo(
                format!("{} alone", krate.name),
                &format!("check -p {} {features}", krate.name),
            )
            .run(root)?;
        }
    }
    examples(root, &crates)?;
    loom::run(root)?;
    if ask("cargo", &["deny", "--version"]).is_some() {
        Step::cargo("deny", "deny check").run(root)?;
    } else {
        skipped("deny", "cargo-deny is not installed");
    }
    instructions::run(root)?;
    sanitize::run(root)?;
    if extent == Extent::Full {
        fuzz::run(root, &[])?;
    } else {
        skipped("fuzz", "it is part of `cargo xtask ci --full` only");
    }
    println!("\nci: all passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

struct Crate {
    name: String,
    folder: PathBuf,
    published: bool,
}

fn crates(root: &Path) -> Result<Vec<Crate>, String> {
    let mut crates = Vec::new();
    for folder in listed(&root.join("crates"))? {
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else {
            continue;
        };
        crates.push(Crate {
            name: stem(&folder),
            published: !manifest.lines().any(|line| line == "publish = false"),
            folder,
        });
    }
    Ok(crates)
}

/// Builds and runs every example; the one that shows the database at work runs as the README has it.
fn examples(root: &Path, crates: &[Crate]) -> Result<(), String> {
    for krate in crates {
        let folder = krate.folder.join("examples");
        if !folder.exists() {
            continue;
        }
        for path in listed(&folder)? {
            let is_example = path.extension().is_some_and(|extension| extension == "rs")
                || path.join("main.rs").exists();
            if !is_example {
                continue;
            }
            let example = stem(&path);
            let line = match (krate.name.as_str(), example.as_str()) {
                ("emdb", "ingest") => "run --release --example ingest -- crates".to_owned(),
                (name, _) => format!("run -p {name} --all-features --example {example}"),
            };
            Step::cargo(format!("example {example}"), &line).run(root)?;
        }
    }
    Ok(())
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
