//! What can be asked: each request names its tenant, its profiles and its range, and nothing of the wire.
//!
//! Ranges arrive here half-open. Outside, start and end are both inclusive as in Prometheus; [`inclusive`] is the one
//! place that converts.

use std::str::FromStr;

use cambium_blocks::shape::FoldBy;
use cambium_model::profile_type::ProfileType;
use cambium_model::selector::{ProfileQuery, Selector, SelectorError};
use cambium_model::tenant::Tenant;
use cambium_model::time::TimeRange;

/// Most points of one time series, Prometheus' bound.
pub const POINTS_MAX: i64 = 11_000;

/// The range from `start_ns` to `end_ns`, both inside.
pub fn inclusive(start_ns: i64, end_ns: i64) -> TimeRange {
    TimeRange::new(start_ns, end_ns.saturating_add(1))
}

/// How the profiles of a series combine over a range. Series are always summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Every value added up.
    Sum,
    /// Each series' mean over its profiles.
    Avg,
    /// Each series' newest profile.
    Last,
}

impl Aggregation {
    /// What is meant where nothing is said: deltas add up, instants average.
    pub fn default_for(profile_type: &ProfileType) -> Self {
        if profile_type.delta { Self::Sum } else { Self::Avg }
    }
}

/// Which profiles of the selected series go into a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Those of a range, combined.
    Range {
        /// By the profiles' time.
        range: TimeRange,
        /// How a series' profiles combine.
        aggregation: Aggregation,
    },
    /// The one collected closest to an instant; of two equally close ones the earlier, then the one with the smaller
    /// fingerprint.
    Closest {
        /// The instant, nanoseconds since the epoch.
        time_ns: i64,
    },
}

/// Stack traces and their values, summed.
#[derive(Clone, Debug)]
pub struct MergeQuery {
    /// Whose.
    pub tenant: Tenant,
    /// Type and series.
    pub query: ProfileQuery,
    /// Which of their profiles.
    pub pick: Pick,
    /// Which nodes are one. Downloads of samples keep every location, whatever this says.
    pub fold_by: FoldBy,
    /// One tree per combination of these labels' values; one tree in all when empty.
    pub by: Vec<String>,
    /// Whether every profile must count by its own time, and none by that of its ten minutes.
    pub exact: bool,
}

/// Profile values over time.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// Whose.
    pub tenant: Tenant,
    /// Type and series.
    pub query: ProfileQuery,
    /// The first point.
    pub start_ns: i64,
    /// No point after this.
    pub end_ns: i64,
    /// Distance of points; a point at `t` covers the profiles of `(t - step, t]`. At least 1.
    pub step_ns: i64,
    /// One series of points per combination of these labels' values; one in all when empty.
    pub by: Vec<String>,
    /// How a series' profiles combine within a step.
    pub aggregation: Aggregation,
    /// Whether values are divided by the step's seconds.
    pub per_second: bool,
}

/// Some series: of one profile type or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesMatch {
    /// The type; any if `None`.
    pub profile_type: Option<ProfileType>,
    /// The matchers.
    pub selector: Selector,
}

impl From<&ProfileQuery> for SeriesMatch {
    fn from(query: &ProfileQuery) -> Self {
        Self { profile_type: Some(query.profile_type.clone()), selector: query.selector.clone() }
    }
}

impl FromStr for SeriesMatch {
    type Err = SelectorError;

    /// Reads `match[]`: a selector with an optional profile type in front.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let braces = text.find('{').unwrap_or(text.len());
        let profile_type = match text[..braces].trim() {
            "" => None,
            named => Some(named.parse()?),
        };
        Ok(Self { profile_type, selector: text[braces..].parse()? })
    }
}

/// What exists: profile types, label names, label values or series with at least one profile in range.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Whose.
    pub tenant: Tenant,
    /// Series that match any of these; all when empty.
    pub matches: Vec<SeriesMatch>,
    /// By the profiles' time.
    pub range: TimeRange,
    /// At most so many entries; 0 for all.
    pub limit: usize,
    /// Only entries whose text starts with this. Series have no text: it does not apply to them.
    pub prefix: String,
}

/// One SELECT over the tables `samples`, `profiles`, `series` and `stacks`.
#[derive(Clone, Debug)]
pub struct SqlQuery {
    /// Whose.
    pub tenant: Tenant,
    /// The statement.
    pub sql: String,
    /// What the tables hold, by the profiles' time.
    pub range: TimeRange,
    /// Most rows of the answer; more is an error, never a silent cut.
    pub rows_max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_may_name_a_type() {
        let cases = [
            ("", true, 0),
            ("{}", true, 0),
            (r#"{a="b"}"#, true, 1),
            (r#"cpu:cpu:ns:cpu:ns{a="b",c!="d"}"#, false, 2),
            ("cpu:cpu:ns:cpu:ns", false, 0),
        ];
        for (text, any_type, matchers) in cases {
            let parsed: SeriesMatch = text.parse().unwrap();
            assert_eq!(parsed.profile_type.is_none(), any_type, "{text}");
            assert_eq!(parsed.selector.matchers.len(), matchers, "{text}");
        }
        assert!("cpu{}".parse::<SeriesMatch>().is_err());
    }

    #[test]
    fn both_ends_belong_to_an_outside_range() {
        let range = inclusive(10, 20);
        assert!(range.contains(10) && range.contains(20) && !range.contains(21));
        assert!(inclusive(0, i64::MAX).contains(i64::MAX - 1));
    }
}
