//! In which order a block holds types, scopes, series and profiles.

use std::sync::Arc;

use cambium_model::labels::Labels;
use cambium_model::profile_type::ProfileType;

use crate::Dataset;
use crate::dataset::{Chunk, ProfileRow};
use crate::series_table::{ScopeName, SeriesTable};

/// The order of types, scopes and series. Only what has profiles is in it.
#[derive(Debug)]
pub(crate) struct Order {
    /// Sorted.
    pub(crate) types: Vec<ProfileType>,
    /// Sorted.
    pub(crate) scopes: Vec<ScopeName>,
    /// Sorted by (type, scope, labels).
    pub(crate) series: Vec<SeriesRow>,
}

/// A series of the block.
#[derive(Debug)]
pub(crate) struct SeriesRow {
    /// Its row in the table.
    pub(crate) old: u32,
    /// Position in the block's types.
    pub(crate) type_index: u32,
    /// Position in the block's scopes.
    pub(crate) scope_index: u32,
}

/// A profile of the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProfileRef {
    /// Its series in the block.
    pub(super) series: u32,
    /// Position of its chunk in the dataset.
    chunk: u32,
    /// Position in the chunk.
    row: u32,
}

impl ProfileRef {
    pub(super) fn of<'a>(&self, dataset: &'a Dataset) -> (&'a Chunk, &'a ProfileRow) {
        let chunk = &*dataset.chunks[self.chunk as usize];
        (chunk, &chunk.profiles[self.row as usize])
    }
}

impl Order {
    /// The order of the table's live rows.
    pub(crate) fn new(table: &SeriesTable, live: &[bool]) -> Self {
        let (types, type_ranks) = ranked(&table.types, &table.type_of, live);
        let (scopes, scope_ranks) = ranked(&table.scopes, &table.scope_of, live);
        Self { types, scopes, series: sorted_series(table, live, &type_ranks, &scope_ranks) }
    }

    /// For each row of the table its row in the block; `u32::MAX` where it has none.
    pub(crate) fn new_rows(&self, table: &SeriesTable) -> Vec<u32> {
        let mut new_rows = vec![u32::MAX; table.len()];
        for (new, row) in (0..).zip(&self.series) {
            new_rows[row.old as usize] = new;
        }
        new_rows
    }
}

/// Which series of a dataset have profiles.
pub(super) fn live(dataset: &Dataset) -> Vec<bool> {
    let mut live = vec![false; dataset.series.len()];
    for row in dataset.chunks.iter().flat_map(|chunk| &chunk.profiles) {
        live[row.series as usize] = true;
    }
    live
}

/// The items that live rows point to, sorted, and each old item's place among them.
fn ranked<T: Ord + Clone>(items: &[T], item_of: &[u32], live: &[bool]) -> (Vec<T>, Vec<u32>) {
    let mut used: Vec<u32> =
        item_of.iter().zip(live).filter(|(_, live)| **live).map(|(item, _)| *item).collect();
    used.sort_unstable();
    used.dedup();
    used.sort_by(|a, b| items[*a as usize].cmp(&items[*b as usize]));
    let mut ranks = vec![u32::MAX; items.len()];
    for (rank, item) in (0..).zip(&used) {
        ranks[*item as usize] = rank;
    }
    (used.iter().map(|item| items[*item as usize].clone()).collect(), ranks)
}

fn sorted_series(
    table: &SeriesTable,
    live: &[bool],
    type_ranks: &[u32],
    scope_ranks: &[u32],
) -> Vec<SeriesRow> {
    let mut keyed: Vec<(Labels, SeriesRow)> = (0..table.len() as u32)
        .filter(|row| live[*row as usize])
        .map(|old| {
            let type_index = type_ranks[table.type_of[old as usize] as usize];
            let scope_index = scope_ranks[table.scope_of[old as usize] as usize];
            (table.labels(old), SeriesRow { old, type_index, scope_index })
        })
        .collect();
    keyed.sort_by(|(a_labels, a), (b_labels, b)| {
        (a.type_index, a.scope_index, a_labels).cmp(&(b.type_index, b.scope_index, b_labels))
    });
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// A dataset's profiles by (series, time, id).
pub(super) fn sorted_profiles(dataset: &Dataset, order: &Order) -> Vec<ProfileRef> {
    let new_rows = order.new_rows(&dataset.series);
    let mut keyed = Vec::with_capacity(dataset.profile_count());
    for (chunk, held) in (0..).zip(&dataset.chunks) {
        let held: &Arc<Chunk> = held;
        for (row, profile) in (0..).zip(&held.profiles) {
            let series = new_rows[profile.series as usize];
            keyed.push(((series, profile.time_ns, profile.id), ProfileRef { series, chunk, row }));
        }
    }
    // Stable: profiles that agree in all three keep their order of arrival.
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, profile)| profile).collect()
}
