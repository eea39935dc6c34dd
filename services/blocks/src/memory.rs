//! A [`Dataset`] as a [`Source`]: what a head answers from.

use std::sync::Arc;

use async_trait::async_trait;
use cambium_model::profile::SampleLabels;
use cambium_model::time::TimeRange;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::dataset::{Chunk, ProfileRow};
use crate::offload::{Caller, offload};
use crate::plan::SumPlan;
use crate::series_table::{RowSet, SeriesTable};
use crate::source::{Pick, Profiles, SampleScan, Samples, ScanStats, TreeScan};
use crate::sums::Accumulator;
use crate::tree::{PartialTree, Tree};
use crate::{Dataset, Error, Source};

#[async_trait]
impl Source for Dataset {
    async fn series(&self) -> Result<Arc<SeriesTable>, Error> {
        Ok(Arc::clone(&self.series))
    }

    async fn profiles(&self, rows: &RowSet, range: TimeRange) -> Result<Profiles, Error> {
        let (dataset, rows) = (self.clone(), rows.clone());
        offload(move |caller| profiles(&dataset, &rows, range, caller)).await
    }

    async fn tree(&self, scan: &TreeScan) -> Result<PartialTree, Error> {
        let (dataset, scan) = (self.clone(), scan.clone());
        offload(move |caller| tree(&dataset, &scan, caller)).await
    }

    async fn samples(&self, scan: &SampleScan) -> Result<BoxStream<'static, Result<Samples, Error>>, Error> {
        if let Some(times) = &scan.at {
            let (dataset, rows, range, times) = (self.clone(), scan.rows.clone(), scan.range, times.clone());
            let batches = offload(move |caller| {
                let picked = picked_at(&dataset, &rows, range, &times, caller)?;
                Ok(picked.into_iter().map(|(chunk, row)| samples_of(chunk, [row])).collect::<Vec<_>>())
            });
            return Ok(stream::iter(batches.await?).map(Ok).boxed());
        }
        let wanted = Positions::new(&scan.rows, self.series.len());
        let range = scan.range;
        let batches = stream::iter(self.chunks.clone())
            .map(move |chunk| chunk_samples(&chunk, &wanted, range))
            .filter(|batch| std::future::ready(!batch.nodes.is_empty()));
        Ok(batches.map(Ok).boxed())
    }

    async fn stack_tree(&self) -> Result<Arc<Tree>, Error> {
        Ok(Arc::clone(&self.tree))
    }

    async fn sample_labels(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        Ok(Arc::clone(&self.label_sets))
    }

    /// Nothing is counted: what lies in memory is neither fetched nor decoded.
    fn stats(&self) -> ScanStats {
        ScanStats::default()
    }
}

/// Position of each series in the concatenated rows of a set.
struct Positions(Vec<u32>);

impl Positions {
    const ABSENT: u32 = u32::MAX;

    fn new(rows: &RowSet, series: usize) -> Self {
        let mut positions = vec![Self::ABSENT; series];
        for (position, row) in (0..).zip(rows.iter().cloned().flatten()) {
            positions[row as usize] = position;
        }
        Self(positions)
    }

    fn get(&self, series: u32) -> Option<u32> {
        let position = self.0[series as usize];
        (position != Self::ABSENT).then_some(position)
    }
}

/// The profiles of these rows and this range, in order of arrival, each with its chunk.
fn selected<'a>(
    dataset: &'a Dataset,
    rows: &RowSet,
    range: TimeRange,
    caller: &Caller,
) -> Result<Vec<(&'a Chunk, &'a ProfileRow)>, Error> {
    let wanted = Positions::new(rows, dataset.series.len());
    let mut found = Vec::new();
    for chunk in &dataset.chunks {
        caller.check()?;
        let inside = |row: &&ProfileRow| range.contains(row.time_ns) && wanted.get(row.series).is_some();
        found.extend(chunk.profiles.iter().filter(inside).map(|row| (&**chunk, row)));
    }
    Ok(found)
}

/// The order of profiles in every answer.
fn order(row: &ProfileRow) -> (u32, i64, [u8; 16]) {
    (row.series, row.time_ns, row.id.0)
}

fn profiles(dataset: &Dataset, rows: &RowSet, range: TimeRange, caller: &Caller) -> Result<Profiles, Error> {
    let mut found = selected(dataset, rows, range, caller)?;
    found.sort_by_key(|(_, row)| order(row));
    let mut profiles = Profiles::default();
    for (_, row) in found {
        profiles.series.push(row.series);
        profiles.time_ns.push(row.time_ns);
        profiles.duration_ns.push(row.duration_ns);
        profiles.period.push(row.period);
        profiles.total.push(row.total);
        profiles.samples.push(row.samples);
        profiles.ids.push(row.id);
    }
    Ok(profiles)
}

fn tree(dataset: &Dataset, scan: &TreeScan, caller: &Caller) -> Result<PartialTree, Error> {
    let sums = match &scan.pick {
        Pick::Sum => sum(dataset, scan, caller)?,
        Pick::Mean(counts) => mean(dataset, scan, counts, caller)?,
        Pick::At(times) => at(dataset, scan, times, caller)?,
    };
    let self_values =
        sums.finish().map_err(|_| Error::Overflow { profile_type: dataset.series.type_name(&scan.rows) })?;
    Ok(PartialTree { tree: Arc::clone(&dataset.tree), self_values })
}

