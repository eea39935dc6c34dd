//! The report as one page that needs nothing else: tables, plots as SVG, no scripts.

use std::fmt::Write;

use cambium_loadtest::chart::{Series, escaped, svg};

use crate::recorder::{Line, LineOfOperation, Operation};
use crate::report::Report;
use crate::report::table::shown;

/// Colours for light and dark, of text, lines and plots.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: light-dark(#1d2620, #e4ebe5); --dim: light-dark(#66736a, #93a197);
  --rule: light-dark(#dde3de, #333d36); --c0: light-dark(#1c7c4a, #58c98c); --c1: light-dark(#b4531f, #ef9a67);
  --c2: light-dark(#2f5fb3, #84aef2); --c3: light-dark(#8a4f9e, #cf9be0); --c4: light-dark(#8a7a12, #d9c75a);
  --c5: light-dark(#b02a4c, #f2859f); --c6: var(--dim); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #161c18);
  max-width: 1520px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.good { color: var(--c0); } .bad { color: var(--c5); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 1rem 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: right; padding: .25rem .75rem; border-bottom: 1px solid var(--rule); }
td:first-child, th:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
.figures td { text-align: left; } pre { white-space: pre-wrap; overflow-wrap: anywhere; color: var(--dim); }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--dim); }
svg .title { fill: var(--ink); font-weight: 600; } svg .y, svg .legend { text-anchor: end; }
svg .x { text-anchor: middle; } .grid { stroke: var(--rule); }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.line.c6 { stroke: var(--c6); } .dot.c0 { fill: var(--c0); } .dot.c1 { fill: var(--c1); }
.dot.c2 { fill: var(--c2); } .dot.c3 { fill: var(--c3); } .dot.c4 { fill: var(--c4); }
.dot.c5 { fill: var(--c5); } .dot.c6 { fill: var(--c6); }
";
const TEXT: &str = "a String takes all text";

/// The page.
pub fn html(report: &Report) -> String {
    let settings = &report.settings;
    let about = match settings.scenario.about.trim() {
        "" => "Load test",
        about => about,
    };
    let class = if report.good() { "good" } else { "bad" };
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <h1>{title}</h1><p>{target} over {protocol:?}, {seconds:.0} s, {series} series at a time, {stacks} stacks</p>\
         <p class=\"{class}\">{verdict}</p>",
        title = escaped(about),
        target = escaped(&settings.target),
        protocol = settings.protocol,
        seconds = report.seconds,
        series = settings.series_at_once,
        stacks = settings.stacks,
        verdict = escaped(&report.verdict()),
    );
    out.push_str("<h2>Latency, ms from when an operation was due</h2>");
    latencies(&mut out, report);
    out.push_str("<h2>Over time</h2><div class=\"plots\">");
    plots(&mut out, &report.resources.lines);
    out.push_str("</div><h2>Figures</h2><div class=\"scroll\"><table class=\"figures\">");
    for (name, value) in report.figures() {
        write!(out, "<tr><td>{name}</td><td>{}</td></tr>", escaped(&value)).expect(TEXT);
    }
    out.push_str("</table></div>");
    details(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn latencies(out: &mut String, report: &Report) {
    out.push_str("<div class=\"scroll\"><table><tr><th></th>");
    let columns = [
        "ok",
        "failed",
        "late",
        "mean",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "p50 from sent",
        "p99 from sent",
    ];
    columns.iter().for_each(|column| write!(out, "<th>{column}</th>").expect(TEXT));
    out.push_str("</tr>");
    for summary in &report.operations {
        let latency = &summary.latency;
        let times = [
            latency.mean_ms,
            latency.p50_ms,
            latency.p90_ms,
            latency.p99_ms,
            latency.p999_ms,
            latency.max_ms,
            summary.service.p50_ms,
            summary.service.p99_ms,
        ];
        let counts = [summary.ok, summary.failed, summary.late].map(|count| count.to_string());
        write!(out, "<tr><td>{}</td>", summary.operation.name()).expect(TEXT);
        for cell in counts.into_iter().chain(times.map(shown)) {
            write!(out, "<td>{cell}</td>").expect(TEXT);
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}

fn plots(out: &mut String, lines: &[Line]) {
    let of = |name: &str, value: &dyn Fn(&Line) -> Option<f64>| Series {
        name: name.to_owned(),
        points: lines.iter().filter_map(|line| Some((line.second, value(line)?))).collect(),
    };
    let operation = |kind: Operation, value: fn(&LineOfOperation) -> f64| {
        move |line: &Line| line.operations.get(&kind).map(value)
    };
    let reads = [
        Operation::Flamegraph,
        Operation::QueryRange,
        Operation::MergeAll,
        Operation::Labels,
        Operation::LabelValues,
    ];
    let seen = |kind: &Operation| lines.iter().any(|line| line.operations.contains_key(kind));
    let push = Operation::Push;
    let each = |value: fn(&LineOfOperation) -> u64| {
        move |line: &Line| {
            let line_of = line.operations.get(&push).copied().unwrap_or_default();
            Some(value(&line_of) as f64 / line.seconds)
        }
    };
    let latency =
        [of("p50", &operation(push, |line| line.p50_ms)), of("p99", &operation(push, |line| line.p99_ms))];
    let trouble = [
        of("failed", &each(|line| line.failed)),
        of("sent again", &|line| Some(line.retries as f64 / line.seconds)),
        of("late", &|line| Some(line.late as f64 / line.seconds)),
    ];
    let reads: Vec<Series> = reads
        .into_iter()
        .filter(seen)
        .map(|kind| of(kind.name(), &operation(kind, |line| line.p99_ms)))
        .collect();
    let cores = [of("server", &|line| line.server_cores), of("this program", &|line| Some(line.own_cores))];
    out.push_str(&svg("Pushes acknowledged", "per second", &[of("", &each(|line| line.ok))]));
    out.push_str(&svg("Latency of pushes", "ms", &latency));
    out.push_str(&svg("Pushes in trouble", "per second", &trouble));
    out.push_str(&svg("Pushes in flight", "at a time", &[of("", &|line| Some(line.in_flight as f64))]));
    if !reads.is_empty() {
        out.push_str(&svg("Reads, p99", "ms", &reads));
    }
    out.push_str(&svg("CPU", "cores", &cores));
    let memory = of("", &|line| line.server_rss_bytes.map(|bytes| bytes as f64 / 1e6));
    if !memory.points.is_empty() {
        out.push_str(&svg("Memory of the server", "MB resident", &[memory]));
    }
}

fn details(out: &mut String, report: &Report) {
    if !report.messages.is_empty() {
        out.push_str("<h2>What servers said</h2><pre>");
        for (message, count) in &report.messages {
            writeln!(out, "{count} × {}", escaped(message)).expect(TEXT);
        }
        out.push_str("</pre>");
    }
    let mismatches = report.verification.as_ref().map(|outcome| &outcome.mismatches[..]).unwrap_or_default();
    if !mismatches.is_empty() {
        let text = serde_json::to_string_pretty(mismatches).expect("text and numbers are JSON");
        write!(out, "<h2>Mismatches</h2><pre>{}</pre>", escaped(&text)).expect(TEXT);
    }
    let scenario = serde_json::to_string_pretty(&report.settings).expect("text and numbers are JSON");
    write!(out, "<h2>Settings</h2><pre>{}</pre>", escaped(&scenario)).expect(TEXT);
}
