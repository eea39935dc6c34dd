//! The leaf of a merge: each partition scans some sources one after the other and emits one batch of rows for each.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use cambium_blocks::Source;
use cambium_blocks::shape::FoldBy;
use cambium_blocks::source::TreeScan;
use cambium_model::profile_type::ProfileType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, stream};

use super::off_loop;
use super::partial_trees::{PartialTrees, TreeKey};
use super::rows::{ROW_BYTES, ROW_SCHEMA, TreeRows};
use super::samples::LabelledScan;
use super::stages::{Stage, Stages};
use crate::error::Error;

/// Sources that one partition reads ahead, so that their requests overlap.
const SCANS_AHEAD: usize = 4;

/// What to read of one source.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// The source.
    pub source: Arc<dyn Source>,
    /// What of it.
    pub part: ScanPart,
    /// Where its rows are kept, if they may be.
    pub kept: Option<Kept>,
}

/// A place for a scan's rows.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The cache.
    pub trees: PartialTrees,
    /// Their name there.
    pub key: Arc<TreeKey>,
}

/// What to read of a source.
#[derive(Clone, Debug)]
pub(crate) enum ScanPart {
    /// Sums by stack.
    Tree {
        /// Which samples.
        scan: TreeScan,
        /// Which nodes are one.
        fold_by: FoldBy,
        /// The group that the rows go to.
        group: u32,
        /// The type, named when a sum does not fit.
        profile_type: ProfileType,
    },
    /// Sums by stack and label set.
    Labelled(LabelledScan),
}

impl Scan {
    async fn rows(&self, reservation: &MemoryReservation) -> Result<TreeRows, Error> {
        match &self.part {
            ScanPart::Tree { scan, fold_by, group, profile_type } => {
                let partial = self.source.tree(scan).await?;
                let nodes = partial.tree.len();
                reservation.try_grow(nodes * (ROW_BYTES + size_of::<i64>()))?;
                let (fold_by, group) = (*fold_by, *group);
                let rows = off_loop(nodes, move || TreeRows::of_partial(&partial, fold_by, group)).await;
                rows.ok_or_else(|| Error::Overflow { profile_type: profile_type.to_string() })
            }
            ScanPart::Labelled(scan) => scan.rows(&self.source, reservation).await,
        }
    }
}

/// Emits the partial trees of sources: [`ROW_SCHEMA`], one batch per scan, in the scans' order.
#[derive(Debug)]
pub(crate) struct ProfileScanExec {
    /// One list per partition.
    scans: Vec<Vec<Scan>>,
    stages: Stages,
    properties: Arc<PlanProperties>,
}

impl ProfileScanExec {
    /// Spreads the scans over at most `partitions_max` partitions, neighbours together.
    pub fn new(scans: Vec<Scan>, partitions_max: usize, stages: Stages) -> Self {
        let partitions = scans.len().clamp(1, partitions_max.max(1));
        let share = scans.len().div_ceil(partitions).max(1);
        let mut scans = VecDeque::from(scans);
        let mut spread = Vec::new();
        while !scans.is_empty() {
            spread.push(scans.drain(..share.min(scans.len())).collect());
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&ROW_SCHEMA)),
            Partitioning::UnknownPartitioning(spread.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { scans: spread, stages, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ProfileScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: usize = self.scans.iter().map(Vec::len).sum();
        write!(f, "ProfileScanExec: scans={sources}, partitions={}", self.scans.len())
    }
}

impl ExecutionPlan for ProfileScanExec {
    fn name(&self) -> &str {
        "ProfileScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scans = self.scans[partition].clone();
        let stages = self.stages.clone();
        let batches = stream::iter(scans)
            .map(move |scan| {
                let reservation = MemoryConsumer::new("profile scan").register(context.memory_pool());
                let stages = stages.clone();
                async move { stages.time(Stage::Scan, batch(scan, reservation)).await }
            })
            .buffered(SCANS_AHEAD);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&ROW_SCHEMA), batches)))
    }
}

/// The reservation ends with the batch's hand-over: whoever takes it accounts for it.
async fn batch(scan: Scan, reservation: MemoryReservation) -> Result<RecordBatch> {
    if let Some(held) = scan.kept.as_ref().and_then(|kept| kept.trees.get(&kept.key)) {
        return Ok(held);
    }
    let rows = scan.rows(&reservation).await.map_err(DataFusionError::from)?;
    let batch = rows.into_batch();
    if let Some(kept) = &scan.kept {
        kept.trees.keep(&kept.key, &batch);
    }
    Ok(batch)
}
