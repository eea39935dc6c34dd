//! Who runs where and when: a slot of a service holds one pod after the other.
//!
//! ```text
//!   slot 0  ──v1──┤ deploy ├──v2───────────┤ end of its life ├──v2── …
//!   slot 1  ──v1─────┤ deploy, a little later ├──v2── …
//! ```

use crate::random::at;

use super::{Shape, service_name};

/// Third place of [`at`] for what these are.
const OF_DEPLOYS: u64 = u64::MAX - 2;
const OF_LIVES: u64 = u64::MAX - 3;
const OF_IDENTITIES: u64 = u64::MAX - 4;

/// Letters of pods' names, as Kubernetes picks them: none that make words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters of the last part of a name.
const SUFFIX_LETTERS: u32 = 5;

/// A pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Of its service's code, from 0.
    pub(super) version: u64,
    /// No other pod's, of any tenant.
    pub(super) identity: u64,
}

impl Pod {
    /// The pod of a slot at a time from the fleet's start.
    pub(super) fn of(shape: &Shape, tenant: u64, service: u64, slot: u64, offset_ns: i64) -> Self {
        let version = version(shape, service, slot, offset_ns);
        let lives = lives(shape, service, slot, offset_ns);
        let identity = at(at(shape.seed, tenant, OF_IDENTITIES, service), slot, version, lives);
        Self { version, identity }
    }

    /// As a deployment names its pods: service, hash of the version, hash of the pod.
    pub(super) fn name(&self, seed: u64, service: u64) -> String {
        let replica_set = at(seed, service, OF_DEPLOYS, self.version) as u32;
        let letters = LETTERS.len() as u64;
        let suffix: String = (0..SUFFIX_LETTERS)
            .map(|place| LETTERS[(self.identity / letters.pow(place) % letters) as usize] as char)
            .collect();
        format!("{}-{replica_set:08x}-{suffix}", service_name(service))
    }
}

/// Deploys that have reached this slot. Services deploy at times of their own; slots follow one another.
fn version(shape: &Shape, service: u64, slot: u64, offset_ns: i64) -> u64 {
    if shape.deploy_every_ns <= 0 {
        return 0;
    }
    let first = (at(shape.seed, service, OF_DEPLOYS, u64::MAX) % shape.deploy_every_ns as u64) as i64;
    let turn = (i128::from(shape.rolling_ns) * i128::from(slot) / i128::from(shape.pods)) as i64;
    let since = offset_ns - first - turn;
    if since < 0 { 0 } else { 1 + (since / shape.deploy_every_ns) as u64 }
}

/// Pods that this slot has outlived, deploys aside.
fn lives(shape: &Shape, service: u64, slot: u64, offset_ns: i64) -> u64 {
    if shape.pod_lifetime_ns <= 0 {
        return 0;
    }
    let age = (at(shape.seed, service, OF_LIVES, slot) % shape.pod_lifetime_ns as u64) as i64;
    ((offset_ns + age) / shape.pod_lifetime_ns) as u64
}
