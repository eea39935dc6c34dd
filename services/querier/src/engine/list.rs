//! What exists: profile types, label names and values, series. From the series tables; profiles are read only of
//! sources that lie partly outside the range.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hash::Hash;
use std::sync::Arc;

use cambium_blocks::series_table::SeriesTable;
use cambium_model::profile_type::ProfileType;
use cambium_model::time::TimeRange;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashSet;

use super::off_loop;
use super::selection::{SOURCES_AT_ONCE, push_row};
use super::sources::{Opened, Sources};
use crate::error::Error;
use crate::merged::{Listing, SeriesEntry, Stats};
use crate::request::{ListQuery, SeriesMatch};

/// Some series of a table: those that match and have a profile in range.
struct Live {
    series: Arc<SeriesTable>,
    /// Ascending.
    rows: Vec<u32>,
}

/// The types of the live series.
pub(crate) async fn profile_types(
    sources: &Sources,
    query: &ListQuery,
) -> Result<Listing<ProfileType>, Error> {
    let entries = |live: &Live| -> Vec<ProfileType> {
        let mut present = vec![false; live.series.types.len()];
        live.rows.iter().for_each(|row| present[live.series.type_of[*row as usize] as usize] = true);
        let types = live.series.types.iter().zip(present).filter(|(_, present)| *present);
        types.map(|(profile_type, _)| profile_type.clone()).collect()
    };
    let prefix = query.prefix.clone();
    let keep = move |found: &ProfileType| found.to_string().starts_with(&prefix);
    list(sources, query, entries, keep, Ord::cmp).await
}

/// The names of labels that a live series has.
pub(crate) async fn label_names(sources: &Sources, query: &ListQuery) -> Result<Listing<String>, Error> {
    let entries = |live: &Live| -> Vec<String> {
        let columns = live.series.columns.iter();
        let present =
            columns.filter(|(_, column)| live.rows.iter().any(|row| !column.value(*row).is_empty()));
        present.map(|(name, _)| (**name).to_owned()).collect()
    };
    list(sources, query, entries, text_filter(query), Ord::cmp).await
}

/// The values that live series have of one label.
pub(crate) async fn label_values(
    sources: &Sources,
    query: &ListQuery,
    name: &str,
) -> Result<Listing<String>, Error> {
    let (name, prefix, limit) = (name.to_owned(), query.prefix.clone(), query.limit);
    let entries = move |live: &Live| -> Vec<String> {
        let Some(column) = live.series.columns.get(name.as_str()) else { return Vec::new() };
        let mut present = vec![false; column.values.len()];
        for row in &live.rows {
            present[column.codes.get(*row as usize).copied().unwrap_or(0) as usize] = true;
        }
        // Entry 0 is the absent value.
        let values = column.values.iter().map(|value| &**value).zip(present).skip(1);
        let found = values.filter(|(value, present)| *present && value.starts_with(&prefix));
        first(found.map(|(value, _)| value), limit).into_iter().map(str::to_owned).collect()
    };
    list(sources, query, entries, |_| true, Ord::cmp).await
}

/// Those that may be among the first `limit` of all sources, and one more if there are: then something is cut.
fn first<'a>(values: impl Iterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    if limit == 0 {
        return values.collect();
    }
    let mut kept = BinaryHeap::new();
    for value in values {
        if kept.len() <= limit {
            kept.push(value);
        } else if let Some(mut last) = kept.peek_mut()
            && value < *last
        {
            *last = value;
        }
    }
    kept.into_vec()
}

/// The live series.
pub(crate) async fn series(sources: &Sources, query: &ListQuery) -> Result<Listing<SeriesEntry>, Error> {
    let entries = |live: &Live| -> Vec<SeriesEntry> {
        let entry = |row: &u32| SeriesEntry {
            profile_type: live.series.types[live.series.type_of[*row as usize] as usize].clone(),
            labels: live.series.labels(*row),
        };
        live.rows.iter().map(entry).collect()
    };
    let order = |a: &SeriesEntry, b: &SeriesEntry| {
        a.profile_type.cmp(&b.profile_type).then_with(|| a.labels.iter().cmp(b.labels.iter()))
    };
    list(sources, query, entries, |_| true, order).await
}

fn text_filter(query: &ListQuery) -> impl Fn(&String) -> bool + Clone + Send + 'static {
    let prefix = query.prefix.clone();
    move |text: &String| text.starts_with(&prefix)
}

/// The union of what each source has, sorted and cut at the limit.
async fn list<T: Hash + Eq + Send + 'static>(
    sources: &Sources,
    query: &ListQuery,
    entries: impl Fn(&Live) -> Vec<T> + Clone + Send + 'static,
    keep: impl Fn(&T) -> bool + Clone + Send + 'static,
    order: impl Fn(&T, &T) -> Ordering,
) -> Result<Listing<T>, Error> {
    let matches = Arc::new(query.matches.clone());
    let range = query.range;
    let found: HashSet<T> = stream::iter(sources.list.clone())
        .map(|opened| {
            let (matches, entries, keep) = (Arc::clone(&matches), entries.clone(), keep.clone());
            async move {
                let live = live(opened, matches, range).await?;
                let size = live.rows.len();
                let list = move || entries(&live).into_iter().filter(keep).collect::<Vec<T>>();
                Ok::<_, Error>(off_loop(size, list).await)
            }
        })
        .buffered(SOURCES_AT_ONCE)
        .try_fold(HashSet::new(), |mut found, more| async move {
            found.extend(more);
            Ok(found)
        })
        .await?;
    let mut found: Vec<T> = found.into_iter().collect();
    found.sort_by(order);
    let truncated = query.limit > 0 && found.len() > query.limit;
    if truncated {
        found.truncate(query.limit);
    }
    Ok(Listing { entries: found, truncated, stats: Stats::default() })
}

async fn live(opened: Opened, matches: Arc<Vec<SeriesMatch>>, range: TimeRange) -> Result<Live, Error> {
    let series = opened.source.series().await?;
    let table = Arc::clone(&series);
    let rows = off_loop(series.len(), move || matching(&table, &matches)).await;
    if rows.is_empty() || opened.span.is_some_and(|(first, last)| range.covers(first, last)) {
        return Ok(Live { series, rows });
    }
    let mut runs = Vec::new();
    rows.iter().for_each(|row| push_row(&mut runs, *row));
    let profiles = opened.source.profiles(&runs, range).await?;
    let mut rows = profiles.series;
    rows.sort_unstable();
    rows.dedup();
    Ok(Live { series, rows })
}

fn matching(series: &SeriesTable, matches: &[SeriesMatch]) -> Vec<u32> {
    if matches.is_empty() {
        return (0..series.len() as u32).collect();
    }
    let select = |one: &SeriesMatch| series.select(one.profile_type.as_ref(), &one.selector);
    let mut rows: Vec<u32> = matches.iter().flat_map(select).flatten().collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

#[cfg(test)]
mod tests;
