//! Trees of stack traces and sums on them.

use std::sync::{Arc, OnceLock};

use cambium_model::stacktrace::{LocationId, NO_PARENT, Node, PathHash};

use crate::shape::{FoldBy, Shape};

/// The location of a scope node, which is no place in code.
pub const SCOPE_LOCATION: u32 = u32::MAX;

/// The stack traces of a dataset, parents before children. A node without a parent is a *scope node*: one per scope,
/// with [`SCOPE_LOCATION`]; a sample without a stack points to it. Below it lies the outermost frame.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Parent (or [`NO_PARENT`]) and location of each node.
    pub nodes: Vec<Node>,
    /// The path from the root to each node; scopes are not part of it, so that equal stacks of two services meet.
    pub paths: Vec<PathHash>,
    /// What `nodes` refer to.
    pub locations: Vec<LocationId>,
    shapes: Shapes,
}

/// What has been asked of a tree as it is.
#[derive(Clone, Debug, Default)]
struct Shapes {
    by_location: OnceLock<Arc<Shape>>,
    by_function: OnceLock<Arc<Shape>>,
}

impl Tree {
    /// A tree from nodes and locations; computes the paths. Every parent must come before its children.
    pub fn new(nodes: Vec<Node>, locations: Vec<LocationId>) -> Self {
        let mut paths = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let path = if node.parent == NO_PARENT {
                PathHash::ROOT
            } else {
                let above: PathHash = paths[node.parent as usize];
                above.child(locations[node.location as usize])
            };
            paths.push(path);
        }
        Self { nodes, paths, locations, shapes: Shapes::default() }
    }

    /// Adds a scope node and returns its position.
    pub fn push_scope(&mut self) -> u32 {
        self.push_node(Node { parent: NO_PARENT, location: SCOPE_LOCATION }, PathHash::ROOT)
    }

    /// Adds a node whose path the caller has computed, and returns its position.
    pub fn push_node(&mut self, node: Node, path: PathHash) -> u32 {
        self.nodes.push(node);
        self.paths.push(path);
        self.shapes = Shapes::default();
        (self.nodes.len() - 1) as u32
    }

    /// The tree folded; made at the first call and kept until a node is added.
    pub fn shape(&self, by: FoldBy) -> Arc<Shape> {
        let kept = match by {
            FoldBy::Location => &self.shapes.by_location,
            FoldBy::Function => &self.shapes.by_function,
        };
        Arc::clone(kept.get_or_init(|| Arc::new(Shape::new(self, by))))
    }

    /// How many nodes, scope nodes included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// What one source contributes to a merge: its tree and, for each node, the sum of the samples that end there.
#[derive(Clone, Debug)]
pub struct PartialTree {
    /// Shared with every other scan of the same source, where it is the whole.
    pub tree: Arc<Tree>,
    /// One value per node of `tree`, scaled by [`MEAN_SCALE`] where the scan asked for means.
    pub self_values: Vec<i64>,
}

/// Fixed point of means: they are summed over sources as multiples of 1/4096 and rounded once, at the root, so that
/// a thousandth of a goroutine in each of a hundred blocks is not lost.
pub const MEAN_SCALE: i64 = 4_096;
