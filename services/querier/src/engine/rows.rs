//! Trees as rows: what leaves of a plan emit and merges pass on.
//!
//! A row is a node with a value at or below it. A batch has each (group, path) once and names a row's parent by its
//! position in the batch, which is before the row's own: batches travel whole. Whoever reads rows checks that.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, PrimitiveArray, RecordBatch, UInt32Array,
    UInt64Array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type,
};
use cambium_blocks::shape::{FoldBy, Shape};
use cambium_blocks::tree::{PartialTree, SCOPE_LOCATION, Tree};
use cambium_model::stacktrace::NO_PARENT;
use hashbrown::HashMap;

use crate::merged::ROOT_LOCATION;

const LOCATION_BYTES: usize = 16;

/// Bytes of one row, in memory.
pub(crate) const ROW_BYTES: usize = 4 + 8 + 4 + LOCATION_BYTES + 8;

/// Columns of every batch of rows, in the order of [`RowColumns`].
pub(crate) static ROW_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("group", DataType::UInt32, false),
        Field::new("path_hash", DataType::UInt64, false),
        Field::new("parent", DataType::UInt32, false),
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
    /// The row of the parent, [`NO_PARENT`] for a root; of a value by label set the row of the same node in group 0.
    pub parents: Vec<u32>,
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
    /// The row of the parent.
    pub parents: &'a [u32],
    /// The node's location.
    pub locations: &'a [[u8; LOCATION_BYTES]],
    /// The node's own value.
    pub self_values: &'a [i64],
}

impl TreeRows {
    /// The live part of one source's tree, folded, as rows of one group; `None` where a sum does not fit 64 bits.
    pub fn of_partial(partial: &PartialTree, by: FoldBy, group: u32) -> Option<Self> {
        let shape = partial.tree.shape(by);
        let sums = shape.sum(&partial.self_values)?;
        let rows = LiveRows::new(&shape, sums.iter().map(|sum| *sum != 0).collect());
        Some(rows.collect(&partial.tree, &shape, sums, group))
    }

    /// The live part of one source's tree with its values by label set: group 0 has every live node and the values
    /// of samples without labels, the group of a label set only the nodes with a value of its own. `labelled` holds
    /// the values by (node, group), group 0 left out. `None` where a sum does not fit 64 bits.
    pub fn of_labelled(partial: &PartialTree, labelled: &HashMap<(u32, u32), i64>) -> Option<Self> {
        let shape = partial.tree.shape(FoldBy::Location);
        let sums = shape.sum(&partial.self_values)?;
        let mut by_place: HashMap<(u32, u32), i64> = HashMap::with_capacity(labelled.len());
        for ((node, group), value) in labelled {
            let sum = by_place.entry((shape.place_of_node[*node as usize], *group)).or_insert(0);
            *sum = sum.checked_add(*value)?;
        }
        by_place.retain(|_, value| *value != 0);
        let mut ends_here: Vec<bool> = sums.iter().map(|value| *value != 0).collect();
        by_place.keys().for_each(|(place, _)| ends_here[*place as usize] = true);
        let live = LiveRows::new(&shape, ends_here);
        let mut rows = live.collect(&partial.tree, &shape, sums, 0);
        for ((place, group), value) in by_place {
            let same_node = live.row_of_place[place as usize];
            let location = rows.locations[same_node as usize];
            rows.push(group, shape.paths[place as usize].0, same_node, location, value);
        }
        Some(rows)
    }

    /// Adds rows as they are.
    pub fn append(&mut self, columns: RowColumns<'_>) {
        self.groups.extend_from_slice(columns.groups);
        self.paths.extend_from_slice(columns.paths);
        self.parents.extend_from_slice(columns.parents);
        self.locations.extend_from_slice(columns.locations);
        self.self_values.extend_from_slice(columns.self_values);
    }

    /// Adds a row.
    pub fn push(
        &mut self,
        group: u32,
        path: u64,
        parent: u32,
        location: [u8; LOCATION_BYTES],
        self_value: i64,
    ) {
        self.groups.push(group);
        self.paths.push(path);
        self.parents.push(parent);
        self.locations.push(location);
        self.self_values.push(self_value);
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
            Arc::new(UInt32Array::from(self.parents)),
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
            parents: values::<UInt32Type>(batch, 2),
            locations: bytes.as_chunks().0,
            self_values: values::<Int64Type>(batch, 4),
        }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.paths.len()
    }
}

fn values<T: ArrowPrimitiveType>(batch: &RecordBatch, column: usize) -> &[T::Native] {
    let array: &PrimitiveArray<T> = batch.column(column).as_primitive();
    array.values()
}

/// Which places have a sample at or below them, and the rows they become.
struct LiveRows {
    live: Vec<bool>,
    row_of_place: Vec<u32>,
    count: usize,
}

impl LiveRows {
    /// From the places where samples end.
    fn new(shape: &Shape, mut live: Vec<bool>) -> Self {
        for place in (1..shape.len()).rev() {
            live[shape.parents[place] as usize] |= live[place];
        }
        let mut count = 0;
        let row = |live: &bool| {
            let row = count;
            count += u32::from(*live);
            row
        };
        let row_of_place = live.iter().map(row).collect();
        Self { live, row_of_place, count: count as usize }
    }

    /// One row per live place, column by column.
    fn collect(&self, tree: &Tree, shape: &Shape, sums: Vec<i64>, group: u32) -> TreeRows {
        let parent = |parent: u32| match parent {
            NO_PARENT => NO_PARENT,
            place => self.row_of_place[place as usize],
        };
        let location = |location: u32| match location {
            SCOPE_LOCATION => ROOT_LOCATION.0,
            held => tree.locations[held as usize].0,
        };
        TreeRows {
            groups: vec![group; self.count],
            paths: self.pick(&shape.paths, |path| path.0),
            parents: self.pick(&shape.parents, parent),
            locations: self.pick(&shape.locations, location),
            self_values: self.pick(&sums, |sum| sum),
        }
    }

    fn pick<T: Copy, U>(&self, column: &[T], value: impl Fn(T) -> U) -> Vec<U> {
        if self.count == column.len() {
            return column.iter().map(|held| value(*held)).collect();
        }
        let mut picked = Vec::with_capacity(self.count);
        let live = column.iter().zip(&self.live).filter(|(_, live)| **live);
        picked.extend(live.map(|(held, _)| value(*held)));
        picked
    }
}
