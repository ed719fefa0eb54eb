//! The chores of the workspace: `cargo xtask <command>`.
//!
//! Owns the list of commands. Depends on nothing but std and the programs it
//! starts, so that a fresh machine with only Rust can run it.

mod bench;
mod ci;
mod fuzz;
mod instructions;
mod loom;
mod sanitize;
mod source;
mod step;
mod tidy;
mod torture;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <command>

  ci [--full]               everything `.ci/run` checks; --full adds a minute of fuzzing
  tidy [--bless]            the rules of the style guide that a program can check;
                            --bless records the layout's hash in docs/format.md
  loom                      the loom models of the index, of batches and of snapshots
  instructions [--bless]    instructions a call against the stored figures (valgrind); --bless stores
                            those of now
  sanitize                  AddressSanitizer and ThreadSanitizer over the unsafe modules (nightly)
  fuzz [target] [seconds]   every fuzz target, or one (nightly and cargo-fuzz); 60 seconds in all by default
  torture [<seconds>s | <operations>] [seed]
                            the model of every operation, with new random cases; a minute by default
  torture once <seed>       the one case of that seed, which a failure names
  bench [options]           emdb beside other engines; --quick takes minutes, docs/bench.md has the
                            options; our own workloads are `cargo bench -p emdb-benches`
  help                      this text
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&root(), &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(root: &Path, args: &[&str]) -> Result<(), String> {
    match args {
        [] | ["help" | "--help" | "-h", ..] | [_, "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["ci"] => ci::run(root, ci::Extent::Usual),
        ["ci", "--full"] => ci::run(root, ci::Extent::Full),
        ["tidy"] => tidy::run(root),
        ["tidy", "--bless"] => tidy::bless(root),
        ["loom"] => loom::run(root),
        ["instructions"] => instructions::run(root),
        ["instructions", "--bless"] => instructions::bless(root),
        ["sanitize"] => sanitize::run(root),
        ["fuzz", rest @ ..] => fuzz::run(root, rest),
        ["torture", rest @ ..] => torture::run(root, rest),
        ["bench", rest @ ..] => bench::run(root, rest),
        [other, ..] => Err(format!(
            "cannot make sense of `{}`; `cargo xtask help` lists the commands and `{other}` may take other arguments",
            args.join(" ")
        )),
    }
}

/// The workspace's folder. Cargo names xtask's own when it runs or tests it.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    here.as_deref()
        .and_then(Path::parent)
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
