//! Finds the rows of a label set: one per profile type.

use cambium_blocks::series_table::{ScopeName, SeriesTable};
use cambium_model::labels::{Labels, Scope};
use cambium_model::profile_type::ProfileType;
use hashbrown::HashMap;
use hashbrown::HashTable;

/// A scope of the head: its position and its node in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadScope {
    pub(super) index: u32,
    pub(super) node: u32,
}

/// Rows by fingerprint and type; positions of scopes and types.
#[derive(Debug, Default)]
pub(super) struct SeriesIndex {
    rows: HashTable<u32>,
    scopes: HashMap<ScopeName, HeadScope>,
}

impl SeriesIndex {
    /// The scope's position, a new one where it is not known yet; `push_node` makes its node in the tree.
    pub(super) fn scope(
        &mut self,
        table: &mut SeriesTable,
        name: Scope<'_>,
        push_node: impl FnOnce() -> u32,
    ) -> HeadScope {
        let name = ScopeName { value: name.value.into(), label: name.label.into() };
        if let Some(&known) = self.scopes.get(&name) {
            return known;
        }
        let scope = HeadScope { index: table.scopes.len() as u32, node: push_node() };
        table.scopes.push(name.clone());
        self.scopes.insert(name, scope);
        scope
    }

    /// Bytes allocated; scopes are few and not counted.
    pub(super) fn heap_bytes(&self) -> usize {
        self.rows.allocation_size()
    }

    /// Fills `rows` with the series' row of each type, adding those that are new; says whether any was.
    pub(super) fn rows(
        &mut self,
        table: &mut SeriesTable,
        labels: &Labels,
        types: &[ProfileType],
        scope_index: u32,
        rows: &mut Vec<u32>,
    ) -> bool {
        let fingerprint = labels.fingerprint();
        let known = table.len();
        for profile_type in types {
            let type_index = match table.types.iter().position(|held| held == profile_type) {
                Some(index) => index as u32,
                None => {
                    table.types.push(profile_type.clone());
                    (table.types.len() - 1) as u32
                }
            };
            let hash = row_hash(fingerprint, type_index);
            let found = self.rows.find(hash, |&row| {
                table.fingerprints[row as usize] == fingerprint
                    && table.type_of[row as usize] == type_index
                    && table.has_labels(row, labels)
            });
            let row = match found {
                Some(&row) => row,
                None => {
                    let row = table.push(labels, fingerprint, type_index, scope_index);
                    self.rows.insert_unique(hash, row, |&held| {
                        row_hash(table.fingerprints[held as usize], table.type_of[held as usize])
                    });
                    row
                }
            };
            rows.push(row);
        }
        table.len() > known
    }
}

fn row_hash(fingerprint: u64, type_index: u32) -> u64 {
    fingerprint ^ u64::from(type_index).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
