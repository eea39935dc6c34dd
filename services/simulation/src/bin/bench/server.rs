//! The real `cambium` as a process of its own, fed over HTTP.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore};
use prost::Message;

use cambium_blocks::local::DurableLocal;
use cambium_loadtest::w::{self, Workload};
use cambium_loadtest::w1::{self, W1};
use cambium_model::block::BlockMeta;
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_simulation::process::{disk_bytes, memory, server_time};
use cambium_simulation::{Client, Sandbox};

use crate::Bench;
use crate::encode::sections;
use crate::table::{Row, Unit};

/// Connections that push at the same time.
const CONNECTIONS: usize = 16;
/// Times that a query is asked: the CPU clock of another process ticks in hundredths of a second.
const QUERIES: u32 = 50;
const WARM_UP_QUERIES: u32 = 5;
/// Pushes that are refused because the server is busy are sent again after this.
const RETRY: Duration = Duration::from_millis(200);
const RETRIES_MAX: u32 = 600;
/// Until a profile of the server by itself has come in, which is part of being idle.
const IDLE: Duration = Duration::from_secs(15);

/// Peers were sent 22.8 kB a push, and raw it is 54.2: what is larger has not been compressed.
const BODY_BYTES_MAX: f64 = 27e3;
const CPU_PER_1000_MAX: f64 = 0.4;
const W1_RSS_MAX: f64 = 300e6;
const MERGE_SECONDS_MAX: f64 = 20e-3;
const SAMPLE_BYTES_MAX: f64 = 5.0;
const IDLE_RSS_MAX: f64 = 80e6;

const W1_TYPE: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// What profiles and labels a push has, by its number.
type Body<'a> = &'a (dyn Fn(u64) -> (String, Vec<u8>) + Sync);

/// Workload W1 end to end.
pub fn w1(bench: &mut Bench) -> anyhow::Result<()> {
    let binary = build()?;
    let w1 = W1::load(&bench.folder)?;
    let start_ns = seconds_ago((w1::ROUNDS * 10 + 60) as i64);
    eprintln!("making the pushes of W1");
    let count = w1::SERIES * w1::ROUNDS;
    let bodies: Vec<Vec<u8>> = (0..count)
        .map(|push| w1.profile(push % w1::SERIES, push / w1::SERIES, start_ns).encode_to_vec())
        .map(|raw| w::gzip(&raw))
        .collect();
    let body_bytes = bodies.iter().map(Vec::len).sum::<usize>() as f64 / count as f64;
    anyhow::ensure!(
        body_bytes < BODY_BYTES_MAX,
        "pushes of {body_bytes:.0} B are not those that peers were sent"
    );
    let sandbox = Sandbox::running(&binary.to_string_lossy(), &unlimited());
    let (before, began) = (server_time(sandbox.process_id())?, wall());
    let retries =
        push_all(&sandbox, count, &|push| (W1::labels(push % w1::SERIES), bodies[push as usize].clone()))?;
    let spent = (server_time(sandbox.process_id())? - before).as_secs_f64();
    let took = (wall() - began).as_secs_f64();
    let (_, peak) = memory(sandbox.process_id())?;
    bench.table.add(
        Row::new("W1: server CPU per 1,000 profiles", spent * 1e3 / count as f64, Unit::Seconds)
            .at_most(CPU_PER_1000_MAX)
            .note(format!(
                "{count} profiles of {:.1} kB over {CONNECTIONS} connections in {took:.0} s, {retries} sent again",
                body_bytes / 1e3
            )),
    );
    bench.table.add(
        Row::new("W1: peak memory", peak, Unit::Bytes).at_most(W1_RSS_MAX).note("resident, before the flush"),
    );

    let before = server_time(sandbox.process_id())?;
    check_sums(&sandbox.client(), start_ns).context("from the head")?;
    sandbox.flush().map_err(anyhow::Error::msg)?;
    let flushed = (server_time(sandbox.process_id())? - before).as_secs_f64();
    check_sums(&sandbox.client(), start_ns).context("from blocks")?;
    let (_, peak) = memory(sandbox.process_id())?;
    bench
        .table
        .add(Row::new("W1: peak memory with flush and queries", peak, Unit::Bytes).at_most(W1_RSS_MAX));
    bench.table.add(Row::new("W1: flush and three sums from the head", flushed, Unit::Seconds));
    w1_disk(bench, sandbox.data_dir())?;
    w1_queries(bench, &sandbox, start_ns)
}

fn w1_disk(bench: &mut Bench, folder: &Path) -> anyhow::Result<()> {
    let samples = w1::SAMPLES as f64;
    let blocks = disk_bytes(&folder.join("blocks"))? / samples;
    let all = disk_bytes(folder)? / samples;
    let row = Row::new("W1: blocks on disk, per sample", blocks, Unit::BytesEach).at_most(SAMPLE_BYTES_MAX);
    let metas = bench.runtime.block_on(block_metas(&folder.join("blocks")))?;
    bench.table.add(row.note(format!("level 0, two values per sample; {}", sections(&metas, samples))));
    let row = Row::new("W1: the whole data folder, per sample", all, Unit::BytesEach);
    bench.table.add(row.note("with the log's last segment and the metastore, which has every name once"));
    Ok(())
}

