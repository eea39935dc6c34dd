//! Names, last: the distinct locations of a tree are looked up in one go, and the tree is folded again by name.
//!
//! ```text
//!   Truncated ──locations──► names (batched multi-gets) ──expand──► FrameTree
//!   one node per location                                           one node per frame: inlined functions
//!                                                                   become nodes, equal names become one
//! ```
//!
//! Laws: an address without names stays an address and is counted; expansion moves no value: a node's own value
//! belongs to the innermost function inlined there, the cumulative one to all of them.

use std::sync::Arc;

use cambium_blocks::path_table::PathTable;
use cambium_metastore::Symbols;
use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};
use cambium_model::symbols::Location;
use cambium_model::tenant::Tenant;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::error::Error;
use crate::fold::{Granularity, Truncated, add};

pub mod frame;

use frame::{Frame, OTHER_NAME, ROOT_NAME, View};

/// What is known of some locations. One that is missing has no names.
pub type Names = HashMap<LocationId, Arc<Location>>;

/// A tree of frames: node 0 is the root, parents come before their children, no two children of a node are equal.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameTree<const N: usize> {
    /// What nodes refer to, each frame once; the first is the root's, the second stands for dropped nodes.
    pub frames: Vec<Frame>,
    /// The nodes.
    pub nodes: Vec<FrameNode<N>>,
    /// Locations of the tree without names.
    pub unresolved: u64,
}

/// A frame reached by one path of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameNode<const N: usize> {
    /// Position of the caller's node; [`NO_PARENT`] for the root.
    pub parent: u32,
    /// Position in the frames.
    pub frame: u32,
    /// How many nodes it stands for where it is an `other`; else 0.
    pub dropped: u32,
    /// Its own values.
    pub self_values: [i64; N],
    /// Its values with those of all nodes below it.
    pub cumulative: [i64; N],
}

/// The frame of the root node.
pub const ROOT_FRAME: u32 = 0;
/// The frame of dropped nodes.
pub const OTHER_FRAME: u32 = 1;

/// Looks the locations up, each once.
pub async fn look_up(
    symbols: &Symbols,
    tenant: &Tenant,
    locations: impl IntoIterator<Item = LocationId>,
) -> Result<Names, Error> {
    let mut distinct: Vec<LocationId> = locations.into_iter().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let resolved = symbols.resolve(tenant.number, &distinct).await?;
    Ok(distinct.into_iter().zip(resolved.locations).filter_map(|(id, found)| Some((id, found?))).collect())
}

impl<const N: usize> FrameTree<N> {
    /// Gives every node its frames and folds those that are equal in this view. `None` where a sum does not fit 64
    /// bits.
    pub fn expand(
        truncated: &Truncated<N>,
        names: &Names,
        granularity: Granularity,
        view: View,
    ) -> Option<Self> {
        let tree = &truncated.tree;
        let mut chains = Chains::new(granularity, view);
        let mut nodes = Nodes::new(tree.self_values[0], tree.len() + truncated.others.len());
        let mut innermost = Vec::with_capacity(tree.len());
        innermost.push(0);
        for node in 1..tree.len() {
            let mut position = innermost[tree.parents[node] as usize];
            for frame in chains.frames_of(tree.locations[node], names) {
                position = nodes.child(position, *frame);
            }
            nodes.add(position, &tree.self_values[node])?;
            innermost.push(position);
        }
        for other in &truncated.others {
            let position = nodes.child(innermost[other.parent as usize], OTHER_FRAME);
            nodes.add(position, &other.values)?;
            nodes.list[position as usize].dropped += other.nodes;
        }
        nodes.accumulate()?;
        Some(Self { frames: chains.frames, nodes: nodes.list, unresolved: chains.unresolved })
    }

    /// All values together.
    pub fn total(&self) -> [i64; N] {
        self.nodes[0].cumulative
    }

