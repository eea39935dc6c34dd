//! The flame graph as one Arrow batch in the IPC stream format, for tools that compute with it.
//!
//! Rows are the JSON form's nodes in the same order. Columns: `parent` (row number, null for the root), `name`, `self`,
//! `cumulative`, `file` (null where there is none), `line` (0 where it does not count), `dropped` (nodes that an `other`
//! stands for). The schema's metadata holds `unit`, `total`, `height`, `nodes_dropped`, `value_dropped` and
//! `unresolved` as text.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringDictionaryBuilder, UInt32Array};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use super::flamegraph::Dropped;
use super::{Visit, depth_first};
use crate::resolve::{FrameNode, FrameTree};

/// The content type of an Arrow IPC stream.
pub const CONTENT_TYPE: &str = "application/vnd.apache.arrow.stream";

/// Renders a tree whose values are in `unit`.
pub fn render(tree: &FrameTree<1>, unit: &str) -> Result<Vec<u8>, ArrowError> {
    let order = depth_first(tree);
    let node = |visit: &Visit| &tree.nodes[visit.node as usize];
    let mut names = StringDictionaryBuilder::<Int32Type>::new();
    let mut files = StringDictionaryBuilder::<Int32Type>::new();
    for visit in &order {
        let frame = tree.frame(node(visit));
        names.append(frame.title())?;
        match &*frame.file {
            "" => files.append_null(),
            file => {
                files.append(file)?;
            }
        }
    }
    let parents = order.iter().map(|visit| (visit.depth > 0).then_some(visit.parent));
    let numbers = |of: fn(&FrameNode<1>) -> i64| {
        Arc::new(Int64Array::from_iter_values(order.iter().map(|v| of(node(v)))))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter(parents)),
        Arc::new(names.finish()),
        numbers(|node| node.self_values[0]),
        numbers(|node| node.cumulative[0]),
        Arc::new(files.finish()),
        Arc::new(Int64Array::from_iter_values(order.iter().map(|visit| tree.frame(node(visit)).line))),
        Arc::new(UInt32Array::from_iter_values(order.iter().map(|visit| node(visit).dropped))),
    ];
    let height = order.iter().map(|visit| visit.depth).max().unwrap_or_default();
    let schema = Arc::new(schema(tree, unit, height));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    stream(&schema, &[batch])
}

/// Batches as one IPC stream.
pub fn stream(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

fn schema(tree: &FrameTree<1>, unit: &str, height: u32) -> Schema {
    let dropped = Dropped::of(tree);
    let metadata = HashMap::from([
        ("unit".to_owned(), unit.to_owned()),
        ("total".to_owned(), tree.total()[0].to_string()),
        ("height".to_owned(), height.to_string()),
        ("nodes_dropped".to_owned(), dropped.nodes.to_string()),
        ("value_dropped".to_owned(), dropped.values[0].to_string()),
        ("unresolved".to_owned(), tree.unresolved.to_string()),
    ]);
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields = vec![
        Field::new("parent", DataType::UInt32, true),
        Field::new("name", text(), false),
        Field::new("self", DataType::Int64, false),
        Field::new("cumulative", DataType::Int64, false),
        Field::new("file", text(), true),
        Field::new("line", DataType::Int64, false),
        Field::new("dropped", DataType::UInt32, false),
    ];
    Schema::new_with_metadata(fields, metadata)
}
