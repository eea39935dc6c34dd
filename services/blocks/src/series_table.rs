//! The series of a dataset as columns: one dictionary per label name, one code per series.
//!
//! Matching costs one comparison per distinct value and one table look-up per series, with no index that would grow
//! with label values. A row is a label set × profile type.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use cambium_model::labels::Labels;
use cambium_model::profile_type::ProfileType;
use cambium_model::selector::{Matcher, Selector};
use hashbrown::{DefaultHashBuilder, HashTable};

/// Runs of series rows, ascending and not touching.
pub type RowSet = Vec<Range<u32>>;

/// A service's name in a dataset: the label it came from (empty for none) and the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeName {
    /// The label's value.
    pub value: Arc<str>,
    /// The label.
    pub label: Arc<str>,
}

/// All series of a dataset. Rows of a block are sorted by (profile type, scope, labels); a head's are in order of
/// arrival.
#[derive(Clone, Debug, Default)]
pub struct SeriesTable {
    /// Profile types, which `type_of` points to.
    pub types: Vec<ProfileType>,
    /// Scopes, which `scope_of` points to.
    pub scopes: Vec<ScopeName>,
    /// Each series' profile type.
    pub type_of: Vec<u32>,
    /// Each series' scope.
    pub scope_of: Vec<u32>,
    /// Each label set's hash: see [`Labels::fingerprint`].
    pub fingerprints: Vec<u64>,
    /// One column per label name.
    pub columns: BTreeMap<Arc<str>, LabelColumn>,
}

/// The values of one label over all series of a table.
#[derive(Clone, Debug)]
pub struct LabelColumn {
    /// Distinct values; entry 0 is the empty value, which stands for an absent label.
    pub values: Vec<Arc<str>>,
    /// Each series' value, as a position in `values`. May be shorter than the table: the rest is absent.
    pub codes: Vec<u32>,
    /// Positions of the values by their hash, kept only while the table grows. Positions alone: with labels that are
    /// unique to a series, a second copy of the pointers would be a fifth of what the series costs.
    positions: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Bytes of the texts in `values`, as allocated; counted only while the table grows.
    text_bytes: usize,
}

/// Bytes that the allocator gives out for a shared text: two counts before it, all in steps of 16.
const fn shared_text_bytes(length: usize) -> usize {
    (2 * size_of::<usize>() + length).next_multiple_of(16)
}

impl LabelColumn {
    /// A column from its parts; entry 0 of `values` must be empty.
    pub fn new(values: Vec<Arc<str>>, codes: Vec<u32>) -> Self {
        debug_assert!(values.first().is_some_and(|value| value.is_empty()));
        Self {
            values,
            codes,
            positions: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            text_bytes: 0,
        }
    }

    /// A series' value; empty where the label is absent.
    pub fn value(&self, row: u32) -> &Arc<str> {
        let code = self.codes.get(row as usize).copied().unwrap_or(0);
        &self.values[code as usize]
    }

    fn code_for(&mut self, value: &str) -> u32 {
        let Self { values, positions, hasher, text_bytes, .. } = self;
        let hash_of = |position: &u32| hasher.hash_one(&*values[*position as usize]);
        if positions.is_empty() {
            for position in 0..values.len() as u32 {
                positions.insert_unique(hash_of(&position), position, hash_of);
            }
        }
        let hash = hasher.hash_one(value);
        if let Some(&code) = positions.find(hash, |held| *values[*held as usize] == *value) {
            return code;
        }
        let code = values.len() as u32;
        positions.insert_unique(hash, code, hash_of);
        values.push(value.into());
        *text_bytes += shared_text_bytes(value.len());
        code
    }

    fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Arc<str>>()
            + self.codes.capacity() * size_of::<u32>()
            + self.positions.allocation_size()
            + self.text_bytes
    }
}

impl SeriesTable {
    /// How many series.
    pub fn len(&self) -> usize {
        self.type_of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.type_of.is_empty()
    }

    /// Adds a series and returns its row. The caller knows that it is new.
    pub fn push(&mut self, labels: &Labels, fingerprint: u64, type_index: u32, scope_index: u32) -> u32 {
        let row = self.len();
        self.type_of.push(type_index);
        self.scope_of.push(scope_index);
        self.fingerprints.push(fingerprint);
        for (name, value) in labels.iter() {
            let column = match self.columns.get_mut(name) {
                Some(column) => column,
                None => self
                    .columns
                    .entry(name.into())
                    .or_insert_with(|| LabelColumn::new(vec!["".into()], Vec::new())),
            };
            let code = column.code_for(value);
            column.codes.resize(row, 0);
            column.codes.push(code);
        }
        row as u32
    }