/// What the blocks below a folder say of themselves.
async fn block_metas(folder: &Path) -> anyhow::Result<Vec<BlockMeta>> {
    let store = DurableLocal::open(folder)?;
    let files: Vec<ObjectMeta> = store.list(None).try_collect().await?;
    let mut metas = Vec::new();
    for file in files {
        metas.push(cambium_blocks::reader::open(&store, file.location.as_ref()).await?);
    }
    Ok(metas)
}

fn w1_queries(bench: &mut Bench, sandbox: &Sandbox, start_ns: i64) -> anyhow::Result<()> {
    let wide = window(start_ns - 3_600_000_000_000, start_ns + 3_600_000_000_000);
    let exact = window(start_ns, start_ns + 600_000_000_000);
    let all = format!("{W1_TYPE}{{}}");
    let pod = format!(r#"{W1_TYPE}{{pod="svc-07-pod-0007"}}"#);
    for (name, path, query, range, bar) in [
        ("merge of all to a flame graph", "/api/v1/query", &all, &wide, Some(MERGE_SECONDS_MAX)),
        ("the same, range cut to the data", "/api/v1/query", &all, &exact, None),
        ("merge of one pod", "/api/v1/query", &pod, &wide, None),
        ("time series of all", "/api/v1/query_range", &all, &wide, None),
    ] {
        let ask = || {
            let [start, end] = range;
            let parameters = [("query", query.as_str()), ("start", start), ("end", end), ("step", "15")];
            let parameters = if path.ends_with("range") { &parameters[..] } else { &parameters[..3] };
            let answer = sandbox.client().get(path, parameters)?;
            anyhow::ensure!(answer.status == 200, "{name}: {}", answer.text());
            Ok(answer.body.len())
        };
        for _ in 0..WARM_UP_QUERIES {
            ask()?;
        }
        let (before, began) = (server_time(sandbox.process_id())?, wall());
        let mut bytes = 0;
        for _ in 0..QUERIES {
            bytes = ask()?;
        }
        let spent = (server_time(sandbox.process_id())? - before).as_secs_f64() / f64::from(QUERIES);
        let took = (wall() - began).as_secs_f64() / f64::from(QUERIES);
        let row = Row::new(format!("W1: {name}, warm, server CPU"), spent, Unit::Seconds);
        let row = bar.map_or(row.clone(), |bar| row.at_most(bar));
        bench.table.add(row.note(format!("{:.1} ms of wall time, {:.0} kB", took * 1e3, bytes as f64 / 1e3)));
    }
    Ok(())
}

/// The sums that every store must give back.
fn check_sums(client: &Client, start_ns: i64) -> anyhow::Result<()> {
    let at = start_ns + 30 * w1::INTERVAL_NS;
    let wide = window(start_ns, start_ns + w1::ROUNDS as i64 * w1::INTERVAL_NS);
    let pod = r#"{pod="svc-07-pod-0007"}"#;
    for (selector, [start, end], expected) in [
        ("{}", &wide, w1::TOTAL_NS),
        (pod, &wide, w1::POD_7_NS),
        (pod, &window(at, at), w1::POD_7_ROUND_30_NS),
    ] {
        let query = format!("{W1_TYPE}{selector}");
        let parameters = [("query", query.as_str()), ("start", start), ("end", end), ("format", "top")];
        let answer = client.get("/api/v1/query", &parameters)?;
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        let total = answer.json()["data"]["total"].as_i64();
        anyhow::ensure!(total == Some(expected), "{selector} sums to {total:?}, not to {expected}");
    }
    Ok(())
}

/// All of workload W over HTTP, made while it is sent; and a server that has nothing to do.
pub fn http(bench: &mut Bench) -> anyhow::Result<()> {
    let binary = build()?;
    let when = format!("{} s after an empty start", IDLE.as_secs());
    let row = Row::new("idle: memory, default settings", idle_memory(&binary, true)?, Unit::Bytes);
    let size = std::fs::metadata(&binary)?.len() as f64;
    bench.table.add(row.at_most(IDLE_RSS_MAX).note(format!(
        "{when}; profiles itself, so pages of a binary of {:.0} MB with debug info count",
        size / 1e6
    )));
    let row = Row::new("idle: memory, self-profiling off", idle_memory(&binary, false)?, Unit::Bytes);
    bench.table.add(row.note(when));

    let workload = Workload::new(w::W, &bench.folder)?;
    let count = workload.series() * workload.rounds();
    let start_ns = seconds_ago(workload.rounds() as i64 * 10 + 60);
    let sandbox = Sandbox::running(&binary.to_string_lossy(), &unlimited());
    eprintln!("pushing workload W");
    let (before, began) = (server_time(sandbox.process_id())?, wall());
    let sum = AtomicU64::new(0);
    let retries = push_all(&sandbox, count, &|push| {
        let (series, round) = (push % workload.series(), push / workload.series());
        let values: i64 = workload.profile(series, round, start_ns).values.iter().sum();
        sum.fetch_add(values as u64, Ordering::Relaxed);
        (workload.labels(series).to_string(), workload.pprof_gz(series, round, start_ns))
    })?;
    let spent = (server_time(sandbox.process_id())? - before).as_secs_f64();
    let took = (wall() - began).as_secs_f64();
    let [start, end] = window(start_ns - 3_600_000_000_000, start_ns + 3_600_000_000_000);
    let query = format!("{}{{}}", w::PROFILE_TYPE);
    let parameters = [("query", query.as_str()), ("start", &start), ("end", &end), ("format", "top")];
    let answer = sandbox.client().get("/api/v1/query", &parameters)?;
    let total = answer.json()["data"]["total"].as_u64();
    anyhow::ensure!(total == Some(sum.load(Ordering::Relaxed)), "W sums to {total:?}, not to {sum:?}");
    let (_, peak) = memory(sandbox.process_id())?;
    bench.table.add(Row::new("W over HTTP: peak memory", peak, Unit::Bytes).note(format!(
        "{count} profiles, 15 M samples, {retries} sent again; budget of heads 384 MiB; the sum is exact"
    )));
    bench.table.add(
        Row::new("W over HTTP: server CPU per 1,000 profiles", spent * 1e3 / count as f64, Unit::Seconds)
            .note(format!("flushes included; {took:.0} s of wall time beside the client")),
    );
    Ok(())
}

/// Memory of a server with nothing to do but, where it is to, to profile itself.
fn idle_memory(binary: &Path, profiles_itself: bool) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut server = Command::new(binary)
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen", "127.0.0.1:0", "--internal.listen", "127.0.0.1:0", "--log.filter", "error"])
        .arg(format!("--self-profiling.enabled={profiles_itself}"))
        .spawn()?;
    pause(IDLE);
    let measured = memory(server.id());
    server.kill()?;
    server.wait()?;
    Ok(measured?.0)
}

