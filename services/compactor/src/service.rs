//! The compactor as a role: looks for work, does it, until told to stop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cambium_metastore::catalogue::{self, Everything, Replacement};
use cambium_metastore::leases::{Lease, RENEW_INTERVAL};
use cambium_metastore::{Catalogue, Leases, Tenants};
use cambium_model::block::DatasetMeta;
use cambium_model::limits::Overrides;
use cambium_model::tenant::TenantNumber;
use cambium_model::time::{DAY_NS, SECOND_NS};
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use fail::fail_point;
use object_store::ObjectStore;
use tokio::sync::watch;

use crate::merge_job::MergeJob;
use crate::metrics::CompactorMetrics;
use crate::plan::{Job, Work, plan};
use crate::sweep::{self, GRACE_NS};
use crate::{Config, Error};

/// How often the bucket is listed for objects that nothing refers to.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// How long after a tenant's deletion heads and processes may still have something of it.
const ERASE_AFTER_NS: i64 = 3_600 * SECOND_NS;
/// How often names are looked through for those that nobody sends any more.
const NAMES_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// How much longer than profiles their names are kept, in days: a name in use is written again every 14 days at least, and
/// a block may hold a day.
const NAMES_KEPT_DAYS: u64 = 30;
const DAY_SECS: u64 = 86_400;
/// The lease of whoever deletes objects.
const SWEEP: &str = "sweep";

/// What the compactor works with.
#[derive(Debug)]
pub struct Deps {
    /// Which blocks there are.
    pub catalogue: Arc<Catalogue>,
    /// Which tenants there are.
    pub tenants: Arc<Tenants>,
    /// Who does what.
    pub leases: Leases,
    /// The blocks.
    pub store: Arc<dyn ObjectStore>,
    /// An empty folder for what a job keeps on disk meanwhile: up to three times its inputs.
    pub scratch: PathBuf,
    /// Tenants' limits, for retention and the acceptance window.
    pub limits: watch::Receiver<Arc<Overrides>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The registry.
    pub metrics: Metrics,
}

/// The role.
#[derive(Debug)]
pub struct Service {
    config: Config,
    deps: Deps,
    metrics: CompactorMetrics,
    /// Objects that nothing referred to at the last listing, and when that was.
    orphans: Option<(Duration, BTreeSet<String>)>,
    /// When names were last looked through.
    names: Option<Duration>,
}

impl Service {
    /// The role, before it runs.
    pub fn new(config: Config, deps: Deps) -> Self {
        let metrics = CompactorMetrics::new(&deps.metrics);
        Self { config, deps, metrics, orphans: None, names: None }
    }

