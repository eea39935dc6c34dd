//! From places to functions, still without names: a merged tree folded at the granularity asked for, and the light
//! parts of it dropped.
//!
//! ```text
//!   MergedTree ──fold──► FoldedTree ──truncate──► Truncated { survivors, one `other` per parent that lost children }
//!   (every location)     (a node per key)         (what a flame graph shows; only its names are looked up)
//! ```
//!
//! Laws: `children + self == cumulative` at every node before and after; what survives keeps its values exactly; ties
//! are ordered by path, so that the same data give the same answer however they were split. Trees carry `N` values
//! per node side by side: one for a merge, two for a diff, whose trees become the union of both sides.

use std::borrow::Cow;
use std::cmp::Reverse;

use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};

use crate::merged::{MergedTree, ROOT_LOCATION};
use crate::path_table::PathTable;

/// What makes two frames the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// Their function.
    #[default]
    Function,
    /// Their function and source line.
    Line,
    /// Their function, source line and address.
    Address,
}

/// A tree of fold keys as parallel columns: node 0 is the root, parents come before their children.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedTree<const N: usize> {
    /// Position of each node's parent; [`NO_PARENT`] for the root.
    pub parents: Vec<u32>,
    /// One of the locations folded into each node, the smallest: all have the same names at this granularity.
    pub locations: Vec<LocationId>,
    /// The path of keys from the root to each node.
    pub paths: Vec<PathHash>,
    /// Each node's own values.
    pub self_values: Vec<[i64; N]>,
    /// Each node's values with those of all nodes below it.
    pub cumulative: Vec<[i64; N]>,
}

/// What may be dropped from a flame graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truncation {
    /// Most nodes kept, the root and the `other` nodes not counted; 0 for all.
    pub max_nodes: usize,
    /// Nodes with less than this fraction of the total are dropped, between 0 and 1.
    pub min_fraction: f64,
}

impl Truncation {
    /// Drops nothing.
    pub const NONE: Self = Self { max_nodes: 0, min_fraction: 0.0 };
}

/// A tree after truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct Truncated<const N: usize> {
    /// The survivors. Below a node of `others`' parents, children + self are less than cumulative by that `other`.
    pub tree: FoldedTree<N>,
    /// What was dropped, by parent, ascending.
    pub others: Vec<Other<N>>,
}

/// Children dropped from below one node, with all below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<const N: usize> {
    /// The survivor they were dropped from.
    pub parent: u32,
    /// How many nodes.
    pub nodes: u32,
    /// The dropped children's cumulative values together.
    pub values: [i64; N],
}

/// Folds trees into one, a column of values each. `None` where a sum does not fit 64 bits.
pub fn fold<const N: usize>(trees: [&MergedTree; N], granularity: Granularity) -> Option<FoldedTree<N>> {
    let nodes = trees.iter().map(|tree| tree.len()).max().unwrap_or_default();
    let mut table = PathTable::with_capacity(nodes);
    let mut folded = FoldedTree::with_capacity(nodes);
    let mut positions = Vec::with_capacity(nodes);
    for (column, tree) in trees.iter().enumerate() {
        // All paths first: the look-ups below then do not wait for each other, and memory answers several at once.
        let paths = match granularity {
            Granularity::Function => Cow::Owned(function_paths(tree)),
            Granularity::Line | Granularity::Address => Cow::Borrowed(tree.paths.as_slice()),
        };
        positions.clear();
        positions.push(0);
        add(&mut folded.self_values[0][column], tree.self_values[0])?;
        for node in 1..tree.len() {
            let location = tree.locations[node];
            let position = table.position(paths[node]);
            if position as usize == folded.locations.len() {
                folded.push(positions[tree.parents[node] as usize], location, [0; N]);
            }
            let representative = &mut folded.locations[position as usize];
            *representative = location.min(*representative);
            add(&mut folded.self_values[position as usize][column], tree.self_values[node])?;
            positions.push(position);
        }
    }
    folded.paths = table.into_paths();
    folded.accumulate()?;
    Some(folded)
}

/// The path of function keys to each node.
fn function_paths(tree: &MergedTree) -> Vec<PathHash> {
    let mut paths = Vec::with_capacity(tree.len());
    paths.push(PathHash::ROOT);
    for (parent, location) in tree.parents.iter().zip(&tree.locations).skip(1) {
        let above: PathHash = paths[*parent as usize];
        paths.push(above.child_key(location.function_key()));
    }
    paths
}

