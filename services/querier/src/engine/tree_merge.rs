//! Sums rows of trees by (group, path).
//!
//! ```text
//!   batch ─┐
//!   batch ─┼─► TreeSums: one row per (group, path), in the order first met ──► batch ──► MergedTree per group
//!   batch ─┘
//! ```
//!
//! Parents stay before children: a row's parent stands before it in its own batch, so it had been met earlier.

use arrow::array::RecordBatch;
use cambium_blocks::path_table::PathTable;
use cambium_blocks::tree::MEAN_SCALE;
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};
use datafusion::error::{DataFusionError, Result as PlanResult};

use super::rows::{ROW_BYTES, RowColumns, TreeRows};
use crate::error::Error;
use crate::merged::{MergedTree, checked_add};

/// One key for a path in a group: as unlikely to collide as paths are among themselves.
#[inline]
fn key(group: u32, path: u64) -> PathHash {
    PathHash(path ^ u64::from(group).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Rows summed by group and path.
#[derive(Debug)]
pub(crate) struct TreeSums {
    profile_type: ProfileType,
    /// The first batch, as long as it is alone: its rows are sums already.
    first: Option<RecordBatch>,
    rows: TreeRows,
    /// Position of each (group, path) among the rows.
    index: PathTable,
    /// Where the rows of the batch being added have gone.
    positions: Vec<u32>,
}

impl TreeSums {
    /// Nothing yet; the type is named when a sum does not fit.
    pub fn new(profile_type: ProfileType) -> Self {
        let index = PathTable::with_capacity(0);
        Self { profile_type, first: None, rows: TreeRows::default(), index, positions: Vec::new() }
    }

    /// Adds a batch.
    ///
    /// Errors: [`Error::Overflow`]; part of the batch has been added then.
    pub fn add(&mut self, batch: RecordBatch) -> Result<(), Error> {
        if let Some(first) = self.first.take() {
            self.index = PathTable::with_capacity(first.num_rows().max(batch.num_rows()));
            self.add_rows(RowColumns::of(&first))?;
        } else if self.rows.len() == 0 {
            self.first = Some(batch);
            return Ok(());
        }
        self.add_rows(RowColumns::of(&batch))
    }

    fn add_rows(&mut self, columns: RowColumns<'_>) -> Result<(), Error> {
        // All look-ups first: they do not wait for each other, and memory answers several at once.
        let keys = columns.groups.iter().zip(columns.paths).map(|(group, path)| key(*group, *path));
        self.positions.clear();
        self.positions.extend(keys.map(|key| self.index.position(key)));
        for (row, position) in self.positions.iter().map(|position| *position as usize).enumerate() {
            let location = columns.locations[row];
            if position == self.rows.len() {
                let parent = match columns.parents[row] {
                    NO_PARENT => NO_PARENT,
                    parent => {
                        let met = self.positions.get(parent as usize);
                        *met.ok_or_else(|| no_parent(row, parent))?
                    }
                };
                self.rows.push(
                    columns.groups[row],
                    columns.paths[row],
                    parent,
                    location,
                    columns.self_values[row],
                );
                continue;
            }
            let sum = &mut self.rows.self_values[position];
            *sum = checked_add(*sum, columns.self_values[row], &self.profile_type)?;
            let held = &mut self.rows.locations[position];
            *held = location.min(*held);
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let first = self.first.as_ref().map_or(0, RecordBatch::num_rows);
        (first + self.rows.len()) * ROW_BYTES
            + self.index.len() * PathTable::PATH_BYTES
            + self.positions.len() * size_of::<u32>()
    }

    /// Bytes that adding so many rows may cost.
    pub fn growth(&self, rows: usize) -> usize {
        rows * (ROW_BYTES + PathTable::PATH_BYTES + size_of::<u32>())
    }

    /// The rows, each (group, path) once.
    pub fn into_batch(self) -> RecordBatch {
        self.first.unwrap_or_else(|| self.rows.into_batch())
    }
}

/// The trees of rows, one for each of the first groups, and the node of each row. Rows of later groups are values by
/// label set: their node is that of their parent row.
///
/// Errors: a row whose parent is not before it, which is a defect of a source.
pub(crate) fn build_trees(columns: RowColumns<'_>, groups: usize) -> PlanResult<(Vec<MergedTree>, Vec<u32>)> {
    let mut trees = vec![MergedTree::new(); groups];
    if let [tree] = &mut trees[..] {
        tree.reserve(columns.len());
    }
    let mut node_of_row: Vec<u32> = Vec::with_capacity(columns.len());
    for row in 0..columns.len() {
        let self_value = columns.self_values[row];
        let tree = trees.get_mut(columns.groups[row] as usize);
        let node = match (columns.parents[row], tree) {
            (NO_PARENT, Some(tree)) => {
                tree.self_values[0] = self_value;
                0
            }
            (parent, tree) => {
                let above = *node_of_row.get(parent as usize).ok_or_else(|| no_parent(row, parent))?;
                let location = LocationId(columns.locations[row]);
                tree.map_or(above, |tree| {
                    tree.push(above, location, PathHash(columns.paths[row]), self_value)
                })
            }
        };
        node_of_row.push(node);
    }
    Ok((trees, node_of_row))
}

fn no_parent(row: usize, parent: u32) -> DataFusionError {
    DataFusionError::Internal(format!("row {row} comes before its parent, row {parent}"))
}

/// A mean from its fixed point, rounded to the nearest, halves away from zero.
pub(crate) fn unscale(scaled: i64) -> i64 {
    let half = if scaled < 0 { -MEAN_SCALE / 2 } else { MEAN_SCALE / 2 };
    scaled.saturating_add(half) / MEAN_SCALE
}

#[cfg(test)]
mod tests;
