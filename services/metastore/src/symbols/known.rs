//! The ids that this process has seen in the store: a bounded set that forgets by generations.

use std::hash::Hash;
use std::time::Duration;

use cambium_model::tenant::TenantNumber;
use hashbrown::HashSet;

use super::VALIDITY;

/// Ids of one generation; seven eighths of a power of two, which is what a hash table holds before it doubles. Two
/// full generations of locations take 2 × 21 MiB.
const GENERATION_IDS_MAX: usize = (1 << 20) / 8 * 7;

/// Two generations: ids go into the young one; when it is full or half a validity old, it becomes the old one and the
/// old one is forgotten. An id is forgotten at most [`VALIDITY`] after it came, whether it is asked for or not.
#[derive(Debug)]
pub(super) struct Known<I> {
    young: Generation<I>,
    old: Generation<I>,
}

/// Ids that came in after an instant.
#[derive(Debug)]
struct Generation<I> {
    started: Duration,
    ids: HashSet<(TenantNumber, I)>,
}

impl<I: Copy + Eq + Hash> Known<I> {
    /// Knows nothing.
    pub(super) fn new(now: Duration) -> Self {
        Self { young: Generation::starting(now), old: Generation::starting(now) }
    }

    /// Whether the id came in less than [`VALIDITY`] ago (or a little less, by its generation's start).
    pub(super) fn contains(&self, tenant: TenantNumber, id: I, now: Duration) -> bool {
        [&self.young, &self.old]
            .iter()
            .any(|generation| generation.age(now) < VALIDITY && generation.ids.contains(&(tenant, id)))
    }

    /// Bytes of memory that its tables take: a slot and a byte of control for each id that there is room for.
    pub(super) fn bytes(&self) -> u64 {
        let room = self.young.ids.capacity() + self.old.ids.capacity();
        (room * (size_of::<(TenantNumber, I)>() + 1)) as u64
    }

    /// Takes note of an id that is in the store now.
    pub(super) fn insert(&mut self, tenant: TenantNumber, id: I, now: Duration) {
        if self.young.age(now) >= VALIDITY / 2 || self.young.ids.len() >= GENERATION_IDS_MAX {
            self.old = std::mem::replace(&mut self.young, Generation::starting(now));
        }
        self.young.ids.insert((tenant, id));
    }
}

impl<I> Generation<I> {
    fn starting(now: Duration) -> Self {
        Self { started: now, ids: HashSet::new() }
    }

    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantNumber = TenantNumber(1);

    #[test]
    fn an_id_is_forgotten_within_its_validity() {
        let mut known = Known::new(Duration::ZERO);
        known.insert(TENANT, 7, Duration::ZERO);
        assert!(known.contains(TENANT, 7, VALIDITY - Duration::from_secs(1)));
        assert!(!known.contains(TENANT, 7, VALIDITY), "also when nothing came in between");
        assert!(!known.contains(TenantNumber(2), 7, Duration::ZERO), "another tenant's");

        known.insert(TENANT, 8, VALIDITY / 2);
        assert!(known.contains(TENANT, 7, VALIDITY / 2), "the generation before is still known");
        known.insert(TENANT, 9, VALIDITY);
        assert!(!known.contains(TENANT, 7, VALIDITY));
        assert!(known.contains(TENANT, 8, VALIDITY) && known.contains(TENANT, 9, VALIDITY));
    }

    #[test]
    fn it_stays_within_two_generations() {
        let mut known = Known::new(Duration::ZERO);
        let ids = u32::try_from(GENERATION_IDS_MAX).unwrap();
        for id in 0..=ids {
            known.insert(TENANT, id, Duration::ZERO);
        }
        assert_eq!((known.young.ids.len(), known.old.ids.len()), (1, GENERATION_IDS_MAX));
        assert!(known.old.ids.capacity() <= GENERATION_IDS_MAX, "the table must not have doubled");
        assert!(known.contains(TENANT, 0, Duration::ZERO) && known.contains(TENANT, ids, Duration::ZERO));
    }
}
