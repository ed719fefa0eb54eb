//! `bench`: our own workloads. Other engines have no place here yet.

use std::path::Path;

use crate::step::Step;

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    Step::cargo("bench", "bench -p emdb-benches")
        .args(args.iter().copied())
        .run(root)
}
