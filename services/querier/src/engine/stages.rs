//! Where a query's time goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cambium_runtime::clock::Clock;

use crate::merged::Milliseconds;

/// Time spent per stage, added up by everything that works for one query. Clones share the sums.
#[derive(Clone, Debug)]
pub(crate) struct Stages {
    clock: Arc<dyn Clock>,
    nanos: Arc<[AtomicU64; 3]>,
}

/// A stage of the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Catalogue, heads and the choice of rows.
    Plan,
    /// Reading sources.
    Scan,
    /// Summing.
    Merge,
}

impl Stages {
    /// No time spent.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, nanos: Arc::default() }
    }

    /// Runs `work` and adds what it takes.
    pub async fn time<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let start = self.clock.monotonic();
        let done = work.await;
        self.add(stage, self.clock.monotonic().saturating_sub(start));
        done
    }

    fn add(&self, stage: Stage, spent: Duration) {
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.nanos[stage as usize].fetch_add(nanos, Ordering::Relaxed);
    }

    /// What has been spent so far; nothing yet on names and rendering, which come later.
    pub fn milliseconds(&self) -> Milliseconds {
        let of = |stage: Stage| self.nanos[stage as usize].load(Ordering::Relaxed) as f64 / 1e6;
        Milliseconds {
            plan: of(Stage::Plan),
            scan: of(Stage::Scan),
            merge: of(Stage::Merge),
            ..Milliseconds::default()
        }
    }
}
