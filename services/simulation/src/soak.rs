//! A day in minutes: the real server under a clock that runs faster is fed by fleets, asked, killed and started again, while
//! it merges and removes what is too old.
//!
//! ```text
//!   pushers ──► server ◄── checker: a sum of a random range, from blocks and heads
//!      │ acknowledged                │ must be equal
//!      └──► ledger ──────────────────┘        beside: memory and objects each second, kill -9
//! ```
//!
//! Laws: a push without an answer is sent again until it has one, so the ledger has each profile once; what is asked for lies
//! before the oldest push under way and within the time for which profiles are kept.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cambium_loadtest::fleet::{Bases, Fleet, Kind, Place, Push, Shape, service_name};
use cambium_loadtest::random::at;
use cambium_runtime::clock::{Clock, FastClock, SystemClock};

use crate::process::memory;
use crate::{Client, Sandbox};

const SECOND_NS: i64 = 1_000_000_000;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
const DAY_NS: i64 = 24 * HOUR_NS;
/// When it begins: the day's end, with the merges that wait for it, is six hours away.
const BEGIN_NS: i64 = 18 * HOUR_NS;
/// How long profiles are kept, and how much of that is asked for: the oldest may go while a question is answered.
const RETENTION_NS: i64 = 6 * HOUR_NS;
const ASKED_NS: i64 = 5 * HOUR_NS;
/// After this nothing may be left of a profile: the longest block that is not whole days is two hours, and what is in one
/// with a day's end goes that much later.
const GONE_NS: i64 = 2 * RETENTION_NS + 3 * HOUR_NS;

const TENANTS: u64 = 3;
const PUSHERS: usize = 4;
/// Between two attempts of a push, and between two looks at the clock.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts of a push: a minute of them.
const ATTEMPTS_MAX: u64 = 600;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Which of a kind's values is summed: CPU time.
const SUMMED: usize = 1;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many times as fast as the machine's clock the server's runs.
    pub speed: u32,
    /// How long, by the server's clock.
    pub hours: i64,
    /// Time between two profiles of a pod, by the server's clock.
    pub interval_ns: i64,
    /// How often the server is killed, in the first third.
    pub kills: usize,
}

/// What was seen at one time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the start, by the machine's clock.
    pub seconds: f64,
    /// The server's memory, resident.
    pub rss_bytes: f64,
    /// Objects in the folder of blocks.
    pub objects: usize,
}

/// What it came to; every sum was right.
#[derive(Clone, Debug)]
pub struct Report {
    /// Profiles acknowledged.
    pub pushes: usize,
    /// Attempts after the first: while the server was down, or busy.
    pub retries: u64,
    /// Sums compared that were not 0, and questions that got no answer.
    pub checks: u64,
    /// See `checks`.
    pub unanswered: u64,
    /// Each second.
    pub samples: Vec<Sample>,
}

impl Report {
    /// Most memory in the first and in the second half.
    pub fn halves(&self) -> [f64; 2] {
        let (first, second) = self.samples.split_at(self.samples.len() / 2);
        [first, second].map(|half| half.iter().map(|sample| sample.rss_bytes).fold(0.0, f64::max))
    }

    /// Most objects at a time.
    pub fn objects_max(&self) -> usize {
        self.samples.iter().map(|sample| sample.objects).max().unwrap_or(0)
    }
}

/// A push that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tenant: u64,
    service: u64,
    time_ns: i64,
    sum: i64,
}

struct Soak {
    plan: Plan,
    fleet: Fleet,
    clock: FastClock,
    start_ns: i64,
    /// Where the server is now.
    client: RwLock<Client>,
    ledger: Mutex<Vec<Entry>>,
    /// Of each pusher: everything before this is acknowledged.
    acknowledged_ns: [AtomicI64; PUSHERS],
    retries: AtomicU64,
    checks: AtomicU64,
    unanswered: AtomicU64,
    over: AtomicBool,
}

