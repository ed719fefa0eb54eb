//! All results of a run: rows by engine, medians and spread, on disk as JSON and CSV.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::message::{Result, Row};
use crate::options::ENGINES;
use crate::suite::SUITES;

/// The results of one run of the command, or of several that were gathered. `Deserialize` is for
/// the baseline and for `--append`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub items: u64,
    /// All that ran, in the order of the columns.
    pub engines: Vec<String>,
    pub runs: Vec<Run>,
    pub rows: Vec<Measured>,
    /// Engines and suites that ended early, with what the missing rows came to.
    #[serde(skip)]
    pub cut_short: Vec<(String, String, Result)>,
}

/// One run of the command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub date: String,
    pub command: String,
    pub repeat: u32,
    pub machine: Vec<(String, String)>,
    pub versions: Vec<(String, String)>,
}

/// A row with what every engine made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub row: Row,
    pub cells: BTreeMap<String, Cell>,
    /// For each engine the run that its cell is of, counted from 1.
    pub runs: BTreeMap<String, usize>,
}

impl Measured {
    /// The runs that the row is of, as `1` or `1, 2`.
    pub fn runs_named(&self) -> String {
        let mut runs: Vec<_> = self.runs.values().collect();
        runs.sort_unstable();
        runs.dedup();
        let runs: Vec<_> = runs.into_iter().map(ToString::to_string).collect();
        runs.join(", ")
    }

    fn set(&mut self, engine: &str, run: usize, cell: Cell) {
        self.cells.insert(engine.to_owned(), cell);
        self.runs.insert(engine.to_owned(), run);
    }
}

/// What one engine made of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Cell {
    Figures {
        median: f64,
        /// Half the distance of the extremes, relative to the median.
        spread: f64,
        values: Vec<f64>,
        syncs: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    NotAvailable {
        why: String,
    },
    Failed {
        why: String,
    },
    TooLong {
        seconds: u64,
    },
    NotRun {
        why: String,
    },
}

impl Cell {
    pub fn median(&self) -> Option<f64> {
        match self {
            Self::Figures { median, .. } => Some(*median),
            _ => None,
        }
    }

    /// How many repeats it has figures of.
    fn runs(&self) -> Option<usize> {
        match self {
            Self::Figures { values, .. } => Some(values.len()),
            _ => None,
        }
    }

    fn new(result: Result) -> Self {
        match result {
            Result::Figure { value, syncs, note } => Self::Figures {
                median: value,
                spread: 0.0,
                values: vec![value],
                syncs,
                note,
            },
            Result::NotAvailable(why) => Self::NotAvailable { why },
            Result::Failed(why) => Self::Failed { why },
            Result::TooLong(seconds) => Self::TooLong { seconds },
            Result::NotRun(why) => Self::NotRun { why },
        }
    }

    /// One more repeat. A failure stays: an engine that fails once in three times fails.
    fn add(&mut self, result: Result) {
        match (&mut *self, result) {
            (
                Self::Figures {
                    median,
                    spread,
                    values,
                    ..
                },
                Result::Figure { value, .. },
            ) => {
                values.push(value);
                (*median, *spread) = summary(values);
            }
            (Self::Figures { .. } | Self::NotAvailable { .. }, other) => *self = Self::new(other),
            (Self::Failed { .. } | Self::TooLong { .. } | Self::NotRun { .. }, _) => {}
        }
    }
}

/// Median, and half the distance of the extremes relative to it.
fn summary(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
        return (0.0, 0.0);
    };
    let half = sorted.len() / 2;
    let upper = sorted.get(half).copied().unwrap_or_default();
    let median = if sorted.len() % 2 == 1 {
        upper
    } else {
        (sorted.get(half - 1).copied().unwrap_or_default() + upper) / 2.0
    };
    let spread = if median == 0.0 {
        0.0
    } else {
        (last - first) / 2.0 / median
    };
    (median, spread)
}

impl Results {
    /// Begins a run, whose cells take the place of those of earlier ones.
    pub fn begin(&mut self, run: Run, engines: &[String]) {
        self.runs.push(run);
        let ran = |engine: &str| {
            [&self.engines, engines]
                .iter()
                .any(|list| list.iter().any(|ran| ran == engine))
        };
        self.engines = ENGINES
            .iter()
            .filter(|engine| ran(engine))
            .map(ToString::to_string)
            .collect();
    }

    pub fn add(&mut self, engine: &str, row: Row, result: Result) {
        let at = match self.rows.iter().position(|known| known.row.id == row.id) {
            Some(at) => at,
            None => self.place(row),
        };
        let run = self.runs.len();
        let Some(measured) = self.rows.get_mut(at) else {
            return;
        };
        let of_this_run = measured.runs.get(engine) == Some(&run);
        match measured.cells.get_mut(engine) {
            Some(cell) if of_this_run => cell.add(result),
            _ => measured.set(engine, run, Cell::new(result)),
        }
    }

    /// A new row stands behind the rows of its suite, and of those before it.
    fn place(&mut self, row: Row) -> usize {
        let place = |row: &Row| {
            let suite = suite_of(&row.id);
            let known = SUITES.iter().position(|(task, _)| task.name() == suite);
            known.unwrap_or(SUITES.len())
        };
        let last = self
            .rows
            .iter()
            .rposition(|known| place(&known.row) <= place(&row));
        let at = last.map_or(0, |last| last + 1);
        let measured = Measured {
            row,
            cells: BTreeMap::new(),
            runs: BTreeMap::new(),
        };
        self.rows.insert(at, measured);
        at
    }

