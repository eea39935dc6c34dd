//! What a query will read, and what it has read: said from catalogue entries alone, before anything is opened, and completed
//! by what its sources counted.

use std::collections::BTreeMap;

use cambium_blocks::source::ScanStats;
use cambium_blocks::toc::section_name;
use cambium_model::block::{DatasetMeta, SectionKind};
use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange};
use serde::Serialize;

use crate::request::SeriesMatch;

/// Sources that are listed one by one.
const LISTED_MAX: usize = 1_000;

/// A query's plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explain {
    /// Blocks to be opened.
    pub blocks: u64,
    /// Heads to be asked.
    pub heads: u64,
    /// Blocks of the range's days that need not be opened, and why.
    pub skipped: Skipped,
    /// About how many bytes of the blocks are needed, cached or not. Edges of ranges and shares of services are guessed.
    pub bytes_estimated: u64,
    /// Bytes of the blocks that were needed, by section.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bytes_by_section: BTreeMap<&'static str, u64>,
    /// The blocks in the order of their logs, as far as they are listed.
    pub sources: Vec<SourcePlan>,
    /// Blocks that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub sources_left_out: u64,
}

/// Why blocks need not be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// They hold nothing of the tenant or of the range.
    pub range: u64,
    /// No series of theirs can match.
    pub series: u64,
    /// They are too old for the tenant, and only wait to be removed.
    pub expired: u64,
}

/// A block in a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourcePlan {
    /// The object.
    pub path: String,
    /// How often it was merged.
    pub level: u8,
    /// Time of its first profile, nanoseconds since the epoch.
    pub first_ns: i64,
    /// Time of its last one.
    pub last_ns: i64,
    /// Its series.
    pub series: u64,
    /// Its samples.
    pub samples: u64,
    /// About how many bytes of it are needed.
    pub bytes_estimated: u64,
    /// What reading it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<SourceCost>,
}

/// What reading a source took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceCost {
    /// Requests to the object store.
    pub requests: u64,
    /// Bytes fetched from the object store.
    pub bytes: u64,
    /// Bytes needed, cached ones included.
    pub bytes_needed: u64,
    /// Samples, rollups and profiles read.
    pub rows: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Explain {
    /// Adds a block.
    pub(crate) fn push(&mut self, source: SourcePlan) {
        self.blocks += 1;
        self.bytes_estimated += source.bytes_estimated;
        if self.sources.len() < LISTED_MAX {
            self.sources.push(source);
        } else {
            self.sources_left_out += 1;
        }
    }

    /// Adds what the source at this position took.
    pub(crate) fn took(&mut self, position: usize, cost: ScanStats) {
        for kind in SectionKind::ALL {
            let bytes = cost.bytes_by_section[kind.number()];
            if bytes > 0 {
                *self.bytes_by_section.entry(section_name(kind)).or_default() += bytes;
            }
        }
        if let Some(source) = self.sources.get_mut(position) {
            source.cost = Some(SourceCost {
                requests: cost.requests,
                bytes: cost.bytes_fetched,
                bytes_needed: cost.bytes_needed,
                rows: cost.sample_rows + cost.rollup_rows + cost.profile_rows,
            });
        }
    }
}

/// What a query wants of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Which series there are.
    Series,
    /// The profiles, without samples.
    Profiles,
    /// Sums by stack, of whole services or of some of their series.
    Sums {
        /// Whether matchers tell services apart and nothing else.
        whole_scopes: bool,
    },
    /// The samples.
    Samples,
}

impl Wants {
    /// What a sum over these series wants: whole services where only labels that name services are matched.
    pub(crate) fn sums(wanted: &SeriesMatch, scope_labels: &[String]) -> Self {
        let whole_scopes =
            wanted.selector.matchers.iter().all(|matcher| scope_labels.contains(&matcher.name));
        Self::Sums { whole_scopes }
    }
}

/// About how many bytes of a block's dataset are needed for a range.
pub(crate) fn estimate(
    dataset: &DatasetMeta,
    range: TimeRange,
    matches: &[SeriesMatch],
    wants: Wants,
) -> u64 {
    use SectionKind::{CoarseRollup, Profiles, Rollup, Samples, SeriesBuckets, SeriesRollup};
    let bytes = |kind| dataset.section(kind).map_or(0, |section| section.length);
    let tree =
        [SectionKind::Stacks, SectionKind::Nodes, SectionKind::Locations].map(bytes).iter().sum::<u64>();
    let span_ns = dataset.last_ns.saturating_sub(dataset.first_ns).max(1) as f64;
    let inside = TimeRange::new(
        range.start_ns.max(dataset.first_ns),
        range.end_ns.min(dataset.last_ns.saturating_add(1)),
    );
    let time = (inside.end_ns.saturating_sub(inside.start_ns) as f64 / span_ns).clamp(0.0, 1.0);
    let covered = range.covers(dataset.first_ns, dataset.last_ns);
    // Where rollups help, only the parts of buckets at both ends are read.
    let edges = if covered { 0.0 } else { (2.0 * ROLLUP_BUCKET_NS as f64 / span_ns).min(time) };
    let some = share(dataset, matches);
    let part = |kind, share: f64| (bytes(kind) as f64 * share * some) as u64;
    bytes(SectionKind::Series)
        + match wants {
            Wants::Series => 0,
            Wants::Profiles => bytes(Profiles),
            Wants::Sums { whole_scopes: true } if covered && bytes(CoarseRollup) > 0 => {
                tree + part(CoarseRollup, 1.0)
            }
            Wants::Sums { whole_scopes: true } => {
                let profiles = if covered { 0 } else { bytes(Profiles) };
                tree + profiles + part(Rollup, time) + part(Samples, edges)
            }
            Wants::Sums { whole_scopes: false } if bytes(SeriesRollup) > 0 => {
                let profiles = if covered { 0 } else { bytes(Profiles) };
                tree + profiles + bytes(SeriesBuckets) + part(SeriesRollup, time) + part(Samples, edges)
            }
            Wants::Sums { whole_scopes: false } | Wants::Samples => {
                tree + bytes(Profiles) + part(Samples, time)
            }
        }
}

/// About what part of a dataset the selected series are: as if the values of a label were equally frequent.
fn share(dataset: &DatasetMeta, matches: &[SeriesMatch]) -> f64 {
    let of = |wanted: &SeriesMatch| -> f64 {
        let matchers = wanted.selector.matchers.iter();
        matchers
            .map(|matcher| {
                let summary = dataset.labels.iter().find(|summary| summary.name == matcher.name);
                match summary {
                    Some(summary) if !summary.values.is_empty() => {
                        let matching = summary.values.iter().filter(|value| matcher.matches(value)).count();
                        matching as f64 / summary.values.len() as f64
                    }
                    _ => 1.0,
                }
            })
            .product()
    };
    if matches.is_empty() { 1.0 } else { matches.iter().map(of).sum::<f64>().min(1.0) }
}

#[cfg(test)]
mod tests;
