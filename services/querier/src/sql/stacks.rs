//! The table `stacks`: paths with their names, looked up in batches and only where a query reads them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ListBuilder, RecordBatch, RecordBatchOptions, StringArray, StringBuilder, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cambium_blocks::tree::Tree;
use cambium_metastore::Symbols;
use cambium_model::stacktrace::{LocationId, NO_PARENT};
use cambium_model::symbols::Location;
use cambium_model::tenant::TenantNumber;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use hashbrown::{HashMap, HashSet};

use super::tables::Tables;
use crate::error::Error;
use crate::resolve::frame::Frame;

/// The table's name.
pub(super) const NAME: &str = "stacks";

/// Stacks of one batch.
const BATCH_STACKS: usize = 1_024;

/// Bytes that a looked-up location is taken to hold, and one entry of the set of stacks that have been emitted.
const LOCATION_BYTES: usize = 256;
const SEEN_BYTES: usize = 16;

/// Every path of the sources' trees once; the empty one has depth 0.
#[derive(Clone, Debug)]
pub(super) struct StackTable {
    tables: Arc<Tables>,
    symbols: Arc<Symbols>,
    tenant: TenantNumber,
    schema: SchemaRef,
}

impl StackTable {
    /// The stacks of these sources, named by `symbols`.
    pub fn new(tables: Arc<Tables>, symbols: Arc<Symbols>, tenant: TenantNumber) -> Self {
        let texts = || DataType::new_list(DataType::Utf8, true);
        let schema = Schema::new(vec![
            Field::new("stack_id", DataType::UInt64, false),
            Field::new("depth", DataType::UInt32, false),
            Field::new("leaf", DataType::Utf8, true),
            Field::new("root", DataType::Utf8, true),
            Field::new("functions", texts(), false),
            Field::new("files", texts(), false),
        ]);
        Self { tables, symbols, tenant, schema: Arc::new(schema) }
    }
}

#[async_trait]
impl TableProvider for StackTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let schema = Arc::new(self.schema.project(projection.unwrap_or(&all))?);
        let scan = Self { schema: Arc::clone(&schema), ..self.clone() };
        let plan = StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, None)?;
        Ok(Arc::new(plan))
    }
}

impl PartitionStream for StackTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let named = ["leaf", "root", "functions", "files"];
        let walk = Walk {
            table: self.clone(),
            with_names: self.schema.fields().iter().any(|field| named.contains(&field.name().as_str())),
            source: 0,
            tree: None,
            node: 0,
            seen: HashSet::new(),
            names: HashMap::new(),
            reservation: MemoryConsumer::new("stacks").register(context.memory_pool()),
        };
        let batches =
            stream::try_unfold(
                walk,
                |mut walk| async move { Ok(walk.next().await?.map(|batch| (batch, walk))) },
            );
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// A scan under way: over the nodes of one source's tree after the other.
struct Walk {
    table: StackTable,
    with_names: bool,
    /// The next source to open.
    source: usize,
    /// The tree that is being walked.
    tree: Option<Arc<Tree>>,
    /// The next of its nodes.
    node: usize,
    /// Paths that have been emitted.
    seen: HashSet<u64>,
    /// What has been looked up.
    names: HashMap<LocationId, Arc<Location>>,
    reservation: MemoryReservation,
}

/// A stack to emit.
struct Stack {
    id: u64,
    /// Leaf first.
    locations: Vec<LocationId>,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut stacks = Vec::new();
        while stacks.len() < BATCH_STACKS {
            let Some(tree) = self.tree.clone().filter(|tree| self.node < tree.len()) else {
                let Some(one) = self.table.tables.sources.get(self.source) else { break };
                self.tree = Some(one.source.stack_tree().await.map_err(Error::from)?);
                (self.source, self.node) = (self.source + 1, 0);
                continue;
            };
            let id = tree.paths[self.node].0;
            if self.seen.insert(id) {
                stacks.push(Stack { id, locations: stack(&tree, self.node) });
            }
            self.node += 1;
        }
        if stacks.is_empty() {
            return Ok(None);
        }
        self.reservation.try_grow(stacks.len() * SEEN_BYTES)?;
        if self.with_names {
            self.look_up(&stacks).await?;
        }
        self.batch(&stacks).map(Some)
    }

    async fn look_up(&mut self, stacks: &[Stack]) -> Result<()> {
        let mut wanted: Vec<LocationId> = stacks.iter().flat_map(|stack| &stack.locations).copied().collect();
        wanted.retain(|id| !self.names.contains_key(id));
        wanted.sort_unstable();
        wanted.dedup();
        self.reservation.try_grow(wanted.len() * LOCATION_BYTES)?;
        let resolved = self.table.symbols.resolve(self.table.tenant, &wanted).await.map_err(Error::from)?;
        let found = wanted.into_iter().zip(resolved.locations);
        self.names.extend(found.map(|(id, location)| (id, location.unwrap_or_default())));
        Ok(())
    }

    fn batch(&self, stacks: &[Stack]) -> Result<RecordBatch> {
        let named: Vec<Vec<Frame>> = stacks.iter().map(|stack| self.frames(stack)).collect();
        let title = |frame: Option<&Frame>| frame.map(|frame| frame.title().into_owned());
        let columns = self.table.schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "stack_id" => Arc::new(UInt64Array::from_iter_values(stacks.iter().map(|stack| stack.id))),
                "depth" => {
                    let depths = stacks.iter().map(|stack| stack.locations.len() as u32);
                    Arc::new(UInt32Array::from_iter_values(depths))
                }
                "leaf" => Arc::new(StringArray::from_iter(named.iter().map(|frames| title(frames.first())))),
                "root" => Arc::new(StringArray::from_iter(named.iter().map(|frames| title(frames.last())))),
                "functions" => texts(&named, |frame| frame.title().into_owned()),
                _ => texts(&named, |frame| frame.file.to_string()),
            }
        });
        // A count of rows alone has no columns.
        let options = RecordBatchOptions::new().with_row_count(Some(stacks.len()));
        let schema = Arc::clone(&self.table.schema);
        Ok(RecordBatch::try_new_with_options(schema, columns.collect(), &options)?)
    }

    /// The stack's frames, innermost first; an address stands for a location without names.
    fn frames(&self, stack: &Stack) -> Vec<Frame> {
        let located = stack.locations.iter().filter_map(|id| self.names.get(id));
        located.flat_map(|location| frames(location)).collect()
    }
}

fn frames(location: &Location) -> Vec<Frame> {
    if location.lines.is_empty() {
        let object = Arc::clone(&location.mapping.file);
        return vec![Frame { address: location.address, object, ..Frame::default() }];
    }
    let frame = |line: &cambium_model::symbols::Line| Frame {
        name: Arc::clone(&line.function.name),
        file: Arc::clone(&line.function.file),
        ..Frame::default()
    };
    location.lines.iter().map(frame).collect()
}

/// The locations from a node up to the outermost frame.
fn stack(tree: &Tree, node: usize) -> Vec<LocationId> {
    let mut locations = Vec::new();
    let mut held = tree.nodes[node];
    while held.parent != NO_PARENT {
        locations.push(tree.locations[held.location as usize]);
        held = tree.nodes[held.parent as usize];
    }
    locations
}

fn texts(stacks: &[Vec<Frame>], text: impl Fn(&Frame) -> String) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for frames in stacks {
        frames.iter().for_each(|frame| lists.values().append_value(text(frame)));
        lists.append(true);
    }
    Arc::new(lists.finish())
}
