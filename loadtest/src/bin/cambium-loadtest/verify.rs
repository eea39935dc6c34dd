//! Whether every acknowledged value is in the answers, exactly once.
//!
//! ```text
//!   ledger: a range that is settled ─► bounds ──┐
//!   reader: flame graph's total, ───────────────┼─► equal | within | mismatch | unanswered
//!           sum of query_range                 ─┘
//! ```
//!
//! Laws: bounds are taken before the question is asked, of a range in which nothing is in flight, so nothing may change
//! between the two. Where the fate of no push in range is unknown the answers must be equal to the last unit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cambium_loadtest::fleet::{Fleet, Kind};
use cambium_loadtest::random::at;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Bounds, Group, Ledger};
use crate::pace::{pause, sleep_until};
use crate::pushes::{Tenants, profile_types};
use crate::reads::{Question, Reader, selector};
use crate::recorder::{Operation, Recorder};

/// Mismatches that are told in full; all are counted.
const MISMATCHES_TOLD_MAX: usize = 50;
/// Attempts at a question, and the wait between two.
const ATTEMPTS_MAX: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
/// Wait before an answer that is wrong is asked for once more, to say whether it stays wrong.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Answers that are looked at again, about: what is wrong for the rest is wrong in the same way.
const SECOND_LOOKS_MAX: usize = 8;
/// Checks at the same time, at the end.
const CONCURRENT_MAX: usize = 4;
/// Checks of whole services at the end.
const WHOLE_CHECKS_MAX: usize = 2_000;
/// Steps of a checked time series at most.
const STEPS_MAX: i64 = 60;
/// Only the total is of interest.
const NODES_MAX: u32 = 16;
const SECOND_NS: i64 = 1_000_000_000;

/// What is compared: one sum of one range.
#[derive(Clone, Debug)]
pub struct Check {
    pub tenant: u64,
    pub kind: Kind,
    pub sample_type: usize,
    /// All of them if `None`.
    pub service: Option<u64>,
    /// From, inside, to, outside; nanoseconds since 1970.
    pub range: (i64, i64),
}

/// An answer that is not what was acknowledged.
#[derive(Clone, Debug, Serialize)]
pub struct Mismatch {
    /// What was asked.
    pub question: String,
    /// By whom; empty for nobody.
    pub tenant: String,
    /// What the answer says.
    pub answered: i64,
    /// What it must say, both inclusive; equal unless the fate of pushes is unknown.
    pub low: i64,
    pub high: i64,
    /// Acknowledged pushes in range, and those of unknown fate.
    pub pushes: u64,
    pub pushes_unknown: u64,
    /// What it said a second later, of the first few.
    pub second_look: Option<i64>,
    /// Whether it was found under load or at the end.
    pub under_load: bool,
}

/// What verification came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Sums that were compared.
    pub compared: u64,
    /// Of those: equal; between bounds because pushes of unknown fate were in range; wrong.
    pub equal: u64,
    pub within_bounds: u64,
    pub mismatched: u64,
    /// Questions that got no answer, however often asked.
    pub unanswered: u64,
    /// The wrong ones, or the first of them.
    pub mismatches: Vec<Mismatch>,
}

impl Outcome {
    /// Whether everything that was asked was right.
    pub fn good(&self) -> bool {
        self.mismatched == 0 && self.unanswered == 0
    }
}

/// Compares answers with the ledger.
#[derive(Debug)]
pub struct Verifier {
    pub reader: Reader,
    pub fleet: Arc<Fleet>,
    pub ledger: Arc<Ledger>,
    pub recorder: Arc<Recorder>,
    pub tenants: Tenants,
    /// Since 1970.
    pub start_ns: i64,
    pub outcome: Mutex<Outcome>,
    /// Checks so far; numbers make the choice of ranges.
    pub number: AtomicU64,
}

impl Verifier {
    /// Checks something at random every so often.
    pub async fn under_load(&self, every: Duration, stop: &CancellationToken) {
        loop {
            pause(every, stop).await;
            if stop.is_cancelled() {
                return;
            }
            if let Some(check) = self.random_check() {
                self.check(&check, true).await;
            }
        }
    }

    /// Checks every group whole, all groups of a kind together, and some ranges at random. Nothing may be in flight.
    pub async fn at_end(&self, random: u32) {
        // Behind everything that was sent.
        let end_ns = self.ledger.settled_until_ns() + 1;
        let whole = (self.start_ns, end_ns);
        let check_of = |Group { tenant, kind, service }, sample_type| Check {
            tenant,
            kind,
            sample_type,
            service: Some(service),
            range: whole,
        };
        let groups = self.ledger.groups();
        let mut all: Vec<(u64, Kind)> = groups.iter().map(|group| (group.tenant, group.kind)).collect();
        all.dedup();
        let of_all = all.into_iter().flat_map(|(tenant, kind)| {
            profile_types(kind).map(move |(sample_type, _)| Check {
                tenant,
                kind,
                sample_type,
                service: None,
                range: whole,
            })
        });
        let of_groups = groups.iter().flat_map(|group| {
            profile_types(group.kind).map(|(sample_type, _)| check_of(*group, sample_type))
        });
        let at_random = (0..random).filter_map(|_| self.random_check());
        let checks: Vec<Check> = of_all.chain(of_groups.take(WHOLE_CHECKS_MAX)).chain(at_random).collect();
        stream::iter(&checks).for_each_concurrent(CONCURRENT_MAX, |check| self.check(check, false)).await;
    }

