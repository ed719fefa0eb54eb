//! `fuzz`: random bytes against the decoders, with cargo-fuzz on a nightly toolchain.

use std::fs;
use std::path::Path;

use crate::step::{Step, ask, skipped};

const SECONDS: u64 = 60;
const USAGE: &str = "fuzz takes [target] [seconds]";

/// Runs one target, or shares the time among all of them.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let (targets, seconds) = match args {
        [] => (targets(root)?, SECONDS),
        [one] => match one.parse() {
            Ok(seconds) => (targets(root)?, seconds),
            Err(_) => (vec![(*one).to_owned()], SECONDS),
        },
        [target, seconds] => {
            let seconds = seconds.parse().map_err(|_| USAGE.to_owned())?;
            (vec![(*target).to_owned()], seconds)
        }
        _ => return Err(USAGE.to_owned()),
    };
    if ask("cargo", &["+nightly", "fuzz", "--version"]).is_none() {
        skipped(
            "fuzz",
            "it needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`)",
        );
        return Ok(());
    }
    let each = (seconds / targets.len().max(1) as u64).max(1);
    for target in targets {
        Step::cargo(format!("fuzz {target}"), "+nightly fuzz run")
            .args([target.as_str(), "--", &format!("-max_total_time={each}")])
            .run(root)?;
    }
    Ok(())
}

fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|error| format!("fuzz/fuzz_targets: {error}"))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}
