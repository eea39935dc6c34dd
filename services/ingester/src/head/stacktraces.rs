//! Finds the node of a stack trace: one look-up by path hash per sample, and a walk only for new stacks.

use cambium_blocks::tree::Tree;
use cambium_model::profile::Profile;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node, PathHash};
use hashbrown::HashMap;
use hashbrown::HashTable;

use super::series::HeadScope;

/// Not looked up yet.
const UNRESOLVED: u32 = u32::MAX;

/// Nodes by scope and path, locations by id.
#[derive(Debug, Default)]
pub(super) struct StackIndex {
    nodes: HashTable<IndexedNode>,
    locations: HashMap<LocationId, u32>,
    scratch: Scratch,
}

#[derive(Clone, Copy, Debug)]
struct IndexedNode {
    node: u32,
    scope_index: u32,
}

#[derive(Debug, Default)]
struct Scratch {
    /// Path of each node of the profile.
    paths: Vec<PathHash>,
    /// Node in the head of each node of the profile, or `UNRESOLVED`.
    found: Vec<u32>,
    /// Node in the head of each sample.
    sample_nodes: Vec<u32>,
    /// Nodes of the profile still to be added, innermost first.
    missing: Vec<u32>,
}

impl StackIndex {
    /// The head's node of each sample of the profile last resolved.
    pub(super) fn sample_nodes(&self) -> &[u32] {
        &self.scratch.sample_nodes
    }

    /// Bytes allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.allocation_size() + self.locations.allocation_size()
    }

    /// Finds the node of every sample, adding new stacks below the scope's node.
    pub(super) fn resolve(&mut self, tree: &mut Tree, profile: &Profile, scope: HeadScope) {
        self.scratch.paths.clear();
        for node in &profile.nodes {
            let above = match node.parent {
                NO_PARENT => PathHash::ROOT,
                parent => self.scratch.paths[parent as usize],
            };
            self.scratch.paths.push(above.child(profile.locations[node.location as usize]));
        }
        self.scratch.found.clear();
        self.scratch.found.resize(profile.nodes.len(), UNRESOLVED);
        self.scratch.sample_nodes.clear();
        for &leaf in &profile.sample_nodes {
            let node = if leaf == NO_PARENT { scope.node } else { self.node(tree, profile, scope, leaf) };
            self.scratch.sample_nodes.push(node);
        }
    }

    /// The head's node for one of the profile: walks towards the root until a known node, then adds what is missing.
    fn node(&mut self, tree: &mut Tree, profile: &Profile, scope: HeadScope, leaf: u32) -> u32 {
        self.scratch.missing.clear();
        let mut at = leaf;
        let mut parent = loop {
            if at == NO_PARENT {
                break scope.node;
            }
            let known = self.known(tree, profile, scope, at);
            if known != UNRESOLVED {
                break known;
            }
            self.scratch.missing.push(at);
            at = profile.nodes[at as usize].parent;
        };
        while let Some(new) = self.scratch.missing.pop() {
            let id = profile.locations[profile.nodes[new as usize].location as usize];
            let location = *self.locations.entry(id).or_insert_with(|| {
                tree.locations.push(id);
                (tree.locations.len() - 1) as u32
            });
            let path = self.scratch.paths[new as usize];
            let node = tree.push_node(Node { parent, location }, path);
            let entry = IndexedNode { node, scope_index: scope.index };
            self.nodes.insert_unique(node_hash(path, scope.index), entry, |held| {
                node_hash(tree.paths[held.node as usize], held.scope_index)
            });
            self.scratch.found[new as usize] = node;
            parent = node;
        }
        parent
    }

    fn known(&mut self, tree: &Tree, profile: &Profile, scope: HeadScope, at: u32) -> u32 {
        let found = self.scratch.found[at as usize];
        if found != UNRESOLVED {
            return found;
        }
        let path = self.scratch.paths[at as usize];
        let id = profile.locations[profile.nodes[at as usize].location as usize];
        // The path is a hash: comparing the location too makes a false match need two collisions.
        let hit = self.nodes.find(node_hash(path, scope.index), |held| {
            held.scope_index == scope.index
                && tree.paths[held.node as usize] == path
                && tree.locations[tree.nodes[held.node as usize].location as usize] == id
        });
        let node = hit.map_or(UNRESOLVED, |held| held.node);
        self.scratch.found[at as usize] = node;
        node
    }
}

fn node_hash(path: PathHash, scope_index: u32) -> u64 {
    path.0 ^ u64::from(scope_index).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
