//! From the question to the flame graph, in one process: catalogue, scan, merge, fold, truncate, names.

use std::sync::Arc;

use cambium_blocks::Source;
use cambium_blocks::shape::FoldBy;
use cambium_blocks::source::{Pick, TreeScan};
use cambium_loadtest::w::PROFILE_TYPE;
use cambium_model::selector::Selector;
use cambium_model::stacktrace::LocationId;
use cambium_model::symbols::Location;
use cambium_model::time::TimeRange;

use crate::Bench;
use crate::ceiling::{Ceiling, Ceilings};
use crate::cpu::best;
use crate::fleet::{Fleet, Stored, tenant};
use crate::questions::Questions;
use crate::scan::NO_WHOLE_SCOPE;
use crate::table::{Row, Unit};

const SAMPLES_MIN: f64 = 200e6;
const SCATTER_SHARE_MIN: f64 = 0.25;
const EFFECTIVE_MIN: f64 = 2e9;
const NODES_MIN: f64 = 50e6;
const MULTI_GETS_MAX: f64 = 16.0;
/// Equal sources whose trees are merged.
const SOURCES: usize = 4;
/// Locations whose names are written at a time.
const WRITTEN_AT_ONCE: usize = 4_096;

/// Flame graphs of workload W's block.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let fleet = bench.w()?;
    let stored = bench.runtime.block_on(fleet.store())?;
    let questions = bench.runtime.block_on(Questions::of_block(&stored))?;
    let ceilings = bench.ceilings()?;
    flame_graphs(bench, &fleet, &stored, &questions, &ceilings)?;
    tree_merge(bench, &stored, &ceilings)?;
    names(bench, &fleet, &questions)
}

fn flame_graphs(
    bench: &mut Bench,
    fleet: &Fleet,
    stored: &Stored,
    questions: &Questions,
    ceilings: &Ceilings,
) -> anyhow::Result<()> {
    let query = format!("{PROFILE_TYPE}{NO_WHOLE_SCOPE}");
    let before = stored.source();
    let selected = bench.runtime.block_on(async {
        let rows = before.series().await?.select(None, &NO_WHOLE_SCOPE.parse::<Selector>()?);
        let profiles = before.profiles(&rows, TimeRange::ALL).await?;
        anyhow::Ok(profiles.samples.iter().map(|samples| u64::from(*samples)).sum::<u64>())
    })?;
    let (seconds, graph) = best(|| bench.runtime.block_on(questions.flame_graph(&query)))?;
    let rate = selected as f64 / seconds;
    bench.table.add(
        Row::new("W: samples to flame graph, samples per core", rate, Unit::PerSecond)
            .at_least(SAMPLES_MIN)
            .scaled(ceilings, Ceiling::Decode)
            .note(format!("{selected} samples in {:.1} ms, {} nodes shown", seconds * 1e3, graph.tree.len())),
    );
    bench.table.add(
        Row::new("W: the same, of scatter-add", rate / ceilings.of(Ceiling::ScatterAdd), Unit::Fraction)
            .at_least(SCATTER_SHARE_MIN),
    );
    let query = format!("{PROFILE_TYPE}{{}}");
    let (seconds, graph) = best(|| bench.runtime.block_on(questions.flame_graph(&query)))?;
    let total: i64 = fleet.dataset.chunks.iter().flat_map(|chunk| chunk.values()).sum();
    anyhow::ensure!(graph.tree.cumulative[0] == [total], "the flame graph's total is not the samples'");
    bench.table.add(
        Row::new(
            "W: whole block by rollup to flame graph, effective",
            fleet.samples() / seconds,
            Unit::PerSecond,
        )
        .at_least(EFFECTIVE_MIN)
        .scaled(ceilings, Ceiling::Decode)
        .note(format!("{:.2} ms", seconds * 1e3)),
    );
    let (seconds, merged) = best(|| bench.runtime.block_on(questions.merge(&query, FoldBy::Function)))?;
    let row = Row::new("W: of it the merge", seconds, Unit::Seconds);
    bench.table.add(row.note(format!("{} nodes when folded", merged.groups[0].tree.len())));
    Ok(())
}

/// What merging the trees of several sources costs beyond reading them.
fn tree_merge(bench: &mut Bench, stored: &Stored, ceilings: &Ceilings) -> anyhow::Result<()> {
    let sources: Vec<Arc<dyn Source>> =
        (0..SOURCES).map(|_| Arc::new(stored.source()) as Arc<dyn Source>).collect();
    let questions = Questions::of_sources(stored, sources.clone());
    let query = format!("{PROFILE_TYPE}{{}}");
    let (merged, _) = best(|| bench.runtime.block_on(questions.merge(&query, FoldBy::Location)))?;
    let (read, nodes) = best(|| {
        bench.runtime.block_on(async {
            let mut nodes = 0;
            for source in &sources {
                let rows = source.series().await?.select(None, &Selector::default());
                let scan = TreeScan { rows, range: TimeRange::ALL, pick: Pick::Sum };
                nodes += source.tree(&scan).await?.tree.len();
            }
            anyhow::Ok(nodes)
        })
    })?;
    let spent = merged - read;
    bench.table.add(
        Row::new("W: tree merge as a query's part, nodes per core", nodes as f64 / spent, Unit::PerSecond)
            .at_least(NODES_MIN)
            .scaled(ceilings, Ceiling::HashAdd)
            .note(format!(
                "{SOURCES} equal sources, {nodes} nodes: the query's {:.0} ms less {:.0} ms of reading",
                merged * 1e3,
                read * 1e3
            )),
    );
    Ok(())
}

/// What a default view looks up.
fn names(bench: &mut Bench, fleet: &Fleet, questions: &Questions) -> anyhow::Result<()> {
    let (shown, found) = bench.runtime.block_on(async {
        let tenant = tenant().number;
        let known: Vec<(LocationId, Location)> =
            fleet.workload.locations().map(|(id, location)| (id, location.clone())).collect();
        for some in known.chunks(WRITTEN_AT_ONCE) {
            questions.symbols.write_missing(tenant, some).await?;
        }
        let graph = questions.flame_graph(&format!("{PROFILE_TYPE}{{}}")).await?;
        let mut wanted = graph.tree.locations[1..].to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        anyhow::Ok((graph.tree.len(), questions.symbols.resolve(tenant, &wanted).await?))
    })?;
    anyhow::ensure!(found.locations.iter().all(Option::is_some), "a location of W has no name");
    bench.table.add(
        Row::new("W: locations resolved for a default view", found.locations.len() as f64, Unit::Count)
            .at_most(shown as f64)
            .note(format!("{shown} nodes shown of {}", fleet.dataset.tree.len())),
    );
    bench.table.add(
        Row::new("W: multi-gets for them", found.lookups.multi_gets as f64, Unit::Count)
            .at_most(MULTI_GETS_MAX),
    );
    Ok(())
}