    /// What it came to.
    pub fn outcome(&self) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Any sum of any range that is settled; none while there is none.
    fn random_check(&self) -> Option<Check> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let shape = self.fleet.shape();
        let random = |place| at(shape.seed, u64::MAX, number, place);
        let settled_ns = self.ledger.settled_until_ns();
        let length = u64::try_from(settled_ns - self.start_ns).ok().filter(|length| *length > 1)?;
        let [one, other] = [0, 1].map(|place| self.start_ns + (random(place) % (length + 1)) as i64);
        let range = (one.min(other), one.max(other));
        let kind = shape.kinds[random(2) as usize % shape.kinds.len()];
        // One in eight is of all services together.
        let service = (random(4) % 8 != 0).then_some(random(5) % shape.services);
        Some(Check {
            tenant: random(6) % self.tenants.count(),
            kind,
            sample_type: random(3) as usize % kind.sample_types().len(),
            service,
            range,
        })
        .filter(|check| check.range.0 < check.range.1)
    }

    /// Compares one sum as a flame graph and as a time series.
    pub async fn check(&self, check: &Check, under_load: bool) {
        let (start_ns, end_ns) = check.range;
        let query = selector(&self.fleet.shape().cluster, check.kind, check.sample_type, check.service);
        let graph = Question::flamegraph(&query, check.range, NODES_MAX);
        let bounds = self.bounds(check, check.range);
        self.compare(check, &graph, bounds, under_load, true).await;

        // Whole seconds in each step; what is left of the range is not asked for.
        let step_s = ((end_ns - start_ns) / SECOND_NS / STEPS_MAX).max(1);
        let steps = ((end_ns - start_ns) / SECOND_NS / step_s).max(1);
        let range = (start_ns, start_ns + steps * step_s * SECOND_NS);
        if range.1 > end_ns && under_load {
            return;
        }
        let series = Question::steps(&query, start_ns, steps, step_s, "");
        let bounds = self.bounds(check, range);
        self.compare(check, &series, bounds, under_load, false).await;
    }

    fn bounds(&self, check: &Check, range: (i64, i64)) -> Bounds {
        self.ledger.bounds(check.tenant, check.kind, check.service, check.sample_type, range)
    }

    async fn compare(
        &self,
        check: &Check,
        question: &Question,
        bounds: Bounds,
        under_load: bool,
        is_graph: bool,
    ) {
        let Some(answered) = self.ask(check, question, is_graph).await else {
            self.book(|outcome| outcome.unanswered += 1);
            return;
        };
        let right = |answered| (bounds.low..=bounds.high).contains(&answered);
        if right(answered) {
            self.book(|outcome| {
                outcome.compared += 1;
                if bounds.low == bounds.high { outcome.equal += 1 } else { outcome.within_bounds += 1 }
            });
            return;
        }
        self.book(|outcome| {
            outcome.compared += 1;
            outcome.mismatched += 1;
        });
        let told = self.outcome().mismatches.len();
        if told >= MISMATCHES_TOLD_MAX {
            return;
        }
        let mut second_look = None;
        if told < SECOND_LOOKS_MAX {
            sleep_until(Instant::now() + SECOND_LOOK).await;
            second_look = self.ask(check, question, is_graph).await;
        }
        let tenant = self.tenants.header(check.tenant).and_then(|name| name.to_str().ok());
        let mismatch = Mismatch {
            question: question.0.clone(),
            tenant: tenant.unwrap_or_default().to_owned(),
            answered,
            low: bounds.low,
            high: bounds.high,
            pushes: bounds.acked,
            pushes_unknown: bounds.unknown,
            second_look,
            under_load,
        };
        self.book(|outcome| {
            if outcome.mismatches.len() < MISMATCHES_TOLD_MAX {
                outcome.mismatches.push(mismatch);
            }
        });
    }

    /// The answer, after some attempts; none if there is none.
    async fn ask(&self, check: &Check, question: &Question, is_graph: bool) -> Option<i64> {
        let tenant = self.tenants.header(check.tenant);
        for attempt in 1..=ATTEMPTS_MAX {
            let sent = Instant::now();
            let answer = if is_graph {
                self.reader.total(question, tenant).await
            } else {
                self.reader.sum(question, tenant).await
            };
            match answer {
                Ok(sum) => {
                    self.recorder.ok(Operation::Check, sent, sent);
                    return Some(sum);
                }
                Err(why) => self.recorder.failed(Operation::Check, &why),
            }
            if attempt < ATTEMPTS_MAX {
                sleep_until(Instant::now() + ATTEMPT_PAUSE).await;
            }
        }
        None
    }

    fn book(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
