//! The table on the terminal, and how figures are written everywhere.

use crate::message::Unit;
use crate::results::{Cell, Measured, Results, suite_of};
use crate::suite::SUITES;

/// emdb's columns; the ratio is that of the first of them that has the row.
const OURS: [&str; 2] = ["emdb", "emdb-range"];

/// How emdb stands in a row.
pub struct Standing {
    /// Above 1: better than the best peer.
    pub ratio: f64,
    pub best_peer: String,
}

pub fn is_ours(engine: &str) -> bool {
    OURS.contains(&engine)
}

/// emdb against the best peer; none if the row is not for emdb, or no peer has a figure.
pub fn standing(measured: &Measured) -> Option<Standing> {
    let ours = OURS.iter().find_map(|engine| {
        let cell = measured.cells.get(*engine)?;
        (!matches!(cell, Cell::NotAvailable { .. })).then(|| cell.median())
    })?;
    let more = measured.row.unit.more_is_better();
    let peers = measured.cells.iter().filter(|(engine, _)| !is_ours(engine));
    let (best_peer, best) = peers
        .filter_map(|(engine, cell)| Some((engine, cell.median()?)))
        .max_by(|(_, a), (_, b)| if more { a.total_cmp(b) } else { b.total_cmp(a) })?;
    let ratio = match ours {
        // It failed, or took too long.
        None => 0.0,
        Some(ours) if ours == best => 1.0,
        Some(ours) if more => ours / best,
        Some(ours) => best / ours,
    };
    Some(Standing {
        ratio,
        best_peer: best_peer.clone(),
    })
}

/// Below this emdb counts as losing: closer is a draw.
pub const DRAW: f64 = 0.98;

pub fn print(results: &Results) {
    let label_width = 58;
    let width = 17;
    let head: String = results
        .engines
        .iter()
        .map(|engine| format!("{engine:>width$}"))
        .collect();
    let mut suite = "";
    let mut lost = Vec::new();
    for measured in &results.rows {
        let here = suite_of(&measured.row.id);
        if here != suite {
            suite = here;
            println!("\n{:label_width$}{head}{:>9}", section(suite), "ratio");
        }
        let cells: String = results
            .engines
            .iter()
            .map(|engine| match measured.cells.get(engine) {
                Some(cell) => format!("{:>width$}", text(cell, measured.row.unit)),
                None => format!("{:>width$}", "-"),
            })
            .collect();
        let runs = match results.runs.len() {
            1 => String::new(),
            _ => format!("  [run {}]", measured.runs_named()),
        };
        let end = match standing(measured) {
            Some(standing) if standing.ratio < DRAW => {
                lost.push(format!("{} ({})", measured.row.label, standing.best_peer));
                format!(
                    "{:>9} LOSES to {}",
                    ratio(standing.ratio),
                    standing.best_peer
                )
            }
            Some(standing) => format!("{:>9}", ratio(standing.ratio)),
            None => String::new(),
        };
        println!("{:label_width$}{cells}{end}{runs}", measured.row.label);
    }
    problems(results);
    println!(
        "\nratio: emdb to the best peer, above 1 is better; emdb loses {} rows",
        lost.len()
    );
    for row in lost {
        println!("  {row}");
    }
}

/// What failed and what is to be known, engine by engine.
fn problems(results: &Results) {
    for engine in &results.engines {
        let mut told: Vec<&str> = Vec::new();
        for measured in &results.rows {
            match measured.cells.get(engine) {
                Some(Cell::Failed { why }) if !told.contains(&why.as_str()) => {
                    println!("\n{engine} failed at {}: {why}", measured.row.id);
                    told.push(why);
                }
                Some(Cell::NotRun { why }) if !told.contains(&why.as_str()) => {
                    println!("\n{engine} stopped before {}: {why}", measured.row.id);
                    told.push(why);
                }
                Some(Cell::Figures {
                    note: Some(note), ..
                }) => println!("\n! {engine}, {}: {note}", measured.row.label),
                _ => {}
            }
        }
    }
}

pub fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 100.0 => format!("{ratio:.0}"),
        ratio if ratio >= 10.0 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.2}"),
    }
}

pub fn section(suite: &str) -> &str {
    let known = SUITES.iter().find(|(task, _)| task.name() == suite);
    known.map_or("Building", |(_, title)| title)
}

/// A cell in a few characters.
pub fn text(cell: &Cell, unit: Unit) -> String {
    match cell {
        Cell::Figures {
            median,
            spread,
            values,
            note,
            ..
        } => {
            let mark = if note.is_some() { "!" } else { "" };
            let figure = format!("{mark}{}", figure(*median, unit));
            if values.len() > 1 {
                format!("{figure} \u{b1}{:.0}%", spread * 100.0)
            } else {
                figure
            }
        }
        Cell::NotAvailable { .. } => "n/a".to_owned(),
        Cell::Failed { .. } => "FAILED".to_owned(),
        Cell::TooLong { seconds } => format!("> {seconds} s"),
        Cell::NotRun { .. } => "not run".to_owned(),
    }
}

/// A figure with its unit, three digits of it.
pub fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", scaled(value, 1000.0, &["", " k", " M", " G"])),
        Unit::Bytes => scaled(value, 1000.0, &[" B", " kB", " MB", " GB", " TB"]),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Millis => format!("{} ms", three(value)),
        Unit::Micros => format!("{} us", three(value)),
        Unit::Count | Unit::Pieces => format!("{value:.0}"),
    }
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut at = 0;
    while value.abs() >= step && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    format!(
        "{}{}",
        three(value),
        units.get(at).copied().unwrap_or_default()
    )
}

fn three(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(figure(1_234_567.0, Unit::PerSecond), "1.23 M/s");
        assert_eq!(figure(999.0, Unit::PerSecond), "999/s");
        assert_eq!(figure(12_345.0, Unit::Bytes), "12.3 kB");
        assert_eq!(figure(0.05, Unit::Millis), "0.0500 ms");
    }
}
