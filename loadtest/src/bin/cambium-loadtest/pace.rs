//! When operations begin: an open loop, as senders that know nothing of one another are.
//!
//! ```text
//!   Schedule: offsets, fixed ahead ──► jobs, made ahead ──► wait for the offset ──► wait for room ──► run(job, due)
//! ```
//!
//! Laws: the next operation does not wait for the answer to the one before. Every latency counts from when the
//! operation was due, so a stalled server is charged for everybody it kept waiting. An operation that begins late, for
//! whatever reason, is counted; one that never begins is what the schedule has more than began. This is the one file
//! that sleeps and reads the clock; tests pause it.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cambium_loadtest::random::at;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An operation that begins this much after it was due is late: timers are exact to a millisecond.
pub const LATE: Duration = Duration::from_millis(10);
/// How long after the schedule's end operations that are late may still begin.
pub const OVERTIME: Duration = Duration::from_secs(30);

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// One every so often.
    Constant,
    /// At random, as many independent senders do.
    Poisson,
}

/// Offsets of arrivals in order, nanoseconds from the start, and their numbers.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrival: Arrival,
    gap_ns: f64,
    end_ns: f64,
    seed: u64,
    number: u64,
    offset_ns: f64,
}

impl Schedule {
    /// Arrivals at a mean rate in a second, more than 0, for a while. Two schedules of one seed are the same.
    pub fn new(arrival: Arrival, rate: f64, duration: Duration, seed: u64) -> Self {
        let (gap_ns, end_ns) = (1e9 / rate, duration.as_nanos() as f64);
        Self { arrival, gap_ns, end_ns, seed, number: 0, offset_ns: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = (u64, i64);

    fn next(&mut self) -> Option<(u64, i64)> {
        let number = self.number;
        match self.arrival {
            Arrival::Constant => self.offset_ns = number as f64 * self.gap_ns,
            Arrival::Poisson => {
                // From 0, not inside, to 1, inside.
                let even = ((at(self.seed, number, 0, 0) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                self.offset_ns -= even.ln() * self.gap_ns;
            }
        }
        self.number += 1;
        (self.offset_ns < self.end_ns).then_some((number, self.offset_ns as i64))
    }
}

/// What became of a schedule's operations.
#[derive(Debug, Default)]
pub struct Counters {
    /// Operations that began.
    pub begun: AtomicU64,
    /// Of those, late ones.
    pub late: AtomicU64,
    /// Of those, the ones that had to wait until there were fewer in flight, or came behind such a one.
    pub waited_for_room: AtomicU64,
    /// The longest delay, microseconds.
    pub late_max_us: AtomicU64,
    /// Operations under way.
    pub in_flight: AtomicUsize,
}

/// One operation and when it is due, nanoseconds from the start.
#[derive(Debug)]
pub struct Job<T> {
    pub offset_ns: i64,
    pub what: T,
}

/// Bounds of an open loop.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Offset 0.
    pub start: Instant,
    /// Operations begin no later than this.
    pub give_up: Instant,
    /// Operations under way at one time.
    pub in_flight_max: usize,
}

/// Begins every job when it is due, or as soon after as there is room; returns when all that began have ended. No
/// further one begins once `stop` is cancelled or after [`Pace::give_up`].
pub async fn open_loop<T, F, Fut>(
    pace: Pace,
    jobs: impl Stream<Item = Job<T>>,
    stop: &CancellationToken,
    counters: &Counters,
    mut run: F,
) where
    F: FnMut(T, Instant) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut jobs = std::pin::pin!(jobs);
    let mut running = JoinSet::new();
    let reap = |ended: Option<Result<(), JoinError>>| {
        counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(Err(failed)) = ended
            && let Ok(panic) = failed.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    };
    let mut behind = false;
    while let Some(Job { offset_ns, what }) = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        job = jobs.next() => job,
    } {
        let due = pace.start + Duration::from_nanos(offset_ns.max(0) as u64);
        loop {
            let full = running.len() >= pace.in_flight_max;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = running.join_next(), if !running.is_empty() => reap(ended),
                () = sleep_until(due), if !full => break,
            }
            behind |= full && Instant::now() > due;
        }
        let now = Instant::now();
        if stop.is_cancelled() || now > pace.give_up {
            break;
        }
        let delay = now.saturating_duration_since(due);
        behind &= delay > LATE;
        counters.note(delay, behind);
        running.spawn(run(what, due));
    }
    while !running.is_empty() {
        reap(running.join_next().await);
    }
}

