//! What a block's scan costs, at the leaf: everything decoded once is warm, samples are decoded anew.

use std::collections::BTreeMap;

use cambium_blocks::source::{Pick, ScanStats, TreeScan};
use cambium_blocks::{BlockSource, Source};
use cambium_loadtest::w::INTERVAL_NS;
use cambium_model::block::SectionKind;
use cambium_model::selector::Selector;
use cambium_model::time::TimeRange;

use crate::Bench;
use crate::ceiling::Ceiling;
use crate::cpu::best;
use crate::fleet::{Fleet, Stored};
use crate::table::{Row, Unit};

const SERIES_SECONDS_MAX: f64 = 1.5e-3;
const SERVICE_SECONDS_MAX: f64 = 10e-3;
const TIME_SERIES_SECONDS_MAX: f64 = 1e-3;
/// All series but one of each service: no whole scope, so no rollup.
pub const NO_WHOLE_SCOPE: &str = r#"{pod!~".*(00|25|50|75)"}"#;

/// Leaf scans of workload W's block.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let fleet = bench.w()?;
    let stored = bench.runtime.block_on(fleet.store())?;
    let source = stored.source();
    let ceilings = bench.ceilings()?;

    let all = sum(bench, &source, NO_WHOLE_SCOPE)?;
    let rate = all.rows as f64 / all.seconds;
    let row = Row::new("W: samples summed at the leaf, per core", rate, Unit::PerSecond);
    bench.table.add(row.note(format!("{} samples in {:.0} ms", all.rows, all.seconds * 1e3)));
    let row = Row::new("W: the same, of decode-only", rate / ceilings.of(Ceiling::Decode), Unit::Fraction);
    bench.table.add(row);

    let one = sum(bench, &source, r#"{pod="svc-10-pod-0260"}"#)?;
    bench.table.add(
        Row::new("W: one series of 500", one.seconds, Unit::Seconds)
            .at_most(SERIES_SECONDS_MAX)
            .scaled(&ceilings, Ceiling::Decode)
            .note(format!("{} samples", one.rows)),
    );
    let most = sum(bench, &source, r#"{service_name="svc-10",pod!="svc-10-pod-0250"}"#)?;
    bench.table.add(
        Row::new("W: one service of 20, from samples", most.seconds, Unit::Seconds)
            .at_most(SERVICE_SECONDS_MAX)
            .scaled(&ceilings, Ceiling::Decode)
            .note(format!("24 of its 25 pods: {} samples", most.rows)),
    );
    let service = sum(bench, &source, r#"{service_name="svc-10"}"#)?;
    anyhow::ensure!(service.rows == 0, "a whole service is summed from rollups");
    bench.table.add(
        Row::new("W: one service of 20, from rollups", service.seconds, Unit::Seconds)
            .at_most(SERVICE_SECONDS_MAX)
            .scaled(&ceilings, Ceiling::Decode),
    );
    let whole = sum(bench, &source, "{}")?;
    let row = Row::new(
        "W: whole block from rollups at the leaf, effective samples",
        fleet.samples() / whole.seconds,
        Unit::PerSecond,
    );
    bench.table.add(row.note(format!("{:.2} ms", whole.seconds * 1e3)));
    time_series(bench, &fleet, &stored)
}

/// What one scan costs.
struct Scanned {
    seconds: f64,
    /// Samples summed, each time.
    rows: u64,
}

fn sum(bench: &Bench, source: &BlockSource, selector: &str) -> anyhow::Result<Scanned> {
    let selector: Selector = selector.parse()?;
    let scan = |source: &BlockSource| {
        bench.runtime.block_on(async {
            let rows = source.series().await?.select(None, &selector);
            anyhow::ensure!(!rows.is_empty(), "{selector:?} selects nothing");
            let before = source.stats();
            let tree = source.tree(&TreeScan { rows, range: TimeRange::ALL, pick: Pick::Sum }).await?;
            std::hint::black_box(tree);
            Ok(source.stats().sample_rows - before.sample_rows)
        })
    };
    let (seconds, rows) = best(|| scan(source))?;
    Ok(Scanned { seconds, rows })
}

/// Totals of all series per round, from a warm source; and what a cold one reads for it.
fn time_series(bench: &mut Bench, fleet: &Fleet, stored: &Stored) -> anyhow::Result<()> {
    let totals = |source: &BlockSource| {
        bench.runtime.block_on(async {
            let rows = source.series().await?.select(None, &Selector::default());
            let profiles = source.profiles(&rows, TimeRange::ALL).await?;
            let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
            let mut step = (i64::MIN, 0);
            for (time_ns, total) in profiles.time_ns.iter().zip(&profiles.total) {
                let at = time_ns / INTERVAL_NS;
                if at != step.0 {
                    *totals.entry(step.0).or_default() += step.1;
                    step = (at, 0);
                }
                step.1 += total;
            }
            *totals.entry(step.0).or_default() += step.1;
            anyhow::Ok(totals)
        })
    };
    let source = stored.source();
    let (seconds, sums) = best(|| totals(&source))?;
    let expected: i64 = fleet.dataset.chunks.iter().flat_map(|chunk| chunk.values()).sum();
    anyhow::ensure!(
        sums.values().sum::<i64>() == expected,
        "the time series has another sum than the samples"
    );
    let cold = stored.cold_source();
    totals(&cold)?;
    let ScanStats { sample_rows, bytes_fetched, .. } = cold.stats();
    let samples_bytes = stored.meta.datasets[0].section(SectionKind::Samples).map_or(0, |held| held.length);
    anyhow::ensure!(
        sample_rows == 0 && bytes_fetched < samples_bytes,
        "a time series opened samples: {sample_rows} rows, {bytes_fetched} bytes"
    );
    bench.table.add(
        Row::new("W: time series, all 500 series", seconds, Unit::Seconds)
            .at_most(TIME_SERIES_SECONDS_MAX)
            .scaled(&bench.ceilings()?, Ceiling::Decode)
            .note(format!("samples never opened; cold it fetches {:.1} kB", bytes_fetched as f64 / 1e3)),
    );
    Ok(())
}
