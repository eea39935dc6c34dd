//! What tenants have had deleted.

use crate::selector::Selector;
use crate::time::TimeRange;

/// Profiles that are to be gone: those of these series, of all types, collected in this range.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// Which series.
    pub selector: Selector,
    /// Which of their profiles, by time.
    pub range: TimeRange,
}

/// A deletion as it was asked for: it counts for queries at once, for blocks when they are next rewritten.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedDeletion {
    /// 1, 2, 3, … of its tenant.
    pub id: u64,
    /// What is to be gone.
    pub deletion: Deletion,
    /// When it was asked for, nanoseconds since the Unix epoch.
    pub created_ns: i64,
}
