//! `loom`: every interleaving of the index's atomic protocols, up to loom's bounds.

use std::path::Path;

use crate::step::{Step, skipped};

const MODELS: &str = "crates/emdb-index/tests/loom.rs";

pub(crate) fn run(root: &Path) -> Result<(), String> {
    if !root.join(MODELS).exists() {
        skipped("loom", &format!("there is no {MODELS}"));
        return Ok(());
    }
    Step::cargo("loom", "test --release --test loom -p emdb-index")
        .env("RUSTFLAGS", "--cfg loom")
        .target_dir(root, "loom")
        .run(root)
}
