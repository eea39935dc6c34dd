//! What a profile measures: `name:sample_type:sample_unit:period_type:period_unit[:delta]`, as Parca writes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The six parts of a profile type. Two profiles can be merged only when theirs are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileType {
    /// What collected it: `process_cpu`, `memory`, `goroutine`, …
    pub name: Arc<str>,
    /// What a sample's value counts: `cpu`, `inuse_space`, …
    pub sample_type: Arc<str>,
    /// The value's unit: `nanoseconds`, `bytes`, `count`, …
    pub sample_unit: Arc<str>,
    /// What is counted between two samples; may be empty.
    pub period_type: Arc<str>,
    /// The period's unit; may be empty.
    pub period_unit: Arc<str>,
    /// Whether values are of the profile's own duration (true) or of an instant or since the start (false).
    pub delta: bool,
}

/// Why a text is not a profile type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "profile type {text:?} must have the form name:sample_type:sample_unit:period_type:period_unit with an optional :delta"
)]
pub struct ProfileTypeError {
    text: String,
}

impl fmt::Display for ProfileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}:{}:{}",
            self.name, self.sample_type, self.sample_unit, self.period_type, self.period_unit
        )?;
        if self.delta { f.write_str(":delta") } else { Ok(()) }
    }
}

impl FromStr for ProfileType {
    type Err = ProfileTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ProfileTypeError { text: text.to_owned() };
        let parts: Vec<&str> = text.split(':').collect();
        let delta = match parts.len() {
            5 => false,
            6 if parts[5] == "delta" => true,
            _ => return Err(error()),
        };
        if parts[0].is_empty() || parts[1].is_empty() {
            return Err(error());
        }
        Ok(Self {
            name: parts[0].into(),
            sample_type: parts[1].into(),
            sample_unit: parts[2].into(),
            period_type: parts[3].into(),
            period_unit: parts[4].into(),
            delta,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_parts_agree() {
        for text in [
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta",
            "memory:inuse_space:bytes:space:bytes",
            "parca_agent:samples:count::",
        ] {
            let parsed: ProfileType = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "a:b:c:d", "a:b:c:d:e:f", "a:b:c:d:e:delta:x", ":b:c:d:e", "a::c:d:e"] {
            assert!(text.parse::<ProfileType>().is_err(), "{text:?}");
        }
    }
}
