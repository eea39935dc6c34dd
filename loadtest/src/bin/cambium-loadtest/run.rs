//! A run: the load, the verification and the sampler beside each other; then the end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use cambium_loadtest::fleet::{Bases, Fleet};
use futures::future::join_all;
use futures::stream;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, PUSHES_MAX};
use crate::pace::{Arrival, Counters, Job, OVERTIME, Pace, Schedule, now_ns, open_loop};
use crate::progress::Progress;
use crate::protocol::{Protocol, Sender};
use crate::pushes::{Pusher, Tenants, made_ahead};
use crate::reads::{Reader, question};
use crate::recorder::{Operation, Recorder};
use crate::report::{Report, Settings, Stream};
use crate::sampler::{Lines, Sampler};
use crate::scenario::{Scenario, nanos};
use crate::verify::{Outcome, Verifier};

/// From the start of the clock to the first push, so that some are made when it is due.
const START_DELAY: Duration = Duration::from_secs(1);
/// Wait for a first connection, before anything begins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait for the answer to one read.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug)]
pub struct Plan {
    pub scenario: Scenario,
    /// `http://host:port`.
    pub target: String,
    pub protocol: Protocol,
    /// 0 for pushes without a tenant.
    pub tenants: u64,
    /// Pushes in a second, of all tenants.
    pub rate: f64,
    /// Whether reads are made and sums verified, in Cambium's API.
    pub reads: bool,
    pub profiles: Option<PathBuf>,
    pub pid: Option<u32>,
}

/// Everything that the parts of a run share.
struct Run {
    plan: Plan,
    fleet: Arc<Fleet>,
    tenants: Tenants,
    ledger: Arc<Ledger>,
    recorder: Arc<Recorder>,
    counters: Arc<Counters>,
    start: Instant,
    start_ns: i64,
    /// No further operation begins: somebody interrupts.
    stop: CancellationToken,
    /// All that began have ended.
    loaded: CancellationToken,
}

/// Runs a plan. Errors: what keeps it from beginning. Whatever happens later is in the report.
pub async fn run(plan: Plan, stop: CancellationToken) -> anyhow::Result<Report> {
    let (fleet, skipped) = fleet(&plan)?;
    reachable(&plan.target).await?;
    let run = Run {
        tenants: Tenants::new(plan.tenants),
        fleet: Arc::new(fleet),
        ledger: Arc::default(),
        recorder: Arc::new(Recorder::new()),
        counters: Arc::default(),
        start: Instant::now() + START_DELAY,
        start_ns: now_ns() + nanos(START_DELAY),
        stop,
        loaded: CancellationToken::new(),
        plan,
    };
    let verifier = run.verifier();
    let progress = Progress::start(&run.plan.scenario, run.schedule().count() as u64);
    let sampler = Sampler::new(Arc::clone(&run.recorder), Arc::clone(&run.counters), run.plan.pid);
    let load = async {
        tokio::join!(run.pushes(), run.reads());
        run.loaded.cancel();
    };
    let check_under_load = async {
        if run.plan.reads {
            verifier.under_load(run.plan.scenario.verify.every.0, &run.loaded).await;
        }
    };
    let duration = run.plan.scenario.duration.0;
    let ((), (), lines) = tokio::join!(load, check_under_load, async {
        sampler.run(run.start, duration, &run.loaded, |line| progress.show(line, &run.recorder)).await
    });
    let seconds = (Instant::now() - run.start).as_secs_f64();
    let outcome = if run.plan.reads {
        progress.verifying();
        verifier.at_end(run.plan.scenario.verify.checks_at_end).await;
        Some(verifier.outcome())
    } else {
        None
    };
    progress.finish();
    Ok(run.report(seconds, lines, outcome, skipped))
}

impl Run {
    fn schedule(&self) -> Schedule {
        let Scenario { load, seed, duration, .. } = &self.plan.scenario;
        Schedule::new(load.arrival, self.plan.rate, duration.0, *seed)
    }

    fn pace(&self, in_flight_max: usize) -> Pace {
        let give_up = self.start + self.plan.scenario.duration.0 + OVERTIME;
        Pace { start: self.start, give_up, in_flight_max }
    }

    async fn pushes(&self) {
        let load = &self.plan.scenario.load;
        let sender = Sender::new(self.plan.protocol, &self.plan.target, load.timeout.0);
        let sender = sender.expect("the target was looked at before");
        let jobs = made_ahead(
            Arc::clone(&self.fleet),
            self.tenants.count(),
            self.schedule(),
            self.start_ns,
            sender.clone(),
        );
        let pusher = Pusher {
            sender,
            tenants: self.tenants.clone(),
            ledger: Arc::clone(&self.ledger),
            recorder: Arc::clone(&self.recorder),
            retries_max: load.retries_max,
        };
        let begin = |made, due| pusher.begin(made, due);
        open_loop(self.pace(load.in_flight_max), jobs, &self.stop, &self.counters, begin).await;
        self.recorder.begun_late(Operation::Push, self.counters.late.load(Ordering::Relaxed));
    }

