//! The store of a cluster: TiKV, by its transactional API.
//!
//! ```text
//!   snapshot() ──► a timestamp of the placement driver; reads at it: sorted chunks ─► by region ─► stores
//!   commit(txn) ─► timestamp ─► preconditions read at it ─► differ: Conflict
//!                     ▲                    └─ hold: lock what is only read, write the rest: prewrite, commit
//!                     └── somebody wrote one of the keys in between ──────────┘
//! ```
//!
//! TiKV gives snapshot isolation: it refuses a write to a key that was written after the transaction's timestamp. A key
//! that is only a precondition is therefore locked as if written, so that the refusal covers it and there is no write
//! skew (ADR 017).
//!
//! Laws: every operation ends by its deadline, whatever the cluster does; what the client gives up on is tried again
//! until then; an error means that nothing was written, and whatever might have been is `Undetermined`; a client whose
//! connections are dead is replaced while the process runs; no type of the client's leaves this module.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_runtime::clock::Clock;
use cambium_runtime::hedge::Hedge;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use futures::FutureExt;
use futures::future::{Either, select};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Error, Key, KvStore, Outcome, Snapshot, Txn};
use failure::Failure;
use link::Link;
use metrics::{Operation, TikvMetrics};
use read::TikvSnapshot;

mod commit;

mod failure;

mod link;

mod metrics;

mod read;

#[cfg(test)]
mod tests;

/// Tries that fit into a deadline if each of them hangs.
const TRIES_IN_DEADLINE: u32 = 2;

/// Shortest pause before another try; it doubles from try to try, and each lasts between half of that and all of it.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);

/// Longest pause before another try.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Commits under way at a time; further ones wait, within their deadline.
const COMMITS_MAX: usize = 256;

/// Least age of versions that [`TikvStore::collect_garbage`] removes: no operation may run for as long.
pub const GARBAGE_AGE_MIN: Duration = Duration::from_secs(600);

/// Where the cluster's TiKV is, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of the placement drivers, `host:port`: one is enough to find the others, if it lives.
    pub endpoints: Vec<String>,
    /// What every key of this cluster begins with. Clusters that share a TiKV differ here.
    pub key_prefix: String,
    /// Certificates for TLS to placement drivers and stores; without them, connections are plain.
    pub tls: Option<Tls>,
    /// Longest time of one operation, milliseconds.
    pub deadline_ms: u64,
}

/// Files in PEM; TiKV wants to know its clients by their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authorities that TiKV's own are signed by.
    pub ca_file: PathBuf,
    /// The client's certificate, and those in between.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            key_prefix: "cambium/".to_owned(),
            tls: None,
            deadline_ms: 5_000,
        }
    }
}

impl Config {
    fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// A store in a TiKV cluster. Cheap to clone.
#[derive(Clone)]
pub struct TikvStore(Arc<Shared>);

/// What a store's snapshots and commits share.
struct Shared {
    link: Arc<Link>,
    /// Of every key.
    prefix: Vec<u8>,
    deadline: Duration,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    random: Mutex<SmallRng>,
    hedge: Hedge,
    commits: Semaphore,
    metrics: TikvMetrics,
}

impl TikvStore {
    /// A store that connects when it is first asked for something; `seed` is of its pauses. Registers its metrics.
    pub fn new(config: &Config, clock: Arc<dyn Clock>, seed: u64, metrics: &Metrics) -> Self {
        let tasks = Tasks::new();
        let metrics = TikvMetrics::new(metrics);
        let link = Link::new(config.clone(), Arc::clone(&clock), tasks.clone(), metrics.connections.clone());
        Self(Arc::new(Shared {
            link: Arc::new(link),
            prefix: config.key_prefix.clone().into_bytes(),
            deadline: config.deadline(),
            hedge: Hedge::new(Arc::clone(&clock)),
            clock,
            tasks,
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            commits: Semaphore::new(COMMITS_MAX),
            metrics,
        }))
    }

