//! From merged trees to what is shown, still without names: one side or two of a diff in one tree, and the light parts of
//! it dropped. Merges have folded by the granularity asked for already.
//!
//! ```text
//!   MergedTree ──unite──► FoldedTree ──truncate──► Truncated { survivors, one `other` per parent that lost children }
//!   (a node per key)      (cumulative, N sides)    (what a flame graph shows; only its names are looked up)
//! ```
//!
//! Laws: `children + self == cumulative` at every node before and after; what survives keeps its values exactly; ties
//! are ordered by path, so that the same data give the same answer however they were split. Trees carry `N` values
//! per node side by side: one for a merge, two for a diff, whose trees become the union of both sides.

use std::cmp::{Ordering, Reverse};

use cambium_blocks::path_table::PathTable;
use cambium_blocks::shape::FoldBy;
use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};

use crate::merged::{MergedTree, ROOT_LOCATION};

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

impl Granularity {
    /// What a merge must fold by for a view at this granularity.
    pub fn fold_by(self) -> FoldBy {
        match self {
            Self::Function => FoldBy::Function,
            // Lines and addresses are told apart by name, after the look-up.
            Self::Line | Self::Address => FoldBy::Location,
        }
    }
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

/// Trees of one granularity as one tree, a column of values each. `None` where a sum does not fit 64 bits.
pub fn unite<const N: usize>(trees: [MergedTree; N]) -> Option<FoldedTree<N>> {
    let mut trees = trees.into_iter().enumerate();
    let Some((_, first)) = trees.next() else { return Some(FoldedTree::with_capacity(0)) };
    let mut united = FoldedTree::of_first(first);
    let mut table: Option<PathTable> = None;
    for (column, tree) in trees {
        let table = table.get_or_insert_with(|| {
            let mut table = PathTable::with_capacity(united.len() + tree.len());
            united.paths.iter().for_each(|path| _ = table.position(*path));
            table
        });
        united.add(column, &tree, table);
    }
    united.accumulate()?;
    Some(united)
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
    for node in 1..tree.len() {
        let parent = tree.parents[node] as usize;
        let values = tree.cumulative[node];
        weights[node] = weights[parent].min(weight(&values));
        kept[node] = kept[parent]
            && values.iter().zip(least).any(|(value, least)| value.unsigned_abs() as f64 >= least);
    }
    if truncation.max_nodes > 0 {
        keep_heaviest(tree, truncation.max_nodes, &weights, &mut kept);
    }
    kept
}

/// Keeps the root and the `max_nodes` heaviest of the nodes kept so far.
fn keep_heaviest<const N: usize>(tree: &FoldedTree<N>, max_nodes: usize, weights: &[u64], kept: &mut [bool]) {
    // Counting weights by magnitude finds the class that the last survivor is in; only that class must be sorted.
    let mut counts = vec![0_usize; magnitude(u64::MAX) + 1];
    (1..kept.len()).filter(|node| kept[*node]).for_each(|node| counts[magnitude(weights[node])] += 1);
    let mut room = max_nodes;
    let mut fits = |count: &usize| match room.checked_sub(*count) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let whole = counts.iter().rev().take_while(|count| fits(count)).count();
    let Some(last) = (counts.len() - whole).checked_sub(1) else { return };
    let mut of_last = Vec::with_capacity(counts[last]);
    for node in 1..kept.len() {
        match magnitude(weights[node]).cmp(&last) {
            Ordering::Equal if kept[node] => {
                of_last.push((Reverse(weights[node]), tree.depth(node), tree.paths[node], node));
            }
            Ordering::Equal | Ordering::Greater => {}
            Ordering::Less => kept[node] = false,
        }
    }
    if room < of_last.len() {
        of_last.select_nth_unstable(room);
        of_last[room..].iter().for_each(|(.., node)| kept[*node] = false);
    }
}

/// A class of weights, greater for greater ones: the position of the highest bit and the five below it.
fn magnitude(weight: u64) -> usize {
    let shift = (u64::BITS - weight.leading_zeros()).saturating_sub(6);
    shift as usize * 32 + (weight >> shift) as usize
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
    /// A tree whose values are the first of `N`.
    fn of_first(tree: MergedTree) -> Self {
        let first = |value| std::array::from_fn(|column| if column == 0 { value } else { 0 });
        Self {
            self_values: tree.self_values.into_iter().map(first).collect(),
            parents: tree.parents,
            locations: tree.locations,
            paths: tree.paths,
            cumulative: Vec::new(),
        }
    }

    /// Fills a column that is still empty; nodes that are not there yet are added.
    fn add(&mut self, column: usize, tree: &MergedTree, table: &mut PathTable) {
        // All look-ups first: they do not wait for each other, and memory answers several at once.
        let positions: Vec<u32> = tree.paths.iter().map(|path| table.position(*path)).collect();
        for (node, position) in positions.iter().map(|position| *position as usize).enumerate() {
            if position == self.len() {
                self.push(positions[tree.parents[node] as usize], tree.locations[node], [0; N]);
                self.paths.push(tree.paths[node]);
            }
            let representative = &mut self.locations[position];
            *representative = tree.locations[node].min(*representative);
            self.self_values[position][column] = tree.self_values[node];
        }
    }

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

    /// How far a node is from the root.
    fn depth(&self, node: usize) -> usize {
        let parent = |node: &usize| self.parents.get(*node).map(|parent| *parent as usize);
        // The root's parent is no node.
        std::iter::successors(Some(node), parent).count() - 2
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
pub(crate) mod testing;

#[cfg(test)]
mod tests;
