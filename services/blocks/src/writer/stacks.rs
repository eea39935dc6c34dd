//! Stack ids, nodes and locations of a block: only those that samples reach.
//!
//! ```text
//!   scope node 0          nodes in depth-first order, children by location id, scope after scope
//!   ├─ 1 ── 2 ── 3        stack ids: a scope's are contiguous; within it the one with the most samples is first
//!   └─ 4                  locations in order of first use
//!   scope node 5 …
//! ```
//!
//! Rank by number of samples, not by value: a profile's stacks are stored as differences of sorted ids, and those are
//! small where the stacks that most profiles share stand together.

use std::ops::Range;

use cambium_model::block::SectionKind;
use cambium_model::stacktrace::{LocationId, NO_PARENT};
use parquet::errors::Result;

use super::order::{Order, ProfileRef};
use super::section::{Column, Section, SectionWriter, Shape, Values, ids, zstd};
use super::spool::Scratch;
use crate::Dataset;
use crate::tree::Tree;

const NONE: u32 = u32::MAX;

/// The block's stacks.
#[derive(Debug)]
pub(crate) struct Stacks {
    /// For each node of the tree the stack that ends there.
    stack_of_node: Vec<u32>,
    /// For each stack its node in the block.
    node_of_stack: Vec<i32>,
    /// For each scope of the block its stacks.
    pub(super) of_scope: Vec<Range<u32>>,
    /// For each node its distance to its parent, 0 for a scope node.
    parent_deltas: Vec<i32>,
    /// For each node its location, 0 for a scope node.
    node_locations: Vec<i32>,
    locations: Vec<LocationId>,
}

impl Stacks {
    /// The stacks of a tree: `counts` says how many samples end at each node, `scope_nodes` the scope node of each scope
    /// of the block, none where it has no samples.
    pub(crate) fn new(tree: &Tree, counts: &[u32], scope_nodes: &[Option<u32>]) -> Self {
        let children = Children::new(tree, counts);
        let mut stacks = Self {
            stack_of_node: vec![NONE; counts.len()],
            node_of_stack: Vec::new(),
            of_scope: Vec::new(),
            parent_deltas: Vec::new(),
            node_locations: Vec::new(),
            locations: Vec::new(),
        };
        let mut new_location = vec![NONE; tree.locations.len()];
        for scope_node in scope_nodes {
            let first = stacks.node_of_stack.len() as u32;
            if let Some(scope_node) = scope_node {
                let mut ends = stacks.number_nodes(tree, &children, *scope_node, &mut new_location);
                ends.retain(|(old, _)| counts[*old as usize] > 0);
                ends.sort_by_key(|(old, new)| (std::cmp::Reverse(counts[*old as usize]), *new));
                for (old, new) in ends {
                    stacks.stack_of_node[old as usize] = stacks.node_of_stack.len() as u32;
                    stacks.node_of_stack.push(new as i32);
                }
            }
            stacks.of_scope.push(first..stacks.node_of_stack.len() as u32);
        }
        stacks
    }

    /// The stack of a node that a sample points to.
    #[inline]
    pub(crate) fn stack(&self, node: u32) -> u32 {
        self.stack_of_node[node as usize]
    }

    /// Numbers a scope's nodes depth first and returns (old node, new node) of each.
    fn number_nodes(
        &mut self,
        tree: &Tree,
        children: &Children,
        scope_node: u32,
        new_location: &mut [u32],
    ) -> Vec<(u32, u32)> {
        let mut numbered = Vec::new();
        let mut open = vec![(scope_node, NONE)];
        while let Some((old, parent)) = open.pop() {
            let new = self.parent_deltas.len() as u32;
            numbered.push((old, new));
            if parent == NONE {
                self.parent_deltas.push(0);
                self.node_locations.push(0);
            } else {
                let location = tree.nodes[old as usize].location as usize;
                if new_location[location] == NONE {
                    new_location[location] = self.locations.len() as u32;
                    self.locations.push(tree.locations[location]);
                }
                self.parent_deltas.push((new - parent) as i32);
                self.node_locations.push(new_location[location] as i32);
            }
            // Last in, first out: the first child must be pushed last.
            open.extend(children.of(old).iter().rev().map(|child| (*child, new)));
        }
        numbered
    }

