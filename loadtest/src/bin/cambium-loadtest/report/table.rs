//! The report on a terminal: the only file that prints.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::recorder::Latency;
use crate::report::Report;

/// Mismatches that are printed; the JSON has more.
const MISMATCHES_SHOWN_MAX: usize = 10;

/// Prints the report.
pub fn print(report: &Report) {
    let settings = &report.settings;
    println!(
        "{} over {} for {:.0} s, {} series at a time\n",
        settings.target,
        format!("{:?}", settings.protocol).to_lowercase(),
        report.seconds,
        settings.series_at_once,
    );
    println!("{}\n", latencies(report));
    let mut figures = Table::new();
    figures.load_style(presets::NOTHING);
    for (name, value) in report.figures() {
        figures.add_row([name, &value]);
    }
    println!("{figures}\n");
    for (message, count) in &report.messages {
        println!("{count} × {message}");
    }
    for skipped in &settings.profiles_skipped {
        println!("not taken: {skipped}");
    }
    let outcome = report.verification.iter();
    for mismatch in outcome.flat_map(|outcome| &outcome.mismatches).take(MISMATCHES_SHOWN_MAX) {
        let tenant = if mismatch.tenant.is_empty() { "" } else { ", tenant " };
        println!(
            "MISMATCH{tenant}{}: {}\n  answered {}, later {:?}; acknowledged {} to {} in {} pushes and {} of unknown fate",
            mismatch.tenant,
            mismatch.question,
            mismatch.answered,
            mismatch.second_look,
            mismatch.low,
            mismatch.high,
            mismatch.pushes,
            mismatch.pushes_unknown,
        );
    }
    println!("{}", report.verdict());
}

/// Prints why there was no run.
pub fn error(error: &anyhow::Error) {
    eprintln!("cambium-loadtest: {error:#}");
}

fn latencies(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ms from when it was due",
        "ok",
        "failed",
        "late",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "p99 from when sent",
    ]);
    for summary in &report.operations {
        let Latency { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = summary.latency;
        let counts = [summary.ok, summary.failed, summary.late].map(|count| count.to_string());
        let times = [p50_ms, p90_ms, p99_ms, p999_ms, max_ms, summary.service.p99_ms].map(shown);
        let cells = counts.into_iter().chain(times);
        let cells = cells.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(summary.operation.name())).chain(cells));
    }
    table
}

/// Milliseconds, with as many digits as say something.
pub fn shown(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}
