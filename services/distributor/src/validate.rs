//! The limits on what surrounds a profile: its labels and its time. Those on its contents are the decoder's.
//!
//! Every violation says what was found, what is allowed and the name of the limit.

use std::time::Duration;

use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_runtime::error::{HasKind, Kind};

use crate::metrics::Reason;

/// The label that carries a profile's name in Prometheus' manner.
pub(crate) const NAME_LABEL: &str = "__name__";

/// The label that results of several tenants carry; nobody may send it.
const TENANT_LABEL: &str = "__tenant_id__";

/// Bytes of an offending text that a message repeats.
const SHOWN_BYTES: usize = 64;

/// Longest profile name, bytes: it becomes a part of every profile type.
const PROFILE_NAME_BYTES_MAX: usize = 256;

/// What is beyond a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Too many labels.
    #[error("the series has {count} labels, {limit} are allowed (label_names_max)")]
    LabelNames {
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: u64,
    },
    /// A label's name is too long.
    #[error("label name {name:?} has {bytes} bytes, {limit} are allowed (label_name_bytes_max)")]
    LabelNameTooLong {
        /// Its beginning.
        name: String,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        limit: u64,
    },
    /// A label's value is too long.
    #[error("the value of label {name} has {bytes} bytes, {limit} are allowed (label_value_bytes_max)")]
    LabelValueTooLong {
        /// The label.
        name: String,
        /// The value's length.
        bytes: usize,
        /// The longest allowed.
        limit: u64,
    },
    /// A label's name could not be written in a selector.
    #[error("label name {name:?} must match [a-zA-Z_][a-zA-Z0-9_.]* and not be {TENANT_LABEL}")]
    LabelNameInvalid {
        /// The name, or its beginning.
        name: String,
    },
    /// The profile's name could not be a part of a profile type.
    #[error("profile name {name:?} must have 1 to {PROFILE_NAME_BYTES_MAX} bytes of [a-zA-Z0-9_./-]")]
    ProfileNameInvalid {
        /// The name, or its beginning.
        name: String,
    },
    /// The profile was collected too long ago.
    #[error(
        "the profile is {age:?} old, {limit:?} are allowed (reject_older_than_secs): {:?} too old",
        age.saturating_sub(*limit)
    )]
    TooOld {
        /// How old.
        age: Duration,
        /// How old it may be.
        limit: Duration,
    },
    /// The profile was collected too far in the future.
    #[error(
        "the profile is {ahead:?} in the future, {limit:?} are allowed (reject_newer_than_secs): {:?} too new",
        ahead.saturating_sub(*limit)
    )]
    TooNew {
        /// How far ahead of this process' clock.
        ahead: Duration,
        /// How far it may be.
        limit: Duration,
    },
}

impl HasKind for Violation {
    fn kind(&self) -> Kind {
        match self {
            Self::LabelNames { .. }
            | Self::LabelNameTooLong { .. }
            | Self::LabelValueTooLong { .. }
            | Self::TooOld { .. }
            | Self::TooNew { .. } => Kind::Unprocessable,
            Self::LabelNameInvalid { .. } | Self::ProfileNameInvalid { .. } => Kind::Invalid,
        }
    }
}

impl Violation {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::LabelNames { .. } => Reason::MaxLabelNamesPerSeries,
            Self::LabelNameTooLong { .. } => Reason::LabelNameTooLong,
            Self::LabelValueTooLong { .. } => Reason::LabelValueTooLong,
            Self::LabelNameInvalid { .. } | Self::ProfileNameInvalid { .. } => Reason::InvalidLabels,
            Self::TooOld { .. } | Self::TooNew { .. } => Reason::NotInIngestionWindow,
        }
    }
}

/// Checks a series' labels.
pub(crate) fn labels(labels: &Labels, limits: &TenantLimits) -> Result<(), Violation> {
    if labels.len() as u64 > limits.label_names_max {
        return Err(Violation::LabelNames { count: labels.len(), limit: limits.label_names_max });
    }
    for (name, value) in labels.iter() {
        if name.len() as u64 > limits.label_name_bytes_max {
            return Err(Violation::LabelNameTooLong {
                name: beginning(name),
                bytes: name.len(),
                limit: limits.label_name_bytes_max,
            });
        }
        if !is_label_name(name) {
            return Err(Violation::LabelNameInvalid { name: beginning(name) });
        }
        if value.len() as u64 > limits.label_value_bytes_max {
            return Err(Violation::LabelValueTooLong {
                name: name.to_owned(),
                bytes: value.len(),
                limit: limits.label_value_bytes_max,
            });
        }
    }
    Ok(())
}

