//! From a selector to rows of each source, and what series of different sources have in common.

use std::sync::Arc;

use cambium_blocks::Source;
use cambium_blocks::series_table::{RowSet, SeriesTable};
use cambium_blocks::source::Profiles;
use cambium_model::labels::Labels;
use cambium_model::profile::ProfileId;
use cambium_model::selector::ProfileQuery;
use cambium_model::time::TimeRange;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;

use super::off_loop;
use super::sources::{Fixed, Opened, Sources};
use crate::error::Error;

/// Sources that a query reads side sections of at once.
pub(crate) const SOURCES_AT_ONCE: usize = 8;

/// What a query selects of one source; at least one series.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Its series.
    pub series: Arc<SeriesTable>,
    /// The selected ones.
    pub rows: RowSet,
    /// Time of its earliest and of its latest profile, where known.
    pub span: Option<(i64, i64)>,
    /// What the source is, where it never changes.
    pub fixed: Option<Fixed>,
}

/// The selected series of every source that has any, in the order of the sources.
pub(crate) async fn select(sources: &Sources, query: &ProfileQuery) -> Result<Vec<Selected>, Error> {
    let query = Arc::new(query.clone());
    let selected: Vec<Selected> = stream::iter(sources.list.clone())
        .map(|opened| {
            let query = Arc::clone(&query);
            async move {
                let series = opened.source.series().await?;
                let table = Arc::clone(&series);
                let matching = move || table.select(Some(&query.profile_type), &query.selector);
                let rows = off_loop(series.len(), matching).await;
                let Opened { source, span, fixed, .. } = opened;
                Ok::<_, Error>(Selected { source, series, rows, span, fixed })
            }
        })
        .buffered(SOURCES_AT_ONCE)
        .try_collect()
        .await?;
    Ok(selected.into_iter().filter(|one| !one.rows.is_empty()).collect())
}

/// Which profiles of a source are meant by a range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// Those of the range.
    InRange(TimeRange),
    /// Those that a tree of the range is of.
    InTree(TimeRange),
}

/// The profiles of each selection, in the order of the selections.
pub(crate) fn profiles(
    selected: &[Selected],
    counted: Counted,
) -> impl stream::Stream<Item = Result<(Selected, Profiles), Error>> + Send + 'static {
    stream::iter(selected.to_vec())
        .map(move |one| async move {
            let range = match counted {
                Counted::InRange(range) => range,
                Counted::InTree(range) => one.source.tree_range(range),
            };
            let profiles = one.source.profiles(&one.rows, range).await?;
            Ok((one, profiles))
        })
        .buffered(SOURCES_AT_ONCE)
}

/// Numbers for combinations of `by` labels, the same for all sources of a query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    by: Vec<String>,
    ids: HashMap<Labels, u32>,
    labels: Vec<Labels>,
}

impl Groups {
    /// Groups by these labels; without any there is one group from the start.
    pub fn new(by: &[String]) -> Self {
        let mut groups = Self { by: by.to_vec(), ..Self::default() };
        if by.is_empty() {
            groups.id(Labels::empty());
        }
        groups
    }

    fn id(&mut self, labels: Labels) -> u32 {
        let next = self.labels.len() as u32;
        let id = *self.ids.entry(labels.clone()).or_insert(next);
        if id == next {
            self.labels.push(labels);
        }
        id
    }

    /// The group of each selected series, in row order.
    pub fn of(&mut self, series: &SeriesTable, rows: &RowSet) -> Vec<u32> {
        let by = self.by.clone();
        if by.is_empty() {
            return vec![0; count(rows)];
        }
        // Equal codes mean equal values within one table, so each combination becomes a label set only once.
        let columns: Vec<_> = by.iter().filter_map(|name| series.columns.get(name.as_str())).collect();
        let mut seen: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut codes = Vec::with_capacity(columns.len());
        let mut found = Vec::with_capacity(count(rows));
        for row in rows.iter().cloned().flatten() {
            codes.clear();
            codes.extend(columns.iter().map(|column| column.codes.get(row as usize).copied().unwrap_or(0)));
            let group = match seen.get(&codes) {
                Some(&group) => group,
                None => {
                    let group = self.id(by_labels(series, row, &by));
                    seen.insert(codes.clone(), group);
                    group
                }
            };
            found.push(group);
        }
        found
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Each group's labels with what belongs to it, sorted by labels.
    pub fn sorted<T>(self, parts: Vec<T>) -> Vec<(Labels, T)> {
        let mut pairs: Vec<(Labels, T)> = self.labels.into_iter().zip(parts).collect();
        pairs.sort_by(|a, b| a.0.iter().cmp(b.0.iter()));
        pairs
    }
}

fn by_labels(series: &SeriesTable, row: u32, by: &[String]) -> Labels {
    let mut names: Vec<&str> = by.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    Labels::from_pairs(names.into_iter().map(|name| (name, series.value(row, name))))
        .expect("names are unique and not empty")
}

/// The id of a profile; zeros where the source no longer knows it.
pub(crate) fn profile_id(profiles: &Profiles, profile: usize) -> ProfileId {
    profiles.ids.get(profile).copied().unwrap_or(ProfileId([0; 16]))
}

/// The rows from `first` on, up to but without `end`.
pub(crate) fn run(first: u32, end: u32) -> RowSet {
    if first < end { std::iter::once(first..end).collect() } else { RowSet::new() }
}

/// How many rows.
pub(crate) fn count(rows: &RowSet) -> usize {
    rows.iter().map(ExactSizeIterator::len).sum()
}

/// Position of each row of the table in the row set, [`NOT_SELECTED`] elsewhere.
pub(crate) fn positions(rows: &RowSet) -> Vec<u32> {
    let mut positions = vec![NOT_SELECTED; rows.last().map_or(0, |run| run.end as usize)];
    for (position, row) in (0..).zip(rows.iter().cloned().flatten()) {
        positions[row as usize] = position;
    }
    positions
}

/// Position of a row that is not in the row set.
pub(crate) const NOT_SELECTED: u32 = u32::MAX;

/// Adds a row that comes after all others.
pub(crate) fn push_row(rows: &mut RowSet, row: u32) {
    match rows.last_mut() {
        Some(run) if run.end == row => run.end += 1,
        _ => rows.push(row..row + 1),
    }
}

/// Numbers for series of one profile type, the same for all sources of a query: by fingerprint, and by labels where
/// fingerprints collide.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesIds {
    by_fingerprint: HashMap<u64, Vec<u32>>,
    /// Where each series was met first.
    first: Vec<(Arc<SeriesTable>, u32)>,
}

