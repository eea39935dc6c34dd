//! The bar on a terminal; silent elsewhere.

use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressStyle};

use crate::recorder::{Line, Operation, Recorder};
use crate::scenario::Scenario;

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar of so many pushes, on standard error where that is a terminal.
    pub fn start(scenario: &Scenario, pushes: u64) -> Self {
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} pushes  {msg}");
        let bar = ProgressBar::new(pushes).with_style(style.expect("the template is right"));
        bar.set_message(format!("for {:?}", scenario.duration.0));
        Self(bar)
    }

    /// Shows a line.
    pub fn show(&self, line: &Line, recorder: &Recorder) {
        let acked = recorder.acked.load(Ordering::Relaxed);
        let push = line.operations.get(&Operation::Push).copied().unwrap_or_default();
        let rate = push.ok as f64 / line.seconds;
        let p99 = recorder.push_p99();
        let failed = recorder.refused.load(Ordering::Relaxed) + recorder.unknown.load(Ordering::Relaxed);
        self.0.set_position(acked + failed);
        self.0.set_message(format!("{rate:.0}/s  p99 {p99:.1?}  late {}  failed {failed}", line.late));
    }

    /// The load is over.
    pub fn verifying(&self) {
        self.0.set_message("comparing answers with what was sent");
    }

    /// Takes the bar away: the table follows.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
