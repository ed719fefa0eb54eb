//! `bench`: emdb beside the engines people would pick instead.
//!
//! They live in a workspace of their own, `benches/compare`, so that no other command compiles
//! them. Our own workloads are `cargo bench -p emdb-benches`.

use std::path::Path;

use crate::step::Step;

const RUN: &str = "run --release --manifest-path benches/compare/Cargo.toml";

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let (features, rest) = split(args)?;
    let mut step = Step::cargo("bench", RUN).target_dir(root, "compare");
    if !features.is_empty() {
        step = step.args(["--features", &features.join(",")]);
    }
    step.args(["--"]).args(rest).run(root)
}

/// What cargo is to know, and what the comparison is.
fn split<'a>(args: &[&'a str]) -> Result<(Vec<&'a str>, Vec<&'a str>), String> {
    let (mut features, mut rest) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if let Some(names) = arg.strip_prefix("--features=") {
            features.push(names);
        } else if *arg == "--features" {
            features.push(args.next().ok_or("--features needs a value")?);
        } else {
            rest.push(*arg);
        }
    }
    Ok((features, rest))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn features_are_for_cargo_and_the_rest_is_passed_on() {
        let args = [
            "--quick",
            "--features",
            "rocksdb",
            "--features=sqlite",
            "--items",
            "5",
        ];
        let expected = (vec!["rocksdb", "sqlite"], vec!["--quick", "--items", "5"]);
        assert_eq!(split(&args), Ok(expected));
        assert!(split(&["--features"]).is_err());
    }
}
