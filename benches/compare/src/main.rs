//! emdb beside the engines people would pick instead. `cargo xtask bench` runs this.
//!
//! The runner starts one process for each engine and suite (`--worker`), one after the other,
//! and collects what they tell. docs/bench.md says how, and how to read it.

mod build;
mod data;
mod engine;
mod message;
mod options;
mod output;
mod report;
mod results;
mod runner;
mod suite;
mod syncs;
mod system;
mod table;
mod worker;

use std::process::ExitCode;

use engine::Outcome;
use options::Options;
use results::Run;

/// The versions that were built in.
const LOCK: &str = include_str!("../Cargo.lock");

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [first, rest @ ..] if first == "--worker" => {
            worker::Order::from_args(rest).map(|order| worker::run(&order))
        }
        args => Options::parse(args).and_then(|options| run(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    if options.help {
        print!("{}", options::USAGE);
        return Ok(());
    }
    // A missing baseline is better known before than after.
    let baseline = options.baseline.then(output::load_baseline).transpose()?;
    let date = output::date();
    let folder = options.append.clone();
    let folder = folder.unwrap_or_else(|| output::root().join(&date));
    std::fs::create_dir_all(&folder)?;
    let mut results = output::load(&folder)?;
    if ![0, options.items].contains(&results.items) {
        return Err(format!("the results there are of {} records", results.items).into());
    }
    results.items = options.items;
    let data = options.dir.clone().unwrap_or_else(output::root);
    let data = data.join(format!("data-{}", std::process::id()));
    std::fs::create_dir_all(&data)?;
    if ["tmpfs", "ramfs"].contains(&system::file_system(&data).as_str()) {
        eprintln!("warning: the databases are in memory, syncs cost nothing; see --dir");
    }
    let engines = options.engines.iter();
    let run = Run {
        date,
        command: options.command.clone(),
        repeat: options.repeat,
        machine: system::machine(&data),
        versions: engines.map(|engine| version(engine)).collect(),
    };
    results.begin(run, &options.engines);
    let done = runner::run(options, &data, &mut results, |results| {
        output::save(results, &folder)
    });
    if options.build && done.is_ok() {
        build::run(options, &data, &mut results);
    }
    std::fs::remove_dir_all(&data)?;
    done?;
    table::print(&results);
    if let Some(baseline) = &baseline {
        output::compare(baseline, &results);
    }
    output::write(&results, &folder)?;
    println!(
        "\nresults.json, results.csv and report.html are in {}",
        folder.canonicalize()?.display()
    );
    if options.save_baseline {
        output::save_baseline(&results)?;
    }
    Ok(())
}

/// Name and version of an engine's package.
fn version(engine: &str) -> (String, String) {
    let package = build::package(engine);
    let head = format!("name = \"{package}\"\nversion = \"");
    let found = LOCK
        .split_once(&head)
        .and_then(|(_, rest)| rest.split_once('"'));
    let version = found.map_or("", |(version, _)| version);
    (engine.to_owned(), format!("{package} {version}"))
}
