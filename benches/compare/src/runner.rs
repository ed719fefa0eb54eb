//! Runs every engine and suite in a process of its own, one after the other.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Outcome;
use crate::message::{Message, Result as RowResult};
use crate::options::Options;
use crate::results::Results;
use crate::worker::Order;

/// An engine that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(45 * 60);

/// Runs everything; fills `results`.
pub fn run(options: &Options, data: &Path, results: &mut Results) -> Outcome<()> {
    let runs = options.repeat as usize * options.engines.len() * options.suites.len();
    let bar = ProgressBar::new(runs as u64).with_style(ProgressStyle::with_template(
        "[{elapsed_precise}] {bar:32} {pos}/{len} {msg}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar.set_message("warming up");
    warm_memory(data, options.items)?;
    for repeat in 1..=options.repeat {
        for engine in &options.engines {
            let started = Instant::now();
            for suite in &options.suites {
                let shown = format!(
                    "{engine}, {}, run {repeat} of {}",
                    suite.name(),
                    options.repeat
                );
                bar.set_message(shown.clone());
                let order = Order {
                    engine: engine.clone(),
                    task: *suite,
                    folder: fresh_folder(data)?,
                    items: options.items,
                    threads: options.threads.clone(),
                };
                one(&order, &bar, &shown, repeat, results);
                std::fs::remove_dir_all(&order.folder)?;
                bar.inc(1);
            }
            bar.suspend(|| {
                let taken = started.elapsed().as_secs_f64();
                eprintln!("{engine}, run {repeat}: {taken:.1} s");
            });
        }
    }
    bar.finish_and_clear();
    complete(options, results);
    Ok(())
}

/// Rows that came up only in later engines are missing in those that were cut short before.
fn complete(options: &Options, results: &mut Results) {
    for (engine, suite, missing) in std::mem::take(&mut results.cut_short) {
        results.fill(&engine, &suite, 0, &missing);
    }
    let none = RowResult::NotAvailable("no such row".to_owned());
    for engine in &options.engines {
        for suite in &options.suites {
            results.fill(engine, suite.name(), 0, &none);
        }
    }
}

fn fresh_folder(data: &Path) -> Outcome<PathBuf> {
    let folder = data.join("databases");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A virtual machine's memory is slow when it is touched for the first time: as much page cache
/// as a database will take is touched before anything is timed.
fn warm_memory(data: &Path, items: u64) -> Outcome<()> {
    let path = data.join("warm-up");
    let part = vec![0x5a_u8; 1 << 20];
    let mut file = std::fs::File::create(&path)?;
    for _ in 0..(items * 1024 / part.len() as u64).clamp(16, 8 << 10) {
        std::io::Write::write_all(&mut file, &part)?;
    }
    drop(file);
    Ok(std::fs::remove_file(path)?)
}

/// One worker, whatever becomes of it.
fn one(order: &Order, bar: &ProgressBar, shown: &str, repeat: u32, results: &mut Results) {
    let missing = match watch(order, bar, shown, results) {
        Ok(None) => return,
        Ok(Some(missing)) => missing,
        Err(failure) => RowResult::Failed(failure.to_string()),
    };
    let suite = order.task.name();
    results.fill(&order.engine, suite, repeat, &missing);
    results
        .cut_short
        .push((order.engine.clone(), suite.to_owned(), missing));
}

/// Passes on what the worker tells; what the rest of its rows came to, if it did not end well.
fn watch(
    order: &Order,
    bar: &ProgressBar,
    shown: &str,
    results: &mut Results,
) -> Outcome<Option<RowResult>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(order.to_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (tell, told) = mpsc::channel();
    let out = child.stdout.take().ok_or("no output")?;
    let reading = thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(message) = Message::parse(&line)
                && tell.send(message).is_err()
            {
                break;
            }
        }
    });
    let mut errors = child.stderr.take().ok_or("no errors")?;
    let complaining = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut end = None;
    loop {
        match told.recv_timeout(SILENCE_MAX) {
            Ok(Message::Begin(row)) => bar.set_message(format!("{shown}: {row}")),
            Ok(Message::Row(row, result)) => results.add(&order.engine, row, result),
            Ok(Message::End(result)) => end = Some(result),
            Ok(Message::Helper(_)) => {}
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                return Ok(Some(RowResult::Failed("it hung".to_owned())));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = finish(&mut child)?;
    let _ = reading.join();
    let complaints = complaining.join().unwrap_or_default();
    Ok(match end {
        Some(result) if status.success() => result,
        // It told of everything, then died: closing is a part of it.
        _ => Some(RowResult::Failed(died(status, &complaints))),
    })
}

/// Waits for a process whose output is closed.
fn finish(child: &mut Child) -> Outcome<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < SILENCE_MAX {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    Ok(child.wait()?)
}

fn died(status: ExitStatus, complaints: &str) -> String {
    let last = complaints
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty());
    match last {
        Some(last) => format!("the process ended with {status}: {last}"),
        None => format!("the process ended with {status}"),
    }
}
