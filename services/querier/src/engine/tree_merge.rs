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
use crate::merged::{MergedTree, ROOT_LOCATION, checked_add};

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
    /// Position of each (group, path) among the rows; made when a batch first has another order than the rows.
    index: Option<PathTable>,
    /// Where the rows of the batch being added have gone.
    positions: Vec<u32>,
}

impl TreeSums {
    /// Nothing yet; the type is named when a sum does not fit.
    pub fn new(profile_type: ProfileType) -> Self {
        Self { profile_type, first: None, rows: TreeRows::default(), index: None, positions: Vec::new() }
    }

    /// Adds a batch.
    ///
    /// Errors: [`Error::Overflow`]; part of the batch has been added then.
    pub fn add(&mut self, batch: RecordBatch) -> Result<(), Error> {
        if let Some(first) = self.first.take() {
            self.rows = TreeRows::of_batch(first);
        } else if self.rows.len() == 0 {
            self.first = Some(batch);
            return Ok(());
        }
        self.add_rows(RowColumns::of(&batch))
    }

    fn add_rows(&mut self, columns: RowColumns<'_>) -> Result<(), Error> {
        self.find(columns);
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
            let held = self.rows.location_mut(position);
            *held = location.min(*held);
        }
        Ok(())
    }

    /// Finds the position of each row: that of an equal one, or the next. All before any is added, so that look-ups do not
    /// wait for each other and memory answers several at once.
    fn find(&mut self, columns: RowColumns<'_>) {
        let Self { rows, index, positions, .. } = self;
        positions.clear();
        let mut next = 0_u32;
        for (group, path) in columns.groups.iter().zip(columns.paths) {
            let at = next as usize;
            // Trees of one program are similar: after one row mostly comes the one that follows it here, too.
            let follows = rows.paths.get(at) == Some(path) && rows.groups.get(at) == Some(group);
            let position = if follows {
                next
            } else {
                let index = index.get_or_insert_with(|| index_of(rows, columns.len()));
                index.position(key(*group, *path))
            };
            positions.push(position);
            next = position + 1;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let first = self.first.as_ref().map_or(0, RecordBatch::num_rows);
        (first + self.rows.len()) * ROW_BYTES
            + self.index.as_ref().map_or(0, PathTable::len) * PathTable::PATH_BYTES
            + self.positions.len() * size_of::<u32>()
    }

    /// Bytes that adding so many rows may cost.
    pub fn growth(&self, rows: usize) -> usize {
        let indexed = self.index.as_ref().map_or(self.bytes() / ROW_BYTES, |_| 0);
        rows * (ROW_BYTES + PathTable::PATH_BYTES + size_of::<u32>()) + indexed * PathTable::PATH_BYTES
    }

    /// The rows, each (group, path) once.
    pub fn into_batch(self) -> RecordBatch {
        self.first.unwrap_or_else(|| self.rows.into_batch())
    }
}

/// The index of these rows, with room for so many more.
fn index_of(rows: &TreeRows, more: usize) -> PathTable {
    let mut index = PathTable::with_capacity(rows.len().max(more));
    for (group, path) in rows.groups.iter().zip(&rows.paths) {
        index.position(key(*group, *path));
    }
    index
}

/// The trees of rows, one for each of the first groups, and the node of each row. Rows of later groups are values by
/// label set: their node is that of their parent row.
///
/// Errors: a row whose parent is not before it, which is a defect of a source.
pub(crate) fn build_trees(columns: RowColumns<'_>, groups: usize) -> PlanResult<(Vec<MergedTree>, Vec<u32>)> {
    if groups == 1
        && columns.groups.iter().all(|group| *group == 0)
        && columns.parents.first() == Some(&NO_PARENT)
    {
        return one_tree(columns);
    }
    let mut trees = vec![MergedTree::new(); groups];
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

/// The tree of rows that are its nodes, root first.
fn one_tree(columns: RowColumns<'_>) -> PlanResult<(Vec<MergedTree>, Vec<u32>)> {
    let misplaced = (0..).zip(columns.parents).skip(1).find(|(row, parent)| *parent >= row);
    if let Some((row, parent)) = misplaced {
        return Err(no_parent(row as usize, *parent));
    }
    let mut locations: Vec<LocationId> = columns.locations.iter().copied().map(LocationId).collect();
    locations[0] = ROOT_LOCATION;
    let tree = MergedTree {
        parents: columns.parents.to_vec(),
        locations,
        paths: columns.paths.iter().copied().map(PathHash).collect(),
        self_values: columns.self_values.to_vec(),
    };
    Ok((vec![tree], (0..columns.len() as u32).collect()))
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