impl SeriesIds {
    /// The number of each selected series, in row order.
    pub fn of(&mut self, series: &Arc<SeriesTable>, rows: &RowSet) -> Vec<u32> {
        rows.iter().cloned().flatten().map(|row| self.id(series, row)).collect()
    }

    fn id(&mut self, series: &Arc<SeriesTable>, row: u32) -> u32 {
        let known = self.by_fingerprint.entry(series.fingerprints[row as usize]).or_default();
        for id in known.iter() {
            let (first, first_row) = &self.first[*id as usize];
            if same_labels(first, *first_row, series, row) {
                return *id;
            }
        }
        let id = self.first.len() as u32;
        known.push(id);
        self.first.push((Arc::clone(series), row));
        id
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.first.len()
    }
}

fn same_labels(a: &SeriesTable, a_row: u32, b: &SeriesTable, b_row: u32) -> bool {
    let covered = |from: &SeriesTable, from_row: u32, to: &SeriesTable, to_row: u32| {
        from.columns.iter().all(|(name, column)| &**column.value(from_row) == to.value(to_row, name))
    };
    covered(a, a_row, b, b_row) && covered(b, b_row, a, a_row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sets: &[&[(&str, &str)]], fingerprint: impl Fn(&Labels) -> u64) -> Arc<SeriesTable> {
        let mut table = SeriesTable::default();
        for set in sets {
            let labels = Labels::from_pairs(set.iter().copied()).unwrap();
            table.push(&labels, fingerprint(&labels), 0, 0);
        }
        Arc::new(table)
    }

    #[test]
    fn groups_are_label_values_not_codes() {
        let a = table(&[&[("pod", "x")], &[("pod", "y"), ("zone", "1")], &[]], Labels::fingerprint);
        let b = table(&[&[("pod", "y")], &[("pod", "x"), ("zone", "2")]], Labels::fingerprint);
        let mut groups = Groups::new(&["pod".to_owned(), "absent".to_owned(), "pod".to_owned()]);
        assert_eq!(groups.of(&a, &run(0, 3)), [0, 1, 2]);
        assert_eq!(groups.of(&b, &run(0, 2)), [1, 0]);
        let sorted: Vec<String> = groups
            .sorted(vec!['x', 'y', '-'])
            .iter()
            .map(|(labels, part)| format!("{labels:?} {part}"))
            .collect();
        assert_eq!(sorted.len(), 3);
        assert!(
            sorted[0].ends_with('-') && sorted[1].ends_with('x') && sorted[2].ends_with('y'),
            "{sorted:?}"
        );
    }

    #[test]
    fn series_are_told_apart_when_fingerprints_collide() {
        let a = table(&[&[("pod", "x")], &[("pod", "y")]], |_| 7);
        let b = table(&[&[("pod", "y"), ("zone", "1")], &[("pod", "y")], &[]], |_| 7);
        let mut ids = SeriesIds::default();
        assert_eq!(ids.of(&a, &run(0, 2)), [0, 1]);
        assert_eq!(ids.of(&b, &run(0, 3)), [2, 1, 3]);
    }

    #[test]
    fn positions_count_only_selected_rows() {
        let mut rows = RowSet::new();
        for row in [1, 2, 5] {
            push_row(&mut rows, row);
        }
        assert_eq!(rows, [1..3, 5..6]);
        assert_eq!(count(&rows), 3);
        let none = NOT_SELECTED;
        assert_eq!(positions(&rows), [none, 0, 1, none, none, 2]);
    }
}