    /// The sections `stacks`, `nodes` and `locations`.
    pub(super) fn encode(&self, scratch: &Scratch) -> Result<[Section; 3]> {
        let column = |name: &str, shape| Column::new(name, shape, zstd(3));
        let mut stacks = SectionWriter::new(SectionKind::Stacks, &[column("node", Shape::Delta32)], scratch)?;
        stacks.write(self.node_of_stack.len(), &[Values::U32(&self.node_of_stack)])?;
        let columns = [column("parent_delta", Shape::Delta32), column("location", Shape::Delta32)];
        let mut nodes = SectionWriter::new(SectionKind::Nodes, &columns, scratch)?;
        nodes.write(
            self.parent_deltas.len(),
            &[Values::U32(&self.parent_deltas), Values::U32(&self.node_locations)],
        )?;
        let mut locations = SectionWriter::new(SectionKind::Locations, &[column("id", Shape::Id)], scratch)?;
        locations.write(self.locations.len(), &[Values::Id(&ids(self.locations.iter().map(|id| &id.0)))])?;
        Ok([stacks.finish()?, nodes.finish()?, locations.finish()?])
    }
}

/// How many samples end at each node.
pub(super) fn sample_counts(dataset: &Dataset) -> Vec<u32> {
    let mut counts = vec![0u32; dataset.tree.len()];
    for chunk in &dataset.chunks {
        for stack in &chunk.stacks {
            counts[*stack as usize] += 1;
        }
    }
    counts
}

/// The scope node of each scope of the block; none where none of its profiles has samples.
pub(super) fn scope_nodes(dataset: &Dataset, order: &Order, profiles: &[ProfileRef]) -> Vec<Option<u32>> {
    let nodes = &dataset.tree.nodes;
    let mut found = vec![None; order.scopes.len()];
    for profile in profiles {
        let scope = order.series[profile.series as usize].scope_index as usize;
        let (chunk, row) = profile.of(dataset);
        if found[scope].is_some() || row.samples == 0 {
            continue;
        }
        let mut node = chunk.stacks[row.first_sample as usize];
        while nodes[node as usize].parent != NO_PARENT {
            node = nodes[node as usize].parent;
        }
        debug_assert!(!found.contains(&Some(node)), "two scopes share a scope node");
        found[scope] = Some(node);
    }
    found
}

/// The children of each node on the way to a sample, sorted by location id.
struct Children {
    /// Node `n` has those from `starts[n]` to `starts[n + 1]`.
    starts: Vec<u32>,
    nodes: Vec<u32>,
}

impl Children {
    fn new(tree: &Tree, counts: &[u32]) -> Self {
        let mut reached: Vec<bool> = counts.iter().map(|count| *count > 0).collect();
        let mut starts = vec![0u32; tree.len() + 1];
        // Children come after their parents, so backwards every node is complete when it is met.
        for (node, parent) in tree.nodes.iter().map(|node| node.parent).enumerate().rev() {
            if reached[node] && parent != NO_PARENT {
                reached[parent as usize] = true;
                starts[parent as usize + 1] += 1;
            }
        }
        for node in 0..tree.len() {
            starts[node + 1] += starts[node];
        }
        let mut next = starts.clone();
        let mut nodes = vec![0u32; starts[tree.len()] as usize];
        for (node, parent) in tree.nodes.iter().map(|node| node.parent).enumerate() {
            if reached[node] && parent != NO_PARENT {
                nodes[next[parent as usize] as usize] = node as u32;
                next[parent as usize] += 1;
            }
        }
        let mut children = Self { starts, nodes };
        for node in 0..tree.len() {
            let range = children.range(node as u32);
            if range.len() > 1 {
                children.nodes[range].sort_unstable_by_key(|child| {
                    tree.locations[tree.nodes[*child as usize].location as usize]
                });
            }
        }
        children
    }

    fn range(&self, node: u32) -> Range<usize> {
        self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize
    }

    fn of(&self, node: u32) -> &[u32] {
        &self.nodes[self.range(node)]
    }
}
