//! Which partition a series belongs to: a pure function, the same on every distributor for ever.
//!
//! ```text
//!   tenant ──► 16 partitions of all ──► service ──► 4 of those ──► series ──► 1
//! ```
//!
//! A tenant's noise stays in its partitions, a block holds few tenants, and a service's stack traces, which its
//! series share, are kept in few trees. The profile type takes no part, so that all types of one push meet in one
//! partition.
//!
//! Law: the result depends on the arguments alone. It is what sends a retry to the log that can recognise it, so any
//! change here, even of a constant, double-counts retries in flight; the test with pinned values guards it.

use std::num::NonZeroU32;

use cambium_model::block::Partition;
use cambium_model::labels::Labels;
use cambium_model::tenant::TenantNumber;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Partitions that one tenant is spread over, where there are as many.
pub const TENANT_PARTITIONS: u32 = 16;

/// Partitions, of its tenant's, that one service is spread over.
pub const SERVICE_PARTITIONS: u32 = 4;

/// The labels that name a service here, first present wins. Fixed, unlike a tenant's `scope_labels`: a change of
/// those must not send retries elsewhere.
const SERVICE_LABELS: [&str; 5] = ["service_name", "container", "job", "systemd_unit", "comm"];

const TENANT_SEED: u64 = 0x7E4A;
const SERVICE_SEED: u64 = 0x5E21;

/// The partition, of `partitions`, that holds the series of these labels.
pub fn partition(tenant: TenantNumber, labels: &Labels, partitions: NonZeroU32) -> Partition {
    let service = SERVICE_LABELS.iter().find_map(|name| labels.get(name)).unwrap_or_default();
    let tenant_seed = xxh3_64_with_seed(&tenant.0.to_be_bytes(), TENANT_SEED);
    let service_seed = xxh3_64_with_seed(service.as_bytes(), tenant_seed ^ SERVICE_SEED);

    let of_tenant = partitions.get().min(TENANT_PARTITIONS);
    let of_service = of_tenant.min(SERVICE_PARTITIONS);
    let series_slot = (labels.fingerprint() % u64::from(of_service)) as u32;
    let service_slot = nth_distinct(service_seed, series_slot, of_tenant);
    Partition(nth_distinct(tenant_seed, service_slot, partitions.get()))
}

/// The `nth` distinct number below `bound` that a generator with this seed gives. A longer prefix of the sequence
/// keeps the shorter one, so that a larger share adds partitions and moves none.
fn nth_distinct(seed: u64, nth: u32, bound: u32) -> u32 {
    debug_assert!(nth < bound && nth < TENANT_PARTITIONS, "{nth} of {bound}");
    let mut seen = [0; TENANT_PARTITIONS as usize];
    let mut count = 0;
    let mut state = seed;
    loop {
        let candidate = ((u64::from(bound) * (next(&mut state) >> 32)) >> 32) as u32;
        if seen[..count].contains(&candidate) {
            continue;
        }
        if count == nth as usize {
            return candidate;
        }
        seen[count] = candidate;
        count += 1;
    }
}

/// SplitMix64's step: a full-period generator, so that the loop above always ends.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(tenant: u32, service: &str, pod: &str, partitions: u32) -> u32 {
        let labels = Labels::from_pairs([("service_name", service), ("pod", pod)]).unwrap();
        partition(TenantNumber(tenant), &labels, NonZeroU32::new(partitions).unwrap()).0
    }

    proptest! {
        #[test]
        fn every_series_has_one_partition_that_exists(
            tenant in 1u32.., service in "[a-z]{0,8}", pod in "[a-z0-9]{0,8}", partitions in 1u32..300,
        ) {
            let found = of(tenant, &service, &pod, partitions);
            prop_assert!(found < partitions);
            prop_assert_eq!(found, of(tenant, &service, &pod, partitions));
        }

        #[test]
        fn a_service_keeps_to_its_share_of_its_tenants_share(tenant in 1u32.., partitions in 1u32..200) {
            let mut of_tenant = BTreeSet::new();
            for service in 0..20 {
                let of_service: BTreeSet<u32> = (0..50)
                    .map(|pod| of(tenant, &service.to_string(), &pod.to_string(), partitions))
                    .collect();
                prop_assert!(of_service.len() <= SERVICE_PARTITIONS as usize);
                of_tenant.extend(of_service);
            }
            prop_assert!(of_tenant.len() <= TENANT_PARTITIONS as usize);
        }

        #[test]
        fn a_longer_sequence_keeps_the_shorter_one(seed: u64, bound in 16u32..500) {
            let sequence: BTreeSet<u32> = (0..16).map(|nth| nth_distinct(seed, nth, bound)).collect();
            prop_assert_eq!(sequence.len(), 16, "distinct");
        }
    }

    #[test]
    fn tenants_services_and_series_spread() {
        let partitions = 32;
        let mut load = vec![0u32; partitions as usize];
        for tenant in 1..=100 {
            for service in 0..10 {
                for pod in 0..10 {
                    load[of(tenant, &format!("s{service}"), &format!("p{pod}"), partitions) as usize] += 1;
                }
            }
        }
        let mean = 10_000 / partitions;
        let (least, most) = (*load.iter().min().unwrap(), *load.iter().max().unwrap());
        assert!(least > mean / 2 && most < mean * 2, "{least}..{most} around {mean}");
    }

    #[test]
    fn partitions_are_pinned() {
        let found: Vec<u32> = (1..=8).map(|tenant| of(tenant, "api", "a", 64)).collect();
        assert_eq!(found, [49, 48, 31, 59, 21, 1, 41, 51]);
    }

    #[test]
    fn a_series_without_a_service_has_a_partition_too() {
        let partitions = NonZeroU32::new(8).unwrap();
        assert!(partition(TenantNumber(1), &Labels::empty(), partitions).0 < 8);
    }
}
