//! The pictures: bars of a row, curves over sizes and threads, percentiles of latencies.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::color;
use crate::engine::{Failure, Outcome};
use crate::results::{Cell, Measured};
use crate::table;

const FONT: &str = "sans-serif";
const BAR: i32 = 20;

fn drawn<E: std::error::Error + Send + Sync + 'static>(error: DrawingAreaErrorKind<E>) -> Failure {
    error.to_string().into()
}

/// One bar for each engine, the figure beside it.
pub fn bars(measured: &Measured, engines: &[String], width: u32) -> Outcome<String> {
    let height = 34 + BAR as u32 * engines.len() as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let title = (FONT, 13).into_font().style(FontStyle::Bold);
        let better = if measured.row.unit.more_is_better() {
            ""
        } else {
            " (less is better)"
        };
        let text = format!("{}{better}", measured.row.label);
        area.draw(&Text::new(text, (6, 6), title)).map_err(drawn)?;
        let medians = measured.cells.values().filter_map(Cell::median);
        let most = medians.fold(f64::MIN_POSITIVE, f64::max);
        let (left, room) = (84, f64::from(width) - 84.0 - 110.0);
        let plain = (FONT, 12).into_font();
        let right = plain
            .clone()
            .into_text_style(&area)
            .pos(Pos::new(HPos::Right, VPos::Top));
        for (at, engine) in engines.iter().enumerate() {
            let top = 28 + BAR * at as i32;
            area.draw(&Text::new(
                engine.clone(),
                (left - 6, top + 2),
                right.clone(),
            ))
            .map_err(drawn)?;
            let Some(cell) = measured.cells.get(engine) else {
                continue;
            };
            let median = cell.median().unwrap_or_default();
            let end = left + (median / most * room).max(1.0) as i32;
            let (r, g, b) = color(engine);
            let bar = Rectangle::new(
                [(left, top), (end, top + BAR - 5)],
                RGBColor(r, g, b).filled(),
            );
            if cell.median().is_some() {
                area.draw(&bar).map_err(drawn)?;
            }
            let figure = table::text(cell, measured.row.unit);
            area.draw(&Text::new(figure, (end + 5, top + 2), plain.clone()))
                .map_err(drawn)?;
        }
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

/// A curve for each group of rows whose labels differ in a number only: sizes, or threads.
pub fn curves(rows: &[&Measured], engines: &[String]) -> Outcome<String> {
    let mut groups: Vec<(String, Vec<(f64, &Measured)>)> = Vec::new();
    for measured in rows {
        let Some((name, at)) = point(&measured.row.id) else {
            continue;
        };
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push((at, measured)),
            None => groups.push((name, vec![(at, measured)])),
        }
    }
    let mut svgs = String::new();
    for (_, mut points) in groups {
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        if points.len() > 1 {
            svgs.push_str(&curve(&points, engines)?);
        }
    }
    Ok(svgs)
}

/// `growth/load_100000` is a point of `growth/load`; `core/reads_2_threads` of `core/reads`.
fn point(id: &str) -> Option<(String, f64)> {
    let trimmed = id.strip_suffix("_threads").unwrap_or(id);
    if trimmed == id && !id.starts_with("growth/") {
        return None;
    }
    let (name, number) = trimmed.rsplit_once('_')?;
    Some((name.to_owned(), number.parse().ok()?))
}

