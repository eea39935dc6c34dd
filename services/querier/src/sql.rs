//! One SELECT over this tenant's profiles.
//!
//! ```text
//!   text ──► check (one SELECT, four tables) ──► session of this query alone ──► rows, bounded
//!                                                     │
//!               samples, profiles, series ── rows and ranges chosen by filters on labels, type and time
//!               stacks ───────────────────── names looked up in batches
//! ```
//!
//! - `series(profile_type, fingerprint, <labels>)`: each label set with a profile in range once.
//! - `profiles(time, profile_type, duration_ns, period, value, samples, <labels>)`: `value` is the sum of its samples.
//! - `samples(time, profile_type, value, stack_id, sample_labels, <labels>)`.
//! - `stacks(stack_id, depth, leaf, root, functions, files)`: the paths of all sources that touch the range, leaf
//!   first; `depth` counts locations, of which an inlined one has several functions.
//!
//! Every label is a column of its own name, or `label_<name>` where that is taken; an absent label is empty text, as in
//! selectors, and one that no series of the range has is no column. The tables hold the request's range and nothing
//! else exists in the session: no other tenant, no file, no catalogue. A statement runs on one blocking thread, so that
//! a heavy one takes no time from other requests.

use std::sync::Arc;

use cambium_metastore::Symbols;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::engine::sources::Sources;
use crate::engine::stages::{Stage, Stages};
use crate::error::Error;
use crate::merged::{SqlAnswer, Stats};
use crate::request::SqlQuery;

mod check;

mod filters;

mod profile_tables;

mod stacks;

mod tables;

pub(crate) use check::check;
use profile_tables::{Kind, ProfileTable};
use stacks::StackTable;
use tables::Tables;

/// Longest statement, in bytes.
const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// Most bytes of an answer's columns.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Runs a checked statement; the stats are left to the caller.
pub(crate) async fn run(
    runtime: Arc<RuntimeEnv>,
    symbols: Arc<Symbols>,
    stages: &Stages,
    sources: &Sources,
    query: &SqlQuery,
    statement: Statement,
) -> Result<SqlAnswer, Error> {
    let tables = Arc::new(stages.time(Stage::Plan, Tables::open(sources, query.range)).await?);
    let context = session(runtime);
    for kind in [Kind::Series, Kind::Profiles, Kind::Samples] {
        context.register_table(kind.name(), Arc::new(ProfileTable::new(Arc::clone(&tables), kind)))?;
    }
    let stacks = StackTable::new(tables, symbols, query.tenant.number);
    context.register_table(stacks::NAME, Arc::new(stacks))?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    // Stops the thread when this future is dropped.
    let _guard = stop.drop_guard();
    let (handle, rows_max) = (Handle::current(), query.rows_max);
    let run = tokio::task::spawn_blocking(move || {
        handle.block_on(stopped.run_until_cancelled(collect(context, statement, rows_max)))
    });
    match stages.time(Stage::Scan, run).await {
        Ok(Some(answer)) => answer,
        // Either this future is being dropped or the runtime shuts down: nobody waits for the answer.
        Ok(None) => std::future::pending().await,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// Functions that make more than the sum of what they are given: their results are in no operator's account of memory.
const UNBOUNDED: [&str; 14] = [
    "repeat",
    "lpad",
    "rpad",
    "replace",
    "regexp_replace",
    "encode",
    "concat_ws",
    "array_repeat",
    "array_resize",
    "array_replace",
    "array_replace_n",
    "array_replace_all",
    "range",
    "generate_series",
];

/// Most rows of a batch: of each, an expression may make many times as many bytes.
const BATCH_ROWS: usize = 1_024;

/// A session in which nothing exists but functions.
fn session(runtime: Arc<RuntimeEnv>) -> SessionContext {
    let mut options = ConfigOptions::new();
    options.execution.enable_recursive_ctes = false;
    options.catalog.information_schema = false;
    let config = SessionConfig::from(options).with_target_partitions(1).with_batch_size(BATCH_ROWS);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .build();
    let context = SessionContext::new_with_state(state);
    for name in UNBOUNDED {
        context.deregister_udf(name);
    }
    context
}

async fn collect(context: SessionContext, statement: Statement, rows_max: u64) -> Result<SqlAnswer, Error> {
    let state = context.state();
    let plan = state.statement_to_plan(statement).await.map_err(sql_error)?;
    let only_select =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_select.verify_plan(&plan).map_err(sql_error)?;
    let plan = state.create_physical_plan(&plan).await.map_err(sql_error)?;
    let plan = yielding(plan).map_err(sql_error)?;
    let mut stream = execute_stream(plan, context.task_ctx()).map_err(sql_error)?;
    let mut answer = SqlAnswer { schema: stream.schema(), batches: Vec::new(), stats: Stats::default() };
    let (mut rows, mut bytes) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(sql_error)?;
        rows += batch.num_rows() as u64;
        if rows > rows_max {
            return Err(Error::SqlTooLarge { max: rows_max, unit: "rows" });
        }
        let columns = batch.columns().iter();
        bytes +=
            columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum::<u64>();
        if bytes > ANSWER_BYTES_MAX {
            return Err(Error::SqlTooLarge { max: ANSWER_BYTES_MAX, unit: "bytes" });
        }
        answer.batches.push(batch);
    }
    Ok(answer)
}

/// The plan with a point where it can be stopped behind every operator: a join may otherwise compute for hours between
/// two reads of a table.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let wrap = |node: Arc<dyn ExecutionPlan>| -> PlanResult<Transformed<Arc<dyn ExecutionPlan>>> {
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node))))
    };
    Ok(plan.transform_up(wrap)?.data)
}

/// What cannot be planned or computed is the statement's fault, also where the planner calls that internal, as it does
/// for some types that do not fit; our own errors and those of memory are not.
fn sql_error(error: DataFusionError) -> Error {
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        return Error::Memory { source: Box::new(error) };
    }
    match error {
        DataFusionError::ArrowError(..)
        | DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Execution(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Collection(_) => Error::Sql { message: message(&error) },
        DataFusionError::Context(_, inner) => sql_error(*inner),
        DataFusionError::Shared(inner) => match Arc::try_unwrap(inner) {
            Ok(inner) => sql_error(inner),
            Err(inner) => Error::Sql { message: message(&inner) },
        },
        other => other.into(),
    }
}

/// The first line, without a backtrace.
fn message(error: &DataFusionError) -> String {
    error.strip_backtrace().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
