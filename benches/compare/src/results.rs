//! All results of a run: rows by engine, medians and spread, on disk as JSON and CSV.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::message::{Result, Row};

/// One run of the command. `Deserialize` is for the baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub date: String,
    pub command: String,
    pub machine: Vec<(String, String)>,
    pub versions: Vec<(String, String)>,
    pub items: u64,
    pub repeat: u32,
    pub engines: Vec<String>,
    pub rows: Vec<Measured>,
    /// Engines and suites that ended early, with what the missing rows came to.
    #[serde(skip)]
    pub cut_short: Vec<(String, String, Result)>,
}

/// A row with what every engine made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub row: Row,
    pub cells: BTreeMap<String, Cell>,
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
            (
                Self::Figures { .. } | Self::NotAvailable { .. },
                other @ (Result::Failed(_) | Result::NotAvailable(_)),
            ) => {
                *self = Self::new(other);
            }
            (Self::NotAvailable { .. }, figure) => *self = Self::new(figure),
            (Self::Failed { .. }, _) => {}
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
    pub fn add(&mut self, engine: &str, row: Row, result: Result) {
        let at = match self.rows.iter().position(|known| known.row.id == row.id) {
            Some(at) => at,
            None => self.place(row),
        };
        let Some(measured) = self.rows.get_mut(at) else {
            return;
        };
        match measured.cells.get_mut(engine) {
            Some(cell) => cell.add(result),
            None => {
                measured.cells.insert(engine.to_owned(), Cell::new(result));
            }
        }
    }

    /// A new row stands behind the rows of its suite, where another engine had no such row.
    fn place(&mut self, row: Row) -> usize {
        let suite = suite_of(&row.id).to_owned();
        let last = self
            .rows
            .iter()
            .rposition(|known| suite_of(&known.row.id) == suite);
        let at = last.map_or(self.rows.len(), |last| last + 1);
        let cells = BTreeMap::new();
        self.rows.insert(at, Measured { row, cells });
        at
    }

    /// What an engine did not tell of a suite in this repeat went like the suite.
    pub fn fill(&mut self, engine: &str, suite: &str, repeat: u32, result: &Result) {
        for measured in &mut self.rows {
            if suite_of(&measured.row.id) != suite {
                continue;
            }
            match measured.cells.get_mut(engine) {
                None => {
                    let cell = Cell::new(result.clone());
                    measured.cells.insert(engine.to_owned(), cell);
                }
                Some(cell) => {
                    if cell.runs().is_some_and(|runs| runs < repeat as usize) {
                        cell.add(result.clone());
                    }
                }
            }
        }
    }

    pub fn csv(&self) -> String {
        let mut csv = "row,label,unit,engine,median,spread,syncs,values,why\n".to_owned();
        for Measured { row, cells } in &self.rows {
            for engine in &self.engines {
                let Some(cell) = cells.get(engine) else {
                    continue;
                };
                let (id, label, unit) = (&row.id, &row.label, row.unit.name());
                let _ = write!(csv, "{id},{},{unit},{engine},", quoted(label));
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
        let mut results = Results {
            date: String::new(),
            command: String::new(),
            machine: vec![],
            versions: vec![],
            items: 1,
            repeat: 1,
            engines: vec!["a".into(), "b".into()],
            rows: vec![],
            cut_short: vec![],
        };
        let row = |id: &str| Row {
            id: id.into(),
            label: id.into(),
            unit: Unit::PerSecond,
        };
        let figure = |value| Result::Figure {
            value,
            syncs: 0,
            note: None,
        };
        for id in ["core/x", "core/y", "keys/z"] {
            results.add("a", row(id), figure(1.0));
        }
        results.add("b", row("core/x"), figure(2.0));
        results.fill("b", "core", 1, &Result::Failed("signal 6".into()));
        let cell = |id: &str, engine: &str| {
            let measured = results.rows.iter().find(|measured| measured.row.id == id);
            measured.and_then(|measured| measured.cells.get(engine))
        };
        assert_eq!(cell("core/x", "b").and_then(Cell::median), Some(2.0));
        assert!(matches!(cell("core/y", "b"), Some(Cell::Failed { .. })));
        assert!(cell("keys/z", "b").is_none());
    }
}
