//! A month of running in minutes: every flush, merge and removal of it happens, under a clock that is moved, and the questions
//! are asked over the real endpoints.
//!
//! ```text
//!   each minute: profiles ─► head ─► block of level 0 ─► catalogue      every 500 series, one partition
//!                                                  └─► compactor ─► levels 1 to 3, sweep
//!   29 days with a profile of each series every twenty minutes, then a day of workload W: one every ten seconds
//! ```

use std::path::PathBuf;

use anyhow::{Context, ensure};
use cambium_ingester::head::Head;
use cambium_loadtest::w::{PROFILE_TYPE, Shape, W, Workload};
use cambium_model::limits::TenantLimits;
use cambium_model::profile::Profile;
use cambium_model::tenant::{Tenant, TenantId};
use cambium_model::time::SECOND_NS;
use cambium_runtime::clock::{Clock, SystemClock};
use serde_json::Value;

use crate::Bench;
use crate::life::{Life, PUTS_PER_MINUTE_MAX};
use crate::questions::{decimal, get, url_encoded};
use crate::table::{Row, Unit};

/// Days, the last one of workload W.
const DAYS: i64 = 30;
const DAY_MINUTES: i64 = 1_440;
/// Rounds of the workload that are sent over and over.
const ROUNDS: u64 = 12;
/// Minutes between two profiles of a series on a thin day.
const THIN_MINUTES: u64 = 20;
/// Seconds between two on the last day.
const FULL_SECONDS: i64 = 10;
/// The service that is asked for: neither the smallest nor the largest.
const SERVICE: &str = "svc-10";
/// Days whose median the first and the last ones are compared by.
const FEW_DAYS: usize = 5;
/// How often each question is asked.
const ASKED: usize = 60;

struct Month {
    life: Life,
    wall: SystemClock,
    tenant: Tenant,
    /// By series and round; only their times change.
    profiles: Vec<Profile>,
    series: u64,
    scope_labels: Vec<String>,
    /// Time, whether of the service, and total of all profiles.
    sent: Vec<(i64, bool, i64)>,
}

/// Runs the month and asks.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = bench.folder.clone();
    runtime.block_on(month(bench, folder))
}