    /// The frame of a node.
    pub fn frame(&self, node: &FrameNode<N>) -> &Frame {
        &self.frames[node.frame as usize]
    }
}

/// The frames of each location, outermost first, made once.
struct Chains {
    granularity: Granularity,
    view: View,
    frames: Vec<Frame>,
    positions: HashMap<Frame, u32>,
    /// All chains, one after the other.
    listed: Vec<u32>,
    /// Where each location's chain lies in `listed`.
    spans: HashMap<LocationId, (u32, u32)>,
    unresolved: u64,
}

impl Chains {
    fn new(granularity: Granularity, view: View) -> Self {
        Self {
            granularity,
            view,
            // Neither is in `positions`: a function of that name is another frame.
            frames: vec![Frame::synthetic(ROOT_NAME), Frame::synthetic(OTHER_NAME)],
            positions: HashMap::new(),
            listed: Vec::new(),
            spans: HashMap::new(),
            unresolved: 0,
        }
    }

    fn frames_of(&mut self, id: LocationId, names: &Names) -> &[u32] {
        let (start, end) = match self.spans.get(&id) {
            Some(span) => *span,
            None => {
                let start = self.listed.len() as u32;
                match names.get(&id) {
                    Some(location) => self.list(location),
                    None => {
                        let address = id.as_native().map(|(_, address)| address).unwrap_or_default();
                        self.list(&Location { address, ..Location::default() });
                    }
                }
                let span = (start, self.listed.len() as u32);
                self.spans.insert(id, span);
                span
            }
        };
        &self.listed[start as usize..end as usize]
    }

    fn list(&mut self, location: &Location) {
        if location.lines.is_empty() {
            self.unresolved += 1;
            self.list_frame(Frame::new(location, None, self.granularity, self.view));
        }
        for line in location.lines.iter().rev() {
            self.list_frame(Frame::new(location, Some(line), self.granularity, self.view));
        }
    }

    fn list_frame(&mut self, frame: Frame) {
        let position = match self.positions.entry(frame) {
            Entry::Occupied(occupied) => *occupied.get(),
            Entry::Vacant(vacant) => {
                let position = self.frames.len() as u32;
                self.frames.push(vacant.key().clone());
                *vacant.insert(position)
            }
        };
        self.listed.push(position);
    }
}

/// A tree of frames while it grows.
struct Nodes<const N: usize> {
    list: Vec<FrameNode<N>>,
    /// Paths of frames, by node.
    table: PathTable,
}

impl<const N: usize> Nodes<N> {
    fn new(root_values: [i64; N], nodes: usize) -> Self {
        let root = FrameNode {
            parent: NO_PARENT,
            frame: ROOT_FRAME,
            dropped: 0,
            self_values: root_values,
            cumulative: [0; N],
        };
        let mut list = Vec::with_capacity(nodes);
        list.push(root);
        let mut table = PathTable::with_capacity(nodes);
        table.position(PathHash::ROOT);
        Self { list, table }
    }

    fn child(&mut self, parent: u32, frame: u32) -> u32 {
        let position = self.table.position(self.table.path(parent).child_key(u64::from(frame)));
        if position as usize == self.list.len() {
            let values = [0; N];
            self.list.push(FrameNode { parent, frame, dropped: 0, self_values: values, cumulative: values });
        }
        position
    }

    fn add(&mut self, node: u32, values: &[i64; N]) -> Option<()> {
        self.list[node as usize]
            .self_values
            .iter_mut()
            .zip(values)
            .try_for_each(|(sum, value)| add(sum, *value))
    }

    fn accumulate(&mut self) -> Option<()> {
        for node in &mut self.list {
            node.cumulative = node.self_values;
        }
        for node in (1..self.list.len()).rev() {
            let FrameNode { parent, cumulative, .. } = self.list[node];
            for (sum, value) in self.list[parent as usize].cumulative.iter_mut().zip(cumulative) {
                add(sum, value)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
