//! Finds the node of a stack trace: one look-up by path hash per sample, and a walk only for new stacks.

use cambium_blocks::tree::Tree;
use cambium_model::profile::Profile;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node, PathHash};
use hashbrown::HashMap;

use super::node_table::{NO_NODE, NodeTable};
use super::series::HeadScope;

/// Not looked up yet.
const UNRESOLVED: u32 = u32::MAX;

/// Nodes by scope and path, locations by id.
#[derive(Debug, Default)]
pub(super) struct StackIndex {
    nodes: NodeTable,
    locations: HashMap<LocationId, u32>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    /// Path of each node of the profile.
    paths: Vec<PathHash>,
    /// Node in the head of each sample.
    sample_nodes: Vec<u32>,
    /// Nodes of the profile still to be added, innermost first.
    missing: Vec<u32>,
    /// Position in the head of each location of the profile, or `UNRESOLVED`.
    locations: Vec<u32>,
}

/// A profile on its way in, and the scope it belongs to.
#[derive(Clone, Copy)]
struct Incoming<'a> {
    profile: &'a Profile,
    scope: HeadScope,
}

impl Incoming<'_> {
    fn parent(self, node: u32) -> u32 {
        self.profile.nodes[node as usize].parent
    }

    fn location(self, node: u32) -> LocationId {
        self.profile.locations[self.profile.nodes[node as usize].location as usize]
    }
}

impl StackIndex {
    /// The head's node of each sample of the profile last resolved.
    pub(super) fn sample_nodes(&self) -> &[u32] {
        &self.scratch.sample_nodes
    }

    /// Bytes allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes() + self.locations.allocation_size()
    }

    /// Finds the node of every sample, adding new stacks below the scope's node.
    ///
    /// Nearly all stacks are known, and finding them is waiting for memory. So each loop reads one table, and no
    /// iteration waits for another's.
    pub(super) fn resolve(&mut self, tree: &mut Tree, profile: &Profile, scope: HeadScope) {
        let Scratch { paths, sample_nodes, locations, .. } = &mut self.scratch;
        locations.clear();
        locations.resize(profile.locations.len(), UNRESOLVED);
        paths.clear();
        for node in &profile.nodes {
            let above = match node.parent {
                NO_PARENT => PathHash::ROOT,
                parent => paths[parent as usize],
            };
            paths.push(above.child(profile.locations[node.location as usize]));
        }
        sample_nodes.clear();
        sample_nodes.extend(profile.sample_nodes.iter().map(|&leaf| match leaf {
            NO_PARENT => scope.node,
            leaf => self.nodes.probable(paths[leaf as usize], scope.index),
        }));
        let incoming = Incoming { profile, scope };
        for (sample, &leaf) in profile.sample_nodes.iter().enumerate() {
            let probable = self.scratch.sample_nodes[sample];
            let known = leaf == NO_PARENT
                || (probable != NO_NODE
                    && is_node(tree, probable, self.scratch.paths[leaf as usize], incoming.location(leaf)));
            if !known {
                self.scratch.sample_nodes[sample] = self.node(tree, incoming, leaf);
            }
        }
    }

    /// The head's node for one of the profile: walks towards the root until a known node, then adds what is missing.
    fn node(&mut self, tree: &mut Tree, incoming: Incoming<'_>, leaf: u32) -> u32 {
        let scope = incoming.scope;
        self.scratch.missing.clear();
        let mut at = leaf;
        let mut parent = loop {
            if at == NO_PARENT {
                break scope.node;
            }
            let (path, location) = (self.scratch.paths[at as usize], incoming.location(at));
            let known = self.nodes.find(path, scope.index, |held| is_node(tree, held, path, location));
            if known != NO_NODE {
                break known;
            }
            self.scratch.missing.push(at);
            at = incoming.parent(at);
        };
        while let Some(new) = self.scratch.missing.pop() {
            let location = self.location(tree, incoming, new);
            let path = self.scratch.paths[new as usize];
            parent = tree.push_node(Node { parent, location }, path);
            self.nodes.insert(path, scope.index, parent, &tree.paths);
        }
        parent
    }

    /// The head's position of a node's location, which is added where it is new.
    fn location(&mut self, tree: &mut Tree, incoming: Incoming<'_>, node: u32) -> u32 {
        let location = &mut self.scratch.locations[incoming.profile.nodes[node as usize].location as usize];
        if *location == UNRESOLVED {
            let id = incoming.location(node);
            *location = *self.locations.entry(id).or_insert_with(|| {
                tree.locations.push(id);
                (tree.locations.len() - 1) as u32
            });
        }
        *location
    }
}

/// Whether a node has this path. The path is a hash: comparing the location too makes a false match need two collisions.
#[inline]
fn is_node(tree: &Tree, node: u32, path: PathHash, location: LocationId) -> bool {
    tree.paths[node as usize] == path
        && tree.locations[tree.nodes[node as usize].location as usize] == location
}
