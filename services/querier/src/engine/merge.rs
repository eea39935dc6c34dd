//! Merges of stack traces: the DataFusion plan and what becomes of its rows.
//!
//! ```text
//!   TreeMergeExec: Final                  one partition: every (group, path) once ──► MergedTree per group
//!     TreeMergeExec: Partial              per partition
//!       ProfileScanExec                   per source and group: its partial tree as rows
//! ```

use std::sync::Arc;

use arrow::array::RecordBatch;
use cambium_blocks::series_table::RowSet;
use cambium_blocks::shape::FoldBy;
use cambium_blocks::source::{Pick as SourcePick, TreeScan};
use cambium_model::profile::SampleLabels;
use cambium_model::profile_type::ProfileType;
use cambium_model::time::TimeRange;
use datafusion::error::Result as PlanResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;

use super::merge_exec::{Reduction, TreeMergeExec};
use super::off_loop;
use super::partial_trees::{PartialTrees, TreeKey};
use super::pick::{self, Part, Picked};
use super::rows::RowColumns;
use super::samples::LabelledScan;
use super::scan_exec::{Kept, ProfileScanExec, Scan, ScanPart};
use super::selection::{Groups, SOURCES_AT_ONCE, Selected, push_row, select};
use super::sources::{Fixed, Sources};
use super::stages::{Stage, Stages};
use super::tree_merge::{build_trees, unscale};
use crate::error::Error;
use crate::explain::Explain;
use crate::merged::{Group, Merged, MergedSample, MergedSamples, MergedTree, Stats, checked_add};
use crate::request::{MergeQuery, Pick};

/// Scans of a partition from which on it sums them before all partitions are summed: with fewer, the final sum would do
/// most of the work again.
const PARTIAL_SCANS_MIN: usize = 4;

/// Where one query runs.
#[derive(Clone)]
pub(crate) struct Env {
    /// Memory and everything else of DataFusion.
    pub context: Arc<TaskContext>,
    /// Partitions of a plan at most.
    pub partitions_max: usize,
    /// Where the query's time is added up.
    pub stages: Stages,
    /// What is kept of whole blocks.
    pub trees: PartialTrees,
}

/// Sums stack traces; the stats are left to the caller.
pub(crate) async fn merge(env: &Env, sources: &Sources, query: &MergeQuery) -> Result<Merged, Error> {
    let picked = choose(env, sources, query, false).await?;
    let resolution_secs = picked.resolution_secs();
    let mut groups = Groups::new(&query.by);
    let mut scans = Vec::new();
    for Part { one, pick } in &picked.parts {
        let of = groups.of(&one.series, &one.rows);
        for (group, rows, pick) in by_group(&of, &one.rows, pick) {
            let kept = kept(env, one, &rows, &pick, picked.range, (query.fold_by, group));
            let scan = TreeScan { rows, range: picked.range, pick };
            let profile_type = query.query.profile_type.clone();
            let part = ScanPart::Tree { scan, fold_by: query.fold_by, group, profile_type };
            scans.push(Scan { source: Arc::clone(&one.source), part, kept });
        }
    }
    let batch = run(env, scans, &query.query.profile_type).await?;
    let build = build(batch, groups.len(), picked.scale);
    let trees = env.stages.time(Stage::Merge, build).await?;
    let mut groups = groups.sorted(trees);
    if !query.by.is_empty() {
        groups.retain(|(_, tree)| tree.len() > 1 || tree.self_values[0] != 0);
    }
    Ok(Merged {
        profile_type: query.query.profile_type.clone(),
        groups: groups.into_iter().map(|(labels, tree)| Group { labels, tree }).collect(),
        single: picked.single,
        stats: Stats { resolution_secs, ..Stats::default() },
        plan: Explain::default(),
    })
}

/// Where the rows of a scan are kept: those of a plain sum over all of a source that never changes.
fn kept(
    env: &Env,
    one: &Selected,
    rows: &RowSet,
    pick: &SourcePick,
    range: TimeRange,
    (fold_by, group): (FoldBy, u32),
) -> Option<Kept> {
    let Fixed { key, bounds } = one.fixed.as_ref()?;
    let whole = range.covers(bounds.0, bounds.1) && *pick == SourcePick::Sum;
    let key = || TreeKey { source: Arc::clone(key), rows: rows.clone(), fold_by, group };
    whole.then(|| Kept { trees: env.trees.clone(), key: Arc::new(key()) })
}

