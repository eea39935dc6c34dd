//! How long profiles are kept, where that differs between a tenant's series.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::block::{DatasetMeta, RetentionClass};
use crate::limits::TenantLimits;
use crate::selector::Selector;
use crate::time::SECOND_NS;

/// Most selectors with a retention of their own that a tenant may have: each is a dataset more in every window.
pub const RETENTION_RULES_MAX: usize = 16;

/// How long profiles of some series are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Which series.
    pub selector: Selector,
    /// How long, by the profiles' own time; 0 for ever. Seconds.
    pub retention_secs: u64,
}

/// Rules in their order: the first one that matches a series counts. They sort series into *classes*, one per rule and one
/// of the series that no rule matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<RetentionRule>", into = "Vec<RetentionRule>")]
pub struct RetentionRules(Vec<RetentionRule>);

/// There are too many rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} rules, at most {RETENTION_RULES_MAX} are allowed")]
pub struct TooManyRules(usize);

impl TryFrom<Vec<RetentionRule>> for RetentionRules {
    type Error = TooManyRules;

    fn try_from(rules: Vec<RetentionRule>) -> Result<Self, TooManyRules> {
        if rules.len() > RETENTION_RULES_MAX { Err(TooManyRules(rules.len())) } else { Ok(Self(rules)) }
    }
}

impl From<RetentionRules> for Vec<RetentionRule> {
    fn from(rules: RetentionRules) -> Self {
        rules.0
    }
}

impl RetentionRules {
    /// The rules.
    pub fn rules(&self) -> &[RetentionRule] {
        &self.0
    }

    /// Every class: a name, and what tells its records from those of the others. The last one is that of the series that no
    /// rule matches, and has the empty name.
    pub fn classes(&self) -> impl Iterator<Item = (String, RetentionClass)> {
        let rules = self.fingerprint();
        let names = self.0.iter().map(|rule| rule.selector.to_string()).chain([String::new()]);
        (0..).zip(names).map(move |(index, name)| (name, RetentionClass { rules, index }))
    }

    /// The same for the same selectors in the same order, whatever their retentions.
    fn fingerprint(&self) -> u64 {
        // Selectors are quoted: no text of one is that of two.
        let texts: Vec<String> = self.0.iter().map(|rule| rule.selector.to_string()).collect();
        xxh3_64(texts.concat().as_bytes())
    }
}

impl TenantLimits {
    /// How long profiles of this class of series are kept, 0 for ever; of all classes the longest where none is named. A
    /// class without a rule, as after the rule was removed, is kept as series without one are. Seconds.
    pub fn retention_of(&self, class: Option<&str>) -> u64 {
        let rules = self.retention_rules.rules();
        match class {
            Some(class) => {
                let rule = rules.iter().find(|rule| rule.selector.to_string() == class);
                rule.map_or(self.retention_secs, |rule| rule.retention_secs)
            }
            None => {
                let own = rules.iter().map(|rule| rule.retention_secs);
                let all = || own.clone().chain([self.retention_secs]);
                if all().any(|secs| secs == 0) { 0 } else { all().max().unwrap_or(0) }
            }
        }
    }

    /// Whether a profile of this time and of such a series, as [`Self::retention_of`] has it, is still wanted now; both in
    /// nanoseconds since the Unix epoch.
    pub fn keeps(&self, class: Option<&str>, time_ns: i64, now_ns: i64) -> bool {
        let kept_ns =
            i64::try_from(self.retention_of(class)).ok().and_then(|secs| secs.checked_mul(SECOND_NS));
        match kept_ns {
            None | Some(0) => true,
            Some(kept_ns) => time_ns >= now_ns.saturating_sub(kept_ns),
        }
    }

    /// Whether profiles of this time and before are old enough now for samples to be dropped; both in nanoseconds since the
    /// Unix epoch.
    pub fn downsamples(&self, time_ns: i64, now_ns: i64) -> bool {
        let after_ns =
            i64::try_from(self.downsample_after_secs).unwrap_or(i64::MAX).saturating_mul(SECOND_NS);
        after_ns > 0 && time_ns < now_ns.saturating_sub(after_ns)
    }

    /// Whether some profile of the dataset is still wanted.
    pub fn keeps_dataset(&self, dataset: &DatasetMeta, now_ns: i64) -> bool {
        self.keeps(dataset.retention_selector.as_deref(), dataset.last_ns, now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rules: &[(&str, u64)]) -> TenantLimits {
        let rule = |(selector, retention_secs): &(&str, u64)| RetentionRule {
            selector: selector.parse().unwrap(),
            retention_secs: *retention_secs,
        };
        let rules: Vec<RetentionRule> = rules.iter().map(rule).collect();
        let retention_rules = rules.try_into().unwrap();
        TenantLimits { retention_secs: 30, retention_rules, ..TenantLimits::default() }
    }

    #[test]
    fn classes_are_kept_as_their_rules_say() {
        let limits = limits(&[(r#"{namespace="ci"}"#, 7), (r#"{namespace=~"prod.*"}"#, 90)]);
        let names: Vec<String> = limits.retention_rules.classes().map(|(name, _)| name).collect();
        assert_eq!(names, [r#"{namespace="ci"}"#, r#"{namespace=~"prod.*"}"#, ""]);
        let of = |class: &str| limits.retention_of(Some(class));
        assert_eq!(names.iter().map(|name| of(name)).collect::<Vec<_>>(), [7, 90, 30]);
        assert_eq!((of("{gone=\"1\"}"), limits.retention_of(None)), (30, 90));
        let (class, now_ns) = (Some(names[0].as_str()), 20 * SECOND_NS);
        assert!(limits.keeps(class, 13 * SECOND_NS, now_ns));
        assert!(!limits.keeps(class, 13 * SECOND_NS - 1, now_ns));
    }

    #[test]
    fn for_ever_is_the_longest() {
        assert_eq!(limits(&[("{a=\"1\"}", 0)]).retention_of(None), 0);
        assert_eq!(TenantLimits { retention_secs: 0, ..limits(&[("{a=\"1\"}", 7)]) }.retention_of(None), 0);
    }

    #[test]
    fn classes_of_other_rules_are_others() {
        let class = |rules: &[(&str, u64)], index: usize| {
            limits(rules).retention_rules.classes().nth(index).unwrap().1
        };
        assert_eq!(class(&[("{a=\"1\"}", 7)], 0), class(&[("{ a = \"1\" }", 8)], 0));
        assert_ne!(class(&[("{a=\"1\"}", 7)], 0), class(&[("{a=\"1\"}", 7)], 1));
        assert_ne!(class(&[("{a=\"1\"}", 7)], 0), class(&[("{a=\"1\"}", 7), ("{b=\"1\"}", 7)], 0));
    }

    #[test]
    fn rules_are_read_as_written() {
        let text = r#"[{"selector":"{namespace=\"ci\"}","retention_secs":604800}]"#;
        let rules: RetentionRules = serde_json::from_str(text).unwrap();
        assert_eq!(rules.rules()[0].retention_secs, 604_800);
        assert_eq!(serde_json::to_string(&rules).unwrap(), text);
        for (bad, why) in [
            (r#"[{"selector":"{a=~\"(\"}","retention_secs":1}]"#.to_owned(), "bad regular expression"),
            (r#"[{"selector":"{}","retention_days":1}]"#.to_owned(), "retention_days"),
            (format!("[{}]", vec![r#"{"selector":"{}","retention_secs":1}"#; 17].join(",")), "17 rules"),
        ] {
            let error = serde_json::from_str::<RetentionRules>(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
