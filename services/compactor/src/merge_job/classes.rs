//! Series that are kept for equally long, apart from the others: so expiry removes whole blocks.

use std::collections::BTreeMap;

use cambium_model::block::{DatasetMeta, RetentionClass};
use cambium_model::retention::RetentionRules;

/// Series that are kept for equally long, by the same rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Class {
    /// The rule's selector; empty where they fall under none; none where there are no rules and all are together.
    pub(super) name: Option<String>,
    /// The class as the rules in force have it, where series of it are still together with others.
    pub(super) of_rules: Option<RetentionClass>,
}

/// The classes that come of these datasets of a tenant: those in which they are already, and where series are still together
/// those of the rules in force. A series never changes its class, so that blocks of different ones have nothing in common.
pub(super) fn classes<'a>(
    rules: &RetentionRules,
    datasets: impl Iterator<Item = &'a DatasetMeta>,
) -> Vec<Class> {
    let mut classes: BTreeMap<Option<String>, Option<RetentionClass>> =
        datasets.map(|dataset| (dataset.retention_selector.clone(), None)).collect();
    if !rules.rules().is_empty() && classes.remove(&None).is_some() {
        for (name, of_rules) in rules.classes() {
            // Of two rules with one selector the first takes all.
            classes.entry(Some(name)).or_default().get_or_insert(of_rules);
        }
    }
    classes.into_iter().map(|(name, of_rules)| Class { name, of_rules }).collect()
}

impl Class {
    /// Whether series of the dataset may be of this class.
    pub(super) fn may_take(&self, dataset: &DatasetMeta) -> bool {
        let is_together = dataset.retention_selector.is_none() && self.of_rules.is_some();
        is_together || dataset.retention_selector == self.name
    }
}
