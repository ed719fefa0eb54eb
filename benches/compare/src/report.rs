//! The report: one HTML file with everything in it, pictures included.

mod chart;

use std::fmt::Write;

use crate::engine::Outcome;
use crate::options::ENGINES;
use crate::results::{Cell, Measured, Results, suite_of};
use crate::table::{self, DRAW, is_ours, standing};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0;font-size:13px}\
td,th{border-bottom:1px solid #ddd;padding:.25em .6em;text-align:right;white-space:nowrap}\
td:first-child,th:first-child{text-align:left;white-space:normal}\
.best{font-weight:bold}.na{color:#999}.failed{color:#b00}.loses{color:#b00}.wins{color:#060}\
.charts{display:flex;flex-wrap:wrap;gap:12px}.charts svg{border:1px solid #eee}\
code{background:#f4f4f4;padding:.1em .3em}";

pub fn html(results: &Results) -> Outcome<String> {
    let mut html = String::new();
    let date = results.runs.first().map_or("", |run| run.date.as_str());
    let title = format!("emdb and its peers, {date}");
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    )?;
    facts(&mut html, results)?;
    headline(&mut html, results)?;
    losses(&mut html, results)?;
    let mut suites: Vec<&str> = Vec::new();
    for measured in &results.rows {
        let suite = suite_of(&measured.row.id);
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    for suite in suites {
        section(&mut html, results, suite)?;
    }
    durability(&mut html, results)?;
    notes(&mut html, results)?;
    html.push_str("</body></html>\n");
    Ok(html)
}

fn facts(html: &mut String, results: &Results) -> Outcome<()> {
    writeln!(
        html,
        "<p>{} records; medians, and &plusmn; half the distance of the extremes.</p>",
        results.items
    )?;
    for (at, run) in results.runs.iter().enumerate() {
        writeln!(
            html,
            "<p>Run {}, {}: <code>{}</code>, each row measured {} time(s).</p><table>",
            at + 1,
            run.date,
            escaped(&run.command),
            run.repeat
        )?;
        for (name, value) in run.machine.iter().chain(&run.versions) {
            writeln!(
                html,
                "<tr><td>{}</td><td>{}</td></tr>",
                escaped(name),
                escaped(value)
            )?;
        }
        html.push_str("</table>\n");
    }
    Ok(())
}

fn headline(html: &mut String, results: &Results) -> Outcome<()> {
    let row = results
        .rows
        .iter()
        .find(|measured| measured.row.id == "core/reads");
    if let Some(row) = row {
        writeln!(
            html,
            "<h2>The headline</h2>{}",
            chart::bars(row, &results.engines, 760)?
        )?;
    }
    Ok(())
}

fn losses(html: &mut String, results: &Results) -> Outcome<()> {
    html.push_str("<h2>Rows that emdb loses</h2>\n<ul>\n");
    for measured in &results.rows {
        if let Some(standing) = standing(measured).filter(|standing| standing.ratio < DRAW) {
            writeln!(
                html,
                "<li class=\"loses\">{}: {} of {}</li>",
                escaped(&measured.row.label),
                table::ratio(standing.ratio),
                standing.best_peer
            )?;
        }
    }
    html.push_str("</ul>\n");
    Ok(())
}

fn section(html: &mut String, results: &Results, suite: &str) -> Outcome<()> {
    let rows: Vec<&Measured> = results
        .rows
        .iter()
        .filter(|measured| suite_of(&measured.row.id) == suite)
        .collect();
    writeln!(
        html,
        "<h2>{}</h2>\n<table><tr><th></th>",
        table::section(suite)
    )?;
    for engine in &results.engines {
        write!(html, "<th>{engine}</th>")?;
    }
    html.push_str("<th>ratio</th><th>run</th></tr>\n");
    for measured in &rows {
        line(html, results, measured)?;
    }
    html.push_str("</table>\n<div class=\"charts\">\n");
    html.push_str(&chart::curves(&rows, &results.engines)?);
    html.push_str(&chart::percentiles(&rows, &results.engines)?);
    for measured in rows {
        // What the curves show needs no bars of its own.
        if measured.cells.values().any(|cell| cell.median().is_some()) && suite != "growth" {
            html.push_str(&chart::bars(measured, &results.engines, 380)?);
        }
    }
    html.push_str("</div>\n");
    Ok(())
}

fn line(html: &mut String, results: &Results, measured: &Measured) -> Outcome<()> {
    write!(html, "<tr><td>{}</td>", escaped(&measured.row.label))?;
    let more = measured.row.unit.more_is_better();
    let medians = measured.cells.values().filter_map(Cell::median);
    let best = medians.fold(None, |best: Option<f64>, median| {
        Some(best.map_or(median, |best| {
            if more {
                best.max(median)
            } else {
                best.min(median)
            }
        }))
    });
    for engine in &results.engines {
        let Some(cell) = measured.cells.get(engine) else {
            html.push_str("<td></td>");
            continue;
        };
        let text = escaped(&table::text(cell, measured.row.unit));
        match cell {
            Cell::Figures {
                median,
                syncs,
                note,
                ..
            } => {
                let class = if Some(*median) == best { "best" } else { "" };
                let note = escaped(note.as_deref().unwrap_or_default());
                write!(
                    html,
                    "<td class=\"{class}\" title=\"{syncs} syncs. {note}\">{text}</td>"
                )?;
            }
            Cell::NotAvailable { why } | Cell::NotRun { why } => {
                write!(
                    html,
                    "<td class=\"na\" title=\"{}\">{text}</td>",
                    escaped(why)
                )?;
            }
            Cell::TooLong { .. } => write!(html, "<td class=\"failed\">{text}</td>")?,
            Cell::Failed { why } => {
                write!(html, "<td class=\"failed\">{text}<br>{}</td>", escaped(why))?;
            }
        }
    }
    match standing(measured) {
        Some(standing) => {
            let class = if standing.ratio < DRAW {
                "loses"
            } else {
                "wins"
            };
            let ratio = table::ratio(standing.ratio);
            write!(html, "<td class=\"{class}\">{ratio}</td>")?;
        }
        None => html.push_str("<td></td>"),
    }
    writeln!(html, "<td>{}</td></tr>", measured.runs_named())?;
    Ok(())
}

/// The rows whose writes are durable, with the syncs that were counted.
fn durability(html: &mut String, results: &Results) -> Outcome<()> {
    html.push_str(
        "<h2>What was synced</h2>\n<p>Calls of fsync, fdatasync and msync while the row was \
         measured, counted in the process. LMDB also writes its meta page through a descriptor \
         with <code>O_DSYNC</code>, which is not counted. What durable means for each engine is in \
         docs/bench.md.</p>\n<table><tr><th></th>",
    );
    for engine in &results.engines {
        write!(html, "<th>{engine}</th>")?;
    }
    html.push_str("</tr>\n");
    let rows = [
        "core/load",
        "core/singles",
        "core/batches",
        "core/sorted",
        "core/unsynced",
        "core/removals",
        "feel/commits_1",
        "feel/commits_2",
    ];
    for measured in &results.rows {
        if !rows.contains(&measured.row.id.as_str()) {
            continue;
        }
        write!(html, "<tr><td>{}</td>", escaped(&measured.row.label))?;
        for engine in &results.engines {
            match measured.cells.get(engine) {
                Some(Cell::Figures { syncs, .. }) => write!(html, "<td>{syncs}</td>")?,
                _ => html.push_str("<td class=\"na\">n/a</td>"),
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
    Ok(())
}

/// What is to be known about single figures.
fn notes(html: &mut String, results: &Results) -> Outcome<()> {
    html.push_str("<h2>Notes</h2>\n<ul>\n");
    for measured in &results.rows {
        for (engine, cell) in &measured.cells {
            if let Cell::Figures {
                note: Some(note), ..
            } = cell
            {
                let (label, note) = (escaped(&measured.row.label), escaped(note));
                writeln!(html, "<li>{engine}, {label}: {note}</li>")?;
            }
        }
    }
    html.push_str("</ul>\n");
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// emdb stands out; a peer keeps its color whoever else is there.
fn color(engine: &str) -> (u8, u8, u8) {
    const PEERS: [(u8, u8, u8); 6] = [
        (144, 164, 100),
        (149, 117, 205),
        (77, 160, 176),
        (200, 160, 70),
        (120, 144, 156),
        (161, 136, 127),
    ];
    match engine {
        "emdb" => (211, 47, 47),
        _ if is_ours(engine) => (245, 124, 0),
        _ => {
            let at = ENGINES.iter().position(|known| *known == engine);
            PEERS
                .get(at.unwrap_or_default() % PEERS.len())
                .copied()
                .unwrap_or_default()
        }
    }
}
