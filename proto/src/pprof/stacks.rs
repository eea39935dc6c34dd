//! Stacks folded into one tree, and equal samples into one row.

use std::hash::{BuildHasher, RandomState};

use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::error::{Bound, Error, Place};

/// Nodes of the tree. Deeper and wider profiles would take gigabytes; real ones stay below a million.
const NODES_MAX: usize = 8 << 20;

/// In place of a location's position, before it is first seen in a stack.
const UNSEEN: u32 = u32::MAX;

/// In place of a first child.
const CHILDLESS: u32 = u32::MAX;

/// The tree and the samples of one profile.
#[derive(Debug)]
pub(super) struct Stacks {
    /// The row of each location that some stack has, in order of appearance.
    pub(super) rows: Vec<u32>,
    /// By row, the position in `rows` of the location with the same id.
    positions: Vec<u32>,
    by_id: HashTable<u32>,
    pub(super) nodes: Vec<Node>,
    /// The first child of each node, or [`CHILDLESS`]. Most nodes have one child, and below a new node all are new: only
    /// further children need a look-up.
    first_children: Vec<u32>,
    /// Outermost frames and all children but the first.
    by_edge: HashTable<u32>,
    /// Rows and nodes of the last stack, outermost first: the next one often begins alike.
    path: Vec<(u32, u32)>,
    pub(super) sample_nodes: Vec<u32>,
    pub(super) sample_label_sets: Vec<u32>,
    /// By sample, then by type.
    values: Vec<i64>,
    by_stack: HashTable<u32>,
    /// Makes collisions unpredictable; the result does not depend on it.
    seed: u64,
}

impl Default for Stacks {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            positions: Vec::new(),
            by_id: HashTable::new(),
            nodes: Vec::new(),
            first_children: Vec::new(),
            by_edge: HashTable::new(),
            path: Vec::new(),
            sample_nodes: Vec::new(),
            sample_label_sets: Vec::new(),
            values: Vec::new(),
            by_stack: HashTable::new(),
            seed: RandomState::new().hash_one(0),
        }
    }
}

impl Stacks {
    /// Forgets the profile before. The next has as many locations as this.
    pub(super) fn clear(&mut self, locations: usize) {
        let kept = super::decode::KEPT_ROWS_MAX;
        for column in [
            &mut self.rows,
            &mut self.positions,
            &mut self.first_children,
            &mut self.sample_nodes,
            &mut self.sample_label_sets,
        ] {
            column.clear();
            column.shrink_to(kept);
        }
        for table in [&mut self.by_id, &mut self.by_edge, &mut self.by_stack] {
            table.clear();
            table.shrink_to(kept, |_| 0);
        }
        self.path.clear();
        self.nodes.clear();
        self.nodes.shrink_to(kept);
        self.values.clear();
        self.values.shrink_to(kept);
        self.positions.resize(locations, UNSEEN);
    }

    /// The node of a stack, given as rows of locations, the innermost first.
    #[inline]
    pub(super) fn node(&mut self, stack: &[u32], ids: &[LocationId]) -> Result<u32, Error> {
        let shared =
            stack.iter().rev().zip(&self.path).take_while(|(row, (before, _))| *row == before).count();
        self.path.truncate(shared);
        let mut node = self.path.last().map_or(NO_PARENT, |&(_, node)| node);
        for &row in stack.iter().rev().skip(shared) {
            let position = match self.positions[row as usize] {
                UNSEEN => self.see(row, ids),
                seen => seen,
            };
            node = self.child(node, position)?;
            self.path.push((row, node));
        }
        Ok(node)
    }

