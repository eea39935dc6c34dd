//! How long it takes to resolve 10,000 names: by us and by PingCAP's client for Go, in turn against one store, and
//! from redb. The Go program only fetches values; the repository also decodes them, and fills a cold cache.
//!
//! `cargo run --profile quick-release -p cambium-metastore --features tikv --example names`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cambium_metastore::kv::redb::{CACHE_BYTES_DEFAULT, RedbStore};
use cambium_metastore::kv::tikv::{Config, TikvStore};
use cambium_metastore::kv::{Key, KeyRange, KvStore, scan_all};
use cambium_metastore::{Symbols, symbols};
use cambium_model::stacktrace::LocationId;
use cambium_model::symbols::{Function, Line, Location};
use cambium_model::tenant::TenantNumber;
use cambium_peers::{Tikv, binary};
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_runtime::metrics::Metrics;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NAMES: usize = 10_000;
/// The clients take turns, so that both meet what else the machine does.
const TURNS: usize = 5;
/// Measured rounds of a turn; one more before them finds connections and regions.
const ROUNDS: usize = 10;
/// For the same work, ours may take this many times as long.
const RATIO_MAX: f64 = 1.5;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let Some(cluster) = Tikv::start() else { return Ok(()) };
    let Some(go) = binary("names", "names") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = Config { endpoints: vec![cluster.address().to_owned()], ..Config::default() };
    let tikv: Arc<dyn KvStore> = Arc::new(TikvStore::new(&config, Arc::clone(&clock), 1, &Metrics::new()));
    let redb: Arc<dyn KvStore> =
        Arc::new(RedbStore::open(&folder.path().join("names.redb"), CACHE_BYTES_DEFAULT)?);
    let ids: Vec<LocationId> = (0..NAMES).map(id).collect();
    for store in [&tikv, &redb] {
        let locations: Vec<_> = ids.iter().enumerate().map(|(n, id)| (*id, location(n))).collect();
        symbols(store, &clock).write_missing(TENANT, &locations).await?;
    }
    let keys = all_keys(&*tikv).await?;
    let file = folder.path().join("keys");
    write_keys(&keys, config.key_prefix.as_bytes(), &file)?;

    let [mut theirs, mut values, mut ours, mut embedded] = [(); 4].map(|()| Vec::new());
    for _ in 0..TURNS {
        theirs.extend(read_in_go(&go, cluster.address(), &file)?);
        values.extend(read(&*tikv, &clock, &keys).await?);
        ours.extend(resolve(&tikv, &clock, &ids).await?);
        embedded.extend(resolve(&redb, &clock, &ids).await?);
    }
    println!("{NAMES} names, {} rounds, milliseconds     p50     best", TURNS * ROUNDS);
    let p50 = |who, times: &mut Vec<Duration>| {
        times.sort_unstable();
        let [p50, best] = [times[times.len() / 2], times[0]].map(|time| time.as_secs_f64() * 1e3);
        println!("{who:40} {p50:7.1} {best:8.1}");
        p50
    };
    let go = p50("PingCAP's client for Go, values", &mut theirs);
    let tikv =
        [p50("kv::tikv, values", &mut values), p50("Symbols on kv::tikv, decoded and cached", &mut ours)];
    p50("Symbols on kv::redb, decoded and cached", &mut embedded);
    let [values, names] = tikv.map(|ours| ours / go);
    println!("ours / theirs: values {values:.2} (bar: {RATIO_MAX}), names {names:.2}");
    if values > RATIO_MAX { Err("slower than the bar".into()) } else { Ok(()) }
}

const TENANT: TenantNumber = TenantNumber(1);

/// Ids as they are: hashes.
fn id(number: usize) -> LocationId {
    let hash = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    LocationId::named(hash, hash.rotate_left(32))
}

/// A name of ordinary length.
fn location(number: usize) -> Location {
    let function = Function {
        name: format!("example.com/team/service/internal/package.(*Server).handle{number}").into(),
        file: format!("/src/example.com/team/service/internal/package/file{}.go", number % 300).into(),
        ..Function::default()
    };
    Location { lines: vec![Line { function, line: 117, column: 0 }], ..Location::default() }
}

/// The repository with nothing in its caches.
fn symbols(store: &Arc<dyn KvStore>, clock: &Arc<dyn Clock>) -> Symbols {
    Symbols::new(Arc::clone(store), Arc::clone(clock), &symbols::Config::default(), &Metrics::new())
}

async fn resolve(
    store: &Arc<dyn KvStore>,
    clock: &Arc<dyn Clock>,
    ids: &[LocationId],
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        let cold = symbols(store, clock);
        let start = clock.monotonic();
        let resolved = cold.resolve(TENANT, ids).await?;
        times.push(clock.monotonic() - start);
        if resolved.lookups.unresolved > 0 {
            return Err(format!("{} names are missing", resolved.lookups.unresolved).into());
        }
    }
    Ok(times.split_off(1))
}

/// What the Go program does, by our store.
async fn read(store: &dyn KvStore, clock: &Arc<dyn Clock>, keys: &[Key]) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        let start = clock.monotonic();
        let values = store.snapshot().await?.batch_get(keys).await?;
        times.push(clock.monotonic() - start);
        if values.iter().any(Option::is_none) {
            return Err("values are missing".into());
        }
    }
    Ok(times.split_off(1))
}

async fn all_keys(store: &dyn KvStore) -> Result<Vec<Key>> {
    let everything = KeyRange { start: Key::new(""), end: Key::new(vec![u8::MAX]) };
    let found = scan_all(&*store.snapshot().await?, everything).await?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

/// One key a line, as TiKV knows it.
fn write_keys(keys: &[Key], prefix: &[u8], path: &Path) -> Result<()> {
    let mut text = String::new();
    for key in keys {
        for byte in prefix.iter().chain(key.as_bytes()) {
            write!(text, "{byte:02x}")?;
        }
        text.push('\n');
    }
    Ok(std::fs::write(path, text)?)
}

/// What the Go program saw.
#[derive(serde::Deserialize)]
struct Report {
    found: usize,
    nanos: Vec<u64>,
}

fn read_in_go(binary: &Path, address: &str, keys: &Path) -> Result<Vec<Duration>> {
    let output = Command::new(binary)
        .arg(format!("-pd={address}"))
        .arg(format!("-keys={}", keys.display()))
        .arg(format!("-rounds={}", ROUNDS + 1))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let report: Report = serde_json::from_slice(&output.stdout)?;
    if report.found != NAMES {
        return Err(format!("it found {} names", report.found).into());
    }
    Ok(report.nanos[1..].iter().map(|nanos| Duration::from_nanos(*nanos)).collect())
}
