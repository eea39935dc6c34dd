//! What heads occupy, by the allocator's count.

use cambium_ingester::head::Head;
use cambium_loadtest::w::{self, Workload};
use cambium_model::limits::TenantLimits;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};

use crate::Bench;
use crate::fleet::{START_NS, pushes, tenant};
use crate::labels::series_labels;
use crate::table::{Row, Unit};

const SERIES: u64 = 200_000;
const SERIES_BYTES_MAX: f64 = 400.0;
const SAMPLE_BYTES_MAX: f64 = 12.0;

/// Bytes per series and per sample.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let scope_labels = TenantLimits::default().scope_labels;
    let before = allocated()?;
    let mut head = Head::new(tenant());
    for series in 0..SERIES {
        head.add(&one_sample(series), &scope_labels);
    }
    let bytes = allocated()?.saturating_sub(before) as f64;
    bench.table.add(
        Row::new("head memory per series with one sample", bytes / SERIES as f64, Unit::BytesEach)
            .at_most(SERIES_BYTES_MAX + SAMPLE_BYTES_MAX)
            .note(format!(
                "{SERIES} series of 10 labels, 3 of them unique; the head says {:.0} B",
                head.bytes() as f64 / SERIES as f64
            )),
    );
    drop(head);

    let workload = Workload::new(w::W, &bench.folder)?;
    let (before, resident_before) = (allocated()?, resident()?);
    let mut head = Head::new(tenant());
    for (series, round) in pushes(&workload) {
        head.add(&workload.profile(series, round, START_NS), &scope_labels);
    }
    let bytes = allocated()?.saturating_sub(before) as f64;
    let resident = resident()?.saturating_sub(resident_before) as f64;
    let dataset = head.snapshot();
    let samples = dataset.sample_count() as f64;
    let bar = SAMPLE_BYTES_MAX + SERIES_BYTES_MAX * workload.series() as f64 / samples;
    bench.table.add(
        Row::new("W: head memory per sample", bytes / samples, Unit::BytesEach).at_most(bar).note(format!(
            "allocated; {:.2} B resident; the head says {:.2}; chunks {:.2}, {} rollups {:.2}",
            resident / samples,
            head.bytes() as f64 / samples,
            dataset.chunks.iter().map(|chunk| chunk.heap_bytes()).sum::<usize>() as f64 / samples,
            dataset.rollups.len(),
            dataset.rollups.values().map(|sums| sums.capacity() * size_of::<i64>()).sum::<usize>() as f64
                / samples,
        )),
    );
    Ok(())
}

/// A profile of one sample; its stack is one that every service has.
pub fn one_sample(series: u64) -> Profile {
    Profile {
        id: ProfileId(u128::from(series).to_be_bytes()),
        labels: series_labels(series),
        types: vec![w::PROFILE_TYPE.parse().expect("a constant in the right form")],
        time_ns: START_NS,
        duration_ns: w::INTERVAL_NS,
        period: w::PERIOD_NS,
        locations: vec![LocationId::named(1, 1)],
        nodes: vec![Node { parent: NO_PARENT, location: 0 }],
        sample_nodes: vec![0],
        values: vec![w::PERIOD_NS],
        sample_label_sets: Vec::new(),
        label_sets: Vec::new(),
    }
}

/// Bytes that the allocator has given out.
pub fn allocated() -> anyhow::Result<usize> {
    tikv_jemalloc_ctl::epoch::advance().map_err(failed)?;
    tikv_jemalloc_ctl::stats::allocated::read().map_err(failed)
}

/// Bytes that the allocator holds in memory: without what was reserved and never touched, with what was freed lately.
fn resident() -> anyhow::Result<usize> {
    tikv_jemalloc_ctl::epoch::advance().map_err(failed)?;
    tikv_jemalloc_ctl::stats::resident::read().map_err(failed)
}

fn failed(error: tikv_jemalloc_ctl::Error) -> anyhow::Error {
    anyhow::anyhow!("jemalloc's statistics: {error}")
}
