//! Cambium's profiles of itself: where its CPU time goes and what its memory holds, as pprof like anyone else's.
//!
//! CPU by the pprof crate (SIGPROF, frame pointers); heap by jemalloc's sampling. Both carry names, because the
//! process can resolve its own addresses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cambium_distributor::Handle;
use cambium_distributor::service::Push;
use cambium_model::labels::Labels;
use cambium_model::symbols::{Function, Line, Location};
use cambium_model::tenant::TenantId;
use cambium_proto::pprof::{Encoder, Header, gzip};
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::tasks::Tasks;

use crate::config::SelfProfiling;

/// Why there is no profile of ourselves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sampling timer could not be started, or another profile is being taken.
    #[error("CPU profile")]
    Cpu(#[source] pprof::Error),
    /// jemalloc was built or started without profiling.
    #[error("heap profiling is off in this process")]
    HeapOff,
    /// jemalloc's dump could not be made or read.
    #[error("heap profile: {0}")]
    Heap(String),
    /// The task that renders the profile ended without an answer.
    #[error("the profile's task ended without an answer")]
    TaskEnded,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            // A second profile at the same time: later.
            Self::Cpu(_) => Kind::Unavailable,
            Self::HeapOff => Kind::Unimplemented,
            Self::Heap(_) | Self::TaskEnded => Kind::Internal,
        }
    }
}

/// A CPU profile of the next `duration`, gzip pprof.
pub async fn cpu(frequency: u32, duration: Duration) -> Result<Vec<u8>, Error> {
    let blocklist = ["libc", "libgcc", "pthread", "vdso"];
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(i32::try_from(frequency).unwrap_or(i32::MAX))
        .blocklist(&blocklist)
        .build()
        .map_err(Error::Cpu)?;
    sleep(duration).await;
    let rendering = tokio::task::spawn_blocking(move || {
        let report = guard.report().build().map_err(Error::Cpu)?;
        Ok(encode(&report, frequency, duration))
    });
    rendering.await.map_err(|_| Error::TaskEnded)?
}

/// The sampling timer runs in real time, whatever a test's clock says.
#[expect(clippy::disallowed_methods, reason = "real CPU time is sampled in real time")]
async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

fn encode(report: &pprof::Report, frequency: u32, duration: Duration) -> Vec<u8> {
    let period_ns = 1_000_000_000 / i64::from(frequency.max(1));
    let sample_types = [("samples", "count"), ("cpu", "nanoseconds")];
    let time_ns = report.timing.start_time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut encoder = Encoder::new(&Header {
        sample_types: &sample_types,
        period_type: ("cpu", "nanoseconds"),
        period: period_ns,
        time_ns: time_ns.as_nanos() as i64,
        duration_ns: duration.as_nanos() as i64,
    });
    let mut known = HashMap::new();
    for (frames, count) in &report.data {
        let stack: Vec<u64> = frames
            .frames
            .iter()
            .map(|symbols| {
                let location = location(symbols);
                let address = location.address;
                *known.entry((address, name_of(&location))).or_insert_with(|| encoder.location(&location))
            })
            .collect();
        let count = i64::try_from(*count).unwrap_or_default();
        encoder.sample(&stack, &[count, count * period_ns], &Vec::new());
    }
    gzip(&encoder.finish())
}

fn name_of(location: &Location) -> Arc<str> {
    location.lines.first().map(|line| Arc::clone(&line.function.name)).unwrap_or_default()
}

fn location(symbols: &[pprof::Symbol]) -> Location {
    let line = |symbol: &pprof::Symbol| Line {
        function: Function {
            name: symbol.name().into(),
            system_name: symbol.sys_name().as_ref().into(),
            file: symbol.filename().as_ref().into(),
            start_line: 0,
        },
        line: symbol.lineno().into(),
        column: 0,
    };
    let address = symbols.first().and_then(|symbol| symbol.addr).map_or(0, |address| address as u64);
    Location { address, lines: symbols.iter().map(line).collect(), ..Location::default() }
}

/// What the heap holds now, gzip pprof.
pub async fn heap() -> Result<Vec<u8>, Error> {
    let control = jemalloc_pprof::PROF_CTL.as_ref().ok_or(Error::HeapOff)?;
    let mut control = Arc::clone(control).lock_owned().await;
    if !control.activated() {
        return Err(Error::HeapOff);
    }
    let dumping = tokio::task::spawn_blocking(move || control.dump_pprof());
    dumping.await.map_err(|_| Error::TaskEnded)?.map_err(|error| Error::Heap(error.to_string()))
}

/// Pushes both kinds at their intervals until the process stops.
pub fn spawn(config: &SelfProfiling, distributor: Handle, clock: Arc<dyn Clock>, tasks: &Tasks) {
    let shutdown = tasks.shutdown_signal();
    let (frequency, interval) = (config.frequency, config.cpu_interval.0);
    let cpu_sink = distributor.clone();
    tasks.spawn("profile own CPU", async move {
        loop {
            let profile = tokio::select! {
                () = shutdown.cancelled() => return,
                profile = cpu(frequency, interval) => profile,
            };
            let retry = profile.is_err();
            push(&cpu_sink, "process_cpu", profile).await;
            if retry {
                clock.sleep(interval).await;
            }
        }
    });
    let shutdown = tasks.shutdown_signal();
    let interval = config.heap_interval.0;
    tasks.spawn("profile own heap", async move {
        loop {
            push(&distributor, "memory", heap().await).await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(interval) => {}
            }
        }
    });
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
        addresses_relative: false,
    };
    if let Err(error) = distributor.push(&TenantId::anonymous(), push).await {
        tracing::warn!(name, %error, "own profile not taken");
    }
}