fn sum(dataset: &Dataset, scan: &TreeScan, caller: &Caller) -> Result<Accumulator, Error> {
    let mut plan = SumPlan::new(&dataset.series, &scan.rows, scan.range);
    let mut sums = Accumulator::sum(dataset.tree.len());
    for key in &plan.take_fine(&dataset.rollups) {
        caller.check()?;
        let values = &dataset.rollups[key];
        let stacks = &dataset.stacks[key.scope_index as usize][..values.len()];
        sums.add(stacks, values).expect("a dataset's stacks point into its tree");
    }
    // For each series the windows to read, if any.
    let mut windows: Vec<&[TimeRange]> = vec![&[]; dataset.series.len()];
    let reads = plan.reads(&dataset.series);
    for read in &reads {
        windows[read.rows.start as usize..read.rows.end as usize].fill(&read.windows);
    }
    if reads.is_empty() {
        return Ok(sums);
    }
    let mut adder = Adder::new(sums);
    for chunk in &dataset.chunks {
        caller.check()?;
        for row in &chunk.profiles {
            if windows[row.series as usize].iter().any(|window| window.contains(row.time_ns)) {
                adder.add(chunk, row);
            }
        }
    }
    Ok(adder.sums)
}

/// Adds profiles to sums.
struct Adder {
    sums: Accumulator,
    /// Values of the profile at hand, unpacked: they stay in the processor's cache between two loops over them.
    values: Vec<i64>,
}

impl Adder {
    fn new(sums: Accumulator) -> Self {
        Self { sums, values: Vec::new() }
    }

    fn add(&mut self, chunk: &Chunk, row: &ProfileRow) {
        self.values.clear();
        chunk.read_values(row, &mut self.values);
        self.sums
            .add(&chunk.stacks[row.sample_range()], &self.values)
            .expect("a dataset's samples point into its tree");
    }
}

fn mean(dataset: &Dataset, scan: &TreeScan, counts: &[u32], caller: &Caller) -> Result<Accumulator, Error> {
    let positions = Positions::new(&scan.rows, dataset.series.len());
    let mut found = selected(dataset, &scan.rows, scan.range, caller)?;
    found.sort_by_key(|(_, row)| row.series);
    let mut adder = Adder::new(Accumulator::mean(dataset.tree.len()));
    for of_series in found.chunk_by(|a, b| a.1.series == b.1.series) {
        caller.check()?;
        of_series.iter().for_each(|(chunk, row)| adder.add(chunk, row));
        let position = positions.get(of_series[0].1.series).expect("only wanted series are selected");
        adder.sums.end_series(counts[position as usize]);
    }
    Ok(adder.sums)
}

fn at(
    dataset: &Dataset,
    scan: &TreeScan,
    times: &[Option<i64>],
    caller: &Caller,
) -> Result<Accumulator, Error> {
    let mut adder = Adder::new(Accumulator::sum(dataset.tree.len()));
    for (chunk, row) in picked_at(dataset, &scan.rows, scan.range, times, caller)? {
        adder.add(chunk, row);
    }
    Ok(adder.sums)
}

/// Of each series the profile collected at its time, of several the one with the greatest id.
fn picked_at<'a>(
    dataset: &'a Dataset,
    rows: &RowSet,
    range: TimeRange,
    times: &[Option<i64>],
    caller: &Caller,
) -> Result<Vec<(&'a Chunk, &'a ProfileRow)>, Error> {
    let positions = Positions::new(rows, dataset.series.len());
    let mut found = selected(dataset, rows, range, caller)?;
    found.retain(|(_, row)| {
        let position = positions.get(row.series).expect("only wanted series are selected");
        times[position as usize] == Some(row.time_ns)
    });
    found.sort_by_key(|(_, row)| order(row));
    let of_series = found.chunk_by(|a, b| a.1.series == b.1.series);
    Ok(of_series.filter_map(|profiles| profiles.last().copied()).collect())
}

fn chunk_samples(chunk: &Chunk, wanted: &Positions, range: TimeRange) -> Samples {
    let inside = |row: &&ProfileRow| range.contains(row.time_ns) && wanted.get(row.series).is_some();
    samples_of(chunk, chunk.profiles.iter().filter(inside))
}

/// The samples of some of a chunk's profiles.
fn samples_of<'a>(chunk: &Chunk, profiles: impl IntoIterator<Item = &'a ProfileRow>) -> Samples {
    let mut batch = Samples::default();
    for row in profiles {
        let samples = row.sample_range();
        batch.series.resize(batch.series.len() + samples.len(), row.series);
        batch.time_ns.resize(batch.time_ns.len() + samples.len(), row.time_ns);
        batch.nodes.extend_from_slice(&chunk.stacks[samples.clone()]);
        chunk.read_values(row, &mut batch.values);
        if !chunk.label_sets.is_empty() {
            batch.label_sets.extend_from_slice(&chunk.label_sets[samples]);
        }
    }
    batch
}
