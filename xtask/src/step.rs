//! One command of a chore: how it is shown, run, timed and reproduced.
//!
//! A step's output goes straight to the terminal; nothing is captured.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A program with its arguments and variables, run in the workspace's folder.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    program: &'static str,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Step {
    /// A call of cargo; `line` is split at white space.
    pub(crate) fn cargo(name: impl Into<String>, line: &str) -> Self {
        Self {
            name: name.into(),
            program: "cargo",
            args: line.split_whitespace().map(str::to_owned).collect(),
            env: Vec::new(),
        }
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Builds into a folder of its own, so that other flags do not evict what the usual build made.
    pub(crate) fn target_dir(self, root: &Path, name: &str) -> Self {
        let base = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| PathBuf::from("target"), |dir| root.join(dir));
        self.env("CARGO_TARGET_DIR", base.join(name).display().to_string())
    }

    /// Runs it; the error names the command that reproduces the failure.
    pub(crate) fn run(&self, root: &Path) -> Result<(), String> {
        let shown = self.shown();
        timed(&self.name, &shown, || {
            let status = self
                .command(root)
                .status()
                .map_err(|error| format!("{}: {error}", self.program))?;
            if status.success() {
                Ok(())
            } else {
                Err(format!(
                    "step `{}` failed ({status}); to reproduce: {shown}",
                    self.name
                ))
            }
        })
    }

    fn command(&self, root: &Path) -> Command {
        let mut command = Command::new(self.program);
        command.args(&self.args).current_dir(root);
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command
    }

    fn shown(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.env.iter().map(|(name, value)| {
            if value.contains(' ') {
                format!("{name}=\"{value}\"")
            } else {
                format!("{name}={value}")
            }
        }));
        words.push(self.program.to_owned());
        words.extend(self.args.iter().cloned());
        words.join(" ")
    }
}

/// Shows a step's name, runs it, and shows its seconds if it succeeded.
pub(crate) fn timed(
    name: &str,
    shown: &str,
    action: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    println!("\n==> {name}: {shown}");
    // What follows comes from another process: ours must be out first.
    let _ = io::stdout().flush();
    let start = Instant::now();
    action()?;
    println!("<== {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Says that something was left out, and why.
pub(crate) fn skipped(name: &str, why: &str) {
    println!("\n==> {name}: SKIPPED, {why}");
}

/// What a program prints, or nothing if it cannot run or fails.
pub(crate) fn ask(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
