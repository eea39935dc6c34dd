//! The role: the way of a push from the door to its ack.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use cambium_metastore::{Symbols, Tenants};
use cambium_model::labels::Labels;
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::profile::ProfileId;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use hashbrown::HashMap;
use tokio::sync::watch;

use crate::admission::{Admission, RecentSeries, Ticket, TokenBucket};
use crate::config::Config;
use crate::decode::{self, Prepared, Refused, Workers};
use crate::error::Error;
use crate::metrics::{DistributorMetrics, Stage, TenantCounters};
use crate::sink::{Ack, Sink};
use crate::validate::NAME_LABEL;

/// Tenants whose rate and recent series are remembered; the least used are forgotten first and start afresh.
const TENANTS_TRACKED_MAX: u64 = 65_536;

/// What one name to be written counts for in the bytes in flight: a location with two inlined frames.
const NAME_BYTES: u64 = 256;

/// What the distributor works with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Names to numbers; creates a tenant at its first push.
    pub tenants: Arc<Tenants>,
    /// Where names of locations are kept.
    pub symbols: Arc<Symbols>,
    /// Makes records durable.
    pub sink: Arc<dyn Sink>,
    /// How many partitions there are, fixed when the cluster is created.
    pub partitions: NonZeroU32,
    /// Series in heads by tenant, published by the owners of the partitions about once a second.
    pub active_series: watch::Receiver<Arc<HashMap<TenantNumber, u64>>>,
    /// Tenants' limits.
    pub limits: watch::Receiver<Arc<Overrides>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The registry.
    pub metrics: Metrics,
}

/// One profile as a door read it.
#[derive(Clone, Debug)]
pub struct Push {
    /// A pprof message: gzip, zstd or neither.
    pub body: Bytes,
    /// The series, as sent; `__name__` may name the profile.
    pub labels: Labels,
    /// The profile's name; `None` for the well-known one of its sample types.
    pub name: Option<String>,
    /// When it was collected, nanoseconds since the epoch; `None` for the profile's own time, or now if it has none.
    pub time_ns: Option<i64>,
    /// The sender's id; `None` for a hash of what was received.
    pub id: Option<ProfileId>,
    /// Whether the profile's addresses are relative to their objects' files already.
    pub addresses_relative: bool,
}

/// A profile is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id: the sender's, or the one it was given.
    pub id: ProfileId,
    /// Samples in it, as the sender counts them.
    pub samples: u64,
    /// Whether it was a retry of a push taken in before, and added nothing.
    pub duplicate: bool,
}

/// The role, before it runs.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

/// Pushes into the role. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// A push that was let in, while its body is read. Holds room for it until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    tracked: Arc<Tracked>,
    limits: Arc<Overrides>,
    ticket: Ticket,
    /// Bytes of the body that were announced or have arrived, whichever is more.
    bytes: u64,
}

/// What all pushes of the process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) deps: Deps,
    config: Config,
    admission: Admission,
    workers: Workers,
    metrics: DistributorMetrics,
    tracked: moka::sync::Cache<TenantNumber, Arc<Tracked>>,
}

/// What is remembered of a tenant.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) tenant: Tenant,
    pub(crate) bucket: TokenBucket,
    recent: RecentSeries,
    counters: TenantCounters,
}

impl Service {
    /// A distributor that takes pushes through its handle at once.
    pub fn new(config: Config, deps: Deps) -> Self {
        let metrics = DistributorMetrics::new(&deps.metrics);
        let shared = Shared {
            admission: Admission::new(config.bytes_in_flight_max.0, metrics.in_flight_bytes.clone()),
            workers: Workers::new(),
            metrics,
            tracked: moka::sync::Cache::new(TENANTS_TRACKED_MAX),
            config,
            deps,
        };
        Self { shared: Arc::new(shared) }
    }

    /// For pushes.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Waits for `shutdown`, then refuses new pushes and returns when those under way have been answered.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        shutdown.await;
        self.shared.admission.close().await;
    }
}

impl Handle {
    /// Lets a push in or refuses it before its body is read.
    pub async fn admit(&self, tenant: &TenantId) -> Result<Admitted, Error> {
        // First of all: is there room? An operator who sees this often raises `bytes_in_flight_max`, or looks at
        // `cambium_distributor_sink_seconds` for the reason why pushes stay.
        let ticket = self.shared.admission.admit()?;
        let tenant = self.shared.deps.tenants.resolve_or_create(tenant).await.map_err(Error::Tenant)?;
        let limits = Arc::clone(&self.shared.deps.limits.borrow());
        let tracked = self.shared.track(tenant, &limits);
        Ok(Admitted { shared: Arc::clone(&self.shared), tracked, limits, ticket, bytes: 0 })
    }

    /// Pushes one profile and returns when it is durable.
    pub async fn push(&self, tenant: &TenantId, push: Push) -> Result<Receipt, Error> {
        self.admit(tenant).await?.push(push).await
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }
}

impl Admitted {
    /// Refuses a body of this announced size, bytes, if the tenant may not send it or not now.
    pub fn expect(&mut self, bytes: u64) -> Result<(), Error> {
        self.bytes = self.bytes.max(bytes);
        let limits = self.limits.of(&self.tracked.tenant.id);
        if bytes > limits.request_body_bytes_max {
            let limit = limits.request_body_bytes_max;
            return Err(Error::BodyTooLarge { limit, name: "request_body_bytes_max" });
        }
        // Compression makes no profile larger, so this is a lower bound of what decoding will charge.
        self.tracked.bucket.check(bytes, self.shared.deps.clock.monotonic(), limits)
    }

