//! `sanitize`: the tests of the crates with unsafe code, instrumented.
//!
//! AddressSanitizer works with the standard library as it is shipped.
//! ThreadSanitizer does not: it cannot see what an uninstrumented `Mutex` or
//! `Arc` orders, so it reports races that are none. It is run only where the
//! sources of the standard library are installed, to be built along.

use std::path::Path;

use crate::step::{Step, ask, skipped};

/// The crates in which `tidy` allows unsafe code.
const TESTS: &str = "-p emdb-index -p emdb-journal --lib --tests";

pub(crate) fn run(root: &Path) -> Result<(), String> {
    let Some(version) = ask("rustc", &["+nightly", "-vV"]) else {
        skipped(
            "sanitize",
            "it needs a nightly toolchain (`rustup toolchain install nightly`)",
        );
        return Ok(());
    };
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("rustc does not name its host")?;
    if !host.ends_with("linux-gnu") && !host.ends_with("apple-darwin") {
        skipped("sanitize", &format!("no sanitizers for {host}"));
        return Ok(());
    }
    let sysroot = ask("rustc", &["+nightly", "--print", "sysroot"]).unwrap_or_default();
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library");

    // Naming the target keeps the flags away from build scripts and macros.
    Step::cargo(
        "AddressSanitizer",
        &format!("+nightly test {TESTS} --target {host}"),
    )
    .env("RUSTFLAGS", "-Zsanitizer=address")
    .target_dir(root, "sanitize")
    .run(root)?;

    if !sources.exists() {
        skipped(
            "ThreadSanitizer",
            "it needs the sources of the standard library (`rustup component add rust-src --toolchain nightly`)",
        );
        return Ok(());
    }
    Step::cargo(
        "ThreadSanitizer",
        &format!("+nightly test {TESTS} -Zbuild-std --target {host}"),
    )
    .env("RUSTFLAGS", "-Zsanitizer=thread")
    .target_dir(root, "sanitize")
    .run(root)
}