    async fn reads(&self) {
        if !self.plan.reads {
            return;
        }
        let operations = [
            Operation::Flamegraph,
            Operation::QueryRange,
            Operation::MergeAll,
            Operation::Labels,
            Operation::LabelValues,
        ];
        let rates = self.plan.scenario.reads.rates().map(|(_, rate)| rate);
        let of_kinds = operations.into_iter().zip(rates).filter(|(_, rate)| *rate > 0.0);
        join_all(of_kinds.map(|(operation, rate)| self.reads_of(operation, rate))).await;
    }

    async fn reads_of(&self, operation: Operation, rate: f64) {
        let Scenario { reads, seed, duration, .. } = &self.plan.scenario;
        let reader = Reader::new(&self.plan.target, READ_TIMEOUT);
        let range_ns = nanos(reads.range_max.0);
        let schedule = Schedule::new(Arrival::Poisson, rate, duration.0, seed ^ (1 + operation as u64));
        let jobs = stream::iter(schedule.map(|(number, offset_ns)| {
            let now_ns = self.start_ns + offset_ns;
            let question = question(operation, number, &self.fleet, now_ns, range_ns);
            Job { offset_ns, what: (question, number % self.tenants.count()) }
        }));
        let counters = Counters::default();
        let begin = |(question, tenant), due| {
            let (reader, recorder) = (reader.clone(), Arc::clone(&self.recorder));
            let tenants = self.tenants.clone();
            async move {
                let sent = Instant::now();
                match reader.ask(&question, tenants.header(tenant)).await {
                    Ok(_) => recorder.ok(operation, due, sent),
                    Err(why) => recorder.failed(operation, &why),
                }
            }
        };
        open_loop(self.pace(reads.in_flight_max), jobs, &self.stop, &counters, begin).await;
        self.recorder.begun_late(operation, counters.late.into_inner());
    }

    fn verifier(&self) -> Verifier {
        Verifier {
            reader: Reader::new(&self.plan.target, READ_TIMEOUT),
            fleet: Arc::clone(&self.fleet),
            ledger: Arc::clone(&self.ledger),
            recorder: Arc::clone(&self.recorder),
            tenants: self.tenants.clone(),
            start_ns: self.start_ns,
            outcome: Mutex::default(),
            number: AtomicU64::new(0),
        }
    }

    fn report(&self, seconds: f64, lines: Lines, outcome: Option<Outcome>, skipped: Vec<String>) -> Report {
        let settings = Settings {
            target: self.plan.target.clone(),
            protocol: self.plan.protocol,
            tenants: self.plan.tenants,
            rate: self.plan.rate,
            series_at_once: self.tenants.count() * self.fleet.series(),
            stacks: self.fleet.stacks(),
            profiles_skipped: skipped,
            started_ns: self.start_ns,
            scenario: self.plan.scenario.clone(),
        };
        let scheduled = self.schedule().count() as u64;
        let stream = Stream::new(scheduled, self.stop.is_cancelled(), &self.counters, &self.recorder);
        Report {
            version: env!("CARGO_PKG_VERSION"),
            settings,
            seconds,
            stream,
            operations: self.recorder.summaries(),
            messages: self.recorder.messages(),
            verification: outcome,
            resources: lines,
        }
    }
}

/// The fleet of a plan, and files that were not taken.
fn fleet(plan: &Plan) -> anyhow::Result<(Fleet, Vec<String>)> {
    let scenario = &plan.scenario;
    let expected = plan.rate * scenario.duration.0.as_secs_f64();
    ensure!(
        expected <= PUSHES_MAX as f64,
        "{expected:.0} pushes are more than one run keeps account of ({PUSHES_MAX}): lower the rate or the duration"
    );
    let (bases, skipped) = match &plan.profiles {
        None => (Bases::committed(), Vec::new()),
        Some(folder) => Bases::of_folder(folder)?,
    };
    let skipped = skipped.iter().map(|file| format!("{}: {}", file.path.display(), file.reason)).collect();
    // As often as the rate makes each pod send.
    let series = (plan.tenants.max(1) * scenario.series()) as f64;
    let shape = scenario.shape(Duration::from_secs_f64(series / plan.rate));
    Ok((Fleet::new(shape, &bases)?, skipped))
}

/// Whether something listens there. Errors: not `http://host:port`, or nobody does.
async fn reachable(target: &str) -> anyhow::Result<()> {
    let url =
        url::Url::parse(target).with_context(|| format!("--target {target:?} is not http://host:port"))?;
    ensure!(url.scheme() == "http", "--target {target:?}: only http is spoken");
    let host = url.host_str().context("--target has no host")?;
    let port = url.port_or_known_default().context("--target has no port")?;
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    connected
        .map_err(anyhow::Error::from)
        .and_then(|connected| Ok(connected?))
        .with_context(|| format!("nobody answers at {target}"))?;
    Ok(())
}
