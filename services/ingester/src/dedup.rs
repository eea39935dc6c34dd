//! The pushes of the acceptance window, so that a retry is acknowledged and not counted again.
//!
//! Ids are kept in sets by the 10-minute bucket of their profile's time and forgotten a set at a time, once the
//! distributor refuses anything that old. A profile that is pushed without a time is given the time of its first
//! arrival, and its retries are recognised for the window counted from then.

use std::collections::BTreeMap;

use cambium_model::profile::ProfileId;
use cambium_model::tenant::TenantNumber;
use cambium_model::time::{ROLLUP_BUCKET_NS, bucket_start};
use hashbrown::HashSet;

/// Ids of applied profiles, by time.
#[derive(Debug, Default)]
pub struct Dedup {
    buckets: BTreeMap<i64, HashSet<Key>>,
}

/// A push: ids that senders choose are only unique within a tenant.
pub type Key = (TenantNumber, ProfileId);

impl Dedup {
    /// Whether the push was applied before.
    pub fn contains(&self, key: &Key) -> bool {
        self.buckets.values().any(|ids| ids.contains(key))
    }

    /// Notes a push; false where it was known already.
    pub fn insert(&mut self, key: Key, time_ns: i64) -> bool {
        if self.contains(&key) {
            return false;
        }
        self.buckets.entry(bucket_start(time_ns)).or_default().insert(key)
    }

    /// Forgets what lies wholly before this time.
    pub fn forget_before(&mut self, time_ns: i64) {
        self.buckets = self.buckets.split_off(&bucket_start(time_ns).saturating_sub(ROLLUP_BUCKET_NS));
    }

    /// How many pushes are known.
    pub fn len(&self) -> usize {
        self.buckets.values().map(HashSet::len).sum()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_for_the_window_and_no_longer() {
        let mut dedup = Dedup::default();
        let key = |n| (TenantNumber(1), ProfileId([n; 16]));
        assert!(dedup.insert(key(1), 0));
        assert!(!dedup.insert(key(1), 5 * ROLLUP_BUCKET_NS), "a retry may carry another time");
        assert!(dedup.insert((TenantNumber(2), ProfileId([1; 16])), 0), "another tenant's id");
        assert!(dedup.insert(key(2), 3 * ROLLUP_BUCKET_NS));
        dedup.forget_before(ROLLUP_BUCKET_NS);
        assert_eq!(dedup.len(), 3, "the bucket before the limit stays");
        dedup.forget_before(2 * ROLLUP_BUCKET_NS);
        assert!(!dedup.contains(&key(1)) && dedup.contains(&key(2)));
    }
}
