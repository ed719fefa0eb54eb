//! `torture`: the model of every operation, for as long as it is told to.

use std::path::Path;

use crate::step::Step;

const USAGE: &str =
    "cargo xtask torture [<seconds>s | <operations>] [seed], or torture once <seed>";

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let (extent, seed) = match args {
        [] => ("60s", None),
        [extent] => (*extent, None),
        [extent, seed] => (*extent, Some(*seed)),
        _ => return Err(USAGE.to_owned()),
    };
    // Optimized, but nothing that is checked is left out.
    let mut step = Step::cargo(
        "torture",
        "test --release -p emdb --all-features --test model -- --nocapture every_operation_does",
    )
    .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
    .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
    .target_dir(root, "torture");
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    step = match extent.strip_suffix('s') {
        _ if extent == "once" && seed.is_some() => step.env("EMDB_TORTURE_ONCE", "1"),
        Some(seconds) if is_number(seconds) => step.env("EMDB_TORTURE_SECONDS", seconds),
        None if is_number(extent) => step.env("EMDB_TORTURE_OPERATIONS", extent),
        _ => return Err(USAGE.to_owned()),
    };
    match seed {
        Some(seed) if is_number(seed) => step = step.env("EMDB_TORTURE_SEED", seed),
        Some(_) => return Err(USAGE.to_owned()),
        None => {}
    }
    step.run(root)
}
