//! From a tree of frames to what people and tools read. Every render is a pure function from a tree to bytes.
//!
//! | render | shape | equal frames |
//! |---|---|---|
//! | [`flamegraph`], [`arrow`] | a node per path of frames | of one file |
//! | [`speedscope`] | a sample per path | of one file |
//! | [`top`], [`dot`] | a row or box per frame, recursion counted once | as in Go's pprof |
//! | [`tree`], [`folded`] | text, a line per path | as in Go's pprof |
//! | [`pprof`] | every location and sample label, unfolded | never |
//! | [`series`] | points over time, lists of labels | – |

use std::cmp::Ordering;

use crate::fold::weight;
use crate::resolve::FrameTree;

pub mod arrow;
pub mod dot;
pub mod flamegraph;
pub mod folded;
mod json;
pub mod pprof;
pub mod series;
pub mod speedscope;
pub mod sql;
pub mod top;
pub mod tree;

/// A node in the order in which graphs are written: a caller, then everything below it, then its next sibling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visit {
    /// Position of the node in the tree.
    node: u32,
    /// How many frames lie between it and the root; 0 for the root, 1 for its children.
    depth: u32,
    /// Where in this order its parent is; 0 for the root itself.
    parent: u32,
}

/// All nodes depth first, siblings by cumulative value, the largest first, then by name, file, line and address.
fn depth_first<const N: usize>(tree: &FrameTree<N>) -> Vec<Visit> {
    let (starts, mut children) = children_by_parent(tree);
    let range = |node: u32| starts[node as usize] as usize..starts[node as usize + 1] as usize;
    for node in 0..tree.nodes.len() as u32 {
        children[range(node)].sort_unstable_by(|a, b| compare(tree, *a, *b));
    }
    let mut order = Vec::with_capacity(tree.nodes.len());
    let mut pending = vec![Visit { node: 0, depth: 0, parent: 0 }];
    while let Some(visit) = pending.pop() {
        let parent = order.len() as u32;
        order.push(visit);
        let below = children[range(visit.node)].iter().rev();
        pending.extend(below.map(|child| Visit { node: *child, depth: visit.depth + 1, parent }));
    }
    order
}

/// The children of every node, one list after the other, and where each list starts.
fn children_by_parent<const N: usize>(tree: &FrameTree<N>) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; tree.nodes.len() + 1];
    for node in &tree.nodes[1..] {
        starts[node.parent as usize + 1] += 1;
    }
    for node in 1..starts.len() {
        starts[node] += starts[node - 1];
    }
    let mut children = vec![0_u32; tree.nodes.len() - 1];
    let mut next = starts.clone();
    for (position, node) in tree.nodes.iter().enumerate().skip(1) {
        let slot = &mut next[node.parent as usize];
        children[*slot as usize] = position as u32;
        *slot += 1;
    }
    (starts, children)
}

fn compare<const N: usize>(tree: &FrameTree<N>, a: u32, b: u32) -> Ordering {
    let (a, b) = (&tree.nodes[a as usize], &tree.nodes[b as usize]);
    let heavier = weight(&b.cumulative).cmp(&weight(&a.cumulative));
    heavier.then_with(|| tree.frame(a).cmp(tree.frame(b))).then_with(|| a.frame.cmp(&b.frame))
}

#[cfg(test)]
mod tests;
