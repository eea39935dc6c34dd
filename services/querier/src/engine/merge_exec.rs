//! The inner nodes of a merge: partial sums per partition, then one sum of all.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use cambium_model::profile_type::ProfileType;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::{StreamExt, stream};

use super::off_loop;
use super::rows::ROW_SCHEMA;
use super::stages::{Stage, Stages};
use super::tree_merge::TreeSums;

/// How far a merge reduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// Each partition by itself.
    Partial,
    /// All partitions into one.
    Final,
}

/// Sums rows by (group, path). Inputs are taken in the order of their partitions, so that the same plan over the same
/// sources gives the same rows in the same order.
#[derive(Debug)]
pub(crate) struct TreeMergeExec {
    input: Arc<dyn ExecutionPlan>,
    reduction: Reduction,
    profile_type: ProfileType,
    stages: Stages,
    properties: Arc<PlanProperties>,
}

impl TreeMergeExec {
    /// A merge of `input`, whose rows are of [`ROW_SCHEMA`]; the type is named when a sum does not fit.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        reduction: Reduction,
        profile_type: ProfileType,
        stages: Stages,
    ) -> Self {
        let partitions = match reduction {
            Reduction::Partial => input.output_partitioning().partition_count(),
            Reduction::Final => 1,
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&ROW_SCHEMA)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, reduction, profile_type, stages, properties: Arc::new(properties) }
    }
}

impl DisplayAs for TreeMergeExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeMergeExec: reduction={:?}, type={}", self.reduction, self.profile_type)
    }
}

impl ExecutionPlan for TreeMergeExec {
    fn name(&self) -> &str {
        "TreeMergeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input =
            children.pop().ok_or_else(|| DataFusionError::Internal("a merge has one input".into()))?;
        let profile_type = self.profile_type.clone();
        Ok(Arc::new(Self::new(input, self.reduction, profile_type, self.stages.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let inputs = match self.reduction {
            Reduction::Partial => partition..partition + 1,
            Reduction::Final => 0..self.input.output_partitioning().partition_count(),
        };
        let streams: Vec<SendableRecordBatchStream> =
            inputs.map(|input| self.input.execute(input, Arc::clone(&context))).collect::<Result<_>>()?;
        let merge = Merge {
            sums: TreeSums::new(self.profile_type.clone()),
            reservation: MemoryConsumer::new("tree merge").register(context.memory_pool()),
            stages: self.stages.clone(),
        };
        let merged = stream::once(merge.run(streams));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&ROW_SCHEMA), merged)))
    }
}

/// A merge under way.
struct Merge {
    sums: TreeSums,
    reservation: MemoryReservation,
    stages: Stages,
}

impl Merge {
    async fn run(mut self, streams: Vec<SendableRecordBatchStream>) -> Result<RecordBatch> {
        if streams.len() == 1 {
            for mut stream in streams {
                while let Some(batch) = stream.next().await {
                    self = self.add(batch?).await?;
                }
            }
        } else {
            // All inputs run at once; each is a partial merge that ends in one batch. Dropping a task aborts it.
            let inputs: Vec<_> =
                streams.into_iter().map(|stream| SpawnedTask::spawn(stream.collect::<Vec<_>>())).collect();
            for input in inputs {
                let batches =
                    input.join().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
                for batch in batches {
                    self = self.add(batch?).await?;
                }
            }
        }
        Ok(self.sums.into_batch())
    }

    async fn add(self, batch: RecordBatch) -> Result<Self> {
        let Self { mut sums, reservation, stages } = self;
        reservation.try_grow(sums.growth(batch.num_rows()))?;
        let rows = batch.num_rows();
        let add = off_loop(rows, move || sums.add(batch).map(|()| sums));
        let sums = stages.time(Stage::Merge, add).await?;
        reservation.try_resize(sums.bytes())?;
        Ok(Self { sums, reservation, stages })
    }
}