    /// Takes room for a body of which this much has arrived, bytes.
    pub fn hold(&mut self, bytes: u64) -> Result<(), Error> {
        self.expect(bytes)?;
        self.ticket.cover(bytes)
    }

    /// Pushes the profile and returns when it is durable.
    pub async fn push(mut self, push: Push) -> Result<Receipt, Error> {
        let after = self.shared.config.push_timeout.0;
        let clock = Arc::clone(&self.shared.deps.clock);
        let counters = self.tracked.counters.clone();
        let outcome = tokio::select! {
            biased;
            outcome = self.accept(push) => outcome,
            () = clock.sleep(after) => Err(Error::TimedOut { after }.into()),
        };
        match outcome {
            Ok(receipt) => {
                counters.acked_profiles.inc();
                counters.acked_samples.inc_by(receipt.samples);
                counters.duplicate_profiles.inc_by(u64::from(receipt.duplicate));
                Ok(receipt)
            }
            Err(Refused { error, samples }) => Err(self.count(error, samples)),
        }
    }

    /// Counts a push that a door could not read, and gives the error back.
    pub fn refuse(&self, error: Error) -> Error {
        self.count(error, 0)
    }

    async fn accept(&mut self, push: Push) -> Result<Receipt, Refused> {
        let bytes = push.body.len() as u64;
        self.hold(bytes)?;
        self.tracked.counters.received_profiles.inc();
        self.tracked.counters.received_bytes.inc_by(bytes);

        let started = self.shared.deps.clock.monotonic();
        let (shared, tracked) = (Arc::clone(&self.shared), Arc::clone(&self.tracked));
        let limits = Arc::clone(&self.limits);
        let job = move |worker: &mut decode::Worker| {
            decode::prepare(worker, &shared, &tracked, limits.of(&tracked.tenant.id), push)
        };
        let prepared = self.shared.workers.run(bytes as usize, job).await??;
        self.shared.took(Stage::Decode, started);

        let names = (prepared.locations.len() + prepared.objects.len()) as u64;
        self.ticket.cover(prepared.record.len() as u64 + names * NAME_BYTES)?;
        self.write_symbols(&prepared).await?;
        let ack = self.write_record(&prepared).await?;
        self.remember(prepared.series);
        Ok(Receipt { id: prepared.id, samples: prepared.samples, duplicate: ack.duplicate })
    }

    /// Names come before the record, so that nothing durable is ever without them.
    async fn write_symbols(&self, prepared: &Prepared) -> Result<(), Error> {
        let Deps { symbols, clock, .. } = &self.shared.deps;
        let tenant = self.tracked.tenant.number;
        let started = clock.monotonic();
        if !prepared.locations.is_empty() {
            symbols.write_missing(tenant, &prepared.locations).await.map_err(Error::Symbols)?;
        }
        if !prepared.objects.is_empty() {
            symbols.write_missing_objects(tenant, &prepared.objects).await.map_err(Error::Symbols)?;
        }
        self.shared.took(Stage::Symbols, started);
        Ok(())
    }

    async fn write_record(&self, prepared: &Prepared) -> Result<Ack, Error> {
        let started = self.shared.deps.clock.monotonic();
        let ack = self.shared.deps.sink.write(prepared.partition, prepared.record.clone()).await?;
        self.shared.took(Stage::Sink, started);
        Ok(ack)
    }

    fn remember(&self, series: u64) {
        let series_max = self.limits.of(&self.tracked.tenant.id).series_max;
        self.tracked.recent.insert(series, self.shared.deps.clock.monotonic(), series_max);
    }

    fn count(&self, error: Error, samples: u64) -> Error {
        if let Some(reason) = error.reason() {
            self.shared.metrics.discarded(&self.tracked.tenant.id, reason, self.bytes, samples);
        }
        error
    }
}

impl Push {
    /// The labels without the profile's name, and the name.
    pub(crate) fn labels_and_name(&self) -> Result<(Labels, Option<String>), Error> {
        let Some(label) = self.labels.get(NAME_LABEL) else {
            return Ok((self.labels.clone(), self.name.clone()));
        };
        match &self.name {
            Some(name) if name != label => {
                Err(Error::TwoNames { name: name.clone(), label: label.to_owned() })
            }
            _ => {
                let rest = self.labels.iter().filter(|(name, _)| *name != NAME_LABEL);
                Ok((Labels::from_pairs(rest)?, Some(label.to_owned())))
            }
        }
    }
}

impl Shared {
    fn track(&self, tenant: Tenant, limits: &Overrides) -> Arc<Tracked> {
        self.tracked.get_with(tenant.number, || {
            let now = self.deps.clock.monotonic();
            Arc::new(Tracked {
                bucket: TokenBucket::new(now, limits.of(&tenant.id)),
                recent: RecentSeries::default(),
                counters: self.metrics.of(&tenant.id),
                tenant,
            })
        })
    }

    /// Refuses a new series of a tenant that has as many as it may: see [`crate::admission`] for the overshoot.
    pub(crate) fn check_series(
        &self,
        tracked: &Tracked,
        series: u64,
        limits: &TenantLimits,
    ) -> Result<(), Error> {
        let active = self.deps.active_series.borrow().get(&tracked.tenant.number).copied().unwrap_or(0);
        if active < limits.series_max || tracked.recent.contains(series) {
            return Ok(());
        }
        Err(Error::SeriesLimit { active, limit: limits.series_max })
    }

    fn took(&self, stage: Stage, started: std::time::Duration) {
        self.metrics.took(stage, self.deps.clock.monotonic().saturating_sub(started));
    }
}
