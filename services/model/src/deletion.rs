//! What a tenant has had deleted.

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