    /// Adds a sample, to an equal one where there is one.
    #[inline]
    pub(super) fn add(
        &mut self,
        node: u32,
        label_set: u32,
        values: &[i64],
        sample: usize,
    ) -> Result<(), Error> {
        let Self { sample_nodes: nodes, sample_label_sets: sets, seed, .. } = self;
        let hash = |node, set| mix(pair(node, set), *seed);
        let entry = self.by_stack.entry(
            hash(node, label_set),
            |&other| nodes[other as usize] == node && sets[other as usize] == label_set,
            |&other| hash(nodes[other as usize], sets[other as usize]),
        );
        match entry {
            Entry::Occupied(other) => {
                let first = *other.get() as usize * values.len();
                let sums = &mut self.values[first..first + values.len()];
                for (at, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                    let Some(total) = sum.checked_add(*value) else {
                        return Err(Error::Overflow { sample, value: at });
                    };
                    *sum = total;
                }
            }
            Entry::Vacant(slot) => {
                slot.insert(nodes.len() as u32);
                nodes.push(node);
                sets.push(label_set);
                self.values.extend_from_slice(values);
            }
        }
        Ok(())
    }

    /// The values by type, then by sample. The sum over each type's fits 64 bits: it is the profile's value.
    pub(super) fn columns(&self, types: usize) -> Result<Vec<i64>, Error> {
        let column = |ty| self.values.iter().skip(ty).step_by(types).copied();
        let mut columns = Vec::with_capacity(self.values.len());
        for ty in 0..types {
            let total = column(ty).try_fold(0_i64, i64::checked_add);
            total.ok_or(Error::TotalOverflow { value: ty })?;
            columns.extend(column(ty));
        }
        Ok(columns)
    }

    /// The position of a location that appears for the first time under this row; another row may have its id.
    #[cold]
    fn see(&mut self, row: u32, ids: &[LocationId]) -> u32 {
        let Self { rows, seed, .. } = self;
        let id = |row: u32| ids[row as usize];
        let hash = |id: LocationId| mix(id.low() ^ id.high().rotate_left(32), *seed);
        let entry = self.by_id.entry(
            hash(id(row)),
            |&other| id(rows[other as usize]) == id(row),
            |&other| hash(id(rows[other as usize])),
        );
        let position = *entry.or_insert(rows.len() as u32).get();
        if position as usize == rows.len() {
            rows.push(row);
        }
        self.positions[row as usize] = position;
        position
    }

    #[inline]
    fn child(&mut self, parent: u32, location: u32) -> Result<u32, Error> {
        if let Some(first) = self.first_children.get_mut(parent as usize) {
            if *first == CHILDLESS {
                *first = self.nodes.len() as u32;
                return self.push(parent, location);
            }
            if self.nodes[*first as usize].location == location {
                return Ok(*first);
            }
        }
        self.further_child(parent, location)
    }

    fn further_child(&mut self, parent: u32, location: u32) -> Result<u32, Error> {
        let Self { nodes, by_edge, seed, .. } = self;
        let entry = by_edge.entry(
            mix(pair(parent, location), *seed),
            |&other| nodes[other as usize] == Node { parent, location },
            |&other| mix(pair(nodes[other as usize].parent, nodes[other as usize].location), *seed),
        );
        match entry {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(slot) => {
                slot.insert(nodes.len() as u32);
                self.push(parent, location)
            }
        }
    }

    /// Adds a node, for whose position its parent or the index has a place already.
    #[inline]
    fn push(&mut self, parent: u32, location: u32) -> Result<u32, Error> {
        let node = self.nodes.len();
        if node == NODES_MAX {
            let (place, max) = (Place::Field("sample"), NODES_MAX);
            return Err(Error::Limit { place, count: max + 1, max, bound: Bound::Nodes });
        }
        self.nodes.push(Node { parent, location });
        self.first_children.push(CHILDLESS);
        Ok(node as u32)
    }
}

#[inline(always)]
fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A multiplication to 128 bits, folded.
#[inline(always)]
fn mix(key: u64, seed: u64) -> u64 {
    let product = u128::from(key ^ seed) * 0x9E37_79B9_7F4A_7C15;
    (product as u64) ^ ((product >> 64) as u64)
}
