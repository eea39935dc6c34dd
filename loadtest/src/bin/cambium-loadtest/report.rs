//! What a run came to, in one value: printed as a table, written as JSON and as a page with plots.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::pace::Counters;
use crate::protocol::Protocol;
use crate::recorder::{Recorder, Summary};
use crate::sampler::Lines;
use crate::scenario::Scenario;
use crate::verify::Outcome;

pub mod page;
pub mod table;

/// Everything about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    pub settings: Settings,
    /// From the first push due to the last answer, the verification at the end aside.
    pub seconds: f64,
    pub stream: Stream,
    pub operations: Vec<Summary>,
    /// What failed and was sent again, in words with digits left out, and how often.
    pub messages: BTreeMap<String, u64>,
    /// None where nothing was to be verified.
    pub verification: Option<Outcome>,
    pub resources: Lines,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    pub target: String,
    pub protocol: Protocol,
    /// 0 for pushes without a tenant.
    pub tenants: u64,
    /// Pushes in a second that were to be sent.
    pub rate: f64,
    /// Series of all tenants at one time: pods × kinds.
    pub series_at_once: u64,
    /// Different stacks of all services, versions aside.
    pub stacks: usize,
    /// Files of the folder of profiles that were not taken, and why.
    pub profiles_skipped: Vec<String>,
    /// Offset 0, nanoseconds since 1970.
    pub started_ns: i64,
    pub scenario: Scenario,
}

/// What became of the pushes.
#[derive(Clone, Debug, Serialize)]
pub struct Stream {
    /// Pushes that were to begin.
    pub scheduled: u64,
    /// Of those, the ones that began.
    pub begun: u64,
    /// The rest: it was too late for them, or somebody interrupted.
    pub not_begun: u64,
    pub interrupted: bool,
    /// The server said that it has them.
    pub acked: u64,
    /// The server certainly has not taken them.
    pub refused: u64,
    /// Nobody knows whether it has.
    pub unknown: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Of those acknowledged, the ones that the server said it had before: retries of what it had.
    pub duplicates: u64,
    /// Pushes that began more than 10 ms after they were due.
    pub late: u64,
    /// Of those, the ones that waited because too many were in flight; the others waited for this program.
    pub waited_for_room: u64,
    /// The longest of these waits.
    pub late_max_ms: f64,
    /// Samples of acknowledged pushes.
    pub samples: u64,
    /// Bytes of their bodies, compressed.
    pub body_bytes: u64,
}

impl Stream {
    /// What the counts say.
    pub fn new(scheduled: u64, interrupted: bool, counters: &Counters, recorder: &Recorder) -> Self {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let begun = of(&counters.begun);
        Self {
            scheduled,
            begun,
            not_begun: scheduled.saturating_sub(begun),
            interrupted,
            acked: of(&recorder.acked),
            refused: of(&recorder.refused),
            unknown: of(&recorder.unknown),
            retries: of(&recorder.retries),
            duplicates: of(&recorder.duplicates),
            late: of(&counters.late),
            waited_for_room: of(&counters.waited_for_room),
            late_max_ms: of(&counters.late_max_us) as f64 / 1e3,
            samples: of(&recorder.samples),
            body_bytes: of(&recorder.body_bytes),
        }
    }
}

impl Report {
    /// Whether something was acknowledged, and every answer that was looked at was right.
    pub fn good(&self) -> bool {
        self.stream.acked > 0 && self.verification.as_ref().is_none_or(Outcome::good)
    }

    /// The verdict in a sentence.
    pub fn verdict(&self) -> String {
        if self.stream.acked == 0 {
            return "NOTHING was acknowledged".to_owned();
        }
        let Some(Outcome { compared, equal, within_bounds, mismatched, unanswered, .. }) = &self.verification
        else {
            return "sums were not verified: there are no reads in this server's API".to_owned();
        };
        if !self.good() {
            return format!("WRONG: {mismatched} of {compared} sums, and {unanswered} questions unanswered");
        }
        match within_bounds {
            0 => format!("all {equal} sums are equal to what was acknowledged"),
            _ => format!(
                "{equal} sums are equal to what was acknowledged, {within_bounds} within the bounds that pushes of \
                 unknown fate leave"
            ),
        }
    }

    /// Every figure of the run as name and value.
    fn figures(&self) -> Vec<(&'static str, String)> {
        let Self { stream, resources, .. } = self;
        let thousands = (stream.acked as f64 / 1e3).max(1e-3);
        let rate = |count: u64| count as f64 / self.seconds.max(1e-3);
        let mut figures = vec![
            ("pushes acknowledged", format!("{} of {}", stream.acked, stream.scheduled)),
            ("pushes per second", format!("{:.1} of {:.1}", rate(stream.acked), self.settings.rate)),
            ("samples per second", format!("{:.0}", rate(stream.samples))),
            ("bytes per push, compressed", format!("{:.0}", stream.body_bytes as f64 / thousands / 1e3)),
            ("refused", stream.refused.to_string()),
            ("of unknown fate", stream.unknown.to_string()),
            ("never begun", stream.not_begun.to_string()),
            ("attempts again", format!("{}, recognised by the server {}", stream.retries, stream.duplicates)),
            (
                "begun late",
                format!(
                    "{}, of which {} for want of room in flight; at most {:.0} ms",
                    stream.late, stream.waited_for_room, stream.late_max_ms
                ),
            ),
        ];
        if let Some(seconds) = resources.server_cpu_seconds {
            let each = seconds / thousands;
            figures.push((
                "server: CPU",
                format!("{seconds:.1} s, {each:.2} s per 1,000 pushes, reads included"),
            ));
        }
        if let Some(bytes) = resources.server_rss_bytes_max {
            figures.push(("server: most memory", format!("{:.0} MB resident", bytes as f64 / 1e6)));
        }
        let own = resources.own_cpu_seconds;
        figures.push(("this program: CPU", format!("{own:.1} s, {:.2} s per 1,000 pushes", own / thousands)));
        figures
    }
}
