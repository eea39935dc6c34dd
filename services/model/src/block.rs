//! What the catalogue knows of a block without opening it.

use std::fmt;
use std::str::FromStr;

use crate::deletion::{Deletion, RecordedDeletion};
use crate::profile_type::ProfileType;
use crate::selector::{Matcher, Selector};
use crate::tenant::Tenant;
use crate::time::TimeRange;

/// A unit of the log and of ownership. Fixed in number when a cluster is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u32);

/// One log of a partition: each tenure of an owner opens a new one in local mode, Kafka has one for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The partition it belongs to.
    pub partition: Partition,
    /// Which of the partition's logs.
    pub log: u32,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}-{:08x}", self.partition.0, self.log)
    }
}

impl FromStr for LogId {
    type Err = ();

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (partition, log) = text.split_once('-').ok_or(())?;
        let number = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| ());
        let id = Self { partition: Partition(number(partition)?), log: number(log)? };
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// Position of a record in a log: 0, 1, 2, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u64);

/// A run of records of one log: `first` belongs to it, `next` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogRange {
    /// Which log.
    pub log: LogId,
    /// The first record inside.
    pub first: Offset,
    /// The first record after.
    pub next: Offset,
}

/// A place between services in the order in which merges split a tenant: by value, then by label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeBound {
    /// The scope's value.
    pub value: String,
    /// The label it came from.
    pub label: String,
}

/// Some of the classes into which a tenant's rules of retention sort its series. Those of the same rules have nothing in
/// common; others may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RetentionClass {
    /// Which rules.
    pub rules: u64,
    /// Which of their classes.
    pub index: u32,
}

/// Records that a dataset stands for: all of its tenant's in a run of a log, or those of neighbouring scopes or of one class
/// of retention where a merge has split the tenant. Two datasets of a tenant that count at the same time have nothing in
/// common here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cover {
    /// The run.
    pub range: LogRange,
    /// The first scope inside; none where there is no bound.
    pub from: Option<ScopeBound>,
    /// The first scope after; none where there is no bound.
    pub to: Option<ScopeBound>,
    /// The class; none for all.
    pub class: Option<RetentionClass>,
}

impl Cover {
    /// All of a run.
    pub fn whole(range: LogRange) -> Self {
        Self { range, from: None, to: None, class: None }
    }
}

/// The partition of no ingester: its logs are the tenants' imports, each under its tenant's number. They are nowhere but
/// in blocks.
pub const IMPORTS: Partition = Partition(u32::MAX);

/// The part of a block that a reader can fetch on its own, each a complete Parquet file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SectionKind {
    /// Label sets.
    Series = 1,
    /// One row per profile: time, total, where its samples start.
    Profiles = 2,
    /// One row per (profile, stack).
    Samples = 3,
    /// Sums by (type, scope, 10-minute bucket, stack).
    Rollup = 4,
    /// Stack id to its innermost node.
    Stacks = 5,
    /// The tree, in depth-first order.
    Nodes = 6,
    /// Location ids.
    Locations = 7,
    /// Labels of samples.
    LabelSets = 8,
    /// Sums by (type, scope, 2-hour bucket, stack).
    CoarseRollup = 9,
    /// Sums by (series, 10-minute bucket, stack).
    SeriesRollup = 10,
    /// How many rows of the last each (series, bucket) has.
    SeriesBuckets = 11,
}

impl SectionKind {
    /// Every kind, in the order they stand in a dataset: what queries read in parts comes first, so that what they need
    /// whole lies together.
    pub const ALL: [Self; 11] = [
        Self::Samples,
        Self::SeriesRollup,
        Self::Rollup,
        Self::CoarseRollup,
        Self::SeriesBuckets,
        Self::Profiles,
        Self::Series,
        Self::Stacks,
        Self::Nodes,
        Self::Locations,
        Self::LabelSets,
    ];

    /// One more than the largest number.
    pub const COUNT: usize = 12;

    /// Its number in the table of contents.
    pub fn number(self) -> usize {
        self as usize
    }

    /// The kind with this number in the table of contents.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Where a section lies in its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionMeta {
    /// What it holds.
    pub kind: SectionKind,
    /// First byte in the object.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Rows of the Parquet file.
    pub rows: u64,
    /// CRC32C of its bytes.
    pub crc32c: u32,
}

/// What a block says of one label name, so that a query can skip the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSummary {
    /// The label.
    pub name: String,
    /// Distinct values in the dataset.
    pub distinct: u32,
    /// Whether every series has it.
    pub on_every_series: bool,
    /// All values, sorted, while there are at most [`LABEL_VALUES_LISTED_MAX`]; else empty.
    pub values: Vec<String>,
}

