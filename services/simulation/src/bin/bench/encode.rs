//! How large blocks are, and what it costs to write them.

use std::collections::BTreeMap;

use cambium_blocks::writer::Compression;
use cambium_loadtest::w::H;
use cambium_model::block::BlockMeta;

use crate::Bench;
use crate::ceiling::Ceiling;
use crate::cpu::best;
use crate::fleet::Fleet;
use crate::table::{Row, Unit};

/// The last level with profile ids, and the first without.
const LEVEL_WITH_IDS: u8 = 1;
const LEVEL_WITHOUT_IDS: u8 = 2;
/// The level of blocks that are kept: it has every kind of rollup.
const TOP_LEVEL: u8 = 3;
const ENCODE_MIN: f64 = 15e6;

/// Bytes per sample of whole blocks.
pub fn sizes(bench: &mut Bench) -> anyhow::Result<()> {
    let w = bench.w()?;
    size(bench, "W", &w, [1.8, 1.4])?;
    eprintln!("building workload H");
    let h = Fleet::build(H, &bench.folder)?;
    size(bench, "H", &h, [2.6, 2.3])
}

fn size(bench: &mut Bench, name: &str, fleet: &Fleet, bars: [f64; 2]) -> anyhow::Result<()> {
    let samples = fleet.samples();
    for (temperature, level, compression, bar) in [
        ("hot", LEVEL_WITHOUT_IDS, Compression::Hot, bars[0]),
        ("cold", TOP_LEVEL, Compression::Cold, bars[1]),
    ] {
        let block = fleet.encode(level, compression)?;
        let figure = block.bytes.len() as f64 / samples;
        bench.table.add(
            Row::new(format!("{name}: whole block per sample, {temperature}"), figure, Unit::BytesEach)
                .at_most(bar)
                .note(sections([&block.meta], samples)),
        );
    }
    let with_ids = fleet.encode(LEVEL_WITH_IDS, Compression::Hot)?.bytes.len();
    let without = fleet.encode(LEVEL_WITHOUT_IDS, Compression::Hot)?.bytes.len();
    let profiles = fleet.dataset.profile_count() as f64;
    bench.table.add(
        Row::new(
            format!("{name}: profile ids of levels 0 and 1, per profile"),
            with_ids.saturating_sub(without) as f64 / profiles,
            Unit::BytesEach,
        )
        // Page headers and the index besides the 16 bytes themselves.
        .at_most(16.5)
        .note(format!(
            "{samples:.0} samples, {profiles:.0} profiles, {} stacks of {} drawn, {} nodes, {} locations",
            stacks(fleet),
            fleet.workload.stacks(),
            fleet.dataset.tree.len(),
            fleet.dataset.tree.locations.len(),
        )),
    );
    Ok(())
}

/// Distinct stacks with samples.
fn stacks(fleet: &Fleet) -> usize {
    let mut used = vec![false; fleet.dataset.tree.len()];
    for stack in fleet.dataset.chunks.iter().flat_map(|chunk| &chunk.stacks) {
        used[*stack as usize] = true;
    }
    used.into_iter().filter(|used| *used).count()
}

/// Bytes of each kind of section, per sample.
pub fn sections<'a>(blocks: impl IntoIterator<Item = &'a BlockMeta>, samples: f64) -> String {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    let datasets = blocks.into_iter().flat_map(|block| &block.datasets);
    for section in datasets.flat_map(|dataset| &dataset.sections) {
        *bytes.entry(format!("{:?}", section.kind).to_lowercase()).or_default() += section.length;
    }
    let parts = bytes.iter().map(|(kind, bytes)| format!("{kind} {:.3}", *bytes as f64 / samples));
    parts.collect::<Vec<_>>().join(", ")
}

/// Samples encoded per second.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let fleet = bench.w()?;
    let (seconds, _) = best(|| fleet.encode(0, Compression::Hot))?;
    let row = Row::new("W: encode, samples per core", fleet.samples() / seconds, Unit::PerSecond);
    let row = row.at_least(ENCODE_MIN).scaled(&bench.ceilings()?, Ceiling::Decode);
    bench.table.add(row.note(format!("{seconds:.2} s for the block, hot, level 0")));
    Ok(())
}
