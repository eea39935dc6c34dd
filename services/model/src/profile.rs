//! One collected unit, normalised: what the distributor makes of a push, the log carries and the head takes in.

use std::fmt;
use std::sync::Arc;

use crate::labels::Labels;
use crate::profile_type::ProfileType;
use crate::stacktrace::{LocationId, Node};

/// Identity of a push: the sender's, or a hash of bytes and labels as received. A retry carries the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileId(pub [u8; 16]);

impl fmt::Debug for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A value of a label that sits on a sample, not on the series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SampleLabelValue {
    /// Text.
    Text(Arc<str>),
    /// A number and its unit (empty where the sender gave none).
    Number(i64, Arc<str>),
}

/// The labels of a sample, sorted by name and value; pprof allows several values for one name.
pub type SampleLabels = Vec<(Arc<str>, SampleLabelValue)>;

/// A pushed profile after decoding: every type of one push, sharing its stack traces.
///
/// Shapes: with `t = types.len()` and `n = sample_nodes.len()`, `values` has `t` columns of `n` values each, one
/// after the other; `sample_label_sets` has `n` entries or none at all when no sample carries labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What a retry is recognised by.
    pub id: ProfileId,
    /// The series' labels, without the profile's name.
    pub labels: Labels,
    /// One for each value of a sample.
    pub types: Vec<ProfileType>,
    /// When it was collected, nanoseconds since the epoch.
    pub time_ns: i64,
    /// Over how long it was collected; 0 for an instant.
    pub duration_ns: i64,
    /// Units of the period type between two samples; 0 where unknown.
    pub period: i64,
    /// The places in code that `nodes` refer to, each once.
    pub locations: Vec<LocationId>,
    /// The tree of stack traces, parents first.
    pub nodes: Vec<Node>,
    /// Each sample's innermost frame; [`NO_PARENT`](crate::stacktrace::NO_PARENT) for a sample without a stack.
    pub sample_nodes: Vec<u32>,
    /// The samples' values, one column per type.
    pub values: Vec<i64>,
    /// Each sample's labels as a position in `label_sets`, whose entry 0 is the empty set; empty where no sample has
    /// labels.
    pub sample_label_sets: Vec<u32>,
    /// The distinct label sets of the samples, entry 0 empty; empty where no sample has labels.
    pub label_sets: Vec<SampleLabels>,
}

impl Profile {
    /// How many samples, each with a value per type.
    pub fn sample_count(&self) -> usize {
        self.sample_nodes.len()
    }

    /// The values of the type at `index`, one per sample.
    pub fn column(&self, index: usize) -> &[i64] {
        let n = self.sample_count();
        &self.values[index * n..(index + 1) * n]
    }
}
