//! The seam between storage and queries: something that holds profiles and can be scanned.
//!
//! Three implementations answer alike, and one contract suite runs on all: [`Dataset`](crate::Dataset) (a head's
//! snapshot), `BlockSource` (a block's dataset in object storage) and that of [`remote`](crate::remote) (a head's
//! snapshot in another process).
//!
//! Laws: every answer of one source is of one immutable cut; rows are those of `series()`; no scan drops anything;
//! sums are checked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use cambium_model::block::SectionKind;
use cambium_model::profile::{ProfileId, SampleLabels};
use cambium_model::time::TimeRange;
use futures::stream::BoxStream;

use crate::Error;
use crate::series_table::{RowSet, SeriesTable};
use crate::tree::{PartialTree, Tree};

/// Something that holds profiles of one tenant.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// All series.
    async fn series(&self) -> Result<Arc<SeriesTable>, Error>;

    /// Whether there are only sums of stack traces by buckets of ten minutes: trees are of [`Self::tree_range`], those of
    /// picked profiles and samples are [`Error::Downsampled`].
    fn is_downsampled(&self) -> bool {
        false
    }

    /// Which profiles a tree of this range is of.
    fn tree_range(&self, range: TimeRange) -> TimeRange {
        if self.is_downsampled() { range.whole_buckets() } else { range }
    }

    /// The profiles of these series in the range, ordered by (row, time, id); never touches samples.
    async fn profiles(&self, rows: &RowSet, range: TimeRange) -> Result<Profiles, Error>;

    /// Sums samples by stack: on the whole of `stack_tree()` for whoever has asked for that before, else maybe on the
    /// part of it that has values.
    async fn tree(&self, scan: &TreeScan) -> Result<PartialTree, Error>;

    /// The samples themselves, in batches, for SQL and exact downloads. Those of one profile follow one another;
    /// profiles come in any order.
    async fn samples(&self, scan: &SampleScan) -> Result<BoxStream<'static, Result<Samples, Error>>, Error>;

    /// The stack traces that `samples` refer to.
    async fn stack_tree(&self) -> Result<Arc<Tree>, Error>;

    /// The label sets that `samples` refer to; entry 0 is the empty set.
    async fn sample_labels(&self) -> Result<Arc<Vec<SampleLabels>>, Error>;

    /// Bytes and rows read so far by this source.
    fn stats(&self) -> ScanStats;
}

/// What to sum into a tree. All rows must be of one profile type.
#[derive(Clone, Debug)]
pub struct TreeScan {
    /// Which series.
    pub rows: RowSet,
    /// Which profiles, by their time.
    pub range: TimeRange,
    /// How a series' profiles combine.
    pub pick: Pick,
}

/// How the profiles of a series combine. Vectors run parallel to the series of the row set, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Pick {
    /// All of them, summed.
    Sum,
    /// Their mean: each stack's sum over the profiles of a series is counted in units of
    /// 1/[`MEAN_SCALE`](crate::tree::MEAN_SCALE), divided by the series' number of profiles over *all* sources of the
    /// query and rounded once, halves away from zero; then series are summed. A count of 0 leaves the series out.
    Mean(Vec<u32>),
    /// Only the one collected at this time, of several the one with the greatest id; `None` where another source has
    /// it.
    At(Vec<Option<i64>>),
}

/// Which samples.
#[derive(Clone, Debug)]
pub struct SampleScan {
    /// Which series.
    pub rows: RowSet,
    /// Which profiles, by their time.
    pub range: TimeRange,
    /// Of each series only the profile collected at this time, as [`Pick::At`] says; all where there is no such list.
    pub at: Option<Vec<Option<i64>>>,
}

/// Profiles as columns of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiles {
    /// Row in the series table.
    pub series: Vec<u32>,
    /// When, nanoseconds since the epoch.
    pub time_ns: Vec<i64>,
    /// Over how long; 0 for an instant.
    pub duration_ns: Vec<i64>,
    /// Units of the period type between two samples.
    pub period: Vec<i64>,
    /// Sum of the samples' values.
    pub total: Vec<i64>,
    /// How many samples.
    pub samples: Vec<u32>,
    /// The pushes; empty where the source no longer knows them.
    pub ids: Vec<ProfileId>,
}

/// Samples as columns of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Row in the series table.
    pub series: Vec<u32>,
    /// When the sample's profile was collected.
    pub time_ns: Vec<i64>,
    /// Node in `stack_tree()`.
    pub nodes: Vec<u32>,
    /// The value.
    pub values: Vec<i64>,
    /// Position in `sample_labels()`; empty where no sample has labels.
    pub label_sets: Vec<u32>,
}

/// What a scan cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Requests to the object store, or to a head's owner.
    pub requests: u64,
    /// Bytes fetched from there.
    pub bytes_fetched: u64,
    /// Bytes of sections and pages that were needed, cached ones included.
    pub bytes_needed: u64,
    /// The same by kind of section: [`SectionKind::number`](cambium_model::block::SectionKind::number) is the position.
    pub bytes_by_section: [u64; SectionKind::COUNT],
    /// Samples summed from `samples`, or sent by a head's owner.
    pub sample_rows: u64,
    /// Rows summed from `rollup`.
    pub rollup_rows: u64,
    /// Rows read from `profiles`.
    pub profile_rows: u64,
}

impl ScanStats {
    /// What was added since.
    pub fn since(&self, before: &Self) -> Self {
        let section = |number: usize| self.bytes_by_section[number] - before.bytes_by_section[number];
        Self {
            requests: self.requests - before.requests,
            bytes_fetched: self.bytes_fetched - before.bytes_fetched,
            bytes_needed: self.bytes_needed - before.bytes_needed,
            bytes_by_section: std::array::from_fn(section),
            sample_rows: self.sample_rows - before.sample_rows,
            rollup_rows: self.rollup_rows - before.rollup_rows,
            profile_rows: self.profile_rows - before.profile_rows,
        }
    }
}

/// Bytes that the scans of one query may still need.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    left: AtomicU64,
}

impl Budget {
    /// So many bytes.
    pub fn new(max: u64) -> Self {
        Self { max, left: AtomicU64::new(max) }
    }

    /// Takes bytes before they are read.
    pub(crate) fn spend(&self, bytes: u64) -> Result<(), Error> {
        let take = |left: u64| left.checked_sub(bytes);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TooManyBytes { max: self.max }),
        }
    }
}
