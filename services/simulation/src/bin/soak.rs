//! `make soak`: a day of running in 30 minutes (`soak 10 FILE`: in 10), and a plot of it in docs/soak.svg (or FILE).

#![expect(clippy::print_stdout, reason = "a program that prints what it saw")]

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use cambium_loadtest::chart::{Series, svg};
use cambium_simulation::soak::{Plan, Report, Sample, run};

const MINUTES: u32 = 30;
const HOURS: i64 = 24;
/// Between two profiles of a pod, in the server's time.
const INTERVAL_NS: i64 = 60_000_000_000;
const PLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/soak.svg");

/// Colours for light and dark.
const STYLE: &str = "svg { color-scheme: light dark; background: light-dark(#fff, #161c18); }
text { font: 11px system-ui, sans-serif; fill: light-dark(#66736a, #93a197); } .title { font-weight: 600; }
.y, .legend { text-anchor: end; } .x { text-anchor: middle; } .grid { stroke: light-dark(#dde3de, #333d36); }
.line { fill: none; stroke-width: 1.6; stroke: light-dark(#1c7c4a, #58c98c); }";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let minutes: u32 = arguments.next().map_or(Ok(MINUTES), |text| text.parse())?;
    let plot = arguments.next().map_or(PathBuf::from(PLOT), PathBuf::from);
    ensure!((1..=1_440).contains(&minutes), "{minutes} minutes are none, or more than a day");
    let speed = HOURS as u32 * 60 / minutes;
    // Beside this program; cargo builds both.
    let binary = std::env::current_exe()?.with_file_name("cambium-under-test");
    let binary = binary.to_str().context("a path that is no text")?;
    let report = run(binary, Plan { speed, hours: HOURS, interval_ns: INTERVAL_NS, kills: 4 })?;
    let [first, second] = report.halves().map(|bytes| bytes / 1e6);
    println!("{HOURS} hours in {minutes} minutes; every sum was right");
    println!("pushes acknowledged: {}, attempts again: {}", report.pushes, report.retries);
    println!("sums compared: {}, without an answer: {}", report.checks, report.unanswered);
    println!("memory at most: {first:.1} MB in the first half, {second:.1} MB in the second");
    println!("objects at most: {}", report.objects_max());
    std::fs::write(&plot, drawn(&report)).with_context(|| plot.display().to_string())?;
    Ok(())
}

/// Both plots, one below the other.
fn drawn(report: &Report) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 440\" width=\"720\"><style>{STYLE}</style>"
    );
    let of = |value: &dyn Fn(&Sample) -> f64| {
        let points = report.samples.iter().map(|sample| (sample.seconds, value(sample)));
        vec![Series { name: String::new(), points: points.collect() }]
    };
    let plots = [
        svg("Memory of the server, resident", "MB", &of(&|sample| sample.rss_bytes / 1e6)),
        svg("Objects in its store", "at a time", &of(&|sample| sample.objects as f64)),
    ];
    for (number, plot) in plots.iter().enumerate() {
        write!(out, "<g transform=\"translate(0 {})\">", number * 220).expect("a String takes all text");
        out.push_str(&plot.replacen("<svg ", "<svg width=\"720\" height=\"220\" ", 1));
        out.push_str("</g>");
    }
    out.push_str("</svg>\n");
    out
}
