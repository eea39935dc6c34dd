//! A source as if some of its profiles had never been: what queries see of deleted profiles until they are gone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cambium_model::deletion::Deletion;
use cambium_model::profile::SampleLabels;
use cambium_model::time::TimeRange;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::series_table::{RowSet, SeriesTable};
use crate::source::{Pick, Profiles, SampleScan, Samples, ScanStats, TreeScan};
use crate::tree::{PartialTree, Tree};
use crate::{Error, Source};

/// A source without what was deleted. Series, stacks and label sets are still those of the source.
pub struct Without {
    inner: Arc<dyn Source>,
    deletions: Vec<Deletion>,
}

/// Times of deleted profiles, by row of a series table.
#[derive(Debug, Default)]
pub(crate) struct Erased(BTreeMap<u32, Vec<TimeRange>>);

impl Erased {
    /// Whole buckets of ten minutes where no less is to be had.
    pub(crate) fn new(table: &SeriesTable, deletions: &[Deletion], in_buckets: bool) -> Self {
        let mut erased = Self::default();
        for deletion in deletions {
            let range = if in_buckets { deletion.range.touched_buckets() } else { deletion.range };
            for row in table.select(None, &deletion.selector).into_iter().flatten() {
                erased.0.entry(row).or_default().push(range);
            }
        }
        erased
    }

    /// Whether a profile of this row and time was deleted.
    pub(crate) fn has(&self, row: u32, time_ns: i64) -> bool {
        self.of(row).iter().any(|range| range.contains(time_ns))
    }

    fn of(&self, row: u32) -> &[TimeRange] {
        self.0.get(&row).map(Vec::as_slice).unwrap_or_default()
    }

    fn touches(&self, rows: &RowSet) -> bool {
        rows.iter().any(|run| self.0.range(run.clone()).next().is_some())
    }
}

impl Without {
    /// `inner` without these profiles.
    pub fn new(inner: Arc<dyn Source>, deletions: Vec<Deletion>) -> Self {
        Self { inner, deletions }
    }

    async fn erased(&self) -> Result<Erased, Error> {
        Ok(Erased::new(&*self.inner.series().await?, &self.deletions, self.inner.is_downsampled()))
    }
}

impl fmt::Debug for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Without").field("inner", &self.inner).field("deletions", &self.deletions).finish()
    }
}

/// What is left of a range without others.
fn left(range: TimeRange, without: &[TimeRange]) -> Vec<TimeRange> {
    let mut left = vec![range];
    for hole in without {
        left = left
            .iter()
            .flat_map(|range| {
                let before = TimeRange { end_ns: range.end_ns.min(hole.start_ns), ..*range };
                let after = TimeRange { start_ns: range.start_ns.max(hole.end_ns), ..*range };
                [before, after]
            })
            .filter(|range| range.start_ns < range.end_ns)
            .collect();
    }
    left.sort_unstable_by_key(|range| range.start_ns);
    left
}

/// The scan in parts that touch nothing deleted.
fn parts(scan: &TreeScan, erased: &Erased) -> Vec<TreeScan> {
    let mut parts: Vec<(Vec<TimeRange>, RowSet, Vec<u32>)> = Vec::new();
    for (position, row) in scan.rows.iter().cloned().flatten().enumerate() {
        let ranges = left(scan.range, erased.of(row));
        let part = match parts.iter().position(|(held, ..)| *held == ranges) {
            Some(part) => &mut parts[part],
            None => {
                parts.push((ranges, RowSet::new(), Vec::new()));
                parts.last_mut().expect("just pushed")
            }
        };
        match part.1.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => part.1.push(row..row + 1),
        }
        if let Pick::Mean(counts) = &scan.pick {
            part.2.push(counts[position]);
        }
    }
    let scans = |(ranges, rows, counts): (Vec<TimeRange>, RowSet, Vec<u32>)| {
        let pick = if matches!(scan.pick, Pick::Mean(_)) { Pick::Mean(counts) } else { Pick::Sum };
        ranges.into_iter().map(move |range| TreeScan { rows: rows.clone(), range, pick: pick.clone() })
    };
    parts.into_iter().flat_map(scans).collect()
}

#[async_trait]
impl Source for Without {
    async fn series(&self) -> Result<Arc<SeriesTable>, Error> {
        self.inner.series().await
    }

    fn is_downsampled(&self) -> bool {
        self.inner.is_downsampled()
    }

    async fn profiles(&self, rows: &RowSet, range: TimeRange) -> Result<Profiles, Error> {
        let erased = self.erased().await?;
        let mut all = self.inner.profiles(rows, range).await?;
        let kept: Vec<bool> =
            all.series.iter().zip(&all.time_ns).map(|(row, time)| !erased.has(*row, *time)).collect();
        keep(&mut all.series, &kept);
        keep(&mut all.time_ns, &kept);
        keep(&mut all.duration_ns, &kept);
        keep(&mut all.period, &kept);
        keep(&mut all.total, &kept);
        keep(&mut all.samples, &kept);
        keep(&mut all.ids, &kept);
        Ok(all)
    }

    async fn tree(&self, scan: &TreeScan) -> Result<PartialTree, Error> {
        let erased = self.erased().await?;
        // Times that are picked are those of profiles that are left.
        if !erased.touches(&scan.rows) || matches!(scan.pick, Pick::At(_)) {
            return self.inner.tree(scan).await;
        }
        let (table, tree) = (self.inner.series().await?, self.inner.stack_tree().await?);
        let overflow = || Error::Overflow { profile_type: table.type_name(&scan.rows) };
        // A sum that fits may have parts that together do not, before the last is added.
        let mut sums = vec![0_i128; tree.len()];
        for part in parts(scan, &erased) {
            let partial = self.inner.tree(&part).await?;
            sums.iter_mut().zip(partial.self_values).for_each(|(sum, value)| *sum += i128::from(value));
        }
        let narrow = sums.into_iter().map(|sum| i64::try_from(sum).map_err(|_| overflow()));
        Ok(PartialTree { self_values: narrow.collect::<Result<_, _>>()?, tree })
    }

    async fn samples(&self, scan: &SampleScan) -> Result<BoxStream<'static, Result<Samples, Error>>, Error> {
        let erased = self.erased().await?;
        let stream = self.inner.samples(scan).await?;
        Ok(stream.map(move |batch| batch.map(|batch| without(batch, &erased))).boxed())
    }

    async fn stack_tree(&self) -> Result<Arc<Tree>, Error> {
        self.inner.stack_tree().await
    }

    async fn sample_labels(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        self.inner.sample_labels().await
    }

    fn stats(&self) -> ScanStats {
        self.inner.stats()
    }
}

fn without(mut batch: Samples, erased: &Erased) -> Samples {
    let times = batch.series.iter().zip(&batch.time_ns);
    let kept: Vec<bool> = times.map(|(row, time)| !erased.has(*row, *time)).collect();
    keep(&mut batch.series, &kept);
    keep(&mut batch.time_ns, &kept);
    keep(&mut batch.nodes, &kept);
    keep(&mut batch.values, &kept);
    keep(&mut batch.label_sets, &kept);
    batch
}

/// Keeps the values that are kept. A column that is empty stays so.
fn keep<T>(values: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    values.retain(|_| kept.next().is_none_or(|kept| *kept));
}
