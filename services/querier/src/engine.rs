//! Runs queries: from a request to numbers.
//!
//! ```text
//!   request ─► Admission ─► Sources (catalogue + heads) ─► selection ─► pick ─► plan of scans and merges ─► answer
//!                                                             └──────► fold over profiles: values over time, lists
//! ```
//!
//! A query is one future: dropping it drops its scans, and what runs on a blocking thread ends with its current chunk.

use std::sync::Arc;
use std::time::Duration;

use cambium_blocks::source::Profiles;
use cambium_model::limits::TenantLimits;
use cambium_model::profile_type::ProfileType;
use cambium_model::tenant::{Tenant, TenantId};
use cambium_model::time::TimeRange;
use cambium_runtime::error::HasKind;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use futures::TryStreamExt;

use crate::admission::Admission;
use crate::explain::{Explain, Wants};
use crate::merged::{Listing, Matrix, Merged, MergedSamples, SeriesEntry, SqlAnswer, Stats};
use crate::metrics::{QueryMetrics, Shape};
use crate::request::{Aggregation, ListQuery, MergeQuery, Pick, RangeQuery, SeriesMatch, SqlQuery};
use crate::{Config, Deps, Error, sql};

mod list;

mod merge;

mod merge_exec;

mod partial_trees;

mod pick;

mod range;

mod rows;

mod samples;

mod scan_exec;

mod selection;

pub(crate) mod sources;

pub(crate) mod stages;

mod tree_merge;

#[cfg(test)]
pub(crate) mod oracle;

use merge::Env;
use partial_trees::PartialTrees;
use range::Steps;
use selection::{Counted, Selected};
pub(crate) use selection::{SOURCES_AT_ONCE, push_row, run};
use sources::{Question, Sources};
use stages::{Stage, Stages};

/// Rows up to which work is done where it stands: about 100 µs.
const INLINE_ROWS_MAX: usize = 4_096;

/// Answers queries. Clones share everything.
#[derive(Clone)]
pub struct Querier {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    deps: Deps,
    admission: Admission,
    metrics: QueryMetrics,
    /// What is kept of whole blocks.
    trees: PartialTrees,
    /// The memory of all queries.
    runtime: Arc<RuntimeEnv>,
}