async fn choose(
    env: &Env,
    sources: &Sources,
    query: &MergeQuery,
    wants_labels: bool,
) -> Result<Picked, Error> {
    let selected = env.stages.time(Stage::Plan, select(sources, &query.query)).await?;
    if let (true, Pick::Range { range, .. }) = (query.exact, query.pick) {
        selected.iter().try_for_each(|one| check_exact(one, range, wants_labels))?;
    }
    pick::pick(selected, query.pick, &env.stages).await
}

/// Refuses what a source without samples cannot answer exactly: labels of samples, and a range that cuts one of its buckets.
fn check_exact(one: &Selected, range: TimeRange, wants_labels: bool) -> Result<(), Error> {
    let Some(&Fixed { bounds: (first_ns, last_ns), .. }) = one.fixed.as_ref() else { return Ok(()) };
    let tree = one.source.tree_range(range);
    let cuts = |a: i64, b: i64| a != b && TimeRange::new(a.min(b), a.max(b)).touches(first_ns, last_ns);
    let is_cut = cuts(range.start_ns, tree.start_ns) || cuts(range.end_ns, tree.end_ns);
    if is_cut || (wants_labels && one.source.is_downsampled()) {
        let sums = range.touched_buckets();
        return Err(cambium_blocks::Error::Downsampled { first_ns, last_ns, sums }.into());
    }
    Ok(())
}

/// Splits rows, and the vectors that run parallel to them, by group.
fn by_group(of: &[u32], rows: &RowSet, pick: &SourcePick) -> Vec<(u32, RowSet, SourcePick)> {
    let Some((first, rest)) = of.split_first() else { return Vec::new() };
    if rest.iter().all(|group| group == first) {
        return vec![(*first, rows.clone(), pick.clone())];
    }
    let empty = || match pick {
        SourcePick::Sum => SourcePick::Sum,
        SourcePick::Mean(_) => SourcePick::Mean(Vec::new()),
        SourcePick::At(_) => SourcePick::At(Vec::new()),
    };
    let mut parts: Vec<(u32, RowSet, SourcePick)> = Vec::new();
    let mut part_of: HashMap<u32, usize> = HashMap::new();
    for ((position, row), group) in rows.iter().cloned().flatten().enumerate().zip(of) {
        let part = *part_of.entry(*group).or_insert_with(|| {
            parts.push((*group, RowSet::new(), empty()));
            parts.len() - 1
        });
        let (_, part_rows, part_pick) = &mut parts[part];
        push_row(part_rows, row);
        match (pick, part_pick) {
            (SourcePick::Mean(counts), SourcePick::Mean(part_counts)) => part_counts.push(counts[position]),
            (SourcePick::At(times), SourcePick::At(part_times)) => part_times.push(times[position]),
            _ => {}
        }
    }
    parts
}

/// Runs the plan over these scans; `None` where there are none.
async fn run(env: &Env, scans: Vec<Scan>, profile_type: &ProfileType) -> Result<Option<RecordBatch>, Error> {
    if scans.is_empty() {
        return Ok(None);
    }
    let count = scans.len();
    let merge = |input: Arc<dyn ExecutionPlan>, reduction: Reduction| -> Arc<dyn ExecutionPlan> {
        Arc::new(TreeMergeExec::new(input, reduction, profile_type.clone(), env.stages.clone()))
    };
    let mut plan: Arc<dyn ExecutionPlan> =
        Arc::new(ProfileScanExec::new(scans, env.partitions_max, env.stages.clone()));
    let partitions = plan.output_partitioning().partition_count();
    if partitions > 1 && count >= partitions * PARTIAL_SCANS_MIN {
        plan = merge(plan, Reduction::Partial);
    }
    let mut merged = merge(plan, Reduction::Final).execute(0, Arc::clone(&env.context))?;
    Ok(merged.try_next().await?)
}

/// The trees of the rows, one per group.
async fn build(batch: Option<RecordBatch>, groups: usize, scale: i64) -> Result<Vec<MergedTree>, Error> {
    let Some(batch) = batch else { return Ok(vec![MergedTree::new(); groups]) };
    let rows = batch.num_rows();
    let build = move || -> PlanResult<Vec<MergedTree>> {
        let (mut trees, _) = build_trees(RowColumns::of(&batch), groups)?;
        if scale != 1 {
            let values = trees.iter_mut().flat_map(|tree| &mut tree.self_values);
            values.for_each(|value| *value = unscale(*value));
        }
        Ok(trees)
    };
    Ok(off_loop(rows, build).await?)
}

