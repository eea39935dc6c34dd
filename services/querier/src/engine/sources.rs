//! What a query scans: the blocks of one catalogue snapshot and the heads that follow it.

use std::sync::Arc;

use cambium_blocks::source::{Budget, ScanStats};
use cambium_blocks::without::Without;
use cambium_blocks::{BlockSource, Source};
use cambium_metastore::catalogue::{CatalogueView, OpenLog};
use cambium_model::deletion::{Deletion, RecordedDeletion};
use cambium_model::tenant::Tenant;
use cambium_model::time::TimeRange;

use super::partial_trees::SourceKey;
use crate::error::Error;
use crate::explain::{Explain, SourcePlan, Wants, estimate};
use crate::heads::{Found, HeadsError};
use crate::merged::{MissingLog, Stats};
use crate::plan::Unwanted;
use crate::request::SeriesMatch;
use crate::{Deps, plan};

/// A source of one query.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// What to scan.
    pub source: Arc<dyn Source>,
    /// Time of its earliest and of its latest profile, where that is known without opening it.
    pub span: Option<(i64, i64)>,
    /// What it is, where it never changes.
    pub fixed: Option<Fixed>,
    /// What it had cost before this query.
    before: ScanStats,
}

/// What a source is that never changes.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    /// Its name.
    pub key: Arc<SourceKey>,
    /// All its profiles lie from the first of these times to the second.
    pub bounds: (i64, i64),
}

/// What a query asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Whose.
    pub tenant: &'a Tenant,
    /// By the profiles' time.
    pub range: TimeRange,
    /// Which series; all where there are none.
    pub matches: &'a [SeriesMatch],
    /// What of them.
    pub wants: Wants,
}

/// The sources of one query: blocks in log order, then heads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The sources.
    pub list: Vec<Opened>,
    plan: Explain,
    /// Logs whose recent profiles are not among them.
    missing: Vec<OpenLog>,
}

impl Sources {
    /// Everything that may hold profiles of the range in matching series. Nothing is read yet but the catalogue.
    ///
    /// A head that has gone on since the snapshot, or moved elsewhere, is answered by one new snapshot. What is too old a
    /// second time is an error; what is missing a second time is named in the answer.
    pub async fn open(deps: &Deps, question: &Question<'_>) -> Result<Self, Error> {
        let Question { tenant, range, .. } = *question;
        let view = deps.catalogue.view(tenant, range).await?;
        match deps.heads.heads(tenant, &view.logs).await {
            Ok(found) if found.missing.is_empty() => return Ok(Self::of(deps, question, &view, found)),
            Ok(_) | Err(HeadsError::SnapshotTooOld { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        let view = deps.catalogue.view(tenant, range).await?;
        let found = deps.heads.heads(tenant, &view.logs).await?;
        Ok(Self::of(deps, question, &view, found))
    }

    fn of(deps: &Deps, question: &Question<'_>, view: &CatalogueView, found: Found) -> Self {
        let Question { tenant, range, matches, wants } = *question;
        let mut sources = Self::default();
        if view.retired {
            return sources;
        }
        let (limits, now_ns) = (deps.limits.borrow().of(&tenant.id).clone(), deps.clock.now_ns());
        let bytes_max = if limits.query_bytes_max == 0 { u64::MAX } else { limits.query_bytes_max };
        let budget = Arc::new(Budget::new(bytes_max));
        let skipped = &mut sources.plan.skipped;
        let mut wanted = Vec::with_capacity(view.blocks.len());
        for block in &view.blocks {
            match plan::wanted(block, tenant, range, matches) {
                Ok(index) if limits.keeps_dataset(&block.datasets[index], now_ns) => {
                    wanted.push((block, index))
                }
                Ok(_) => skipped.expired += 1,
                Err(Unwanted::Range) => skipped.range += 1,
                Err(Unwanted::Series) => skipped.series += 1,
            }
        }
        for (block, index) in wanted {
            let dataset = &block.datasets[index];
            sources.plan.push(SourcePlan {
                path: block.path.clone(),
                level: block.level,
                first_ns: dataset.first_ns,
                last_ns: dataset.last_ns,
                series: dataset.series,
                samples: dataset.samples,
                bytes_estimated: estimate(dataset, range, matches, wants),
                cost: None,
            });
            let (store, cache) = (Arc::clone(&deps.store), Arc::clone(&deps.cache));
            let source = Arc::new(BlockSource::within(store, cache, Arc::clone(block), index, &budget));
            let awaited: Vec<&RecordedDeletion> =
                view.deletions.iter().filter(|recorded| dataset.awaits(recorded)).collect();
            let bounds = (dataset.first_ns, dataset.last_ns);
            let deletions = awaited.iter().map(|recorded| recorded.id).collect();
            let key = Arc::new(SourceKey { path: block.path.clone(), index, deletions });
            let fixed = Some(Fixed { key, bounds });
            if awaited.is_empty() {
                sources.push(source, Some(bounds), fixed);
            } else {
                let awaited = awaited.iter().map(|recorded| recorded.deletion.clone()).collect();
                // Its span may be that of profiles that are gone.
                sources.push(Arc::new(Without::new(source, awaited)), None, fixed);
            }
        }
        let touching = view.deletions.iter().filter(|recorded| overlap(recorded.deletion.range, range));
        let touching: Vec<Deletion> = touching.map(|recorded| recorded.deletion.clone()).collect();
        sources.missing = found.missing;
        for head in found.heads {
            let head =
                if touching.is_empty() { head } else { Arc::new(Without::new(head, touching.clone())) };
            sources.push(head, None, None);
            sources.plan.heads += 1;
        }
        sources
    }

    /// What is to be read, before it is.
    pub fn into_plan(self) -> Explain {
        self.plan
    }

    /// What was read, after it was.
    pub fn explain(mut self) -> Explain {
        for (position, opened) in self.list.iter().enumerate() {
            self.plan.took(position, opened.cost());
        }
        self.plan
    }

    fn push(&mut self, source: Arc<dyn Source>, span: Option<(i64, i64)>, fixed: Option<Fixed>) {
        let before = source.stats();
        self.list.push(Opened { source, span, fixed, before });
    }

    /// What scanning them has cost so far; no times.
    pub fn stats(&self) -> Stats {
        let missing = self.missing.iter().map(MissingLog::from).collect();
        let (blocks, heads) = (self.plan.blocks, self.plan.heads);
        let mut stats = Stats { blocks, heads, missing, ..Stats::default() };
        for opened in &self.list {
            let cost = opened.cost();
            stats.requests += cost.requests;
            stats.bytes += cost.bytes_fetched;
            stats.bytes_needed += cost.bytes_needed;
            stats.rows += cost.sample_rows + cost.rollup_rows + cost.profile_rows;
        }
        stats
    }
}

impl Opened {
    /// What this query has cost it so far.
    fn cost(&self) -> ScanStats {
        self.source.stats().since(&self.before)
    }
}

fn overlap(a: TimeRange, b: TimeRange) -> bool {
    a.start_ns < b.end_ns && b.start_ns < a.end_ns
}

#[cfg(test)]
impl Sources {
    /// These sources, as heads.
    pub fn of_heads(heads: Vec<Arc<dyn Source>>) -> Self {
        let mut sources = Self::default();
        for head in heads {
            sources.push(head, None, None);
            sources.plan.heads += 1;
        }
        sources
    }
}