impl LabelSummary {
    /// Whether a series can have a value of this label that matches.
    fn may_hold(&self, matcher: &Matcher) -> bool {
        let unlisted = self.values.is_empty();
        unlisted
            || (!self.on_every_series && matcher.matches(""))
            || self.values.iter().any(|value| matcher.matches(value))
    }
}

/// How many values of a label a summary lists.
pub const LABEL_VALUES_LISTED_MAX: usize = 256;

/// How many scopes a dataset's entry lists.
pub const SCOPES_LISTED_MAX: usize = 64;

/// One tenant's part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetMeta {
    /// Whose it is. The name lets a catalogue be rebuilt from the bucket.
    pub tenant: Tenant,
    /// Earliest profile.
    pub first_ns: i64,
    /// Latest profile.
    pub last_ns: i64,
    /// Rows of `series`.
    pub series: u64,
    /// Rows of `profiles`.
    pub profiles: u64,
    /// Rows of `samples`; 0 where they were dropped.
    pub samples: u64,
    /// Profile types present, sorted.
    pub types: Vec<ProfileType>,
    /// Scope values present, sorted; empty where there are more than [`SCOPES_LISTED_MAX`].
    pub scopes: Vec<String>,
    /// One per label name, sorted by name.
    pub labels: Vec<LabelSummary>,
    /// The sections, in the order of their offsets.
    pub sections: Vec<SectionMeta>,
    /// The tenant's last deletion that has been carried out in it; 0 for none.
    pub deletions_done: u64,
    /// Which records it stands for; empty for all of its tenant's in the block's log ranges.
    pub covers: Vec<Cover>,
    /// Profiles of those records that were deleted since they were flushed: those of a tenant on its last dataset, those of
    /// tenants of whom a merge has left nothing on the last dataset of its last part.
    pub profiles_left_out: u64,
    /// The selector of the rule of retention that all of its series fall under, empty where none does; none where they have
    /// not been told apart yet.
    pub retention_selector: Option<String>,
}

impl DatasetMeta {
    /// Whether a profile of this dataset can lie in the range.
    pub fn touches(&self, range: TimeRange) -> bool {
        range.touches(self.first_ns, self.last_ns)
    }

    /// Whether a series of this dataset can match the selector.
    pub fn may_select(&self, selector: &Selector) -> bool {
        selector.matchers.iter().all(|matcher| {
            match self.labels.iter().find(|summary| summary.name == matcher.name) {
                // No series has the label, so every series has its empty value.
                None => matcher.matches(""),
                Some(summary) => summary.may_hold(matcher),
            }
        })
    }

    /// Whether the deletion may concern profiles that this dataset still has.
    pub fn awaits(&self, recorded: &RecordedDeletion) -> bool {
        let Deletion { selector, range } = &recorded.deletion;
        recorded.id > self.deletions_done && self.touches(*range) && self.may_select(selector)
    }

    /// Whether its samples were dropped: of stack traces there are sums by series and bucket.
    pub fn is_downsampled(&self) -> bool {
        self.section(SectionKind::Samples).is_none()
    }

    /// A section, if the dataset has it.
    pub fn section(&self, kind: SectionKind) -> Option<&SectionMeta> {
        self.sections.iter().find(|section| section.kind == kind)
    }
}

/// A block's entry in the catalogue and in its own table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// The object's path.
    pub path: String,
    /// Generation of merging: 0 from an ingester.
    pub level: u8,
    /// Bytes of the object.
    pub size_bytes: u64,
    /// CRC32C of the table of contents, which holds those of the sections.
    pub toc_crc32c: u32,
    /// The log ranges whose records of its tenants it and the other parts hold; one for level 0.
    pub log_ranges: Vec<LogRange>,
    /// The fence under which it was written.
    pub epoch: u64,
    /// One per tenant, sorted by number.
    pub datasets: Vec<DatasetMeta>,
    /// Paths of the blocks it was merged from; none for level 0.
    pub sources: Vec<String>,
    /// Which of the blocks that were written together.
    pub part: u32,
    /// How many those are; only the last one says so, the others have 0.
    pub parts: u32,
}

impl BlockMeta {
    /// The tenant's dataset, if the block has one.
    pub fn dataset(&self, tenant: &Tenant) -> Option<&DatasetMeta> {
        self.datasets.iter().find(|dataset| dataset.tenant.number == tenant.number)
    }

    /// Which records a dataset of this block stands for.
    pub fn covers(&self, dataset: &DatasetMeta) -> Vec<Cover> {
        if dataset.covers.is_empty() {
            self.log_ranges.iter().copied().map(Cover::whole).collect()
        } else {
            dataset.covers.clone()
        }
    }
}
