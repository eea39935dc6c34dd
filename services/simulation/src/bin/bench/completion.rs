//! 1,000 services of 200 pods, each with a `pod`, a `commit` and a `run_id` of its own, as continuous integration and
//! serverless functions make them: what a series costs in every structure, and how long completion takes.

use std::sync::Arc;

use anyhow::{Context, ensure};
use cambium_blocks::cache::Cache;
use cambium_blocks::merge::{Input, Wanted, merge};
use cambium_blocks::source::Source;
use cambium_blocks::writer::spool::Scratch;
use cambium_blocks::writer::{self, Compression};
use cambium_ingester::head::Head;
use cambium_loadtest::random::mix;
use cambium_metastore::catalogue::FlushCommit;
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::kv::{Key, KeyRange, KvStore, scan_all};
use cambium_metastore::{Catalogue, Tenants};
use cambium_model::block::{BlockMeta, LogRange, Offset, SectionKind};
use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::Profile;
use cambium_model::time::SECOND_NS;
use cambium_querier::api;
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_runtime::metrics::Metrics;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use crate::Bench;
use crate::fleet::{LOG, START_NS, Stored, tenant};
use crate::memory::{allocated, one_sample};
use crate::questions::{Questions, decimal, get, url_encoded};
use crate::table::{Row, Unit};

const SERVICES: u64 = 1_000;
const PODS: u64 = 200;
const SERIES: u64 = SERVICES * PODS;
/// All of it within ten minutes.
const SPAN_NS: i64 = 600 * SECOND_NS;
const SERIES_BYTES_MAX: f64 = 32.0;
/// Far less than a bit for each series.
const ENTRY_BYTES_MAX: f64 = 4e3;
const HEAD_BYTES_MAX: f64 = 412.0;
const ANSWER_SECONDS_MAX: f64 = 0.1;
/// How often each question is asked, after some that are not counted.
const ASKED: usize = 20;
const WARM_UP: usize = 3;

/// What a series costs, and how long completion takes.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    eprintln!("building {SERIES} series");
    let scope_labels = TenantLimits::default().scope_labels;
    let before = allocated()?;
    let mut head = Head::new(tenant());
    for series in 0..SERIES {
        head.add(&profile(series), &scope_labels);
    }
    let bytes = allocated()?.saturating_sub(before) as f64;
    let of_series = |bytes: f64, most: f64, what: &str| {
        let name = format!("unique pod, commit, run_id: {what}, per series");
        Row::new(name, bytes / SERIES as f64, Unit::BytesEach).at_most(most)
    };
    bench.table.add(of_series(bytes, HEAD_BYTES_MAX, "head memory").note(format!("{SERIES} series")));
    let dataset = head.into_dataset();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let range = |offset| LogRange { log: LOG, first: Offset(offset), next: Offset(offset + 1) };
    let flushed = writer::encode(std::slice::from_ref(&dataset), range(0), 1, 0, Compression::Hot)?;
    runtime.block_on(writer::put(&*store, &flushed))?;
    let merged = runtime.block_on(merged(&*store, &flushed.meta, range(1)))?;
    for (name, meta) in [("level 0", &flushed.meta), ("level 3", &merged)] {
        let length = meta.datasets[0].section(SectionKind::Series).context("a block has series")?.length;
        let note = format!("of {:.0} B in the whole block", meta.size_bytes as f64 / SERIES as f64);
        let row = of_series(length as f64, SERIES_BYTES_MAX, &format!("series section of {name}"));
        bench.table.add(row.note(note));
    }
    let entry = runtime.block_on(entry_bytes(&flushed.meta))?;
    let row = Row::new("unique pod, commit, run_id: catalogue entry", entry, Unit::Bytes);
    bench.table.add(row.at_most(ENTRY_BYTES_MAX).note("of the whole block"));
    runtime.block_on(ask(bench, dataset, &Stores { store, flushed: flushed.meta, merged }))
}

/// A profile of one sample.
fn profile(series: u64) -> Profile {
    let random = mix(series);
    let (service, pod) = (series % SERVICES, series / SERVICES);
    let labels = Labels::from_pairs([
        ("cluster", "c1".to_owned()),
        ("namespace", format!("ns-{:02}", service % 50)),
        ("service_name", format!("svc-{service:04}")),
        ("version", format!("v1.{}", service % 7)),
        ("pod", format!("svc-{service:04}-{:09x}-{:06x}", mix(service) >> 28, random >> 40)),
        ("commit", format!("{:012x}", mix(random) >> 16)),
        ("run_id", format!("{}", 10_000_000_000 + mix(!random) % 1_000_000_000)),
    ]);
    let time_ns = START_NS + (pod as i64 * SPAN_NS) / PODS as i64;
    Profile { labels: labels.expect("distinct names"), time_ns, ..one_sample(series) }
}

struct Stores {
    store: Arc<dyn ObjectStore>,
    flushed: BlockMeta,
    merged: BlockMeta,
}

