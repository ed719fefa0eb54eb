//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Outcome;
use crate::suite::{SUITES, Task};

pub const USAGE: &str = "\
Usage: cargo xtask bench [options]

  --quick            200,000 records, one run of each row; under three minutes
  --items N          records (default 5,000,000); every other number follows from it
  --engines a,b      of emdb, emdb-range, redb, lmdb, fjall, sled, rocksdb, sqlite
                     (default: all but the last two)
  --features x,y     builds rocksdb or sqlite in; for their engines
  --suites a,b       of core, ycsb, opening, feel, growth, keys, cold, build
                     (default: all; --quick leaves out build)
  --dir PATH         where the databases are made (default: target/bench)
  --repeat N         runs of everything; medians and spread (default 3)
  --threads 1,2,4    threads of the reads; YCSB takes those up to 2
  --limit SECONDS    stops an engine's suite at a row that takes longer (default 2,700)
  --append DIR       gathers the results of several runs in one folder and table
  --save-baseline    keeps the results to compare later ones with
  --baseline         shows what got slower since
";

#[derive(Clone, Debug)]
pub struct Options {
    pub items: u64,
    pub quick: bool,
    pub engines: Vec<String>,
    pub suites: Vec<Task>,
    /// Clean builds and dependencies, which the runner measures itself.
    pub build: bool,
    pub dir: Option<PathBuf>,
    pub repeat: u32,
    pub threads: Vec<usize>,
    /// An engine that says nothing for so long is stopped.
    pub limit: Duration,
    /// The folder of earlier results to add to.
    pub append: Option<PathBuf>,
    pub save_baseline: bool,
    pub baseline: bool,
    pub help: bool,
    /// As typed, for the report.
    pub command: String,
}

/// In the order of the columns.
pub const ENGINES: [&str; 8] = [
    "emdb",
    "emdb-range",
    "redb",
    "lmdb",
    "fjall",
    "sled",
    "rocksdb",
    "sqlite",
];
/// How many of them run unless others are asked for.
const USUAL: usize = 6;

impl Options {
    pub fn parse(args: &[String]) -> Outcome<Self> {
        let mut options = Self {
            items: 0,
            quick: false,
            engines: ENGINES
                .iter()
                .take(USUAL)
                .map(ToString::to_string)
                .collect(),
            suites: SUITES.iter().map(|(task, _)| *task).collect(),
            build: true,
            dir: None,
            repeat: 0,
            threads: vec![1, 2, 4],
            limit: Duration::from_secs(45 * 60),
            append: None,
            save_baseline: false,
            baseline: false,
            help: false,
            command: format!("cargo xtask bench {}", args.join(" "))
                .trim()
                .to_owned(),
        };
        // The usual ones that are built in only on demand run if they are there.
        if cfg!(feature = "rocksdb") {
            options.engines.push("rocksdb".to_owned());
        }
        if cfg!(feature = "sqlite") {
            options.engines.push("sqlite".to_owned());
        }
        let mut suites_given = false;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            // Both `--items 5` and `--items=5`.
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || {
                let next = inline.clone().or_else(|| args.next().cloned());
                next.ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "--quick" => options.quick = true,
                "--items" => options.items = value()?.replace('_', "").parse()?,
                "--engines" => options.engines = engines(&value()?)?,
                "--suites" => {
                    (options.suites, options.build) = suites(&value()?)?;
                    suites_given = true;
                }
                "--dir" => options.dir = Some(value()?.into()),
                "--repeat" => options.repeat = value()?.parse()?,
                "--threads" => {
                    options.threads = value()?
                        .split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>()?;
                }
                "--limit" => {
                    options.limit = Duration::from_secs(value()?.replace('_', "").parse()?)
                }
                "--append" => options.append = Some(value()?.into()),
                "--save-baseline" => options.save_baseline = true,
                "--baseline" => options.baseline = true,
                "--help" | "-h" => options.help = true,
                _ => return Err(format!("cannot make sense of `{arg}`\n\n{USAGE}").into()),
            }
        }
        if options.items == 0 {
            options.items = if options.quick { 200_000 } else { 5_000_000 };
        }
        if options.repeat == 0 {
            options.repeat = if options.quick { 1 } else { 3 };
        }
        if options.quick && !suites_given {
            options.build = false;
        }
        if !(1_000..=400_000_000).contains(&options.items) {
            return Err("--items takes 1,000 to 400,000,000".into());
        }
        if options.threads.is_empty()
            || options
                .threads
                .iter()
                .any(|count| !(1..=1024).contains(count))
        {
            return Err("--threads takes numbers from 1 to 1,024".into());
        }
        if options.limit.is_zero() {
            return Err("--limit takes 1 or more".into());
        }
        Ok(options)
    }
}

fn engines(list: &str) -> Outcome<Vec<String>> {
    let asked: Vec<&str> = list.split(',').map(str::trim).collect();
    if let Some(unknown) = asked.iter().find(|name| !ENGINES.contains(name)) {
        return Err(format!("no engine `{unknown}`; there are {}", ENGINES.join(", ")).into());
    }
    for (name, built) in [
        ("rocksdb", cfg!(feature = "rocksdb")),
        ("sqlite", cfg!(feature = "sqlite")),
    ] {
        if asked.contains(&name) && !built {
            return Err(format!("{name} is not in this build; add `--features {name}`").into());
        }
    }
    // In the order of the columns, whatever was typed.
    let kept = ENGINES.iter().filter(|name| asked.contains(name));
    Ok(kept.map(ToString::to_string).collect())
}

fn suites(list: &str) -> Outcome<(Vec<Task>, bool)> {
    let asked: Vec<&str> = list.split(',').map(str::trim).collect();
    let known =
        |name: &&&str| **name == "build" || SUITES.iter().any(|(task, _)| task.name() == **name);
    if let Some(unknown) = asked.iter().find(|name| !known(name)) {
        return Err(format!("no suite `{unknown}`\n\n{USAGE}").into());
    }
    let suites = SUITES.iter().map(|(task, _)| *task);
    let kept = suites.filter(|task| asked.contains(&task.name())).collect();
    Ok((kept, asked.contains(&"build")))
}
