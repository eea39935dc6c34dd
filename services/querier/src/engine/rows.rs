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
    ArrowNativeType, ArrowPrimitiveType, DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type,
    UInt64Type,
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
    /// The nodes' locations, one after the other.
    locations: Vec<u8>,
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
            let location = *rows.location_mut(same_node as usize);
            rows.push(group, shape.paths[place as usize].0, same_node, location, value);
        }
        Some(rows)
    }

    /// The rows of a batch, in its own memory where nobody else has it.
    pub fn of_batch(batch: RecordBatch) -> Self {
        let (_, columns, _) = batch.into_parts();
        let mut columns = columns.into_iter();
        let mut next = || columns.next().expect("a batch of the schema has all columns");
        Self {
            groups: into_vec(next(), 1),
            paths: into_vec(next(), 1),
            parents: into_vec(next(), 1),
            locations: into_vec(next(), LOCATION_BYTES),
            self_values: into_vec(next(), 1),
        }
    }

    /// A row's location.
    #[inline]
    pub fn location_mut(&mut self, row: usize) -> &mut [u8; LOCATION_BYTES] {
        &mut self.locations.as_chunks_mut().0[row]
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
        self.locations.extend_from_slice(&location);
        self.self_values.push(self_value);
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Moves the rows into a batch.
    pub fn into_batch(self) -> RecordBatch {
        let locations = Buffer::from_vec(self.locations);
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

/// A column of so many numbers a row, in its own memory where nobody else has it.
fn into_vec<T: ArrowNativeType>(column: ArrayRef, numbers: usize) -> Vec<T> {
    let data = column.to_data();
    drop(column);
    let row_bytes = numbers * size_of::<T>();
    let bytes = data.buffers()[0].slice_with_length(data.offset() * row_bytes, data.len() * row_bytes);
    drop(data);
    bytes.into_vec().unwrap_or_else(|shared| shared.typed_data().to_vec())
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
            locations: self.pick(&shape.locations, location).into_flattened(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_become_rows_in_their_own_memory() {
        let mut rows = TreeRows::default();
        rows.push(0, 7, NO_PARENT, [1; LOCATION_BYTES], 5);
        rows.push(0, 8, 0, [2; LOCATION_BYTES], -6);
        rows.push(1, 9, 1, [3; LOCATION_BYTES], 7);
        let paths = rows.paths.as_ptr();
        let batch = rows.into_batch();
        let (kept, cut) = (batch.clone(), batch.slice(1, 2));
        for (batch, locations) in [(kept, 1..4_u8), (cut, 2..4)] {
            let mut copied = TreeRows::of_batch(batch);
            let found: Vec<_> = (0..copied.len()).map(|row| *copied.location_mut(row)).collect();
            assert_eq!(found, locations.map(|n| [n; LOCATION_BYTES]).collect::<Vec<_>>());
            assert_eq!(*copied.self_values.last().unwrap(), 7);
            assert_ne!(copied.paths.as_ptr(), paths, "somebody else has it");
        }
        let taken = TreeRows::of_batch(batch);
        assert_eq!((taken.paths.as_ptr(), taken.len()), (paths, 3));
        assert_eq!((taken.groups, taken.parents), (vec![0, 0, 1], vec![NO_PARENT, 0, 1]));
    }
}
