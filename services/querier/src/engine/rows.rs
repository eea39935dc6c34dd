//! Trees as rows: what leaves of a plan emit and merges pass on.
//!
//! A row is a node with a value at or below it. A batch keeps parents before their children; scope nodes and the root
//! have the path [`PathHash::ROOT`]. Everything a merge needs is in the row, so that rows survive any shuffle.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, PrimitiveArray, RecordBatch, UInt32Array,
    UInt64Array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type,
};
use cambium_blocks::tree::PartialTree;
use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};
use hashbrown::HashMap;

use crate::merged::ROOT_LOCATION;

const LOCATION_BYTES: usize = 16;

/// Bytes of one row, in memory.
pub(crate) const ROW_BYTES: usize = 4 + 8 + 8 + LOCATION_BYTES + 8;

/// Columns of every batch of rows, in the order of [`RowColumns`].
pub(crate) static ROW_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("group", DataType::UInt32, false),
        Field::new("path_hash", DataType::UInt64, false),
        Field::new("parent_hash", DataType::UInt64, false),
        Field::new("location", DataType::FixedSizeBinary(LOCATION_BYTES as i32), false),
        Field::new("self", DataType::Int64, false),
    ]))
});

/// Rows being collected.
#[derive(Debug, Default)]
pub(crate) struct TreeRows {
    /// Which tree the row belongs to.
    pub groups: Vec<u32>,
    /// The path from the root to the node.
    pub paths: Vec<u64>,
    /// The parent's path; the root's own where the node has no parent.
    pub parents: Vec<u64>,
    /// The node's location.
    pub locations: Vec<[u8; LOCATION_BYTES]>,
    /// The node's own value.
    pub self_values: Vec<i64>,
}

/// The columns of a batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowColumns<'a> {
    /// Which tree the row belongs to.
    pub groups: &'a [u32],
    /// The path from the root to the node.
    pub paths: &'a [u64],
    /// The parent's path.
    pub parents: &'a [u64],
    /// The node's location.
    pub locations: &'a [[u8; LOCATION_BYTES]],
    /// The node's own value.
    pub self_values: &'a [i64],
}

impl TreeRows {
    fn with_capacity(rows: usize) -> Self {
        Self {
            groups: Vec::with_capacity(rows),
            paths: Vec::with_capacity(rows),
            parents: Vec::with_capacity(rows),
            locations: Vec::with_capacity(rows),
            self_values: Vec::with_capacity(rows),
        }
    }

    /// The live part of one source's tree, as rows of one group.
    pub fn of_partial(partial: &PartialTree, group: u32) -> Self {
        let live = live_nodes(partial, |node| partial.self_values[node] != 0);
        let mut rows = Self::with_capacity(live.iter().filter(|live| **live).count());
        rows.push_live(partial, &live, group);
        rows
    }

    /// The live part of one source's tree with its values by label set: group 0 has every live node and the values
    /// of samples without labels, the group of a label set only the nodes with a value of its own. `labelled` holds
    /// the values by (node, group), group 0 left out.
    pub fn of_labelled(partial: &PartialTree, labelled: &HashMap<(u32, u32), i64>) -> Self {
        let mut ends_here: Vec<bool> = partial.self_values.iter().map(|value| *value != 0).collect();
        for ((node, _), value) in labelled {
            ends_here[*node as usize] |= *value != 0;
        }
        let live = live_nodes(partial, |node| ends_here[node]);
        let mut rows = Self::default();
        rows.push_live(partial, &live, 0);
        for ((node, group), value) in labelled {
            if *value != 0 {
                rows.push_node(partial, *node as usize, *group, *value);
            }
        }
        rows
    }

    fn push_live(&mut self, partial: &PartialTree, live: &[bool], group: u32) {
        for (node, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            self.push_node(partial, node, group, partial.self_values[node]);
        }
    }

    fn push_node(&mut self, partial: &PartialTree, node: usize, group: u32, self_value: i64) {
        let tree = &partial.tree;
        let held = tree.nodes[node];
        let (parent, location) = if held.parent == NO_PARENT {
            (PathHash::ROOT, ROOT_LOCATION)
        } else {
            (tree.paths[held.parent as usize], tree.locations[held.location as usize])
        };
        self.groups.push(group);
        self.paths.push(tree.paths[node].0);
        self.parents.push(parent.0);
        self.locations.push(location.0);
        self.self_values.push(self_value);
    }

    /// Adds rows as they are.
    pub fn append(&mut self, columns: RowColumns<'_>) {
        self.groups.extend_from_slice(columns.groups);
        self.paths.extend_from_slice(columns.paths);
        self.parents.extend_from_slice(columns.parents);
        self.locations.extend_from_slice(columns.locations);
        self.self_values.extend_from_slice(columns.self_values);
    }

    /// Adds one row of a batch.
    pub fn append_row(&mut self, columns: RowColumns<'_>, row: usize) {
        self.groups.push(columns.groups[row]);
        self.paths.push(columns.paths[row]);
        self.parents.push(columns.parents[row]);
        self.locations.push(columns.locations[row]);
        self.self_values.push(columns.self_values[row]);
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Moves the rows into a batch.
    pub fn into_batch(self) -> RecordBatch {
        let locations = Buffer::from_vec(self.locations.into_flattened());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(self.groups)),
            Arc::new(UInt64Array::from(self.paths)),
            Arc::new(UInt64Array::from(self.parents)),
            Arc::new(FixedSizeBinaryArray::new(LOCATION_BYTES as i32, locations, None)),
            Arc::new(Int64Array::from(self.self_values)),
        ];
        RecordBatch::try_new(Arc::clone(&ROW_SCHEMA), columns).expect("columns are those of the schema")
    }
}

impl<'a> RowColumns<'a> {
    /// The columns of a batch of [`ROW_SCHEMA`].
    pub fn of(batch: &'a RecordBatch) -> Self {
        let locations = batch.column(3).as_fixed_size_binary();
        let start = locations.offset() * LOCATION_BYTES;
        let bytes = &locations.value_data()[start..start + locations.len() * LOCATION_BYTES];
        Self {
            groups: values::<UInt32Type>(batch, 0),
            paths: values::<UInt64Type>(batch, 1),
            parents: values::<UInt64Type>(batch, 2),
            locations: bytes.as_chunks().0,
            self_values: values::<Int64Type>(batch, 4),
        }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// The location of a row.
    pub fn location(&self, row: usize) -> LocationId {
        LocationId(self.locations[row])
    }
}

fn values<T: ArrowPrimitiveType>(batch: &RecordBatch, column: usize) -> &[T::Native] {
    let array: &PrimitiveArray<T> = batch.column(column).as_primitive();
    array.values()
}

/// Which nodes have a sample at or below them.
fn live_nodes(partial: &PartialTree, ends_here: impl Fn(usize) -> bool) -> Vec<bool> {
    let count = partial.self_values.len();
    let mut live = vec![false; count];
    for node in (0..count).rev() {
        live[node] |= ends_here(node);
        let parent = partial.tree.nodes[node].parent;
        if live[node] && parent != NO_PARENT {
            live[parent as usize] = true;
        }
    }
    live
}