impl Counters {
    fn note(&self, delay: Duration, waited_for_room: bool) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        if delay > LATE {
            self.late.fetch_add(1, Ordering::Relaxed);
            self.waited_for_room.fetch_add(u64::from(waited_for_room), Ordering::Relaxed);
            self.late_max_us.fetch_max(delay.as_micros() as u64, Ordering::Relaxed);
        }
    }
}

/// Waits until an instant; returns at once when it is past.
#[expect(clippy::disallowed_methods, reason = "the one place that sleeps; its clock can be paused")]
pub async fn sleep_until(instant: Instant) {
    tokio::time::sleep_until(instant).await;
}

/// Waits for a while, or until it is told to stop.
pub async fn pause(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => (),
        () = sleep_until(Instant::now() + duration) => (),
    }
}

/// The machine's time, nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's time")]
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::stream;

    use super::*;

    #[test]
    fn arrivals_have_their_rate() {
        let constant: Vec<_> = Schedule::new(Arrival::Constant, 4.0, Duration::from_secs(1), 1).collect();
        assert_eq!(constant, [(0, 0), (1, 250_000_000), (2, 500_000_000), (3, 750_000_000)]);
        let poisson = Schedule::new(Arrival::Poisson, 1_000.0, Duration::from_secs(20), 1);
        let offsets: Vec<i64> = poisson.clone().map(|(_, offset)| offset).collect();
        assert!((19_000..21_000).contains(&offsets.len()), "{}", offsets.len());
        assert!(offsets.is_sorted());
        // Exponential gaps: as many above the mean as e says.
        let gaps = offsets.windows(2).filter(|pair| pair[1] - pair[0] > 1_000_000).count() as f64;
        assert!((gaps / offsets.len() as f64 - (-1_f64).exp()).abs() < 0.02);
        assert!(poisson.map(|(_, offset)| offset).eq(offsets));
    }

    /// Runs one job every 100 ms, each taking so long; latencies in milliseconds.
    async fn latencies(service_ms: [u64; 5], in_flight_max: usize) -> (Vec<u64>, Counters) {
        let start = Instant::now() + Duration::from_secs(1);
        let pace = Pace { start, give_up: start + OVERTIME, in_flight_max };
        let schedule = Schedule::new(Arrival::Constant, 10.0, Duration::from_millis(500), 0);
        let jobs = stream::iter(schedule.map(|(number, offset_ns)| Job { offset_ns, what: number }));
        let (counters, seen) = (Counters::default(), Arc::new(Mutex::new(vec![0; 5])));
        open_loop(pace, jobs, &CancellationToken::new(), &counters, |number, due| {
            let seen = Arc::clone(&seen);
            async move {
                sleep_until(Instant::now() + Duration::from_millis(service_ms[number as usize])).await;
                seen.lock().unwrap()[number as usize] = (Instant::now() - due).as_millis() as u64;
            }
        })
        .await;
        assert_eq!(counters.in_flight.load(Ordering::Relaxed), 0);
        let seen = seen.lock().unwrap().clone();
        (seen, counters)
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_answer_before() {
        let (latencies, counters) = latencies([1_000, 5, 5, 5, 5], 8).await;
        assert_eq!(latencies, [1_000, 5, 5, 5, 5]);
        assert_eq!(counters.late.into_inner(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_kept_waiting_count_from_when_they_were_due() {
        // With room for one, the first holds up the others: due at 100, 200, … they begin at 1,000, 1,005, …
        let (latencies, counters) = latencies([1_000, 5, 5, 5, 5], 1).await;
        assert_eq!(latencies, [1_000, 905, 810, 715, 620]);
        assert_eq!((counters.begun.into_inner(), counters.late.into_inner()), (5, 4));
        assert_eq!(counters.waited_for_room.into_inner(), 4);
        assert_eq!(counters.late_max_us.into_inner(), 900_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_late_does_not_begin() {
        let (_, counters) = latencies([40_000, 5, 5, 5, 5], 1).await;
        assert_eq!(counters.begun.into_inner(), 1);
    }
}
