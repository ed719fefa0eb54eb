//! `sanitize`: the tests of the crates with unsafe code, instrumented.
//!
//! AddressSanitizer works with the standard library as it is shipped.
//! ThreadSanitizer does not quite: it cannot see what a contended `Mutex`, a
//! `Condvar` or a channel orders inside that library, and reports races that
//! are none. So it decides only where the sources of the standard library are
//! installed, to be built along; elsewhere its reports are shown and not
//! counted. What threads, scopes and atomics order it sees everywhere.

use std::path::Path;

use crate::step::{Step, ask, skipped};

/// The crates in which `tidy` allows unsafe code.
const TESTS: &str = "-p emdb-index -p emdb-journal --all-features --lib --tests";

/// Those of their tests that have several threads: one alone has no races.
const THREADS: &str = "-p emdb-index -p emdb-journal --all-features --lib --test threads \
                       --test ordered_threads --test batch --test fault --test maps --test ring";

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
    let tests = format!("+nightly test {TESTS} --target {host}");
    instrumented(root, "AddressSanitizer", &tests)
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .run(root)?;

    let name = "ThreadSanitizer";
    let tests = format!("+nightly test {THREADS} --target {host}");
    if sources.exists() {
        return instrumented(root, name, &format!("{tests} -Zbuild-std"))
            .env("RUSTFLAGS", "-Zsanitizer=thread")
            .run(root);
    }
    println!(
        "\n{name}: what it reports here is not counted, and is false where a std Mutex, Condvar or \
         channel is involved; `rustup component add rust-src --toolchain nightly` makes it exact"
    );
    let suppressions = root.join("xtask/tsan.supp");
    instrumented(root, name, &tests)
        .env(
            "RUSTFLAGS",
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        )
        .env(
            "TSAN_OPTIONS",
            format!("exitcode=0 suppressions={}", suppressions.display()),
        )
        .run(root)
}

/// Fewer random cases, since each takes many times longer; and a little optimization, which
/// takes no check away.
fn instrumented(root: &Path, name: &str, tests: &str) -> Step {
    Step::cargo(name, tests)
        .env("PROPTEST_CASES", "32")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .target_dir(root, "sanitize")
}