/// Runs it with this binary, which has failpoints.
///
/// # Errors
/// A wrong sum, a push that was refused, something that is left of what is too old.
pub fn run(binary: &str, plan: Plan) -> anyhow::Result<Report> {
    let now_ns = SystemClock::new().now_ns();
    let start_ns = now_ns - now_ns.rem_euclid(DAY_NS) + BEGIN_NS;
    let fleet = Fleet::new(shape(plan.interval_ns), &Bases::committed())?;
    let mut sandbox = Sandbox::new(binary, ARGUMENTS);
    let clock = FastClock::at(start_ns, plan.speed);
    sandbox.set_clock(&clock);
    sandbox.start();
    let soak = Soak {
        plan,
        fleet,
        clock,
        start_ns,
        client: RwLock::new(sandbox.client()),
        ledger: Mutex::default(),
        acknowledged_ns: [const { AtomicI64::new(0) }; PUSHERS],
        retries: AtomicU64::new(0),
        checks: AtomicU64::new(0),
        unanswered: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let samples = thread::scope(|scope| {
        let mut workers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                scope.spawn({
                    let soak = &soak;
                    move || soak.or_over(soak.push_all(pusher))
                })
            })
            .collect();
        let checker = scope.spawn(|| soak.or_over(soak.check_all()));
        let watched = soak.or_over(soak.watch(&mut sandbox, || workers.iter().all(|w| w.is_finished())));
        soak.over.store(true, Ordering::SeqCst);
        workers.push(checker);
        let ended = workers.into_iter().try_for_each(|worker| worker.join().expect("workers do not panic"));
        // What a worker saw says more than that the watch was cut short.
        ended.and(watched)
    })?;
    soak.check_end(&sandbox)?;
    Ok(Report {
        pushes: soak.ledger.into_inner().unwrap_or_else(PoisonError::into_inner).len(),
        retries: soak.retries.into_inner(),
        checks: soak.checks.into_inner(),
        unanswered: soak.unanswered.into_inner(),
        samples,
    })
}

/// Deadlines run as fast as everything else: these are the longest that there are. Caches are small, so that they are full
/// long before the end: what still grows then is something else.
const ARGUMENTS: &[&str] = &[
    "--blocks.cache-bytes=32MiB",
    "--querier.partial-trees-bytes=16MiB",
    "--metastore.symbols-cache-bytes=16MiB",
    "--auth=header",
    "--limits.retention-secs=21600",
    "--limits.reject-older-than-secs=10800",
    "--querier.timeout=890s",
    "--distributor.push-timeout=1h",
    "--compactor.interval=5m",
];

fn shape(interval_ns: i64) -> Shape {
    Shape {
        seed: 42,
        cluster: "soak".to_owned(),
        services: 4,
        pods: 10,
        kinds: vec![Kind::Cpu],
        interval_ns,
        draws: [20, 100],
        stacks: [100, 400],
        deploy_every_ns: 4 * HOUR_NS,
        rolling_ns: HOUR_NS,
        pod_lifetime_ns: 2 * HOUR_NS,
        unique_labels: Vec::new(),
    }
}

fn tenant_name(tenant: u64) -> String {
    format!("soak-{tenant}")
}