/// The block merged to the highest level, under an offset of its own.
async fn merged(store: &dyn ObjectStore, flushed: &BlockMeta, range: LogRange) -> anyhow::Result<BlockMeta> {
    let folder = tempfile::tempdir()?;
    let mut file = tempfile::tempfile()?;
    let object = store.get(&flushed.path.as_str().into()).await?.bytes().await?;
    std::io::Write::write_all(&mut file, &object)?;
    let input = Input::open(Arc::new(file), Arc::new(flushed.clone()), 0)?;
    let wanted = Wanted::everything(3, Compression::Cold);
    let part = merge(&[input], &wanted, &Scratch::folder(folder.path(), 256 << 10))?;
    let header = BlockMeta {
        path: "v1/l3/merged.blk".to_owned(),
        level: 3,
        log_ranges: vec![range],
        datasets: Vec::new(),
        ..flushed.clone()
    };
    Ok(writer::assemble(header, vec![part.context("something comes of it")?]).put(store).await?)
}

/// Bytes by which the metadata store grows with a block.
async fn entry_bytes(meta: &BlockMeta) -> anyhow::Result<f64> {
    let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
    let bytes = async || -> anyhow::Result<usize> {
        let all = KeyRange { start: Key::new(&b""[..]), end: Key::new(&[u8::MAX; 4][..]) };
        let found = scan_all(&*kv.snapshot().await?, all).await?;
        Ok(found.iter().map(|(key, value)| key.as_bytes().len() + value.len()).sum())
    };
    let catalogue = Catalogue::new(Arc::clone(&kv));
    let epoch = catalogue.open_log(LOG, "bench").await?.epoch;
    let before = bytes().await?;
    let commit = FlushCommit { range: meta.log_ranges[0], epoch, block: Some(meta.clone()), tenure: None };
    catalogue.commit_flush(&commit).await?;
    Ok((bytes().await? - before) as f64)
}

/// Asks the endpoints with a head, a block of level 0 and one of level 3, each with all of the series.
async fn ask(bench: &mut Bench, dataset: cambium_blocks::Dataset, stores: &Stores) -> anyhow::Result<()> {
    let stored = Stored {
        store: Arc::clone(&stores.store),
        cache: Arc::new(Cache::new(1 << 30, &Metrics::new())),
        meta: Arc::new(stores.flushed.clone()),
    };
    let heads: Vec<Arc<dyn Source>> = vec![Arc::new(dataset)];
    let questions = Questions::of_sources(&stored, heads);
    for block in [&stores.flushed, &stores.merged] {
        questions.commit(block).await?;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let tenants: &Tenants = &questions.querier.deps().tenants;
    let tenant = tenants.resolve_or_create(&tenant().id).await?;
    let router = api::router(questions.querier.clone());
    let service = url_encoded(r#"{service_name="svc-0500"}"#);
    let asked = [
        ("label names", "labels?".to_owned(), 7),
        ("values of service_name", "label/service_name/values?".to_owned(), 1_000),
        ("values of pod, 100 of all", "label/pod/values?limit=100".to_owned(), 100),
        ("values of pod with a prefix", "label/pod/values?prefix=svc-0500-".to_owned(), 200),
        ("values of pod of a service", format!("label/pod/values?match[]={service}"), 200),
        ("values of run_id of a service", format!("label/run_id/values?match[]={service}"), 200),
        ("series of a service", format!("series?match[]={service}"), 200),
    ];
    let whole = [START_NS - SECOND_NS, START_NS + SPAN_NS];
    let half = [START_NS - SECOND_NS, START_NS + SPAN_NS * 3 / 4];
    for (what, question, entries) in asked {
        let mut worst = Vec::new();
        for (start_ns, end_ns, least) in [(whole[0], whole[1], entries), (half[0], half[1], 1)] {
            let uri = format!("/api/v1/{question}&start={}&end={}", decimal(start_ns), decimal(end_ns));
            let mut seconds = Vec::with_capacity(ASKED);
            for number in 0..ASKED + WARM_UP {
                let began = clock.monotonic();
                let answer = get(&router, &tenant.id, &uri).await?;
                if number >= WARM_UP {
                    seconds.push((clock.monotonic() - began).as_secs_f64());
                }
                let answer: Value = serde_json::from_slice(&answer)?;
                let found = answer["data"].as_array().map_or(0, Vec::len);
                ensure!(found >= least && found <= entries, "{uri}: {found} entries, not {least}");
            }
            seconds.sort_by(f64::total_cmp);
            worst.push((seconds[ASKED * 95 / 100], seconds[ASKED / 2]));
        }
        let p95 = worst.iter().map(|(p95, _)| *p95).fold(0.0, f64::max);
        let note = format!(
            "p95 of the slower of two; p50 {:.1} ms over all of it, {:.1} ms over three quarters",
            worst[0].1 * 1e3,
            worst[1].1 * 1e3
        );
        let row = Row::new(format!("{SERIES} series: {what}, warm, wall"), p95, Unit::Seconds);
        bench.table.add(row.at_most(ANSWER_SECONDS_MAX).note(note));
    }
    Ok(())
}
