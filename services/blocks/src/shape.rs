//! A tree without its scopes, folded at a granularity: what merges work with.
//!
//! ```text
//!   Tree      scope a ─ main ─ run:10         places of its nodes      Shape by function
//!             │             └─ run:12   ───►  0 1 2 2 0 1        ───►  root ─ main ─ run
//!             scope b ─ main
//! ```
//!
//! Finding equal paths takes a look-up per node, and a block's tree never changes: so it is done once per tree, and a
//! query only adds values up at places that are known.

use cambium_model::stacktrace::{NO_PARENT, PathHash};

use crate::path_table::PathTable;
use crate::tree::{SCOPE_LOCATION, Tree};

/// Which nodes are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FoldBy {
    /// Those whose paths have the same locations: the same stack of several scopes.
    #[default]
    Location,
    /// Those whose paths have the same functions, whatever their lines and addresses.
    Function,
}

/// Places: the root at 0, parents before their children, each path once.
#[derive(Debug)]
pub struct Shape {
    /// The place of each node of the tree.
    pub place_of_node: Vec<u32>,
    /// Place of each place's parent; [`NO_PARENT`] for the root.
    pub parents: Vec<u32>,
    /// Each place's path from the root, of locations or of functions.
    pub paths: Vec<PathHash>,
    /// Of the locations at each place the smallest, as a position in the tree's locations; [`SCOPE_LOCATION`] for the
    /// root.
    pub locations: Vec<u32>,
}

impl Shape {
    /// Bytes of a node and its place, at most.
    pub const NODE_BYTES: usize = 4 + 4 + 8 + 4;

    /// Finds the places of a tree.
    pub(crate) fn new(tree: &Tree, by: FoldBy) -> Self {
        // All paths first: the look-ups below then do not wait for each other, and memory answers several at once.
        let paths = match by {
            FoldBy::Location => None,
            FoldBy::Function => Some(function_paths(tree)),
        };
        let paths = paths.as_ref().unwrap_or(&tree.paths);
        let mut table = PathTable::with_capacity(tree.len() + 1);
        table.position(PathHash::ROOT);
        let (mut parents, mut locations) = (vec![NO_PARENT], vec![SCOPE_LOCATION]);
        let mut place_of_node: Vec<u32> = Vec::with_capacity(tree.len());
        for (node, path) in tree.nodes.iter().zip(paths) {
            let place = table.position(*path);
            if place as usize == parents.len() {
                parents.push(place_of_node[node.parent as usize]);
                locations.push(node.location);
            } else if place != 0 {
                let held = &mut locations[place as usize];
                if tree.locations[node.location as usize] < tree.locations[*held as usize] {
                    *held = node.location;
                }
            }
            place_of_node.push(place);
        }
        Self { place_of_node, parents, paths: table.into_paths(), locations }
    }

    /// How many places.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The values of the tree's nodes, summed by place; `None` where a sum does not fit 64 bits.
    pub fn sum(&self, values: &[i64]) -> Option<Vec<i64>> {
        let mut sums = vec![0_i64; self.len()];
        let mut overflowed = false;
        for (place, value) in self.place_of_node.iter().zip(values) {
            let sum = &mut sums[*place as usize];
            let (added, over) = sum.overflowing_add(*value);
            *sum = added;
            overflowed |= over;
        }
        (!overflowed).then_some(sums)
    }
}

/// The path of function keys to each node.
fn function_paths(tree: &Tree) -> Vec<PathHash> {
    let keys: Vec<u64> = tree.locations.iter().map(|location| location.function_key()).collect();
    let mut paths: Vec<PathHash> = Vec::with_capacity(tree.len());
    for node in &tree.nodes {
        paths.push(match node.parent {
            NO_PARENT => PathHash::ROOT,
            parent => paths[parent as usize].child_key(keys[node.location as usize]),
        });
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cambium_model::stacktrace::{BuildRef, LocationId, Node};

    use super::*;

    /// Two scopes: `main;run:1`, `main;run:2` in the first, `main` at another line in the second.
    fn tree() -> Tree {
        let scope = Node { parent: NO_PARENT, location: SCOPE_LOCATION };
        let node = |parent, location| Node { parent, location };
        let nodes = vec![scope, node(0, 0), node(1, 3), node(1, 2), scope, node(4, 1)];
        let locations = [(1, 8), (1, 7), (2, 1), (2, 2)];
        Tree::new(nodes, locations.map(|(function, detail)| LocationId::named(function, detail)).to_vec())
    }

    #[test]
    fn scopes_and_lines_meet() {
        let tree = tree();
        let by_function = tree.shape(FoldBy::Function);
        assert_eq!(by_function.place_of_node, [0, 1, 2, 2, 0, 1]);
        assert_eq!(by_function.parents, [NO_PARENT, 0, 1]);
        assert_eq!(by_function.locations, [SCOPE_LOCATION, 1, 2], "the smallest stands for all");
        assert_eq!(by_function.sum(&[1, 2, 3, 4, 5, 6]).unwrap(), [6, 8, 7]);
        let by_location = tree.shape(FoldBy::Location);
        assert_eq!(by_location.place_of_node, [0, 1, 2, 3, 0, 4]);
        assert_eq!(by_location.paths, [0, 1, 2, 3, 5].map(|node| tree.paths[node]));
    }

    #[test]
    fn native_addresses_never_fold() {
        let build = BuildRef::new("build", "");
        let locations = [1, 2].map(|address| LocationId::native(build, address)).to_vec();
        let scope = Node { parent: NO_PARENT, location: SCOPE_LOCATION };
        let tree = Tree::new(
            vec![scope, Node { parent: 0, location: 0 }, Node { parent: 0, location: 1 }],
            locations,
        );
        assert_eq!(tree.shape(FoldBy::Function).len(), 3);
    }

    #[test]
    fn a_shape_is_kept_until_the_tree_grows() {
        let mut tree = tree();
        let before = tree.shape(FoldBy::Location);
        assert!(Arc::ptr_eq(&before, &tree.clone().shape(FoldBy::Location)));
        let path = tree.paths[2].child(tree.locations[0]);
        tree.push_node(Node { parent: 2, location: 0 }, path);
        assert_eq!(tree.shape(FoldBy::Location).len(), before.len() + 1);
    }

    #[test]
    fn a_sum_that_does_not_fit_is_none() {
        assert_eq!(tree().shape(FoldBy::Function).sum(&[0, i64::MAX, 0, 0, 0, 1]), None);
        assert!(tree().shape(FoldBy::Location).sum(&[0, i64::MAX, 0, 0, 0, 1]).is_some());
    }
}