/// Drops the lightest nodes. A node survives only with its ancestors, so it counts for no more than any of them;
/// among equals the one nearer the root goes first, then the smaller path.
pub fn truncate<const N: usize>(tree: FoldedTree<N>, truncation: Truncation) -> Truncated<N> {
    let kept = survivors(&tree, truncation);
    if kept.iter().all(|kept| *kept) {
        return Truncated { tree, others: Vec::new() };
    }
    let mut survivors = FoldedTree::with_capacity(truncation.max_nodes);
    survivors.self_values[0] = tree.self_values[0];
    survivors.paths.push(tree.paths[0]);
    survivors.cumulative.push(tree.cumulative[0]);
    // For a survivor its new position, for a dropped node that of the survivor it hangs from.
    let mut positions = vec![0; tree.len()];
    let mut lost: Vec<Other<N>> = vec![Other { parent: 0, nodes: 0, values: [0; N] }];
    for node in 1..tree.len() {
        let parent = tree.parents[node] as usize;
        let above = positions[parent];
        if kept[node] {
            let position = survivors.len() as u32;
            survivors.push(above, tree.locations[node], tree.self_values[node]);
            survivors.paths.push(tree.paths[node]);
            survivors.cumulative.push(tree.cumulative[node]);
            positions[node] = position;
            lost.push(Other { parent: position, nodes: 0, values: [0; N] });
            continue;
        }
        positions[node] = above;
        let other = &mut lost[above as usize];
        other.nodes += 1;
        if kept[parent] {
            for (sum, value) in other.values.iter_mut().zip(tree.cumulative[node]) {
                // Part of the parent's own sum: wrapping on the way is undone by the rest of it.
                *sum = sum.wrapping_add(value);
            }
        }
    }
    lost.retain(|other| other.nodes > 0);
    Truncated { tree: survivors, others: lost }
}

/// Which nodes survive. The root always does.
fn survivors<const N: usize>(tree: &FoldedTree<N>, truncation: Truncation) -> Vec<bool> {
    let least = tree.cumulative[0].map(|total| truncation.min_fraction * total.unsigned_abs() as f64);
    let mut kept = vec![true; tree.len()];
    // A node's own weight, or its lightest ancestor's: with negative values a child can outweigh its parent.
    let mut weights = vec![u64::MAX; tree.len()];
    let mut depths = vec![0_u32; tree.len()];
    for node in 1..tree.len() {
        let parent = tree.parents[node] as usize;
        let values = tree.cumulative[node];
        kept[node] = kept[parent]
            && values.iter().zip(least).any(|(value, least)| value.unsigned_abs() as f64 >= least);
        weights[node] = weights[parent].min(weight(&values));
        depths[node] = depths[parent] + 1;
    }
    let mut order: Vec<u32> = (1..tree.len() as u32).filter(|node| kept[*node as usize]).collect();
    if truncation.max_nodes > 0 && order.len() > truncation.max_nodes {
        order.select_nth_unstable_by_key(truncation.max_nodes, |node| {
            let node = *node as usize;
            (Reverse(weights[node]), depths[node], tree.paths[node])
        });
        for node in &order[truncation.max_nodes..] {
            kept[*node as usize] = false;
        }
    }
    kept
}

/// How much room a node's values ask for: the largest of them, whatever its sign.
pub(crate) fn weight<const N: usize>(values: &[i64; N]) -> u64 {
    values.iter().map(|value| value.unsigned_abs()).max().unwrap_or_default()
}

/// Adds, or says that the sum does not fit.
#[inline]
pub(crate) fn add(sum: &mut i64, value: i64) -> Option<()> {
    *sum = sum.checked_add(value)?;
    Some(())
}

impl<const N: usize> FoldedTree<N> {
    /// A root without values; whoever adds nodes fills in paths and cumulative values.
    fn with_capacity(nodes: usize) -> Self {
        let mut tree = Self {
            parents: Vec::with_capacity(nodes),
            locations: Vec::with_capacity(nodes),
            paths: Vec::new(),
            self_values: Vec::with_capacity(nodes),
            cumulative: Vec::new(),
        };
        tree.push(NO_PARENT, ROOT_LOCATION, [0; N]);
        tree
    }

    fn push(&mut self, parent: u32, location: LocationId, self_values: [i64; N]) {
        self.parents.push(parent);
        self.locations.push(location);
        self.self_values.push(self_values);
    }

    /// Sums every node's values into its ancestors.
    fn accumulate(&mut self) -> Option<()> {
        self.cumulative.clone_from(&self.self_values);
        for node in (1..self.len()).rev() {
            let values = self.cumulative[node];
            for (sum, value) in self.cumulative[self.parents[node] as usize].iter_mut().zip(values) {
                add(sum, value)?;
            }
        }
        Some(())
    }

    /// How many nodes, the root included.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