impl Querier {
    /// A querier; registers its metrics.
    pub fn new(config: Config, deps: Deps) -> Self {
        let memory_max = usize::try_from(config.memory_max.0).unwrap_or(usize::MAX);
        let no_spilling = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_max)))
            .with_disk_manager_builder(no_spilling)
            .build_arc()
            .expect("without a disk manager nothing is opened");
        let admission = Admission::new(config.queue_max);
        let metrics = QueryMetrics::new(&deps.metrics);
        let trees = PartialTrees::new(config.partial_trees_bytes.0, &deps.metrics);
        Self { shared: Arc::new(Shared { config, deps, admission, metrics, trees, runtime }) }
    }

    /// What it works with.
    pub fn deps(&self) -> &Deps {
        &self.shared.deps
    }

    /// The tenant's limits as of now.
    pub fn limits(&self, tenant: &TenantId) -> TenantLimits {
        self.shared.deps.limits.borrow().of(tenant).clone()
    }

    /// Sums stack traces.
    ///
    /// Errors: those of reading, [`Error::Overflow`], and of every query [`Error::Saturated`], [`Error::Timeout`],
    /// [`Error::Memory`].
    pub async fn merge(&self, query: &MergeQuery) -> Result<Merged, Error> {
        let env = self.env();
        let run = async {
            let sources = self.open_merge(&env, query).await?;
            let mut merged = merge::merge(&env, &sources, query).await?;
            merged.stats = Stats { resolution_secs: merged.stats.resolution_secs, ..cost(&sources, &env) };
            merged.plan = sources.explain();
            Ok(merged)
        };
        self.answer(Shape::merge, &query.tenant, run, |merged| &merged.stats).await
    }

    /// Sums stack traces and keeps the samples' labels; `by` does not apply. Errors: as [`Self::merge`].
    pub async fn merge_samples(&self, query: &MergeQuery) -> Result<MergedSamples, Error> {
        let env = self.env();
        let run = async {
            let sources = self.open_pick(&env, query, Wants::Samples).await?;
            let mut merged = merge::merge_samples(&env, &sources, query).await?;
            merged.stats = Stats { resolution_secs: merged.stats.resolution_secs, ..cost(&sources, &env) };
            Ok(merged)
        };
        self.answer(Shape::samples, &query.tenant, run, |merged| &merged.stats).await
    }

    /// Values over time. Errors: as [`Self::merge`], [`Error::Step`], [`Error::TooManyPoints`].
    pub async fn range(&self, query: &RangeQuery) -> Result<Matrix, Error> {
        let steps = Steps::of(query)?;
        let env = self.env();
        let run = async {
            let sources = self.open_range(&env, query, steps).await?;
            let mut matrix = range::range(&env, &sources, query, steps).await?;
            matrix.stats = cost(&sources, &env);
            matrix.plan = sources.explain();
            Ok(matrix)
        };
        self.answer(Shape::range, &query.tenant, run, |matrix| &matrix.stats).await
    }

    /// What [`Self::merge`] would read, without reading it.
    pub async fn plan_merge(&self, query: &MergeQuery) -> Result<Explain, Error> {
        let env = self.env();
        let open = async { Ok(self.open_merge(&env, query).await?.into_plan()) };
        self.bounded(&query.tenant, open).await
    }

    /// What [`Self::range`] would read, without reading it.
    pub async fn plan_range(&self, query: &RangeQuery) -> Result<Explain, Error> {
        let (steps, env) = (Steps::of(query)?, self.env());
        let open = async { Ok(self.open_range(&env, query, steps).await?.into_plan()) };
        self.bounded(&query.tenant, open).await
    }

    /// Profile types. Errors: as [`Self::merge`], here and for the other lists.
    pub async fn profile_types(&self, query: &ListQuery) -> Result<Listing<ProfileType>, Error> {
        self.list(query, async |sources| list::profile_types(sources, query).await).await
    }

    /// Label names.
    pub async fn label_names(&self, query: &ListQuery) -> Result<Listing<String>, Error> {
        self.list(query, async |sources| list::label_names(sources, query).await).await
    }

    /// Values of one label.
    pub async fn label_values(&self, query: &ListQuery, name: &str) -> Result<Listing<String>, Error> {
        self.list(query, async |sources| list::label_values(sources, query, name).await).await
    }

    /// Series.
    pub async fn series(&self, query: &ListQuery) -> Result<Listing<SeriesEntry>, Error> {
        self.list(query, async |sources| list::series(sources, query).await).await
    }

    /// One SELECT. Errors: as [`Self::merge`], [`Error::SqlRefused`], [`Error::Sql`], [`Error::SqlTooLarge`].
    pub async fn sql(&self, query: &SqlQuery) -> Result<SqlAnswer, Error> {
        let statement = sql::check(&query.sql)?;
        let env = self.env();
        let run = async {
            let (tenant, range) = (&query.tenant, query.range);
            let question = Question { tenant, range, matches: &[], wants: Wants::Samples };
            let sources = self.open(&env, &question).await?;
            let (runtime, symbols) =
                (Arc::clone(&self.shared.runtime), Arc::clone(&self.shared.deps.symbols));
            let mut answer = sql::run(runtime, symbols, &env.stages, &sources, query, statement).await?;
            answer.stats = cost(&sources, &env);
            Ok(answer)
        };
        self.answer(Shape::sql, &query.tenant, run, |answer| &answer.stats).await
    }

    async fn list<T>(
        &self,
        query: &ListQuery,
        list: impl AsyncFnOnce(&Sources) -> Result<Listing<T>, Error>,
    ) -> Result<Listing<T>, Error> {
        let env = self.env();
        let run = async {
            let (tenant, range, matches) = (&query.tenant, query.range, query.matches.as_slice());
            let question = Question { tenant, range, matches, wants: Wants::Series };
            let sources = self.open(&env, &question).await?;
            let mut listing = env.stages.time(Stage::Scan, list(&sources)).await?;
            listing.stats = cost(&sources, &env);
            Ok(listing)
        };
        self.answer(Shape::list, &query.tenant, run, |listing| &listing.stats).await
    }

    fn env(&self) -> Env {
        let context = TaskContext::default().with_runtime(Arc::clone(&self.shared.runtime));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stages = Stages::new(Arc::clone(&self.shared.deps.clock));
        let trees = self.shared.trees.clone();
        Env { context: Arc::new(context), partitions_max: cores, stages, trees }
    }

    async fn open_merge(&self, env: &Env, query: &MergeQuery) -> Result<Sources, Error> {
        let scope_labels = self.limits(&query.tenant.id).scope_labels;
        let wants = Wants::sums(&SeriesMatch::from(&query.query), &scope_labels);
        self.open_pick(env, query, wants).await
    }

    async fn open_pick(&self, env: &Env, query: &MergeQuery, wants: Wants) -> Result<Sources, Error> {
        let (range, wants) = match query.pick {
            Pick::Range { range, aggregation: Aggregation::Sum } => (range, wants),
            Pick::Range { range, .. } => (range, Wants::Samples),
            Pick::Closest { .. } => (TimeRange::ALL, Wants::Profiles),
        };
        let matches = [SeriesMatch::from(&query.query)];
        self.open(env, &Question { tenant: &query.tenant, range, matches: &matches, wants }).await
    }

    async fn open_range(&self, env: &Env, query: &RangeQuery, steps: Steps) -> Result<Sources, Error> {
        let matches = [SeriesMatch::from(&query.query)];
        let (tenant, range, wants) = (&query.tenant, steps.range(), Wants::Profiles);
        self.open(env, &Question { tenant, range, matches: &matches, wants }).await
    }

    async fn open(&self, env: &Env, question: &Question<'_>) -> Result<Sources, Error> {
        env.stages.time(Stage::Plan, Sources::open(&self.shared.deps, question)).await
    }

    /// Runs a query within its bounds, and counts it.
    async fn answer<T>(
        &self,
        shape: Shape,
        tenant: &Tenant,
        run: impl Future<Output = Result<T, Error>>,
        stats: impl Fn(&T) -> &Stats,
    ) -> Result<T, Error> {
        let Shared { deps, metrics, .. } = &*self.shared;
        let running = metrics.begin(shape);
        let start = deps.clock.monotonic();
        let answer = self.bounded(tenant, run).await;
        let spent = deps.clock.monotonic().saturating_sub(start);
        match &answer {
            Ok(answer) => running.succeeded(stats(answer), spent),
            Err(error) => running.failed(error.kind(), spent),
        }
        answer
    }

    /// Runs a query when it is the tenant's turn, and for no longer than it may take.
    async fn bounded<T>(
        &self,
        tenant: &Tenant,
        run: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Shared { config, deps, admission, .. } = &*self.shared;
        let limits = self.limits(&tenant.id);
        let after = match limits.query_secs_max {
            0 => config.timeout.0,
            secs => config.timeout.0.min(Duration::from_secs(secs)),
        };
        let admitted = async {
            let _permit = admission.enter(tenant, limits.queries_concurrent_max).await?;
            run.await
        };
        tokio::select! {
            answer = admitted => answer,
            () = deps.clock.sleep(after) => Err(Error::Timeout { after }),
        }
    }
}

fn cost(sources: &Sources, env: &Env) -> Stats {
    Stats { milliseconds: env.stages.milliseconds(), ..sources.stats() }
}

/// Folds the profiles of all selections into `sums`, in the order of the selections; `add` also gets the selection's
/// position.
async fn fold_profiles<S: Send + 'static>(
    selected: &[Selected],
    counted: Counted,
    stages: &Stages,
    mut sums: S,
    add: impl Fn(&mut S, usize, &Selected, &Profiles) -> Result<(), Error> + Copy + Send + 'static,
) -> Result<S, Error> {
    let mut profiles = std::pin::pin!(selection::profiles(selected, counted));
    let mut index = 0;
    while let Some((one, profiles)) = stages.time(Stage::Scan, profiles.try_next()).await? {
        let fold = off_loop(profiles.series.len(), move || {
            let added = add(&mut sums, index, &one, &profiles);
            added.map(|()| sums)
        });
        sums = stages.time(Stage::Merge, fold).await?;
        index += 1;
    }
    Ok(sums)
}

/// Does work over so many rows: at once where they are few, else on a blocking thread.
pub(crate) async fn off_loop<T: Send + 'static>(rows: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if rows <= INLINE_ROWS_MAX {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down: nobody waits for the answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
