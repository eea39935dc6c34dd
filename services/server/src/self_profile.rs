//! Cambium's profiles of itself: where its CPU time goes and what its memory holds, as pprof like anyone else's.
//!
//! ```text
//!   CPU   sampler ── stacks of addresses ─┐
//!   heap  jemalloc ─ stacks of addresses ─┴─► objects: places ──► names: a child resolves new ones ──► document
//! ```
//!
//! A profile carries names, files, lines and inlined functions, but this process reads no debug information: that costs
//! more memory than everything else it does when idle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cambium_distributor::Handle;
use cambium_distributor::service::Push;
use cambium_model::labels::Labels;
use cambium_model::tenant::TenantId;
use cambium_proto::pprof::Header;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use prometheus_client::metrics::counter::Counter;

use crate::config::SelfProfiling;

mod sampler;

mod objects;

pub(crate) mod resolver;

mod names;

mod document;

use document::Stacks;
use names::Names;
use objects::Objects;
use sampler::{COLLECT_INTERVAL, Recording};

/// Why there is no profile of ourselves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sampling timer could not be started.
    #[error("CPU profile")]
    Cpu(#[from] sampler::Error),
    /// jemalloc was built or started without profiling.
    #[error("heap profiling is off in this process")]
    HeapOff,
    /// jemalloc's dump could not be made or read.
    #[error("heap profile: {0}")]
    Heap(String),
    /// The task that dumps the heap ended without an answer.
    #[error("the profile's task ended without an answer")]
    TaskEnded,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            // Not on this system.
            Self::Cpu(_) | Self::HeapOff => Kind::Unimplemented,
            Self::Heap(_) | Self::TaskEnded => Kind::Internal,
        }
    }
}

/// Takes profiles of this process. Clones share the names that are known.
#[derive(Clone, Debug)]
pub struct SelfProfiler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Samples per second of CPU time.
    frequency: u32,
    clock: Arc<dyn Clock>,
    objects: Objects,
    names: Names,
    samples_lost: Counter,
}

impl SelfProfiler {
    /// Profiles on request; [`SelfProfiler::spawn`] does it by itself.
    pub fn new(config: &SelfProfiling, clock: Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let samples_lost = Counter::default();
        metrics.register(|registry| {
            let help = "Samples of own CPU time for which there was no room";
            registry.register("self_profiling_samples_lost", help, samples_lost.clone());
        });
        let shared = Shared {
            frequency: config.frequency,
            clock,
            objects: Objects::loaded(),
            names: Names::new(metrics),
            samples_lost,
        };
        Self { shared: Arc::new(shared) }
    }

    /// A CPU profile of the next `duration`, gzip pprof.
    pub async fn cpu(&self, duration: Duration) -> Result<Vec<u8>, Error> {
        let time_ns = self.shared.clock.now_ns();
        let recording = Recording::start(self.shared.frequency)?;
        let mut left = duration;
        while !left.is_zero() {
            let step = left.min(COLLECT_INTERVAL);
            sleep(step).await;
            sampler::collect();
            left -= step;
        }
        let samples = recording.finish();
        self.shared.samples_lost.inc_by(samples.lost);
        let period_ns = 1_000_000_000 / i64::from(samples.frequency.max(1));
        let mut stacks = Stacks::with_capacity(samples.stacks.len());
        for (stack, count) in samples.stacks {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            stacks.push((self.shared.objects.places(&stack), vec![count, count.saturating_mul(period_ns)]));
        }
        let header = Header {
            sample_types: &[("samples", "count"), ("cpu", "nanoseconds")],
            period_type: ("cpu", "nanoseconds"),
            period: period_ns,
            time_ns,
            duration_ns: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
        };
        let Shared { objects, names, .. } = &*self.shared;
        let named = names.of(objects, &document::places(&stacks)).await;
        Ok(document::encode(&header, &stacks, objects, &named))
    }

    /// What the heap holds now, gzip pprof.
    pub async fn heap(&self) -> Result<Vec<u8>, Error> {
        let control = jemalloc_pprof::PROF_CTL.as_ref().ok_or(Error::HeapOff)?;
        let mut control = Arc::clone(control).lock_owned().await;
        if !control.activated() {
            return Err(Error::HeapOff);
        }
        let time_ns = self.shared.clock.now_ns();
        let dumping = tokio::task::spawn_blocking(move || control.dump_profile());
        let dump = dumping.await.map_err(|_| Error::TaskEnded)?.map_err(|e| Error::Heap(e.to_string()))?;
        let mut stacks = Stacks::with_capacity(dump.stacks.len());
        for (stack, _) in &dump.stacks {
            // Outermost first there; all are return addresses, and the call is the instruction before.
            let addresses: Vec<u64> =
                stack.addrs.iter().rev().map(|address| (*address as u64).saturating_sub(1)).collect();
            stacks.push((self.shared.objects.places(&addresses), vec![stack.weight as i64]));
        }
        let header = Header {
            sample_types: &[("inuse_space", "bytes")],
            period_type: ("space", "bytes"),
            time_ns,
            ..Header::default()
        };
        let Shared { objects, names, .. } = &*self.shared;
        let named = names.of(objects, &document::places(&stacks)).await;
        document::leave_allocator(&mut stacks, &named);
        Ok(document::encode(&header, &stacks, objects, &named))
    }

    /// Pushes both kinds at their intervals until the process stops.
    pub fn spawn(&self, config: &SelfProfiling, distributor: Handle, tasks: &Tasks) {
        let (shutdown, interval) = (tasks.shutdown_signal(), config.cpu_interval.0);
        let (profiler, sink) = (self.clone(), distributor.clone());
        tasks.spawn("profile own CPU", async move {
            loop {
                let profile = tokio::select! {
                    () = shutdown.cancelled() => return,
                    profile = profiler.cpu(interval) => profile,
                };
                let failed = profile.is_err();
                push(&sink, "process_cpu", profile).await;
                if failed {
                    // It has not waited: the next try may not come at once.
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = sleep(interval) => {}
                    }
                }
            }
        });
        let (shutdown, interval) = (tasks.shutdown_signal(), config.heap_interval.0);
        let profiler = self.clone();
        tasks.spawn("profile own heap", async move {
            loop {
                let profile = tokio::select! {
                    () = shutdown.cancelled() => return,
                    profile = profiler.heap() => profile,
                };
                push(&distributor, "memory", profile).await;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(interval) => {}
                }
            }
        });
    }
}

/// CPU time is sampled in real time, whatever a test's clock says.
#[expect(clippy::disallowed_methods, reason = "real CPU time is sampled in real time")]
async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

async fn push(distributor: &Handle, name: &str, profile: Result<Vec<u8>, Error>) {
    let profile = match profile {
        Ok(profile) => profile,
        Err(error) => {
            tracing::warn!(name, %error, "no profile of this process");
            return;
        }
    };
    let push = Push {
        body: Bytes::from(profile),
        labels: Labels::from_pairs([("service_name", "cambium")]).expect("one label with a name"),
        name: Some(name.to_owned()),
        time_ns: None,
        id: None,
        addresses_relative: true,
    };
    if let Err(error) = distributor.push(&TenantId::anonymous(), push).await {
        tracing::warn!(name, %error, "own profile not taken");
    }
}
