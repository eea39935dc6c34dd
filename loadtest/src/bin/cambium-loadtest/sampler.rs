//! Once a second, or less often in a long run: a line of figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pace::{Counters, pause, sleep_until};
use crate::process::{cpu_time, resident_bytes};
use crate::recorder::{LINES_MAX, Line, Recorder};

/// Lines, and what processes used over all of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Lines {
    pub lines: Vec<Line>,
    /// CPU time of the server over the load, seconds, where its process is known.
    pub server_cpu_seconds: Option<f64>,
    /// Most resident memory of the server at the end of any line, bytes.
    pub server_rss_bytes_max: Option<u64>,
    /// CPU time of this program over the load, seconds.
    pub own_cpu_seconds: f64,
}

/// Makes the lines.
#[derive(Debug)]
pub struct Sampler {
    recorder: Arc<Recorder>,
    counters: Arc<Counters>,
    server: Option<String>,
}

impl Sampler {
    /// Of these counts, and of the server's process where its id is given.
    pub fn new(recorder: Arc<Recorder>, counters: Arc<Counters>, server: Option<u32>) -> Self {
        Self { recorder, counters, server: server.map(|process| process.to_string()) }
    }

    /// Makes a line every so often until it is told to stop, and one more; shows each.
    pub async fn run(
        &self,
        start: Instant,
        duration: Duration,
        stop: &CancellationToken,
        show: impl Fn(&Line),
    ) -> Lines {
        sleep_until(start).await;
        let width = Duration::from_secs(duration.as_secs().div_ceil(LINES_MAX).max(1));
        let own = || cpu_time("self").unwrap_or_default();
        let server = || self.server.as_ref().and_then(|process| cpu_time(process).ok());
        let (own_first, server_first) = (own(), server());
        let (mut own_before, mut server_before, mut before) = (own_first, server_first, start);
        let (mut late_before, mut retries_before) = (0, 0);
        let mut lines = Lines::default();
        while !stop.is_cancelled() {
            pause(width, stop).await;
            let now = Instant::now();
            let seconds = (now - before).as_secs_f64().max(1e-3);
            let (own_now, server_now) = (own(), server());
            let late = self.counters.late.load(Ordering::Relaxed);
            let retries = self.recorder.retries.load(Ordering::Relaxed);
            let cores =
                |(before, now): (Duration, Duration)| now.saturating_sub(before).as_secs_f64() / seconds;
            let line = Line {
                second: (now - start).as_secs_f64(),
                seconds,
                operations: self.recorder.take_line(),
                in_flight: self.counters.in_flight.load(Ordering::Relaxed) as u64,
                late: late - late_before,
                retries: retries - retries_before,
                server_rss_bytes: self.server.as_ref().and_then(|process| resident_bytes(process).ok()),
                server_cores: server_before.zip(server_now).map(cores),
                own_cores: cores((own_before, own_now)),
            };
            show(&line);
            lines.server_rss_bytes_max = lines.server_rss_bytes_max.max(line.server_rss_bytes);
            lines.lines.push(line);
            (own_before, server_before, before) = (own_now, server_now, now);
            (late_before, retries_before) = (late, retries);
        }
        lines.own_cpu_seconds = own_before.saturating_sub(own_first).as_secs_f64();
        let server_used = server_first.zip(server_before);
        lines.server_cpu_seconds = server_used.map(|(first, last)| last.saturating_sub(first).as_secs_f64());
        lines
    }
}
