//! What a query scans: the blocks of one catalogue snapshot and the heads that follow it.

use std::sync::Arc;

use cambium_blocks::source::ScanStats;
use cambium_blocks::without::Without;
use cambium_blocks::{BlockSource, Source};
use cambium_metastore::catalogue::CatalogueView;
use cambium_model::deletion::Deletion;
use cambium_model::tenant::Tenant;
use cambium_model::time::TimeRange;

use crate::error::Error;
use crate::heads::HeadsError;
use crate::merged::Stats;
use crate::request::SeriesMatch;
use crate::{Deps, plan};

/// A source of one query.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// What to scan.
    pub source: Arc<dyn Source>,
    /// Time of its earliest and of its latest profile, where that is known without opening it.
    pub span: Option<(i64, i64)>,
    /// What it had cost before this query.
    before: ScanStats,
}

/// The sources of one query: blocks in log order, then heads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The sources.
    pub list: Vec<Opened>,
    blocks: u64,
    heads: u64,
}

impl Sources {
    /// Everything that may hold profiles of the range in matching series. Nothing is read yet but the catalogue.
    ///
    /// A head that has gone on since the snapshot is answered by one new snapshot; a second time is an error.
    pub async fn open(
        deps: &Deps,
        tenant: &Tenant,
        range: TimeRange,
        matches: &[SeriesMatch],
    ) -> Result<Self, Error> {
        let view = deps.catalogue.view(tenant, range).await?;
        match deps.heads.heads(tenant, &view.committed).await {
            Ok(heads) => Ok(Self::of(deps, tenant, range, matches, &view, heads)),
            Err(HeadsError::SnapshotTooOld { .. }) => {
                let view = deps.catalogue.view(tenant, range).await?;
                let heads = deps.heads.heads(tenant, &view.committed).await?;
                Ok(Self::of(deps, tenant, range, matches, &view, heads))
            }
            Err(other) => Err(other.into()),
        }
    }

    fn of(
        deps: &Deps,
        tenant: &Tenant,
        range: TimeRange,
        matches: &[SeriesMatch],
        view: &CatalogueView,
        heads: Vec<Arc<dyn Source>>,
    ) -> Self {
        let mut sources = Self::default();
        if view.retired {
            return sources;
        }
        let (limits, now_ns) = (deps.limits.borrow().of(&tenant.id).clone(), deps.clock.now_ns());
        for block in &view.blocks {
            let Some(index) = plan::wanted(block, tenant, range, matches) else { continue };
            let dataset = &block.datasets[index];
            if !limits.keeps(dataset.last_ns, now_ns) {
                // Too old for the tenant, and only waiting to be removed.
                continue;
            }
            let store = Arc::clone(&deps.store);
            let source = BlockSource::new(store, Arc::clone(&deps.cache), Arc::clone(block), index);
            let awaited = view.deletions.iter().filter(|recorded| dataset.awaits(recorded));
            let awaited: Vec<Deletion> = awaited.map(|recorded| recorded.deletion.clone()).collect();
            if awaited.is_empty() {
                sources.push(Arc::new(source), Some((dataset.first_ns, dataset.last_ns)));
            } else {
                // Its span may be that of profiles that are gone.
                sources.push(Arc::new(Without::new(Arc::new(source), awaited)), None);
            }
            sources.blocks += 1;
        }
        let touching = view.deletions.iter().filter(|recorded| overlap(recorded.deletion.range, range));
        let touching: Vec<Deletion> = touching.map(|recorded| recorded.deletion.clone()).collect();
        for head in heads {
            if touching.is_empty() {
                sources.push(head, None);
            } else {
                sources.push(Arc::new(Without::new(head, touching.clone())), None);
            }
            sources.heads += 1;
        }
        sources
    }

    fn push(&mut self, source: Arc<dyn Source>, span: Option<(i64, i64)>) {
        let before = source.stats();
        self.list.push(Opened { source, span, before });
    }

    /// What scanning them has cost so far; no times.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { blocks: self.blocks, heads: self.heads, ..Stats::default() };
        for opened in &self.list {
            let (before, now) = (opened.before, opened.source.stats());
            let rows = |scan: ScanStats| scan.sample_rows + scan.rollup_rows + scan.profile_rows;
            stats.requests += now.requests - before.requests;
            stats.bytes += now.bytes_fetched - before.bytes_fetched;
            stats.bytes_decoded += now.bytes_decoded - before.bytes_decoded;
            stats.rows += rows(now) - rows(before);
        }
        stats
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
            sources.push(head, None);
            sources.heads += 1;
        }
        sources
    }
}