async fn month(bench: &mut Bench, folder: PathBuf) -> anyhow::Result<()> {
    let days: i64 = std::env::var("MONTH_DAYS").map_or(Ok(DAYS), |days| days.parse())?;
    let mut month = Month::new(&folder).await?;
    let mut hour = Vec::new();
    for day in 1..=days {
        month.day(day == days).await.with_context(|| format!("day {day}"))?;
        if day < days {
            let answers = month.ask("3600", true).await?;
            hour.push(answers.at(95));
            eprintln!("day {day}: an hour of one service p95 {:.1} ms", answers.at(95) * 1e3);
        }
    }
    let (objects, puts) = (month.life.objects().await?, month.life.puts());
    let minutes = (days * DAY_MINUTES) as f64;
    let table = &mut bench.table;
    table.add(
        Row::new("month: objects put for each minute of a partition", puts / minutes, Unit::Decimal)
            .at_most(PUTS_PER_MINUTE_MAX)
            .note(format!("{puts} in {days} days; {objects} left")),
    );
    // One day's p95 is the fourth of sixty answers, and may be a neighbour's.
    let few = FEW_DAYS.min(hour.len());
    let (before, after) = (median(&hour[..few]), median(&hour[hour.len() - few..]));
    let growth = after / before - 1.0;
    let note = format!("{:.1} ms in the first {few} days, {:.1} ms in the last", before * 1e3, after * 1e3);
    table.add(Row::new("month: growth of an hour's p95", growth, Unit::Fraction).at_most(0.2).note(note));
    for (name, seconds, one_service, percentile, bar) in [
        ("one service, 24 h, p50", "86400", true, 50, 0.05),
        ("one service, 24 h, p95", "86400", true, 95, 0.1),
        ("all services, 24 h, p95", "86400", false, 95, 1.0),
        ("one service, 30 days, p95", "2592000", true, 95, 0.3),
    ] {
        let answers = month.ask(seconds, one_service).await?;
        let row = Row::new(format!("month: {name}, warm, wall"), answers.at(percentile), Unit::Seconds);
        bench.table.add(row.at_most(bar).note(answers.note.clone()));
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// How long answers took, ascending, and what the last one cost.
struct Answers {
    seconds: Vec<f64>,
    note: String,
}

impl Answers {
    fn at(&self, percentile: usize) -> f64 {
        self.seconds[(self.seconds.len() * percentile / 100).min(self.seconds.len() - 1)]
    }
}

impl Month {
    async fn new(folder: &std::path::Path) -> anyhow::Result<Self> {
        eprintln!("building the fleet of the month");
        let workload = Workload::new(Shape { rounds: ROUNDS, ..W }, folder)?;
        let life = Life::new().await?;
        let tenant = life.tenants.resolve_or_create(&TenantId::anonymous()).await?;
        let located: Vec<_> = workload.locations().map(|(id, location)| (id, location.clone())).collect();
        for some in located.chunks(10_000) {
            life.symbols.write_missing(tenant.number, some).await?;
        }
        let series = workload.series();
        let each = (0..series).flat_map(|series| (0..ROUNDS).map(move |round| (series, round)));
        let profiles = each.map(|(series, round)| workload.profile(series, round, 0)).collect();
        Ok(Self {
            life,
            wall: SystemClock::new(),
            tenant,
            profiles,
            series,
            scope_labels: TenantLimits::default().scope_labels,
            sent: Vec::new(),
        })
    }

    /// A day of flushes and compaction.
    async fn day(&mut self, full: bool) -> anyhow::Result<()> {
        for _ in 0..DAY_MINUTES {
            let head = self.minute(full);
            self.life.pass(&[head.into_dataset()]).await?;
        }
        Ok(())
    }

    fn minute(&mut self, full: bool) -> Head {
        let start_ns = self.life.start_ns();
        let mut head = Head::new(self.tenant.clone());
        for series in 0..self.series {
            // Pods do not start together.
            let jitter_ns = series as i64 * 17 * 1_000_000;
            let minute = self.life.minute as u64;
            if full {
                for tick in 0..60 / FULL_SECONDS {
                    let round = minute * 6 + tick as u64;
                    self.add(
                        &mut head,
                        series,
                        round,
                        start_ns + tick * FULL_SECONDS * SECOND_NS + jitter_ns,
                    );
                }
            } else if (series + minute).is_multiple_of(THIN_MINUTES) {
                self.add(&mut head, series, minute / THIN_MINUTES, start_ns + jitter_ns);
            }
        }
        head
    }

    fn add(&mut self, head: &mut Head, series: u64, round: u64, time_ns: i64) {
        let profile = &mut self.profiles[(series * ROUNDS + round % ROUNDS) as usize];
        profile.time_ns = time_ns;
        head.add(profile, &self.scope_labels);
        let total = profile.column(0).iter().sum();
        let is_of_service = profile.labels.get("service_name") == Some(SERVICE);
        self.sent.push((time_ns, is_of_service, total));
    }

    /// Asks for the last so many seconds, again and again, a little earlier each time, so that no range is aligned and
    /// none was asked for before; the first answers are not counted.
    async fn ask(&self, seconds: &str, one_service: bool) -> anyhow::Result<Answers> {
        let matchers = if one_service { format!(r#"{{service_name="{SERVICE}"}}"#) } else { "{}".to_owned() };
        let span_ns = seconds.parse::<i64>()? * SECOND_NS;
        let mut answers = Answers { seconds: Vec::with_capacity(ASKED), note: String::new() };
        for number in 0..ASKED + 3 {
            let end_ns = self.life.clock.now_ns() - (number as i64 + 1) * 7 * SECOND_NS - 123_456_789;
            let start_ns = end_ns - span_ns;
            let query: String = url_encoded(&format!("{PROFILE_TYPE}{matchers}"));
            let uri =
                format!("/api/v1/query?query={query}&start={}&end={}", decimal(start_ns), decimal(end_ns));
            let began = self.wall.monotonic();
            let answer = get(&self.life.router, &self.tenant.id, &uri).await?;
            let spent = (self.wall.monotonic() - began).as_secs_f64();
            let answer: Value = serde_json::from_slice(&answer)?;
            let of_range = self.sent.iter().filter(|(time_ns, is_of_service, _)| {
                (start_ns..end_ns).contains(time_ns) && (*is_of_service || !one_service)
            });
            if number == 0 {
                let expected: i64 = of_range.map(|(_, _, total)| total).sum();
                ensure!(
                    answer["data"]["total"] == expected,
                    "{uri}: {} is not {expected}",
                    answer["data"]["total"]
                );
            }
            if number >= 3 {
                answers.seconds.push(spent);
                answers.note = answer["stats"].to_string();
            }
        }
        answers.seconds.sort_by(f64::total_cmp);
        Ok(answers)
    }
}