    /// What an engine did not tell of a suite in this repeat went like the suite; in repeat 0
    /// what nothing is known of.
    pub fn fill(&mut self, engine: &str, suite: &str, repeat: u32, result: &Result) {
        let run = self.runs.len();
        for measured in &mut self.rows {
            if suite_of(&measured.row.id) != suite {
                continue;
            }
            let of_this_run = measured.runs.get(engine) == Some(&run);
            match measured.cells.get_mut(engine) {
                Some(cell) if of_this_run => {
                    if cell.runs().is_some_and(|runs| runs < repeat as usize) {
                        cell.add(result.clone());
                    }
                }
                Some(_) if repeat == 0 => {}
                _ => measured.set(engine, run, Cell::new(result.clone())),
            }
        }
    }

    pub fn csv(&self) -> String {
        let mut csv = "row,label,unit,engine,run,median,spread,syncs,values,why\n".to_owned();
        for Measured { row, cells, runs } in &self.rows {
            for engine in &self.engines {
                let Some(cell) = cells.get(engine) else {
                    continue;
                };
                let (id, label, unit) = (&row.id, &row.label, row.unit.name());
                let run = runs.get(engine).copied().unwrap_or_default();
                let _ = write!(csv, "{id},{},{unit},{engine},{run},", quoted(label));
                let _ = match cell {
                    Cell::Figures {
                        median,
                        spread,
                        values,
                        syncs,
                        ..
                    } => {
                        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                        writeln!(csv, "{median},{spread:.4},{syncs},{},", values.join(" "))
                    }
                    Cell::NotAvailable { why } => {
                        writeln!(csv, ",,,,{}", quoted(&format!("n/a: {why}")))
                    }
                    Cell::Failed { why } => {
                        writeln!(csv, ",,,,{}", quoted(&format!("failed: {why}")))
                    }
                    Cell::TooLong { seconds } => {
                        writeln!(csv, ",,,,{}", quoted(&format!("more than {seconds} s")))
                    }
                    Cell::NotRun { why } => {
                        writeln!(csv, ",,,,{}", quoted(&format!("not run: {why}")))
                    }
                };
            }
        }
        csv
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\"").replace('\n', " "))
}

pub fn suite_of(id: &str) -> &str {
    id.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Unit;

    #[test]
    fn medians_and_spread() {
        assert_eq!(summary(&[3.0, 1.0, 2.0]), (2.0, 0.5));
        assert_eq!(summary(&[4.0, 2.0]), (3.0, 1.0 / 3.0));
        assert_eq!(summary(&[]), (0.0, 0.0));
    }

    #[test]
    fn what_a_dead_worker_did_not_tell_is_failed_and_the_rest_stays() {
        let mut results = Results::default();
        for id in ["core/x", "core/y", "keys/z"] {
            results.add("a", row(id), figure(1.0));
        }
        results.add("b", row("core/x"), figure(2.0));
        results.fill("b", "core", 1, &Result::Failed("signal 6".into()));
        assert_eq!(median(&results, "core/x", "b"), Some(2.0));
        assert!(matches!(
            cell(&results, "core/y", "b"),
            Some(Cell::Failed { .. })
        ));
        assert!(cell(&results, "keys/z", "b").is_none());
    }

    #[test]
    fn a_later_run_takes_the_place_of_what_it_measured_again() {
        let mut results = Results::default();
        results.begin(Run::default(), &["redb".into(), "emdb".into()]);
        for id in ["keys/x", "keys/y"] {
            results.add("emdb", row(id), figure(1.0));
            results.add("redb", row(id), figure(1.0));
        }
        results.begin(Run::default(), &["lmdb".into(), "emdb".into()]);
        results.add("emdb", row("core/z"), figure(3.0));
        results.add("emdb", row("keys/x"), figure(4.0));
        results.add("emdb", row("keys/x"), figure(6.0));
        results.fill("emdb", "keys", 1, &Result::NotRun("too long".into()));
        assert_eq!(median(&results, "keys/x", "emdb"), Some(5.0));
        assert!(matches!(
            cell(&results, "keys/y", "emdb"),
            Some(Cell::NotRun { .. })
        ));
        assert_eq!(median(&results, "keys/x", "redb"), Some(1.0));
        // In the order of suites and columns, whichever was first.
        let runs: Vec<_> = results.rows.iter().map(Measured::runs_named).collect();
        assert_eq!(runs, ["2", "1, 2", "1, 2"]);
        assert_eq!(results.engines, ["emdb", "redb", "lmdb"]);
    }

    fn row(id: &str) -> Row {
        Row {
            id: id.into(),
            label: id.into(),
            unit: Unit::PerSecond,
        }
    }

    fn figure(value: f64) -> Result {
        Result::Figure {
            value,
            syncs: 0,
            note: None,
        }
    }

    fn cell<'a>(results: &'a Results, id: &str, engine: &str) -> Option<&'a Cell> {
        let measured = results.rows.iter().find(|measured| measured.row.id == id);
        measured.and_then(|measured| measured.cells.get(engine))
    }

    fn median(results: &Results, id: &str, engine: &str) -> Option<f64> {
        cell(results, id, engine).and_then(Cell::median)
    }
}