    /// Lets TiKV remove versions older than `age`, at least [`GARBAGE_AGE_MIN`], of *all* its keys. For a TiKV that
    /// nobody else collects; one process of the cluster is enough, every ten minutes or so.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: try again later.
    pub async fn collect_garbage(&self, age: Duration) -> Result<(), Error> {
        let age_ms = i64::try_from(age.max(GARBAGE_AGE_MIN).as_millis()).unwrap_or(i64::MAX);
        let collect = || async {
            let client = self.0.link.client().await?;
            let mut safe_point = client.current_timestamp().await?;
            safe_point.physical = safe_point.physical.saturating_sub(age_ms);
            client.gc(safe_point).await?;
            Ok(())
        };
        self.0.count(Operation::collect, self.0.try_until(Operation::collect, self.0.due(), collect)).await
    }
}

impl fmt::Debug for TikvStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TikvStore").field("prefix", &self.0.prefix.escape_ascii().to_string()).finish()
    }
}

#[async_trait]
impl KvStore for TikvStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        let now = || async { Ok(self.0.link.client().await?.current_timestamp().await?) };
        let asked = self.0.try_until(Operation::snapshot, self.0.due(), now);
        let timestamp = self.0.count(Operation::snapshot, asked).await?;
        Ok(Box::new(TikvSnapshot::new(Arc::clone(&self.0), timestamp)))
    }

    /// Ends what it has begun though its future be dropped: locks left behind would make others wait.
    async fn commit(&self, txn: Txn) -> Result<Outcome, Error> {
        txn.check_size()?;
        let shared = Arc::clone(&self.0);
        let commit = self.0.tasks.spawn("tikv-commit", async move {
            shared.count(Operation::commit, shared.commit(&txn, shared.due())).await
        });
        // The task died over this transaction: whether it committed is for the next reader to see.
        commit.await.unwrap_or(Ok(Outcome::Undetermined))
    }
}

/// What every value begins with in TiKV, whose clients take an empty one for none.
const VALUE_MARK: u8 = 0;

/// A value as TiKV keeps it.
fn stored_value(value: &[u8]) -> Vec<u8> {
    [&[VALUE_MARK], value].concat()
}

/// A value that TiKV has kept.
fn kept_value(stored: Vec<u8>) -> Bytes {
    Bytes::from(stored).split_off(size_of_val(&VALUE_MARK))
}

impl Shared {
    /// A key as TiKV knows it.
    fn stored(&self, key: &Key) -> Vec<u8> {
        [&self.prefix, key.as_bytes()].concat()
    }

    /// When an operation that begins now has to have ended.
    fn due(&self) -> Duration {
        self.clock.monotonic() + self.deadline
    }

    /// Runs an operation and counts it.
    async fn count<T>(
        &self,
        operation: Operation,
        run: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Error> {
        let start = self.clock.monotonic();
        let result = run.await;
        self.metrics.ended(operation, self.clock.monotonic().saturating_sub(start));
        result.map_err(Failure::into_error)
    }

    /// Tries until `due` on the clock. A try may take half of a deadline, so that one that hangs is not the last.
    async fn try_until<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        operation: Operation,
        due: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let left = due.saturating_sub(self.clock.monotonic());
            let failure = match self.within(left.min(self.deadline / TRIES_IN_DEADLINE), attempt()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.metrics.failed(operation, &failure);
            if !failure.may_pass() {
                return Err(failure);
            }
            let pause_now = self.jittered(pause);
            if self.clock.monotonic() + pause_now >= due {
                self.link.gave_up();
                return Err(failure);
            }
            tracing::debug!(?operation, %failure, "trying again");
            self.clock.sleep(pause_now).await;
            pause = RETRY_PAUSE_MAX.min(pause * 2);
        }
    }

    /// The future's result, if it comes in time. A panic of the client's is a failure like others.
    async fn within<T>(
        &self,
        time: Duration,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let future = std::pin::pin!(AssertUnwindSafe(future).catch_unwind());
        match select(future, self.clock.sleep(time)).await {
            Either::Left((result, _)) => result.unwrap_or(Err(Failure::Panicked)),
            Either::Right(_) => Err(Failure::Late),
        }
    }

    /// Between half of the pause and all of it.
    fn jittered(&self, pause: Duration) -> Duration {
        let part = self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0.5..1.0);
        pause.mul_f64(part)
    }
}
