//! Runs every engine and suite in a process of its own, one after the other.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Outcome;
use crate::message::{Message, Result as RowResult, Row};
use crate::options::Options;
use crate::results::Results;
use crate::worker::Order;

/// Runs everything; fills `results`, and has `save` keep them whenever there are more.
pub fn run(
    options: &Options,
    data: &Path,
    results: &mut Results,
    save: impl Fn(&Results) -> Outcome<()>,
) -> Outcome<()> {
    let runs = options.repeat as usize * options.engines.len() * options.suites.len();
    let bar = ProgressBar::new(runs as u64).with_style(ProgressStyle::with_template(
        "[{elapsed_precise}] {bar:32} {pos}/{len} {msg}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar.set_message("warming up");
    warm_memory(data, options.items)?;
    for repeat in 1..=options.repeat {
        for engine in &options.engines {
            for suite in &options.suites {
                let started = Instant::now();
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
                let watch = Watch {
                    engine,
                    suite: suite.name(),
                    repeat,
                    limit: options.limit,
                    shown: &shown,
                    bar: &bar,
                };
                let mut worker = Command::new(std::env::current_exe()?);
                watch.run(worker.args(order.to_args()), results);
                std::fs::remove_dir_all(&order.folder)?;
                save(results)?;
                bar.inc(1);
                bar.suspend(|| {
                    eprintln!("{shown}: {:.1} s", started.elapsed().as_secs_f64());
                });
            }
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
struct Watch<'a> {
    engine: &'a str,
    suite: &'a str,
    repeat: u32,
    limit: Duration,
    shown: &'a str,
    bar: &'a ProgressBar,
}

impl Watch<'_> {
    fn run(&self, command: &mut Command, results: &mut Results) {
        let missing = match self.listen(command, results) {
            Ok(None) => return,
            Ok(Some(missing)) => missing,
            Err(failure) => RowResult::Failed(failure.to_string()),
        };
        results.fill(self.engine, self.suite, self.repeat, &missing);
        let (engine, suite) = (self.engine.to_owned(), self.suite.to_owned());
        results.cut_short.push((engine, suite, missing));
    }

    /// Passes on what the worker tells; what the rest of its rows came to, if it did not end well.
    fn listen(&self, command: &mut Command, results: &mut Results) -> Outcome<Option<RowResult>> {
        let mut child = command
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
        let (mut begun, mut end) = (Vec::new(), None);
        loop {
            match told.recv_timeout(self.limit) {
                Ok(Message::Begin(rows)) => {
                    let label = rows.first().map_or("", |row| row.label.as_str());
                    self.bar.set_message(format!("{}: {label}", self.shown));
                    begun = rows;
                }
                Ok(Message::Row(row, result)) => {
                    begun.retain(|waiting| waiting.id != row.id);
                    results.add(self.engine, row, result);
                }
                Ok(Message::End(result)) => end = Some(result),
                Ok(Message::Helper(_)) => {}
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    child.wait()?;
                    return Ok(Some(self.stopped(begun, results)));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = finish(&mut child, self.limit)?;
        let _ = reading.join();
        let complaints = complaining.join().unwrap_or_default();
        if let Some(result) = end
            && status.success()
        {
            return Ok(result);
        }
        // If it told of everything and then died, closing is a part of it.
        let failed = RowResult::Failed(died(status, &complaints));
        for row in begun {
            results.add(self.engine, row, failed.clone());
        }
        Ok(Some(failed))
    }

    /// The engine took longer than it may: with the rows that had begun, or between two of them.
    fn stopped(&self, begun: Vec<Row>, results: &mut Results) -> RowResult {
        let seconds = self.limit.as_secs();
        let what = begun.first().map_or_else(
            || "what is between two rows".to_owned(),
            |row| format!("`{}`", row.label),
        );
        for row in begun {
            results.add(self.engine, row, RowResult::TooLong(seconds));
        }
        let why = format!("{what} took more than {seconds} s");
        self.bar
            .suspend(|| eprintln!("{}: stopped, {why}", self.shown));
        RowResult::NotRun(why)
    }
}

/// Waits for a process whose output is closed.
fn finish(child: &mut Child, limit: Duration) -> Outcome<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < limit {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Unit;
    use crate::results::{Cell, Run};

    /// Tells of one row, begins another, and goes on with what the script says.
    fn play(engine: &str, script: &str, limit: Duration, results: &mut Results) {
        let row = |id: &str| Row {
            id: id.to_owned(),
            label: id.to_owned(),
            unit: Unit::PerSecond,
        };
        let figure = RowResult::Figure {
            value: 1.0,
            syncs: 0,
            note: None,
        };
        let lines: String = [
            Message::Begin(vec![row("core/first")]),
            Message::Row(row("core/first"), figure),
            Message::Begin(vec![row("core/second")]),
        ]
        .iter()
        .map(|message| format!("echo '{}'; ", message.line()))
        .collect();
        let watch = Watch {
            engine,
            suite: "core",
            repeat: 1,
            limit,
            shown: "",
            bar: &ProgressBar::hidden(),
        };
        let mut worker = Command::new("sh");
        watch.run(worker.args(["-c", &format!("{lines}{script}")]), results);
    }

    fn cell<'a>(results: &'a Results, id: &str, engine: &str) -> Option<&'a Cell> {
        let measured = results.rows.iter().find(|measured| measured.row.id == id);
        measured.and_then(|measured| measured.cells.get(engine))
    }

    #[test]
    fn a_worker_that_dies_or_hangs_says_so_in_its_column_and_the_others_go_on() {
        let mut results = Results::default();
        let engines = ["redb", "lmdb", "sled"].map(str::to_owned);
        results.begin(Run::default(), &engines);
        let long = Duration::from_secs(60);
        play(
            "redb",
            "echo 'no luck' >&2; kill -ABRT $$",
            long,
            &mut results,
        );
        // Silent for longer than it may be; it is stopped, and nothing waits for its minute.
        play(
            "lmdb",
            "exec sleep 60",
            Duration::from_secs(1),
            &mut results,
        );
        let told = Message::Row(
            Row {
                id: "core/third".to_owned(),
                label: "core/third".to_owned(),
                unit: Unit::PerSecond,
            },
            RowResult::NotAvailable("no order".to_owned()),
        );
        let (row, end) = (told.line(), Message::End(None).line());
        play(
            "sled",
            &format!("echo '{row}'; echo '{end}'"),
            long,
            &mut results,
        );
        let options =
            Options::parse(&["--engines=redb,lmdb,sled", "--suites=core"].map(str::to_owned));
        complete(&options.unwrap(), &mut results);

        for engine in &engines {
            assert_eq!(
                cell(&results, "core/first", engine).and_then(Cell::median),
                Some(1.0)
            );
        }
        for id in ["core/second", "core/third"] {
            match cell(&results, id, "redb") {
                Some(Cell::Failed { why }) => assert!(why.contains("no luck"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        let second = cell(&results, "core/second", "lmdb");
        assert!(
            matches!(second, Some(Cell::TooLong { seconds: 1 })),
            "{second:?}"
        );
        let third = cell(&results, "core/third", "lmdb");
        assert!(matches!(third, Some(Cell::NotRun { .. })), "{third:?}");
        let third = cell(&results, "core/third", "sled");
        assert!(
            matches!(third, Some(Cell::NotAvailable { .. })),
            "{third:?}"
        );
    }
}
