//! Where results go: a folder of the day, and the baseline.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::Outcome;
use crate::results::{Cell, Results};
use crate::{report, table};

/// The workspace's `target/bench`, wherever cargo builds to.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench")
}

/// Keeps what there is so far.
pub fn save(results: &Results, folder: &Path) -> Outcome<()> {
    let text = serde_json::to_string_pretty(results)?;
    let fresh = folder.join("results.json.new");
    fs::write(&fresh, text)?;
    Ok(fs::rename(fresh, folder.join("results.json"))?)
}

/// Writes the three files.
pub fn write(results: &Results, folder: &Path) -> Outcome<()> {
    save(results, folder)?;
    fs::write(folder.join("results.csv"), results.csv())?;
    Ok(fs::write(
        folder.join("report.html"),
        report::html(results)?,
    )?)
}

/// What earlier runs left in the folder; nothing if it is new.
pub fn load(folder: &Path) -> Outcome<Results> {
    match fs::read_to_string(folder.join("results.json")) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Results::default()),
        Err(error) => Err(error.into()),
    }
}

fn baseline_path() -> PathBuf {
    root().join("baseline.json")
}

pub fn save_baseline(results: &Results) -> Outcome<()> {
    fs::write(baseline_path(), serde_json::to_string(results)?)?;
    println!("kept as the baseline");
    Ok(())
}

pub fn load_baseline() -> Outcome<Results> {
    let text = fs::read_to_string(baseline_path())
        .map_err(|error| format!("no baseline ({error}); `--save-baseline` makes one"))?;
    Ok(serde_json::from_str(&text)?)
}

/// Shows what got slower, or larger, by more than the spread of both runs and 5 %.
pub fn compare(old: &Results, new: &Results) {
    let date = old.runs.first().map_or("", |run| run.date.as_str());
    println!("\nagainst the baseline of {date}:");
    if old.items != new.items {
        println!("  it had {} records, this run {}", old.items, new.items);
        return;
    }
    let mut worse = 0;
    for measured in &new.rows {
        let before = old.rows.iter().find(|row| row.row.id == measured.row.id);
        let Some(before) = before else { continue };
        for (engine, cell) in &measured.cells {
            let cells = (before.cells.get(engine), cell);
            let (
                Some(Cell::Figures {
                    median: then,
                    spread: spread_then,
                    ..
                }),
                Cell::Figures {
                    median: now,
                    spread: spread_now,
                    ..
                },
            ) = cells
            else {
                if let (Some(Cell::Figures { .. }), Cell::Failed { why }) = cells {
                    println!("  {engine}, {}: fails now: {why}", measured.row.label);
                    worse += 1;
                }
                continue;
            };
            let unit = measured.row.unit;
            let factor = if unit.more_is_better() {
                then / now
            } else {
                now / then
            };
            if factor > 1.0 + 0.05_f64.max(spread_then + spread_now) {
                let (then, now) = (table::figure(*then, unit), table::figure(*now, unit));
                println!(
                    "  {engine}, {}: {then} -> {now} (x {factor:.2})",
                    measured.row.label
                );
                worse += 1;
            }
        }
    }
    println!("  {worse} figures are worse");
}

/// Now, as `2026-01-31-235959` in UTC.
pub fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let (year, month, day) = civil((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Year, month and day of a day since 1970, by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }
}