/// Checks a profile's name as its sender gave it.
pub(crate) fn profile_name(name: &str) -> Result<(), Violation> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    if name.is_empty() || name.len() > PROFILE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(Violation::ProfileNameInvalid { name: beginning(name) });
    }
    Ok(())
}

/// Checks a time against the acceptance window around `now_ns`, both ends inside.
pub(crate) fn time(time_ns: i64, now_ns: i64, limits: &TenantLimits) -> Result<(), Violation> {
    let older_than = Duration::from_secs(limits.reject_older_than_secs);
    let newer_than = Duration::from_secs(limits.reject_newer_than_secs);
    let distance = Duration::from_nanos(now_ns.abs_diff(time_ns));
    if time_ns < now_ns && distance > older_than {
        return Err(Violation::TooOld { age: distance, limit: older_than });
    }
    if time_ns > now_ns && distance > newer_than {
        return Err(Violation::TooNew { ahead: distance, limit: newer_than });
    }
    Ok(())
}

fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first_fits = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first_fits
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
        && name != TENANT_LABEL
}

fn beginning(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: i64 = 1_700_000_000_000_000_000;
    const SECOND_NS: i64 = 1_000_000_000;

    fn limits() -> TenantLimits {
        TenantLimits {
            label_names_max: 2,
            label_name_bytes_max: 8,
            label_value_bytes_max: 4,
            reject_older_than_secs: 3_600,
            reject_newer_than_secs: 600,
            ..TenantLimits::default()
        }
    }

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Option<&str>) {
        let found = labels(&Labels::from_pairs(pairs.iter().copied()).unwrap(), &limits());
        assert_eq!(found.err().map(|violation| violation.to_string()).as_deref(), expected, "{pairs:?}");
    }

    #[test]
    fn labels_are_bounded_and_named_as_selectors_can_write_them() {
        check(&[], None);
        check(&[("a", "1"), ("_b.c9", "4444")], None);
        check(
            &[("a", "1"), ("b", "2"), ("c", "3")],
            Some("the series has 3 labels, 2 are allowed (label_names_max)"),
        );
        check(
            &[("a12345678", "1")],
            Some(r#"label name "a12345678" has 9 bytes, 8 are allowed (label_name_bytes_max)"#),
        );
        check(
            &[("a", "55555")],
            Some("the value of label a has 5 bytes, 4 are allowed (label_value_bytes_max)"),
        );
        for name in ["9a", "a-b", "a b", ".a", "ä", "a\n"] {
            check(
                &[(name, "1")],
                Some(&format!(
                    "label name {name:?} must match [a-zA-Z_][a-zA-Z0-9_.]* and not be __tenant_id__"
                )),
            );
        }
    }

    #[test]
    fn the_label_of_federated_results_is_ours() {
        assert!(!is_label_name("__tenant_id__"));
        assert!(is_label_name("__session_id__"));
    }

    #[test]
    fn profile_names_fit_into_a_profile_type() {
        for name in ["process_cpu", "memory", "parca_agent", "a/b.c-d"] {
            assert_eq!(profile_name(name), Ok(()), "{name:?}");
        }
        for name in ["", "a:b", "a b", "ä", &"x".repeat(257)] {
            let error = profile_name(name).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{name:?}");
        }
    }

    #[test]
    fn the_window_is_closed_and_the_message_says_by_how_much() {
        let cases = [
            (0, None),
            (-3_600 * SECOND_NS, None),
            (600 * SECOND_NS, None),
            (
                -3_600 * SECOND_NS - 1_500_000_000,
                Some("the profile is 3601.5s old, 3600s are allowed (reject_older_than_secs): 1.5s too old"),
            ),
            (
                601 * SECOND_NS,
                Some(
                    "the profile is 601s in the future, 600s are allowed (reject_newer_than_secs): 1s too new",
                ),
            ),
        ];
        for (offset_ns, expected) in cases {
            let found = time(NOW_NS + offset_ns, NOW_NS, &limits());
            assert_eq!(found.err().map(|v| v.to_string()).as_deref(), expected, "{offset_ns}");
        }
        assert!(time(i64::MIN, NOW_NS, &limits()).is_err());
        assert!(time(i64::MAX, NOW_NS, &limits()).is_err());
    }
}