/// Sums stack traces by the samples' labels; the stats are left to the caller.
pub(crate) async fn merge_samples(
    env: &Env,
    sources: &Sources,
    query: &MergeQuery,
) -> Result<MergedSamples, Error> {
    let picked = choose(env, sources, query, true).await?;
    let resolution_secs = picked.resolution_secs();
    let collected = pick::collected(&picked, &env.stages).await?;
    let mut label_sets = LabelSets::new();
    let sets: Vec<Arc<Vec<SampleLabels>>> = stream::iter(picked.parts.clone())
        .map(|part| async move { part.one.source.sample_labels().await })
        .buffered(SOURCES_AT_ONCE)
        .try_collect()
        .await?;
    let profile_type = &query.query.profile_type;
    let mut scans = Vec::new();
    for (Part { one, pick }, sets) in picked.parts.iter().zip(sets) {
        let (rows, pick, range) = (one.rows.clone(), pick.clone(), picked.range);
        let profile_type = profile_type.clone();
        let part = if sets.len() > 1 {
            let (pick, groups) = (Arc::new(pick), Arc::new(label_sets.of(&sets)));
            ScanPart::Labelled(LabelledScan { rows, range, pick, groups, profile_type })
        } else {
            let scan = TreeScan { rows, range, pick };
            ScanPart::Tree { scan, fold_by: FoldBy::Location, group: 0, profile_type }
        };
        scans.push(Scan { source: Arc::clone(&one.source), part, kept: None });
    }
    let batch = run(env, scans, profile_type).await?;
    let named = profile_type.clone();
    let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
    let build = off_loop(rows, move || build_samples(batch.as_ref(), picked.scale, &named));
    let (tree, samples) = env.stages.time(Stage::Merge, build).await?;
    Ok(MergedSamples {
        profile_type: profile_type.clone(),
        tree,
        samples,
        label_sets: label_sets.sets,
        collected,
        single: picked.single,
        stats: Stats { resolution_secs, ..Stats::default() },
    })
}

/// Numbers for label sets, the same for all sources of a query; 0 is the empty one.
struct LabelSets {
    ids: HashMap<Arc<SampleLabels>, u32>,
    sets: Vec<Arc<SampleLabels>>,
}

impl LabelSets {
    fn new() -> Self {
        let empty = Arc::new(SampleLabels::new());
        Self { ids: HashMap::from([(Arc::clone(&empty), 0)]), sets: vec![empty] }
    }

    /// The number of each of a source's sets.
    fn of(&mut self, sets: &[SampleLabels]) -> Vec<u32> {
        let mut ids = Vec::with_capacity(sets.len());
        for set in sets {
            let known = self.ids.get(set).copied();
            ids.push(known.unwrap_or_else(|| {
                let (id, shared) = (self.sets.len() as u32, Arc::new(set.clone()));
                self.ids.insert(Arc::clone(&shared), id);
                self.sets.push(shared);
                id
            }));
        }
        ids
    }
}

/// The tree of group 0, which has every node, and the values by label set.
fn build_samples(
    batch: Option<&RecordBatch>,
    scale: i64,
    profile_type: &ProfileType,
) -> Result<(MergedTree, Vec<MergedSample>), Error> {
    let Some(batch) = batch else { return Ok((MergedTree::new(), Vec::new())) };
    let columns = RowColumns::of(batch);
    let (mut trees, node_of_row) = build_trees(columns, 1)?;
    let mut tree = trees.pop().expect("there is one group");
    let labelled = (0..columns.len()).filter(|row| columns.groups[*row] != 0);
    let sums: Vec<MergedSample> = labelled
        .map(|row| {
            let value = columns.self_values[row];
            MergedSample { node: node_of_row[row], label_set: columns.groups[row], value }
        })
        .collect();
    let bare =
        (0..).zip(&tree.self_values).map(|(node, value)| MergedSample { node, label_set: 0, value: *value });
    let mut samples: Vec<MergedSample> = bare.chain(sums.iter().copied()).collect();
    for sum in &sums {
        let held = &mut tree.self_values[sum.node as usize];
        *held = checked_add(*held, sum.value, profile_type)?;
    }
    if scale != 1 {
        tree.self_values.iter_mut().for_each(|value| *value = unscale(*value));
        samples.iter_mut().for_each(|sample| sample.value = unscale(sample.value));
    }
    samples.retain(|sample| sample.value != 0);
    Ok((tree, samples))
}

#[cfg(test)]
mod tests;
