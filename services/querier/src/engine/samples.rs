//! One source's sums by stack and label set, for downloads that keep the samples' labels.

use std::sync::Arc;

use cambium_blocks::Source;
use cambium_blocks::series_table::RowSet;
use cambium_blocks::source::{Pick as SourcePick, SampleScan, Samples};
use cambium_blocks::tree::{MEAN_SCALE, PartialTree};
use cambium_model::profile_type::ProfileType;
use cambium_model::time::TimeRange;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::TryStreamExt;
use hashbrown::HashMap;

use super::off_loop;
use super::rows::{ROW_BYTES, TreeRows};
use super::selection::{NOT_SELECTED, positions};
use crate::error::Error;
use crate::merged::checked_add;

/// Bytes of a sum by (node, group), in its table and as a row.
const SUM_BYTES: usize = 2 * (4 + 4 + 8) + ROW_BYTES;

/// Which samples to sum by label set.
#[derive(Clone, Debug)]
pub(crate) struct LabelledScan {
    /// Which series, all of one profile type.
    pub rows: RowSet,
    /// Which profiles, by their time.
    pub range: TimeRange,
    /// How a series' profiles combine.
    pub pick: Arc<SourcePick>,
    /// The group of each of the source's label sets; 0 for the empty one.
    pub groups: Arc<Vec<u32>>,
    /// The type, named when a sum does not fit.
    pub profile_type: ProfileType,
}

/// Sums under way.
struct Sums {
    scan: LabelledScan,
    /// Position in the row set by row.
    positions: Vec<u32>,
    /// Values of samples without labels, by node.
    bare: Vec<i64>,
    /// Values of the others, by node and group.
    labelled: HashMap<(u32, u32), i64>,
}

impl LabelledScan {
    /// The sums as rows: see [`TreeRows::of_labelled`].
    pub async fn rows(
        &self,
        source: &Arc<dyn Source>,
        reservation: &MemoryReservation,
    ) -> Result<TreeRows, Error> {
        let tree = source.stack_tree().await?;
        reservation.try_grow(tree.len() * (size_of::<i64>() + ROW_BYTES))?;
        let at = match &*self.pick {
            SourcePick::At(times) => Some(times.clone()),
            SourcePick::Sum | SourcePick::Mean(_) => None,
        };
        let scan = SampleScan { rows: self.rows.clone(), range: self.range, at };
        let mut samples = source.samples(&scan).await?;
        let mut sums = Sums {
            scan: self.clone(),
            positions: positions(&self.rows),
            bare: vec![0; tree.len()],
            labelled: HashMap::new(),
        };
        while let Some(batch) = samples.try_next().await? {
            reservation.try_grow(batch.values.len() * SUM_BYTES)?;
            let known = sums.labelled.len();
            let rows = batch.values.len();
            sums = off_loop(rows, move || sums.add(&batch).map(|()| sums)).await?;
            reservation.shrink((rows - (sums.labelled.len() - known)) * SUM_BYTES);
        }
        let nodes = tree.len() + sums.labelled.len();
        let rows = move || {
            let partial = PartialTree { tree, self_values: sums.bare };
            TreeRows::of_labelled(&partial, &sums.labelled)
        };
        let rows = off_loop(nodes, rows).await;
        rows.ok_or_else(|| Error::Overflow { profile_type: self.profile_type.to_string() })
    }
}

impl Sums {
    fn add(&mut self, samples: &Samples) -> Result<(), Error> {
        for sample in 0..samples.values.len() {
            let Some(value) = self.picked(samples, sample)? else { continue };
            let node = samples.nodes[sample];
            let label_set = samples.label_sets.get(sample).copied().unwrap_or(0);
            let group = self.scan.groups[label_set as usize];
            let sum = match group {
                0 => &mut self.bare[node as usize],
                _ => self.labelled.entry((node, group)).or_insert(0),
            };
            *sum = checked_add(*sum, value, &self.scan.profile_type)?;
        }
        Ok(())
    }

    /// What the sample adds; nothing where its profile is not picked.
    fn picked(&self, samples: &Samples, sample: usize) -> Result<Option<i64>, Error> {
        let position = self.positions.get(samples.series[sample] as usize).copied().unwrap_or(NOT_SELECTED);
        if position == NOT_SELECTED {
            return Ok(None);
        }
        let value = samples.values[sample];
        match &*self.scan.pick {
            SourcePick::Sum => Ok(Some(value)),
            SourcePick::Mean(counts) => self.mean_share(value, counts[position as usize]).map(Some),
            // The source gives no others.
            SourcePick::At(_) => Ok(Some(value)),
        }
    }

    /// The value as a share of the mean of so many profiles, in units of 1/[`MEAN_SCALE`], to the nearest.
    fn mean_share(&self, value: i64, profiles: u32) -> Result<i64, Error> {
        let profiles = i128::from(profiles.max(1));
        let scaled = i128::from(value) * i128::from(MEAN_SCALE);
        i64::try_from((scaled + profiles / 2).div_euclid(profiles))
            .map_err(|_| Error::Overflow { profile_type: self.scan.profile_type.to_string() })
    }
}
