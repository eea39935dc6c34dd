//! `cambium-loadtest`: sends a fleet's profiles to a server as fleets do, reads beside it, and verifies every sum.
//!
//! ```text
//!   scenario ─► Fleet (library) ─► pushes: made ahead ─► pace: open loop ─► protocol: cambium | parca | pyroscope ─► server
//!                                      │                    │                                                         │
//!                                   ledger: control sums    recorder: latencies from when due         reads, verify ◄─┘
//!                                      └──────────► verify ─┴─► report: table, JSON, HTML
//! ```
//!
//! Laws: the load does not slow down because the server does. What is late, refused, of unknown fate or never sent is
//! counted and told. Retries send the same bytes. Every bound has a name or a setting.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::protocol::Protocol;
use crate::run::Plan;
use crate::scenario::{Scenario, Span};

mod client;
mod ledger;
mod pace;
mod process;
mod progress;
mod protocol;
mod pushes;
mod reads;
mod recorder;
mod report;
mod run;
mod sampler;
mod scenario;
#[cfg(test)]
mod tests;
mod verify;

/// Most tenants of one run.
const TENANTS_MAX: u64 = 10_000;
/// What the program ends with when an answer was wrong, or nothing could be verified.
const EXIT_WRONG: u8 = 2;

#[derive(Debug, Parser)]
#[command(version, about = "Drives a profiling server as a fleet does, and verifies what it answers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario against a server
    Run(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Scenario file; see loadtest/README.md
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4040")]
    target: String,
    /// How to push
    #[arg(long, value_enum, default_value_t = Protocol::Cambium)]
    protocol: Protocol,
    /// In which API to read and verify; by default Cambium's when pushes are in Cambium's protocol, else none
    #[arg(long, value_enum)]
    reads: Option<Reads>,
    /// Tenants loadtest-0, loadtest-1, …, each with a fleet of its own; 0 sends no tenant
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=TENANTS_MAX))]
    tenants: u64,
    /// How long, instead of what the scenario says: 90s, 10m, 2h
    #[arg(long)]
    duration: Option<Span>,
    /// Pushes in a second, instead of what the scenario's fleet makes
    #[arg(long)]
    rate: Option<f64>,
    /// Folder of pprof files to take stacks from; by default those of the golden tests
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
    /// The server's process, to report its memory and CPU time
    #[arg(long)]
    pid: Option<u32>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write every figure as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reads {
    /// Cambium's HTTP API
    Cambium,
    /// No reads, and nothing verified
    None,
}

fn main() -> ExitCode {
    let Command::Run(options) = Arguments::parse().command;
    match drive(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_WRONG),
        Err(error) => {
            report::table::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs and reports; whether all was right.
fn drive(options: Options) -> anyhow::Result<bool> {
    let Options { report: page, json, .. } = &options;
    let (page, json) = (page.clone(), json.clone());
    let plan = plan(options)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(threads).build()?;
    let report = runtime.block_on(async {
        let stop = CancellationToken::new();
        let run = std::pin::pin!(run::run(plan, stop.clone()));
        let interrupt = async {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            report = run => report,
            () = interrupt => unreachable!("pending for ever"),
        }
    })?;
    report::table::print(&report);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = page {
        std::fs::write(&path, report::page::html(&report)).with_context(|| path.display().to_string())?;
    }
    Ok(report.good())
}

/// The scenario with what the command line puts in its place.
fn plan(options: Options) -> anyhow::Result<Plan> {
    let Options { scenario, target, protocol, reads, tenants, duration, rate, profiles, pid, .. } = options;
    let mut scenario = Scenario::read(&scenario)?;
    if let Some(duration) = duration {
        ensure!(!duration.0.is_zero(), "--duration must be more than 0");
        scenario.duration = duration;
    }
    let of_fleet = (tenants.max(1) * scenario.series()) as f64 / scenario.fleet.interval.0.as_secs_f64();
    let rate = rate.unwrap_or(of_fleet);
    ensure!(rate.is_finite() && rate > 0.0, "--rate must be more than 0");
    let reads = reads.unwrap_or(if protocol == Protocol::Cambium { Reads::Cambium } else { Reads::None });
    let reads = reads == Reads::Cambium;
    if let Some(pid) = pid {
        process::cpu_time(&pid.to_string()).context("--pid")?;
    }
    Ok(Plan { scenario, target, protocol, tenants, rate, reads, profiles, pid })
}
