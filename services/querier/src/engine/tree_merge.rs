//! Sums rows of trees by (group, path).
//!
//! ```text
//!   batch ─┐
//!   batch ─┼─► TreeSums: one row per (group, path), in the order first met ──► batch | MergedTree per group
//!   batch ─┘
//! ```
//!
//! Parents stay before children: a row's parent stands before it in its own batch, so it had been met earlier.

use std::hash::{BuildHasherDefault, Hasher};

use cambium_blocks::tree::MEAN_SCALE;
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::PathHash;
use datafusion::error::{DataFusionError, Result as PlanResult};
use hashbrown::HashMap;

use super::rows::{ROW_BYTES, RowColumns, TreeRows};
use crate::error::Error;
use crate::merged::{MergedTree, checked_add};

/// Bytes of one entry of the index at its worst load.
const INDEX_ENTRY_BYTES: usize = 16 * 2;

/// Path hashes are hashes already: the table takes them as they are.
#[derive(Debug, Default)]
pub(crate) struct PathHasher(u64);

impl Hasher for PathHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are u64")
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Positions = HashMap<u64, u32, BuildHasherDefault<PathHasher>>;

/// One key for a path in a group: as unlikely to collide as paths are among themselves.
#[inline]
fn key(group: u32, path: u64) -> u64 {
    path ^ u64::from(group).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Rows summed by group and path.
#[derive(Debug)]
pub(crate) struct TreeSums {
    profile_type: ProfileType,
    rows: TreeRows,
    /// Position of each (group, path); empty until a second batch arrives.
    positions: Positions,
}

impl TreeSums {
    /// Nothing yet; the type is named when a sum does not fit.
    pub fn new(profile_type: ProfileType) -> Self {
        Self { profile_type, rows: TreeRows::default(), positions: Positions::default() }
    }

    /// Adds a batch.
    ///
    /// Errors: [`Error::Overflow`]; part of the batch has been added then.
    pub fn add(&mut self, columns: RowColumns<'_>) -> Result<(), Error> {
        // A batch of one source's one scope has each path once: alone, it needs no index.
        let is_distinct = columns.paths.iter().filter(|path| **path == PathHash::ROOT.0).count() <= 1;
        if self.rows.len() == 0 && is_distinct {
            self.rows.append(columns);
            return Ok(());
        }
        if self.positions.is_empty() {
            let keys = self.rows.groups.iter().zip(&self.rows.paths);
            self.positions = keys.map(|(group, path)| key(*group, *path)).zip(0..).collect();
        }
        for row in 0..columns.len() {
            let next = self.rows.len() as u32;
            let position =
                *self.positions.entry(key(columns.groups[row], columns.paths[row])).or_insert(next);
            if position == next {
                self.rows.append_row(columns, row);
            } else {
                let sum = &mut self.rows.self_values[position as usize];
                *sum = checked_add(*sum, columns.self_values[row], &self.profile_type)?;
            }
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.rows.len() * ROW_BYTES + self.positions.len() * INDEX_ENTRY_BYTES
    }

    /// Bytes that adding so many rows may cost.
    pub fn growth(&self, rows: usize) -> usize {
        (self.rows.len() + rows) * (ROW_BYTES + INDEX_ENTRY_BYTES) - self.bytes()
    }

    /// The rows, each (group, path) once.
    pub fn into_rows(self) -> TreeRows {
        self.rows
    }
}

/// Trees being built from rows that have each (group, path) once, parents first.
#[derive(Debug)]
pub(crate) struct TreeBuilder {
    trees: Vec<MergedTree>,
    /// The node that the latest row of each group became.
    latest: Vec<u32>,
    /// Position of each node; empty as long as each row's parent is among the ancestors of the row before it, which
    /// holds for the depth-first order of a single block.
    positions: Positions,
}

impl TreeBuilder {
    /// One bare tree per group.
    pub fn new(groups: usize) -> Self {
        Self {
            trees: vec![MergedTree::new(); groups],
            latest: vec![0; groups],
            positions: Positions::default(),
        }
    }

    /// Adds rows. Errors: a parent that has not been there, which is a defect of a source.
    pub fn add(&mut self, columns: RowColumns<'_>) -> PlanResult<()> {
        (0..columns.len()).try_for_each(|row| self.add_row(columns, row))
    }

    /// Adds the rows of one group.
    pub fn add_group(&mut self, columns: RowColumns<'_>, group: u32) -> PlanResult<()> {
        let mut rows = (0..columns.len()).filter(|row| columns.groups[*row] == group);
        rows.try_for_each(|row| self.add_row(columns, row))
    }

    fn add_row(&mut self, columns: RowColumns<'_>, row: usize) -> PlanResult<()> {
        let (group, path) = (columns.groups[row], PathHash(columns.paths[row]));
        let self_value = columns.self_values[row];
        if path == PathHash::ROOT {
            self.trees[group as usize].self_values[0] = self_value;
            return Ok(());
        }
        let parent = self.find(group, PathHash(columns.parents[row]))?;
        let node = self.trees[group as usize].push(parent, columns.location(row), path, self_value);
        self.latest[group as usize] = node;
        if !self.positions.is_empty() {
            self.positions.insert(key(group, path.0), node);
        }
        Ok(())
    }

    fn find(&mut self, group: u32, path: PathHash) -> PlanResult<u32> {
        if self.positions.is_empty() {
            let tree = &self.trees[group as usize];
            let mut node = self.latest[group as usize];
            while node != 0 && tree.paths[node as usize] != path {
                node = tree.parents[node as usize];
            }
            if tree.paths[node as usize] == path {
                return Ok(node);
            }
        }
        self.position(group, path).ok_or_else(|| {
            DataFusionError::Internal(format!("row of group {group} has no parent {:016x}", path.0))
        })
    }

    /// The node of a group at this path.
    pub fn position(&mut self, group: u32, path: PathHash) -> Option<u32> {
        if self.positions.is_empty() {
            for (group, tree) in (0..).zip(&self.trees) {
                let keys = tree.paths.iter().map(|path| key(group, path.0));
                self.positions.extend(keys.zip(0..));
            }
        }
        self.positions.get(&key(group, path.0)).copied()
    }

    /// The trees, one per group.
    pub fn finish(self) -> Vec<MergedTree> {
        self.trees
    }
}

/// A mean from its fixed point, rounded to the nearest, halves away from zero.
pub(crate) fn unscale(scaled: i64) -> i64 {
    let half = if scaled < 0 { -MEAN_SCALE / 2 } else { MEAN_SCALE / 2 };
    scaled.saturating_add(half) / MEAN_SCALE
}

#[cfg(test)]
mod tests;