    /// Works until `shutdown`. A job that is under way then is given up: its inputs are still there.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                () = self.round() => drop(self.metrics.rounds.inc()),
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = self.deps.clock.sleep(self.config.interval.0) => {}
            }
        }
    }

    /// Does what is due until nothing is, or something fails; says what.
    async fn round(&mut self) {
        loop {
            match self.work().await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    self.metrics.job_failures.inc();
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::error!(error, "compaction failed");
                    return;
                }
            }
        }
    }

    /// Does every job that is due now and that nobody else does, then deletes what is due. Returns how many jobs were
    /// done.
    ///
    /// # Errors
    /// The first job's that failed; those before it are done.
    pub async fn work(&mut self) -> Result<usize, Error> {
        let catalogue = self.deps.catalogue.all().await?;
        let limits = Arc::clone(&self.deps.limits.borrow());
        let jobs = plan(self.deps.clock.now_ns(), &limits, &catalogue);
        let catalogue = Arc::new(catalogue);
        let bytes: u64 = jobs.iter().flat_map(|job| &job.inputs).map(|block| block.size_bytes).sum();
        self.metrics.backlog_jobs.set(jobs.len() as i64);
        self.metrics.backlog_bytes.set(bytes as i64);
        let mut done = 0;
        for job in jobs {
            if let Some(lease) = self.deps.leases.acquire(&job.name).await? {
                let result = self.under_lease(&lease, &job, &limits, &catalogue).await;
                self.deps.leases.release(&lease).await?;
                done += usize::from(result?);
            }
        }
        self.erase(&catalogue).await?;
        self.sweep().await?;
        Ok(done)
    }

    /// Does a job while its lease is renewed. Returns whether it was this one's to do.
    async fn under_lease(
        &self,
        lease: &Lease,
        job: &Job,
        limits: &Arc<Overrides>,
        catalogue: &Arc<Everything>,
    ) -> Result<bool, Error> {
        let began = self.deps.clock.monotonic();
        let result = tokio::select! {
            result = self.job(lease, job, limits, catalogue) => result,
            error = self.keep(lease) => Err(error),
        };
        self.metrics.took((self.deps.clock.monotonic() - began).as_secs_f64());
        match result {
            Ok(()) => Ok(true),
            Err(
                Error::LeaseLost { .. }
                | Error::Catalogue(catalogue::Error::LeaseLost { .. } | catalogue::Error::BlockGone { .. }),
            ) => {
                self.metrics.jobs_lost.inc();
                tracing::info!(job = job.name, "somebody else has done it or does it");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Renews the lease for as long as that works.
    async fn keep(&self, lease: &Lease) -> Error {
        loop {
            self.deps.clock.sleep(RENEW_INTERVAL).await;
            match self.deps.leases.renew(lease).await {
                Ok(true) => {}
                Ok(false) => return Error::LeaseLost { job: lease.job.clone() },
                // The commit will tell whether it mattered.
                Err(error) => tracing::warn!(%error, job = lease.job, "lease not renewed"),
            }
        }
    }

    async fn job(
        &self,
        lease: &Lease,
        job: &Job,
        limits: &Arc<Overrides>,
        catalogue: &Arc<Everything>,
    ) -> Result<(), Error> {
        let now_ns = self.deps.clock.now_ns();
        fail_point!("compact-before-merge");
        let outputs = match job.work {
            Work::Remove => Vec::new(),
            Work::Merge { level } => {
                let merge = MergeJob {
                    level,
                    inputs: job.inputs.clone(),
                    lease: lease.clone(),
                    now_ns,
                    limits: Arc::clone(limits),
                    catalogue: Arc::clone(catalogue),
                    block_bytes_max: self.config.block_bytes_max.0,
                    scratch: self.deps.scratch.clone(),
                };
                merge.run(self.deps.store.as_ref()).await?
            }
        };
        fail_point!("compact-before-commit");
        let replacement = Replacement {
            inputs: job.inputs.clone(),
            outputs,
            lease: lease.clone(),
            garbage_due_ns: self.deps.clock.now_ns().saturating_add(GRACE_NS),
        };
        self.deps.catalogue.replace(&replacement).await?;
        fail_point!("compact-after-commit");
        self.count(job, &replacement);
        Ok(())
    }

    fn count(&self, job: &Job, replacement: &Replacement) {
        let Work::Merge { level } = job.work else {
            self.metrics.blocks_removed.inc_by(job.inputs.len() as u64);
            return;
        };
        let label = CompactorMetrics::level(level);
        let outputs = &replacement.outputs;
        self.metrics.jobs.get_or_create(&label).inc();
        let read: u64 = job.inputs.iter().map(|block| block.size_bytes).sum();
        self.metrics.read_bytes.get_or_create(&label).inc_by(read);
        let written: u64 = outputs.iter().map(|block| block.size_bytes).sum();
        self.metrics.written_bytes.get_or_create(&label).inc_by(written);
        let samples = outputs.iter().flat_map(|block| &block.datasets).map(|dataset| dataset.samples);
        self.metrics.written_samples.get_or_create(&label).inc_by(samples.sum());
        let is_left_as_sums = |input: &&DatasetMeta| {
            let mut left = outputs.iter().flat_map(|block| &block.datasets);
            left.any(|dataset| dataset.tenant.number == input.tenant.number && dataset.is_downsampled())
        };
        let datasets = job.inputs.iter().flat_map(|block| &block.datasets).filter(is_left_as_sums);
        self.metrics.dropped_samples.inc_by(datasets.map(|dataset| dataset.samples).sum());
        tracing::info!(
            job = job.name,
            level,
            inputs = job.inputs.len(),
            read,
            outputs = outputs.len(),
            written,
            "merged"
        );
    }

    /// Removes the names of deleted tenants of which no block holds anything any more.
    async fn erase(&self, catalogue: &Everything) -> Result<(), Error> {
        let flushed = catalogue.logs.iter().flat_map(|log| &log.blocks);
        let blocks = flushed.chain(catalogue.merged.iter().flat_map(|owned| &owned.blocks));
        let held: BTreeSet<TenantNumber> =
            blocks.flat_map(|block| &block.datasets).map(|dataset| dataset.tenant.number).collect();
        let before_ns = self.deps.clock.now_ns().saturating_sub(ERASE_AFTER_NS);
        for (number, retired) in &catalogue.retired {
            if !retired.erased && retired.retired_ns <= before_ns && !held.contains(number) {
                self.deps.tenants.erase(*number).await?;
                tracing::info!(tenant = %retired.tenant.id, number = number.0, "erased");
            }
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Result<(), Error> {
        // A lease costs two commits: an idle compactor does without.
        if !self.sweep_is_due().await? {
            return Ok(());
        }
        let Some(lease) = self.deps.leases.acquire(SWEEP).await? else { return Ok(()) };
        let result = self.swept().await;
        self.deps.leases.release(&lease).await?;
        result
    }

    async fn sweep_is_due(&self) -> Result<bool, Error> {
        let orphans = self.orphans.as_ref().map(|(last, _)| *last);
        let is_due = self.is_due(orphans, ORPHANS_INTERVAL) || self.is_due(self.names, NAMES_INTERVAL);
        Ok(is_due || !self.deps.catalogue.garbage(self.deps.clock.now_ns(), 1).await?.is_empty())
    }

    fn is_due(&self, last: Option<Duration>, interval: Duration) -> bool {
        last.is_none_or(|last| self.deps.clock.monotonic().saturating_sub(last) >= interval)
    }

    async fn swept(&mut self) -> Result<(), Error> {
        let (catalogue, store) = (&self.deps.catalogue, self.deps.store.as_ref());
        let (now_ns, now) = (self.deps.clock.now_ns(), self.deps.clock.monotonic());
        let deleted = sweep::garbage(catalogue, store, now_ns).await?;
        self.metrics.objects_deleted.inc_by(deleted);
        if self.is_due(self.orphans.as_ref().map(|(last, _)| *last), ORPHANS_INTERVAL) {
            let found = sweep::orphans(catalogue, store, now_ns).await?;
            if let Some((_, before)) = &self.orphans {
                self.metrics.orphans_deleted.inc_by(sweep::delete_orphans(store, before, &found).await?);
            }
            self.orphans = Some((now, found));
        }
        if self.is_due(self.names, NAMES_INTERVAL) {
            self.sweep_names(now_ns).await?;
            self.names = Some(now);
        }
        Ok(())
    }

    /// Removes names that no block can name any more, because nobody has sent them for longer than profiles are kept.
    async fn sweep_names(&self, now_ns: i64) -> Result<(), Error> {
        let limits = Arc::clone(&self.deps.limits.borrow());
        for tenant in self.deps.tenants.list().await? {
            let kept_secs = limits.of(&tenant.id).retention_of(None);
            if kept_secs == 0 {
                continue; // for ever
            }
            let kept_days = kept_secs.div_ceil(DAY_SECS).saturating_add(NAMES_KEPT_DAYS);
            let today = u64::try_from(now_ns / DAY_NS).unwrap_or(0);
            let Ok(before_day) = u32::try_from(today.saturating_sub(kept_days)) else { continue };
            let swept = self.deps.tenants.sweep_names(tenant.number, before_day).await?;
            self.metrics.names_seen.inc_by(swept.seen);
            self.metrics.names_removed.inc_by(swept.removed);
        }
        Ok(())
    }
}