/// Settings under which nothing is refused for its rate.
fn unlimited() -> [&'static str; 2] {
    ["--limits.ingestion-rate-bytes=100000000000", "--limits.ingestion-burst-bytes=100000000000"]
}

/// Builds the server as this program was built, and says where it is.
fn build() -> anyhow::Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let folder = bench.parent().context("a program lies in a folder")?;
    let target = folder.parent().context("profiles have folders of their own")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--quiet",
        "--profile",
        "quick-release",
        "-p",
        "cambium-server",
        "--bin",
        "cambium",
    ]);
    build.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    eprintln!("building cambium");
    anyhow::ensure!(build.status()?.success(), "cambium does not build");
    Ok(target.join("quick-release").join("cambium"))
}

/// Sends pushes 0 to `count` in order, from [`CONNECTIONS`] threads; how many had to be sent again.
fn push_all(sandbox: &Sandbox, count: u64, body: Body<'_>) -> anyhow::Result<u64> {
    let (next, retries) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> anyhow::Result<()> {
        // Each has a connection of its own and keeps it.
        let client = sandbox.client();
        loop {
            let push = next.fetch_add(1, Ordering::Relaxed);
            if push >= count {
                return Ok(());
            }
            let (labels, bytes) = body(push);
            let mut tries = 0;
            loop {
                let answer = client.push(&labels, &[("name", "process_cpu")], &bytes)?;
                match answer.status {
                    200 => break,
                    503 if tries < RETRIES_MAX => pause(RETRY),
                    status => anyhow::bail!("push {push} was answered {status}: {}", answer.text()),
                }
                tries += 1;
                retries.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("pushing does not panic"))
    })?;
    Ok(retries.into_inner())
}

/// A range as parameters: both ends belong to it.
fn window(start_ns: i64, end_ns: i64) -> [String; 2] {
    [start_ns, end_ns].map(|time_ns| format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000))
}

/// A whole second so long before now, nanoseconds since the epoch.
fn seconds_ago(seconds: i64) -> i64 {
    (SystemClock::new().now_ns() / 1_000_000_000 - seconds) * 1_000_000_000
}

/// Time since the first call.
fn wall() -> Duration {
    static CLOCK: std::sync::OnceLock<SystemClock> = std::sync::OnceLock::new();
    CLOCK.get_or_init(SystemClock::new).monotonic()
}

#[expect(clippy::disallowed_methods, reason = "a client of another process has nothing else to wait for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
