//! Who is given what: a pure function of the view, the same on every node that has the same view.
//!
//! ```text
//!   view ──► usable ingesters ──► partition ──► owner, then candidates in other zones
//!        ──► usable nodes of a role ──► shard of a tenant;  order for a key
//! ```
//!
//! Everything is rendezvous hashing: a node's claim to a thing is a hash of both names, and the strongest claim wins.
//! Partitions are balanced besides: claims are settled strongest first, and a node that has its fill gets no more.
//!
//! Laws: the order of nodes in the view does not matter; of P partitions no ingester of N gets more than ⌈P/N⌉; one ingester
//! more or less moves about P/N partitions, and at most 2√P more (the balance costs that: tests measure it); one node more
//! or less changes at most one member of a tenant's shard; hashes are the same for ever, because others move data.
//!
//! The ring says who should try. Who does own a partition is what the lease in the metadata store says.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use cambium_model::block::Partition;
use xxhash_rust::xxh3::Xxh3;

use crate::node::{Node, Role};
use crate::view::View;

/// Who should own which partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    ingesters: Vec<Arc<Node>>,
    /// An index into the ingesters for each partition; none if there are no ingesters.
    owners: Vec<usize>,
    partitions: u32,
}

impl Ring {
    /// The ring of a cluster of `partitions`, as `view` has it.
    pub fn new(view: &View, partitions: u32) -> Self {
        let ingesters: Vec<_> = view.usable(Role::Ingester).map(Arc::clone).collect();
        let owners = owners(&ingesters, partitions);
        Self { ingesters, owners, partitions }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Who should own a partition. None if there are no usable ingesters, or no such partition.
    pub fn owner(&self, partition: Partition) -> Option<&Arc<Node>> {
        let owner = *self.owners.get(usize::try_from(partition.0).ok()?)?;
        self.ingesters.get(owner)
    }

    /// All who could, the owner first; the first as many as there are zones are in different ones.
    pub fn candidates(&self, partition: Partition) -> Vec<&Arc<Node>> {
        let Some(owner) = self.owner(partition) else { return Vec::new() };
        let key = partition.0.to_be_bytes();
        let strength = |node: &Node| {
            // The owner comes first though others' claims may be stronger: they had their fill.
            (node.name == owner.name, claim(Domain::Partition, &key, node.name.as_str()))
        };
        in_turns(self.ingesters.iter(), strength, strength)
    }
}

/// A tenant's nodes among the usable ones of `role`: at most `size`, spread over zones; 0 stands for all of them.
pub fn shuffle_shard<'a>(view: &'a View, tenant: &str, role: Role, size: usize) -> Vec<&'a Arc<Node>> {
    let strength = |node: &Node| claim(Domain::Tenant, tenant.as_bytes(), node.name.as_str());
    let of_zone = |node: &Node| claim(Domain::Zone, tenant.as_bytes(), &node.zone);
    let mut shard = in_turns(view.usable(role), strength, of_zone);
    if size > 0 {
        shard.truncate(size);
    }
    shard
}

/// The usable nodes of `role`, the one that most likely has `key` in its cache first.
pub fn by_key<'a>(view: &'a View, role: Role, key: &[u8]) -> Vec<&'a Arc<Node>> {
    let mut nodes: Vec<_> = view.usable(role).collect();
    nodes.sort_by_cached_key(|node| Reverse(claim(Domain::Key, key, node.name.as_str())));
    nodes
}

/// What is claimed: the same names in another domain are another thing. The numbers are hashed and never change.
#[derive(Clone, Copy)]
enum Domain {
    Partition = 1,
    Tenant = 2,
    Zone = 3,
    Key = 4,
}

fn claim(domain: Domain, thing: &[u8], claimant: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&[domain as u8]);
    // The length keeps "ab" + "c" from being "a" + "bc".
    hash.update(&(thing.len() as u64).to_be_bytes());
    hash.update(thing);
    hash.update(claimant.as_bytes());
    hash.digest()
}

/// Settles the claims of all ingesters to all partitions, strongest first.
fn owners(ingesters: &[Arc<Node>], partitions: u32) -> Vec<usize> {
    if ingesters.is_empty() {
        return Vec::new();
    }
    let partitions = partitions as usize;
    let fill = partitions.div_ceil(ingesters.len());
    let mut claims = Vec::with_capacity(partitions * ingesters.len());
    for partition in 0..partitions {
        let key = (partition as u32).to_be_bytes();
        claims.extend(
            ingesters
                .iter()
                .enumerate()
                .map(|(index, node)| (claim(Domain::Partition, &key, node.name.as_str()), partition, index)),
        );
    }
    claims.sort_unstable_by(|a, b| b.cmp(a));
    let mut owners = vec![None; partitions];
    let mut held = vec![0; ingesters.len()];
    for (_, partition, index) in claims {
        if owners[partition].is_none() && held[index] < fill {
            owners[partition] = Some(index);
            held[index] += 1;
        }
    }
    owners.into_iter().map(|owner| owner.expect("there is room for every partition")).collect()
}

/// One node of each zone in every turn: the zone's strongest first. A node more or less shifts those of its zone by one, and
/// no other zone's. Of equals the first by name comes first.
fn in_turns<'a, S: Ord>(
    nodes: impl Iterator<Item = &'a Arc<Node>>,
    strength: impl Fn(&Node) -> S,
    strength_in_turn: impl Fn(&Node) -> S,
) -> Vec<&'a Arc<Node>> {
    let mut zones = BTreeMap::<&str, Vec<&Arc<Node>>>::new();
    for node in nodes {
        zones.entry(&node.zone).or_default().push(node);
    }
    let mut turns = Vec::new();
    for mut nodes in zones.into_values() {
        nodes.sort_by_cached_key(|node| Reverse(strength(node)));
        turns.extend(nodes.into_iter().enumerate());
    }
    turns.sort_by_cached_key(|(turn, node)| (*turn, Reverse(strength_in_turn(node))));
    turns.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests;
