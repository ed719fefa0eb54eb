//! `loom`: every interleaving of the atomic protocols of the index, of batches and of
//! snapshots, up to loom's bounds.

use std::path::Path;

use crate::step::Step;

pub(crate) fn run(root: &Path) -> Result<(), String> {
    Step::cargo(
        "loom",
        "test --release --test loom -p emdb-index -p emdb-engine",
    )
    .env("RUSTFLAGS", "--cfg loom")
    .target_dir(root, "loom")
    .run(root)
}
