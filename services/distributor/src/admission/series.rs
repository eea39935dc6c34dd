//! Which series a tenant sent lately, so that a tenant at its series limit keeps the series it has.
//!
//! Owners publish how many series are active, not which. A distributor at the limit therefore lets in what it has
//! itself acknowledged lately and refuses the rest: a new distributor refuses series of a tenant over its limit until
//! the count has fallen, and the limit can be passed by what arrives between two publications and by series that were
//! remembered here but had left the heads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashSet;

/// Most series remembered in one generation, whatever the tenant's limit: 16 MiB of fingerprints in two.
const GENERATION_SERIES_MAX: u64 = 1 << 20;

/// Age at which a generation stops taking entries; an entry is remembered for one to two of these.
const GENERATION_SPAN: Duration = Duration::from_secs(1_800);

/// Fingerprints of one tenant's label sets (without profile types, which come and go with them) in two generations:
/// the older is dropped when the younger is full or old.
#[derive(Debug, Default)]
pub(crate) struct RecentSeries(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
    young_since: Duration,
}

impl RecentSeries {
    /// Whether the series was acknowledged lately.
    pub(crate) fn contains(&self, series: u64) -> bool {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.contains(&series) || generations.old.contains(&series)
    }

    /// Remembers a series that was acknowledged now, of a tenant that may have `series_max`.
    pub(crate) fn insert(&self, series: u64, now: Duration, series_max: u64) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = generations.young.len() as u64 >= series_max.clamp(1, GENERATION_SERIES_MAX);
        if full && !generations.young.contains(&series)
            || now.saturating_sub(generations.young_since) >= GENERATION_SPAN
        {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_since = now;
        }
        generations.young.insert(series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_sent_lately_is_known() {
        let recent = RecentSeries::default();
        assert!(!recent.contains(1));
        recent.insert(1, SOON, 10);
        assert!(recent.contains(1));
        recent.insert(2, GENERATION_SPAN, 10);
        assert!(recent.contains(1), "one generation back");
        recent.insert(2, 2 * GENERATION_SPAN, 10);
        assert!(!recent.contains(1) && recent.contains(2));
    }

    #[test]
    fn memory_is_bounded_by_the_tenants_limit() {
        let recent = RecentSeries::default();
        for series in 0..1_000 {
            recent.insert(series, SOON, 10);
        }
        let known = (0..1_000).filter(|series| recent.contains(*series)).count();
        assert!((10..=20).contains(&known), "{known}");
        recent.insert(999, SOON, 10);
        assert!(recent.contains(999));
    }
}
