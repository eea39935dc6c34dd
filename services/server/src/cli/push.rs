//! `cambium push`: files to a server, one at a time, each durable before it is said to be sent.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cambium_model::limits::TenantLimits;
use cambium_model::time::SECOND_NS;
use cambium_proto::pprof::Decompressor;
use cambium_proto::wire::perftools::Profile;
use cambium_runtime::clock::{Clock, SystemClock};
use clap::Args;
use prost::Message;

use super::ServerArgs;
use super::client::Client;
use super::print;

/// Tries of one file while the server says to come back later.
const TRIES_MAX: u32 = 5;

#[derive(Args, Debug)]
pub(super) struct PushArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Labels of the series, such as {service_name="api",pod="a"}.
    #[arg(long, default_value = "{service_name=\"unknown\"}")]
    labels: String,
    /// The profiles' name, such as process_cpu; by default it follows from what they measure.
    #[arg(long)]
    name: Option<String>,
    /// The time to store the profiles under, RFC 3339 or unix seconds; by default their own, or now where that lies
    /// outside what servers accept.
    #[arg(long)]
    timestamp: Option<String>,
    /// pprof files, gzip or not.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &PushArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let clock = SystemClock::new();
    for path in &args.files {
        push(&client, args, path, &clock).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn push(client: &Client, args: &PushArgs, path: &Path, clock: &SystemClock) -> anyhow::Result<()> {
    let body = std::fs::read(path)?;
    let mut parameters = vec![("labels", args.labels.as_str())];
    if let Some(name) = &args.name {
        parameters.push(("name", name));
    }
    let moved;
    if let Some(timestamp) = &args.timestamp {
        parameters.push(("timestamp", timestamp));
    } else if let Some(now_ns) = outside_window(&body, clock)? {
        moved = format!("{}.{:09}", now_ns / SECOND_NS, now_ns % SECOND_NS);
        print(&format!("{}: its own time is outside what is accepted, sent as of now", path.display()));
        parameters.push(("timestamp", &moved));
    }
    // The parameters stay the same over all tries, so that a retry is recognised as one.
    for tries_left in (0..TRIES_MAX).rev() {
        let answer = client.post("/api/v1/profiles", &parameters, &body)?;
        let wait = answer.retry_after.filter(|_| tries_left > 0 && matches!(answer.status, 429 | 503));
        let Some(wait) = wait else {
            let sent: serde_json::Value = serde_json::from_slice(&answer.good()?)?;
            let data = &sent["data"];
            print(&format!("{}: {} profiles, {} samples", path.display(), data["profiles"], data["samples"]));
            return Ok(());
        };
        print(&format!("{}: {}, again in {} s", path.display(), answer.message(), wait.as_secs()));
        pause(wait);
    }
    anyhow::bail!("not taken after {TRIES_MAX} tries")
}

#[expect(clippy::disallowed_methods, reason = "a command line waits in real time")]
fn pause(wait: std::time::Duration) {
    std::thread::sleep(wait);
}

/// The time now, where the profile's own lies outside the default acceptance window.
fn outside_window(body: &[u8], clock: &SystemClock) -> anyhow::Result<Option<i64>> {
    let limits = TenantLimits::default();
    let bytes_max = usize::try_from(limits.profile_bytes_max).unwrap_or(usize::MAX);
    let time_ns = Profile::decode(Decompressor::new().decompress(body, bytes_max)?)?.time_nanos;
    let now_ns = clock.now_ns();
    let seconds = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(SECOND_NS);
    let oldest_ns = now_ns - seconds(limits.reject_older_than_secs);
    let newest_ns = now_ns + seconds(limits.reject_newer_than_secs);
    let outside = time_ns != 0 && !(oldest_ns..=newest_ns).contains(&time_ns);
    Ok(outside.then_some(now_ns))
}
