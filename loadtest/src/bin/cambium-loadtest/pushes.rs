//! The stream of pushes: made ahead on the side, sent when due, each until its fate is known or its attempts are used up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cambium_loadtest::fleet::{Fleet, Kind, Place, TYPES_MAX};
use futures::{Stream, StreamExt, stream};
use http::HeaderValue;
use tokio::time::Instant;

use crate::ledger::{Fate, Group, Ledger};
use crate::pace::{Job, Schedule, sleep_until};
use crate::protocol::{Message, Reply, Sender};
use crate::recorder::{Operation, Recorder, count};

/// Pushes that are made before they are due.
const MADE_AHEAD_MAX: usize = 64;
/// The longest that a server's Retry-After is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Wait before the first retry where the server does not say; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// The longest of these.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A push that is ready to be sent.
#[derive(Debug)]
pub struct Made {
    group: Group,
    time_ns: i64,
    sums: [i64; TYPES_MAX],
    samples: u64,
    message: Message,
}

/// Names of tenants; none where the server is to see none.
#[derive(Clone, Debug)]
pub struct Tenants(Arc<[HeaderValue]>);

impl Tenants {
    /// `loadtest-0`, `loadtest-1` and so on; 0 of them for pushes without a tenant.
    pub fn new(count: u64) -> Self {
        let name = |number| HeaderValue::try_from(format!("loadtest-{number}"));
        Self((0..count).map(|number| name(number).expect("letters and digits")).collect())
    }

    /// How many fleets there are: 1 for none.
    pub fn count(&self) -> u64 {
        (self.0.len() as u64).max(1)
    }

    /// What a request of this tenant says.
    pub fn header(&self, tenant: u64) -> Option<&HeaderValue> {
        self.0.get(usize::try_from(tenant).ok()?)
    }
}

/// The pushes of a schedule in order, made on other threads ahead of time. The n-th arrival is of tenant n mod tenants.
pub fn made_ahead(
    fleet: Arc<Fleet>,
    tenants: u64,
    schedule: Schedule,
    start_ns: i64,
    sender: Sender,
) -> impl Stream<Item = Job<Made>> {
    let make = move |(number, offset_ns): (u64, i64)| {
        let (fleet, sender) = (Arc::clone(&fleet), sender.clone());
        let making = tokio::task::spawn_blocking(move || {
            let (tenant, number) = (number % tenants, number / tenants);
            let (series, round) = (number % fleet.series(), number / fleet.series());
            let push = fleet.push(Place { tenant, series, round, offset_ns }, start_ns);
            Made {
                group: Group { tenant, kind: push.kind, service: push.service },
                time_ns: push.time_ns,
                sums: push.sums,
                samples: push.samples,
                message: sender.message(&push).expect("labels are escaped"),
            }
        });
        async move { Job { offset_ns, what: making.await.expect("making a push does not panic") } }
    };
    stream::iter(schedule.map(make)).buffered(MADE_AHEAD_MAX)
}

/// What sending needs.
#[derive(Clone, Debug)]
pub struct Pusher {
    pub sender: Sender,
    pub tenants: Tenants,
    pub ledger: Arc<Ledger>,
    pub recorder: Arc<Recorder>,
    pub retries_max: u32,
}

impl Pusher {
    /// Enters a push in the ledger, now, and sends it.
    pub fn begin(&self, made: Made, due: Instant) -> impl Future<Output = ()> + Send + 'static {
        let pusher = self.clone();
        let ticket = pusher.ledger.begin(made.group, made.time_ns, made.sums);
        async move {
            let fate = pusher.push(&made, due).await;
            pusher.ledger.settle(&ticket, fate);
            let recorder = &pusher.recorder;
            match fate {
                Fate::Acked => {
                    count(&recorder.acked);
                    recorder.samples.fetch_add(made.samples, Ordering::Relaxed);
                    recorder.body_bytes.fetch_add(made.message.body_bytes(), Ordering::Relaxed);
                }
                Fate::Refused => count(&recorder.refused),
                Fate::Unknown => count(&recorder.unknown),
            }
        }
    }

    /// Sends the same bytes until there is a verdict or no attempt is left.
    async fn push(&self, made: &Made, due: Instant) -> Fate {
        // Once the server may have it, no later refusal says that it has not.
        let mut untaken = true;
        let mut backoff = RETRY_FIRST;
        for attempt in 0..=self.retries_max {
            let sent = Instant::now();
            let reply = self.sender.send(&made.message, self.tenants.header(made.group.tenant)).await;
            let (wait, why) = match reply {
                Reply::Acked { duplicate } => {
                    if duplicate {
                        count(&self.recorder.duplicates);
                    }
                    self.recorder.ok(Operation::Push, due, sent);
                    return Fate::Acked;
                }
                Reply::Refused(why) => {
                    self.recorder.failed(Operation::Push, &why);
                    return if untaken { Fate::Refused } else { Fate::Unknown };
                }
                Reply::Busy { retry_after, untaken: this_untaken, why } => {
                    untaken &= this_untaken;
                    (retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)), why)
                }
                Reply::Lost(why) => {
                    untaken = false;
                    (None, why)
                }
            };
            if attempt == self.retries_max {
                self.recorder.failed(Operation::Push, &why);
                break;
            }
            self.recorder.message(Operation::Push, &format!("sent again after {why}"));
            count(&self.recorder.retries);
            sleep_until(Instant::now() + wait.unwrap_or(backoff)).await;
            backoff = (backoff * 2).min(RETRY_LONGEST);
        }
        if untaken { Fate::Refused } else { Fate::Unknown }
    }
}

/// The profile types of a kind, as queries name them.
pub fn profile_types(kind: Kind) -> impl Iterator<Item = (usize, String)> {
    (0..kind.sample_types().len()).map(move |index| (index, kind.profile_type(index)))
}