fn curve(points: &[(f64, &Measured)], engines: &[String]) -> Outcome<String> {
    let Some((_, first)) = points.first() else {
        return Ok(String::new());
    };
    // By the place of a point, not by its size: few points, each with its name.
    let of = |engine: &str| -> Vec<(f64, f64)> {
        let cells = points
            .iter()
            .map(|(_, measured)| measured.cells.get(engine));
        let medians = cells.enumerate();
        medians
            .filter_map(|(at, cell)| Some((at as f64, cell?.median()?)))
            .collect()
    };
    let names: Vec<String> = points.iter().map(|(size, _)| short(*size)).collect();
    let last = (points.len() - 1) as f64;
    let all = || engines.iter().flat_map(|engine| of(engine)).map(|(_, y)| y);
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    if high <= 0.0 {
        return Ok(String::new());
    }
    let unit = first.row.unit;
    let label = first
        .row
        .label
        .rsplit_once(',')
        .map_or(first.row.label.as_str(), |(head, _)| head);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (560, 340)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(label, (FONT, 14))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(72)
            .build_cartesian_2d(
                -0.1..last + 0.5,
                (low.max(high / 1e6) * 0.8..high * 1.25).log_scale(),
            )
            .map_err(drawn)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .x_labels(points.len())
            .x_label_formatter(&|x: &f64| named(&names, *x))
            .y_label_formatter(&|y| table::figure(*y, unit))
            .draw()
            .map_err(drawn)?;
        for engine in engines {
            let line = of(engine);
            if line.is_empty() {
                continue;
            }
            let (r, g, b) = color(engine);
            let style = RGBColor(r, g, b).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line, style).point_size(3))
                .map_err(drawn)?
                .label(engine)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 11))
            .draw()
            .map_err(drawn)?;
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

/// The name of a place on the axis; none between places.
fn named(names: &[String], x: f64) -> String {
    let near = (x - x.round()).abs() < 0.01;
    let name = near.then(|| names.get(x.round() as usize)).flatten();
    name.cloned().unwrap_or_default()
}

/// 20 M rather than 20000000.
fn short(size: f64) -> String {
    match size {
        size if size >= 1e6 => format!("{} M", size / 1e6),
        size if size >= 1e3 => format!("{} k", size / 1e3),
        size => format!("{size}"),
    }
}

/// p50, p99 and p99.9 beside each other, for every mix of operations.
pub fn percentiles(rows: &[&Measured], engines: &[String]) -> Outcome<String> {
    let mut svgs = String::new();
    for measured in rows {
        let Some(name) = measured.row.id.strip_suffix("_p50") else {
            continue;
        };
        let of = |suffix: &str| {
            let id = format!("{name}_{suffix}");
            rows.iter().find(|other| other.row.id == id).copied()
        };
        let all: Vec<_> = [Some(*measured), of("p99"), of("p999")]
            .into_iter()
            .flatten()
            .collect();
        svgs.push_str(&ladder(&all, engines)?);
    }
    Ok(svgs)
}

fn ladder(rows: &[&Measured], engines: &[String]) -> Outcome<String> {
    let Some(first) = rows.first() else {
        return Ok(String::new());
    };
    let figures = |engine: &str| -> Vec<f64> {
        let cells = rows.iter().map(|measured| measured.cells.get(engine));
        cells.filter_map(|cell| cell?.median()).collect()
    };
    let all = || engines.iter().flat_map(|engine| figures(engine));
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    if high <= 0.0 {
        return Ok(String::new());
    }
    let label = first.row.label.split(':').next().unwrap_or_default();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (380, 240)).into_drawing_area();
        let title = format!("YCSB {label}: latency");
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 13))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.1..2.1, (low.max(0.01) * 0.7..high * 1.3).log_scale())
            .map_err(drawn)?;
        let names = ["p50", "p99", "p99.9"].map(str::to_owned);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .x_labels(3)
            .x_label_formatter(&|x: &f64| named(&names, *x))
            .y_label_formatter(&|y| table::figure(*y, first.row.unit))
            .draw()
            .map_err(drawn)?;
        for engine in engines {
            let line: Vec<_> = figures(engine).into_iter().enumerate().collect();
            if line.is_empty() {
                continue;
            }
            let (r, g, b) = color(engine);
            let style = RGBColor(r, g, b).stroke_width(2);
            let line = line.into_iter().map(|(x, y)| (x as f64, y.max(0.01)));
            chart
                .draw_series(LineSeries::new(line, style).point_size(3))
                .map_err(drawn)?
                .label(engine)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 12, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 10))
            .draw()
            .map_err(drawn)?;
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}
