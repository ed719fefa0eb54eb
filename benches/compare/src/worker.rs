//! A worker: one suite in one engine, in a process of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::engine::{self, Engine, Failure, NotAvailable, Outcome};
use crate::message::{Message, Result as RowResult, Row, Unit};
use crate::suite::{self, Task};
use crate::{syncs, system};

/// What the runner tells a worker.
#[derive(Clone, Debug)]
pub struct Order {
    pub engine: String,
    pub task: Task,
    pub folder: PathBuf,
    pub items: u64,
    pub threads: Vec<usize>,
}

impl Order {
    /// As arguments of the worker's process.
    pub fn to_args(&self) -> Vec<String> {
        let threads: Vec<String> = self.threads.iter().map(ToString::to_string).collect();
        vec![
            "--worker".to_owned(),
            self.engine.clone(),
            self.task.name().to_owned(),
            self.folder.display().to_string(),
            self.items.to_string(),
            threads.join(","),
        ]
    }

    /// From the arguments behind `--worker`.
    pub fn from_args(args: &[String]) -> Outcome<Self> {
        let [engine, task, folder, items, threads] = args else {
            return Err("a worker takes five arguments".into());
        };
        Ok(Self {
            engine: engine.clone(),
            task: Task::from_name(task).ok_or("no such task")?,
            folder: folder.into(),
            items: items.parse()?,
            threads: threads
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Runs a worker to its end; failures are told, not returned.
pub fn run(order: &Order) {
    system::belong_to_parent();
    let ended = match order.engine.as_str() {
        "emdb" => guarded(|| suite::run::<engine::Hash>(order)),
        "emdb-range" => guarded(|| suite::run::<engine::Ranges>(order)),
        "redb" => guarded(|| suite::run::<engine::Redb>(order)),
        "lmdb" => guarded(|| suite::run::<engine::Lmdb>(order)),
        "fjall" => guarded(|| suite::run::<engine::Fjall>(order)),
        "sled" => guarded(|| suite::run::<engine::Sled>(order)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => guarded(|| suite::run::<engine::Rocks>(order)),
        #[cfg(feature = "sqlite")]
        "sqlite" => guarded(|| suite::run::<engine::Sqlite>(order)),
        other => Err(format!("no engine `{other}` in this build").into()),
    };
    Message::End(ended.err().map(|failure| told(&failure))).print();
}

fn told(failure: &Failure) -> RowResult {
    match failure.downcast_ref::<NotAvailable>() {
        Some(NotAvailable(why)) => RowResult::NotAvailable((*why).to_owned()),
        None => RowResult::Failed(failure.to_string()),
    }
}

/// A panic of an engine is a failure of the row.
fn guarded<T>(action: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(format!("panicked: {text}").into())
    })
}

pub fn row(id: impl Into<String>, label: impl Into<String>, unit: Unit) -> Row {
    Row {
        id: id.into(),
        label: label.into(),
        unit,
    }
}

/// Measures one row and tells of it; `None` if it has no figure.
pub fn measure(row: Row, action: impl FnOnce() -> Outcome<f64>) -> Option<f64> {
    let figures = measure_many(vec![row], || Ok(vec![action()?]));
    figures.and_then(|figures| figures.first().copied())
}

/// The same for writes that must end in at least so many syncs; fewer are noted at the figure.
pub fn measure_synced(
    row: Row,
    syncs_min: u64,
    action: impl FnOnce() -> Outcome<f64>,
) -> Option<f64> {
    let figures = told_with(vec![row], syncs_min, || Ok(vec![action()?]));
    figures.and_then(|figures| figures.first().copied())
}

/// Measures several rows at once, in their order.
pub fn measure_many(
    rows: Vec<Row>,
    action: impl FnOnce() -> Outcome<Vec<f64>>,
) -> Option<Vec<f64>> {
    told_with(rows, 0, action)
}

fn told_with(
    rows: Vec<Row>,
    syncs_min: u64,
    action: impl FnOnce() -> Outcome<Vec<f64>>,
) -> Option<Vec<f64>> {
    Message::Begin(rows.clone()).print();
    let before = syncs::count();
    let result = guarded(action);
    let syncs = syncs::count() - before;
    let mut note = take_note();
    if syncs < syncs_min {
        note = Some(format!("{syncs} syncs instead of {syncs_min}"));
    }
    for (at, row) in rows.into_iter().enumerate() {
        let told = match &result {
            Ok(figures) => figures.get(at).map_or_else(
                || RowResult::Failed("no figure".to_owned()),
                |value| RowResult::Figure {
                    value: *value,
                    syncs,
                    note: note.clone(),
                },
            ),
            Err(failure) => told(failure),
        };
        Message::Row(row, told).print();
    }
    result.ok()
}

static NOTE: Mutex<Option<String>> = Mutex::new(None);

/// Notes something at the figure that is being measured: what a reader must know to judge it.
pub fn note(text: impl Into<String>) {
    *NOTE.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.into());
}

fn take_note() -> Option<String> {
    NOTE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Operations a second.
pub fn rate(operations: u64, action: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let started = Instant::now();
    action()?;
    Ok(operations as f64 / started.elapsed().as_secs_f64())
}

/// Fails a row whose reads did not give what was written.
pub fn check(what: &str, found: u64, expected: u64) -> Outcome<()> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: found {found}, expected {expected}").into())
    }
}

/// A fresh database in a folder of its own.
pub fn fresh<E: Engine>(folder: &Path, name: &str) -> Outcome<(E, PathBuf)> {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder)?;
    Ok((E::open(&folder)?, folder))
}

/// A few records through every usual call, so that no row pays for what is only done once
/// in a process.
pub fn warm_up<E: Engine>(folder: &Path) -> Outcome<()> {
    let records = crate::data::Records::usual();
    let (db, folder) = fresh::<E>(folder, "warm-up")?;
    db.prepare(engine::Sync::Durable)?;
    db.put_all(records.records(0..2_000), engine::Sync::Durable)?;
    for number in 0..2_000 {
        db.get(&records.key(number), crate::data::sum_of)?;
    }
    db.close()?;
    Ok(std::fs::remove_dir_all(folder)?)
}