impl Soak {
    /// The result, having told all others to end if it is an error.
    fn or_over<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if result.is_err() {
            self.over.store(true, Ordering::SeqCst);
        }
        result
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn client(&self, tenant: u64) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).as_tenant(&tenant_name(tenant))
    }

    /// Every push of this pusher when it is due: it takes turns with the others.
    fn push_all(&self, pusher: usize) -> anyhow::Result<()> {
        let slots = TENANTS * self.fleet.series();
        for number in (pusher as u64..).step_by(PUSHERS) {
            let offset_ns =
                (i128::from(number) * i128::from(self.plan.interval_ns) / i128::from(slots)) as i64;
            // Whole microseconds: no question's bound falls on a push.
            let offset_ns = offset_ns / 1_000 * 1_000;
            let due_ns = self.start_ns + offset_ns;
            self.acknowledged_ns[pusher].store(due_ns, Ordering::SeqCst);
            if offset_ns >= self.plan.hours * HOUR_NS {
                break;
            }
            while self.clock.now_ns() < due_ns && !self.is_over() {
                let ahead_ns = (due_ns - self.clock.now_ns()).max(0) as u64 / u64::from(self.plan.speed);
                pause(PAUSE.min(Duration::from_nanos(ahead_ns)));
            }
            if self.is_over() {
                break;
            }
            let (slot, round) = (number % slots, number / slots);
            let (tenant, series) = (slot % TENANTS, slot / TENANTS);
            let push = self.fleet.push(Place { tenant, series, round, offset_ns }, self.start_ns);
            self.send(tenant, &push)?;
            let entry =
                Entry { tenant, service: push.service, time_ns: push.time_ns, sum: push.sums[SUMMED] };
            self.ledger.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
        Ok(())
    }

    /// Sends until it is acknowledged; bytes that the server has already it counts once.
    fn send(&self, tenant: u64, push: &Push) -> anyhow::Result<()> {
        let (labels, name) = (push.labels.to_string(), [("name", push.kind.name())]);
        let mut last = String::new();
        for _ in 0..ATTEMPTS_MAX {
            match self.client(tenant).push(&labels, &name, &push.body) {
                // A server that is killed leaves half an answer.
                Ok(answer) if answer.status == 200 && answer.text().contains("success") => return Ok(()),
                Ok(answer) if matches!(answer.status, 200 | 408 | 429 | 503 | 504) => last = answer.text(),
                Ok(answer) => bail!("a push was refused: {} {}", answer.status, answer.text()),
                Err(error) => last = error.to_string(),
            }
            self.retries.fetch_add(1, Ordering::SeqCst);
            pause(PAUSE);
        }
        bail!("a push was not acknowledged: {last}")
    }

    /// Compares sums until all is over.
    fn check_all(&self) -> anyhow::Result<()> {
        for number in 0.. {
            if self.is_over() {
                break;
            }
            let random = |index: u64, below: i64| (at(7, number, 0, index) % below.max(1) as u64) as i64;
            let until_ns =
                self.acknowledged_ns.iter().map(|time| time.load(Ordering::SeqCst)).min().unwrap_or(0);
            let since_ns = self.start_ns.max(self.clock.now_ns() - ASKED_NS);
            let from_ns = since_ns + random(0, until_ns - since_ns);
            let to_ns = (from_ns + 1 + random(1, until_ns - from_ns)).min(until_ns);
            let service = (random(2, 2) == 0).then(|| random(3, 4) as u64);
            if from_ns < to_ns {
                self.check(random(4, TENANTS as i64) as u64, service, from_ns, to_ns)?;
            }
            pause(PAUSE);
        }
        Ok(())
    }

    /// Compares one sum, if there is an answer.
    fn check(&self, tenant: u64, service: Option<u64>, from_ns: i64, to_ns: i64) -> anyhow::Result<()> {
        let [from_ns, to_ns] = [from_ns, to_ns].map(|time_ns| time_ns / 1_000 * 1_000 - 1);
        let expected: i64 = {
            let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let of_tenant = ledger.iter().filter(|entry| entry.tenant == tenant);
            let asked = of_tenant.filter(|entry| {
                (from_ns..to_ns).contains(&entry.time_ns) && service.is_none_or(|only| only == entry.service)
            });
            asked.map(|entry| entry.sum).sum()
        };
        match self.total(tenant, service, from_ns, to_ns) {
            // While it is down, or too busy; how often is counted.
            Err(_) => drop(self.unanswered.fetch_add(1, Ordering::SeqCst)),
            Ok(total) => {
                let after = (from_ns - self.start_ns) as f64 / HOUR_NS as f64;
                ensure!(
                    total == expected,
                    "tenant {tenant}, service {service:?}, {:.3} hours from hour {after:.3} on: {total} is not {expected}",
                    (to_ns - from_ns) as f64 / HOUR_NS as f64
                );
                self.checks.fetch_add(u64::from(expected > 0), Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn total(&self, tenant: u64, service: Option<u64>, from_ns: i64, to_ns: i64) -> anyhow::Result<i64> {
        let matchers = service.map(|service| format!(r#"service_name="{}""#, service_name(service)));
        let query = format!("{}{{{}}}", Kind::Cpu.profile_type(SUMMED), matchers.unwrap_or_default());
        let [start, end] = [from_ns, to_ns]
            .map(|time_ns| format!("{}.{:09}", time_ns / SECOND_NS, time_ns.rem_euclid(SECOND_NS)));
        let parameters = [("query", &*query), ("format", "top"), ("start", &start), ("end", &end)];
        let answer = self.client(tenant).get("/api/v1/query", &parameters)?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
        answer["data"]["total"].as_i64().context("no total")
    }

    /// Looks at memory and objects, and kills, until all is pushed.
    fn watch(&self, sandbox: &mut Sandbox, is_done: impl Fn() -> bool) -> anyhow::Result<Vec<Sample>> {
        let wall = SystemClock::new();
        let seconds = (self.plan.hours * 3_600) as f64 / f64::from(self.plan.speed);
        let (mut samples, mut killed) = (Vec::new(), 0);
        while !is_done() && !self.is_over() {
            let passed = wall.monotonic().as_secs_f64();
            let (rss_bytes, _) = memory(sandbox.process_id()).context("the server has died")?;
            let objects = objects(&sandbox.data_dir().join("blocks"));
            samples.push(Sample { seconds: passed, rss_bytes, objects });
            // The last one a third of the way: memory is seen to be flat over the rest.
            if killed < self.plan.kills
                && passed >= seconds / 3.0 * (killed + 1) as f64 / self.plan.kills as f64
            {
                sandbox.kill();
                sandbox.start();
                *self.client.write().unwrap_or_else(PoisonError::into_inner) = sandbox.client();
                killed += 1;
            }
            pause(SAMPLE_EVERY);
        }
        ensure!(killed == self.plan.kills || self.is_over(), "killed {killed} times");
        Ok(samples)
    }

    /// Everything that is kept is there, once; what is too old is gone.
    fn check_end(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        let before = self.checks.load(Ordering::SeqCst);
        for tenant in 0..TENANTS {
            for service in (0..self.fleet.shape().services).map(Some).chain([None]) {
                let now_ns = self.clock.now_ns();
                self.check(tenant, service, now_ns - ASKED_NS, now_ns)?;
            }
            let old = self.total(tenant, None, self.start_ns - HOUR_NS, self.clock.now_ns() - GONE_NS)?;
            ensure!(old == 0, "tenant {tenant} still has {old} of what is too old");
        }
        let asked = self.checks.load(Ordering::SeqCst) - before;
        let expected = TENANTS * (self.fleet.shape().services + 1);
        ensure!(asked == expected, "{asked} of {expected} sums at the end");
        let answer = sandbox.operator().get("/api/v1/admin/blocks", &[])?;
        let listed: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let now_ns = self.clock.now_ns();
        for block in listed["data"].as_array().context("no blocks")? {
            let time = |name: &str| block[name].as_i64().context("a block without times");
            let is_kept = time("last_ns")? >= now_ns - RETENTION_NS - HOUR_NS;
            ensure!(is_kept && time("first_ns")? >= now_ns - GONE_NS, "still there: {block}");
        }
        Ok(())
    }
}

/// Files below the folder.
fn objects(folder: &Path) -> usize {
    // What the server deletes meanwhile is not there.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { objects(&entry.path()) } else { 1 }).sum()
}

#[expect(clippy::disallowed_methods, reason = "a client of another process has nothing else to wait for")]
fn pause(time: Duration) {
    thread::sleep(time);
}
