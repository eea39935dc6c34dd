//! The series of all inputs as one table, and what of them is kept.

use std::hash::{BuildHasher, Hash};

use cambium_model::retention::RetentionRules;
use cambium_model::selector::Selector;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Input, Wanted};
use crate::series_table::{ScopeName, SeriesTable};
use crate::without::Erased;

/// In place of a row that is not kept.
pub(super) const NONE: u32 = u32::MAX;

/// Every input's series once, as far as they are kept.
#[derive(Debug, Default)]
pub(super) struct Union {
    pub(super) table: SeriesTable,
    /// For each input, for each of its rows: the row here, or [`NONE`].
    pub(super) rows: Vec<Vec<u32>>,
    /// For each input, for each of its scopes: the scope here, or [`NONE`].
    pub(super) scopes: Vec<Vec<u32>>,
    /// Profiles that are not kept, by row and time.
    pub(super) erased: Erased,
}

impl Union {
    /// The inputs' series that are wanted, without what was deleted.
    pub(super) fn new(inputs: &[Input], wanted: &Wanted<'_>) -> Self {
        let mut new = Self::default();
        let (mut by_labels, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        for input in inputs {
            let is_told_apart = input.meta().retention_selector.is_some();
            let class = wanted.class.filter(|_| !is_told_apart);
            let others = class.map(|(rules, index)| others(&input.series, rules, index));
            new.add(&input.series, wanted, others.as_deref(), &mut by_labels, &hasher);
        }
        let in_buckets = inputs.iter().any(|input| input.meta().is_downsampled());
        new.erased = Erased::new(&new.table, wanted.deletions, in_buckets);
        new
    }

    /// Adds a table's series but for the rows of `others`.
    fn add(
        &mut self,
        table: &SeriesTable,
        wanted: &Wanted<'_>,
        others: Option<&[bool]>,
        by_labels: &mut HashTable<u32>,
        hasher: &DefaultHashBuilder,
    ) {
        let types: Vec<u32> =
            table.types.iter().map(|held| position_or_push(&mut self.table.types, held)).collect();
        let is_wanted = |scope: &ScopeName| wanted.scopes.is_none_or(|wanted| wanted.contains(scope));
        let scopes: Vec<u32> = table
            .scopes
            .iter()
            .map(
                |scope| if is_wanted(scope) { position_or_push(&mut self.table.scopes, scope) } else { NONE },
            )
            .collect();
        let mut rows = vec![NONE; table.len()];
        for row in 0..table.len() {
            let scope_index = scopes[table.scope_of[row] as usize];
            if scope_index == NONE || others.is_some_and(|others| others[row]) {
                continue;
            }
            let type_index = types[table.type_of[row] as usize];
            let (labels, fingerprint) = (table.labels(row as u32), table.fingerprints[row]);
            let key = |row: u32, held: &SeriesTable| {
                let row = row as usize;
                (held.fingerprints[row], held.type_of[row], held.scope_of[row])
            };
            let wanted_key = (fingerprint, type_index, scope_index);
            let union = &mut self.table;
            let found = by_labels.find(hash(hasher, wanted_key), |&held| {
                key(held, union) == wanted_key && union.has_labels(held, &labels)
            });
            rows[row] = match found {
                Some(found) => *found,
                None => {
                    let new = union.push(&labels, fingerprint, type_index, scope_index);
                    by_labels
                        .insert_unique(hash(hasher, wanted_key), new, |held| hash(hasher, key(*held, union)));
                    new
                }
            };
        }
        self.rows.push(rows);
        self.scopes.push(scopes);
    }
}

/// Which rows are of other classes of the rules than this one.
fn others(table: &SeriesTable, rules: &RetentionRules, class: usize) -> Vec<bool> {
    let (before, rest) = rules.rules().split_at(class);
    let select = |selector: &Selector| table.select(None, selector).into_iter().flatten();
    let mut others = vec![!rest.is_empty(); table.len()];
    for row in rest.first().into_iter().flat_map(|rule| select(&rule.selector)) {
        others[row as usize] = false;
    }
    for row in before.iter().flat_map(|rule| select(&rule.selector)) {
        others[row as usize] = true;
    }
    others
}

fn hash(hasher: &DefaultHashBuilder, key: impl Hash) -> u64 {
    hasher.hash_one(key)
}

fn position_or_push<T: PartialEq + Clone>(items: &mut Vec<T>, item: &T) -> u32 {
    let found = items.iter().position(|held| held == item);
    found.unwrap_or_else(|| {
        items.push(item.clone());
        items.len() - 1
    }) as u32
}