    /// Bytes allocated for a table that grew by [`push`](Self::push); names and types are few and not counted.
    pub fn heap_bytes(&self) -> usize {
        let codes = self.type_of.capacity() + self.scope_of.capacity();
        codes * size_of::<u32>()
            + self.fingerprints.capacity() * size_of::<u64>()
            + self.columns.values().map(LabelColumn::heap_bytes).sum::<usize>()
    }

    /// The label set of a row.
    pub fn labels(&self, row: u32) -> Labels {
        let pairs = self.columns.iter().map(|(name, column)| (name, column.value(row)));
        Labels::from_pairs(pairs).expect("names of a map are unique and not empty")
    }

    /// One label's value of a row; empty where absent.
    pub fn value(&self, row: u32, name: &str) -> &str {
        self.columns.get(name).map_or("", |column| column.value(row))
    }

    /// Whether a row has exactly these labels.
    pub fn has_labels(&self, row: u32, labels: &Labels) -> bool {
        let present = self.columns.values().filter(|column| !column.value(row).is_empty());
        present.count() == labels.len() && labels.iter().all(|(name, value)| self.value(row, name) == value)
    }

    /// The profile type of these rows as text, for messages.
    pub(crate) fn type_name(&self, rows: &RowSet) -> String {
        let first = rows.first().map(|run| self.type_of[run.start as usize]);
        first.map_or_else(String::new, |index| self.types[index as usize].to_string())
    }

    /// Rows that the selector selects, of one profile type or of all.
    pub fn select(&self, profile_type: Option<&ProfileType>, selector: &Selector) -> RowSet {
        let mut keep = vec![true; self.len()];
        if let Some(wanted) = profile_type {
            let Some(index) = self.types.iter().position(|held| held == wanted) else {
                return RowSet::new();
            };
            for (keep, held) in keep.iter_mut().zip(&self.type_of) {
                *keep = *held == index as u32;
            }
        }
        for matcher in &selector.matchers {
            self.apply(matcher, &mut keep);
        }
        runs(&keep)
    }

    fn apply(&self, matcher: &Matcher, keep: &mut [bool]) {
        let Some(column) = self.columns.get(matcher.name.as_str()) else {
            if !matcher.matches("") {
                keep.fill(false);
            }
            return;
        };
        let wanted: Vec<bool> = column.values.iter().map(|value| matcher.matches(value)).collect();
        let (with_code, rest) = keep.split_at_mut(column.codes.len());
        for (keep, code) in with_code.iter_mut().zip(&column.codes) {
            *keep &= wanted[*code as usize];
        }
        if !wanted[0] {
            rest.fill(false);
        }
    }
}

fn runs(keep: &[bool]) -> RowSet {
    let mut found = RowSet::new();
    for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
        let row = row as u32;
        match found.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => found.push(row..row + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(sets: &[Labels]) -> SeriesTable {
        let mut table = SeriesTable::default();
        table.types.push("a:b:c:d:e".parse().unwrap());
        for labels in sets {
            table.push(labels, labels.fingerprint(), 0, 0);
        }
        table
    }

    proptest! {
        #[test]
        fn selecting_by_columns_equals_matching_each_label_set(
            sets in prop::collection::vec(prop::collection::btree_map("[ab]", "[xyz]?", 0..3), 0..12),
            name in "[abc]", value in prop::sample::select(vec!["", "x", "y", "z", "x.*", "[xy]", ".+"]), op in 0..4usize,
        ) {
            use cambium_model::selector::MatchOp::*;
            let sets: Vec<Labels> = sets.iter().map(|set| Labels::from_pairs(set).unwrap()).collect();
            let table = table(&sets);
            let matcher = Matcher::new(&name, [Equal, NotEqual, Regex, NotRegex][op], value).unwrap();
            let selector = Selector { matchers: vec![matcher] };
            let rows: Vec<u32> = table.select(None, &selector).into_iter().flatten().collect();
            let expected: Vec<u32> =
                (0..).zip(&sets).filter(|(_, labels)| selector.matches(labels)).map(|(row, _)| row).collect();
            prop_assert_eq!(rows, expected);
            for (row, labels) in (0..).zip(&sets) {
                prop_assert_eq!(&table.labels(row), labels);
                prop_assert!(table.has_labels(row, labels));
            }
        }
    }
}
