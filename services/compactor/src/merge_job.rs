//! One merge: inputs fetched, datasets merged tenant by tenant, blocks put, all committed at once.
//!
//! ```text
//!   inputs ─► files ─► for each tenant and class of retention: blocks::merge
//!                        ├─ large ─► a block of its own (several, split by scope)
//!                        └─ small ─► a block shared with other small ones that are kept for as long
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cambium_blocks::layout::merged_path;
use cambium_blocks::merge::{Input, Wanted, merge, samples_by_scope};
use cambium_blocks::series_table::ScopeName;
use cambium_blocks::writer::spool::Scratch;
use cambium_blocks::writer::{Compression, EncodedDataset, SpooledBlock, assemble};
use cambium_metastore::catalogue::Everything;
use cambium_metastore::leases::Lease;
use cambium_model::block::{BlockMeta, DatasetMeta, LogRange};
use cambium_model::deletion::Deletion;
use cambium_model::limits::Overrides;
use cambium_model::retention::RetentionRules;
use cambium_model::tenant::TenantNumber;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};

use crate::Error;
use crate::plan::{TOP_LEVEL, is_expired, may_be_retried, should_downsample};

mod classes;

pub(crate) mod covers;

use classes::{Class, classes};

/// A tenant whose merged part has at least so many bytes gets a block of its own.
const OWN_BYTES_MIN: u64 = 1 << 20;
/// Blocks that one job makes for single tenants. A partition that flushes every minute and is merged every ten puts two
/// objects a minute with it, and a job's transaction stays small.
const OWN_BLOCKS_MAX: usize = 8;
/// Bytes after which a shared block ends.
const SHARED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a section that stay in memory while it is written.
const SECTION_MEMORY_BYTES: usize = 256 << 10;

/// What a merge needs to know besides its inputs.
#[derive(Clone, Debug)]
pub struct MergeJob {
    /// The level of the blocks to make.
    pub level: u8,
    /// The blocks to merge.
    pub inputs: Vec<Arc<BlockMeta>>,
    /// The right to do it; the blocks carry its fence.
    pub lease: Lease,
    /// When the job began, nanoseconds since the Unix epoch.
    pub now_ns: i64,
    /// Tenants' limits: what is too old is left out.
    pub limits: Arc<Overrides>,
    /// The catalogue when the job was planned: what tenants have had deleted, and which were.
    pub catalogue: Arc<Everything>,
    /// Largest block to make.
    pub block_bytes_max: u64,
    /// Where inputs and outputs are kept meanwhile.
    pub scratch: PathBuf,
}

/// A tenant's dataset of an input.
struct Held<'a> {
    block: &'a Arc<BlockMeta>,
    index: usize,
    input: Input,
}

impl Held<'_> {
    fn dataset(&self) -> &DatasetMeta {
        &self.block.datasets[self.index]
    }
}

/// Profiles of a tenant on their way into a block, and what they stand for.
struct Part {
    dataset: EncodedDataset,
    class: Class,
    bounds: covers::Bounds,
}

/// A merge under way: blocks are put as they come, the last one says how many there are.
struct Output<'a> {
    job: &'a MergeJob,
    store: &'a dyn ObjectStore,
    /// Datasets that will share a block, by how long they are kept: so whole blocks are no longer wanted at once.
    shared: BTreeMap<u64, Vec<EncodedDataset>>,
    /// The block that is ready, kept back until it is known whether it is the last.
    ready: Option<(Option<TenantNumber>, Vec<EncodedDataset>)>,
    own_blocks: usize,
    /// Profiles in the blocks that have been put.
    profiles: u64,
    put: Vec<BlockMeta>,
}

#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl MergeJob {
    /// Does the work and puts the blocks; committing them is left. Returns their entries, none where nothing is left of
    /// the inputs.
    ///
    /// # Errors
    /// [`Error::Blocks`], [`Error::Store`], [`Error::Scratch`].
    pub async fn run(&self, store: &dyn ObjectStore) -> Result<Vec<BlockMeta>, Error> {
        let mut files = Vec::with_capacity(self.inputs.len());
        for block in &self.inputs {
            files.push(Arc::new(self.fetch(store, &block.path).await?));
        }
        let datasets = self.inputs.iter().flat_map(|block| &block.datasets);
        let tenants: BTreeSet<TenantNumber> = datasets
            .filter(|dataset| !is_expired(self.now_ns, &self.limits, dataset))
            .filter(|dataset| !self.catalogue.retired.contains_key(&dataset.tenant.number))
            .map(|dataset| dataset.tenant.number)
            .collect();
        let (shared, put) = (BTreeMap::new(), Vec::new());
        let mut output = Output { job: self, store, shared, ready: None, own_blocks: 0, profiles: 0, put };
        // Ends the thread when this future is dropped: a process that is told to stop does not wait for a merge.
        let stop = StopOnDrop::default();
        for tenant in tenants {
            let (job, files, stop) = (self.clone(), files.clone(), Arc::clone(&stop.0));
            let merging = tokio::task::spawn_blocking(move || job.merge_tenant(tenant, &files, &stop));
            output.add(tenant, merging.await.map_err(|_| Error::TaskEnded)??).await?;
        }
        output.finish().await
    }

    /// The object as a file: where it lies, if that is a file here, else a copy.
    async fn fetch(&self, store: &dyn ObjectStore, path: &str) -> Result<File, Error> {
        let failed = |source| Error::Store { path: path.to_owned(), source };
        let mut pieces = match store.get(&Path::from(path)).await.map_err(failed)?.payload {
            GetResultPayload::File(file, _) => return Ok(file),
            GetResultPayload::Stream(pieces) => pieces,
        };
        let mut file = tempfile::tempfile_in(&self.scratch)?;
        while let Some(piece) = pieces.try_next().await.map_err(failed)? {
            let writing = tokio::task::spawn_blocking(move || file.write_all(&piece).map(|()| file));
            file = writing.await.map_err(|_| Error::TaskEnded)??;
        }
        Ok(file)
    }

    /// A tenant's part of all inputs: a dataset for each class of retention, several by scope where one would be too large.
    fn merge_tenant(
        &self,
        tenant: TenantNumber,
        files: &[Arc<File>],
        stop: &AtomicBool,
    ) -> Result<Vec<EncodedDataset>, Error> {
        let mut held = Vec::new();
        for (block, file) in self.inputs.iter().zip(files) {
            let index = block.datasets.iter().position(|dataset| dataset.tenant.number == tenant);
            let Some(index) = index else { continue };
            if !is_expired(self.now_ns, &self.limits, &block.datasets[index]) {
                let input = Input::open(Arc::clone(file), Arc::clone(block), index)?;
                held.push(Held { block, index, input });
            }
        }
        let Some(first) = held.first() else { return Ok(Vec::new()) };
        let rules = &self.limits.of(&first.dataset().tenant.id).retention_rules;
        let recorded = self.catalogue.deletions.get(&tenant).map(Vec::as_slice).unwrap_or_default();
        let deletions: Vec<Deletion> = recorded.iter().map(|recorded| recorded.deletion.clone()).collect();
        let mut parts = Vec::new();
        for class in classes(rules, held.iter().map(Held::dataset)) {
            parts.extend(self.merge_class(&class, rules, &deletions, &held, stop)?);
        }
        let last = recorded.last().map_or(0, |recorded| recorded.id);
        Ok(self.noted(parts, &held, last))
    }

    /// What of a tenant's part is of a class of retention.
    fn merge_class(
        &self,
        class: &Class,
        rules: &RetentionRules,
        deletions: &[Deletion],
        held: &[Held<'_>],
        stop: &AtomicBool,
    ) -> Result<Vec<Part>, Error> {
        let of_class = held.iter().filter(|held| class.may_take(held.dataset()));
        let inputs: Vec<Input> = of_class.map(|held| held.input.clone()).collect();
        let scratch = Scratch::folder(&self.scratch, SECTION_MEMORY_BYTES);
        let is_old = |input: &Input| should_downsample(self.now_ns, &self.limits, input.meta());
        let downsample = self.level == TOP_LEVEL && inputs.iter().all(is_old);
        let keep_ids = self.catalogue.has_leftovers()
            || self.inputs.iter().any(|block| may_be_retried(self.now_ns, &self.limits, block));
        let compression = if self.level == TOP_LEVEL { Compression::Cold } else { Compression::Hot };
        let whole = Wanted {
            scopes: None,
            class: class.of_rules.map(|class| (rules, class.index as usize)),
            deletions,
            level: self.level,
            downsample,
            keep_ids,
            compression,
            stop: Some(stop),
        };
        let sections = inputs.iter().flat_map(|input| &input.meta().sections);
        let bytes: u64 = sections.map(|section| section.length).sum();
        let mut parts = Vec::new();
        let mut add = |part: Option<EncodedDataset>, bounds| {
            parts.extend(part.map(|dataset| Part { dataset, class: class.clone(), bounds }));
        };
        if bytes <= self.block_bytes_max {
            add(merge(&inputs, &whole, &scratch)?, (None, None));
        } else {
            let samples = samples_by_scope(&inputs, &whole)?;
            let groups = split(samples, bytes.div_ceil(self.block_bytes_max));
            for (scopes, bounds) in groups.iter().zip(covers::bounds(&groups)) {
                let wanted = Wanted { scopes: Some(scopes), ..whole.clone() };
                add(merge(&inputs, &wanted, &scratch)?, bounds);
            }
        }
        Ok(parts)
    }

    /// The parts with what they say of themselves: which deletions they have had, and what they stand for.
    fn noted(&self, parts: Vec<Part>, held: &[Held<'_>], last_deletion: u64) -> Vec<EncodedDataset> {
        let log_ranges = log_ranges(&self.inputs);
        let datasets = held.iter().map(Held::dataset);
        let before: u64 = datasets.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum();
        let after: u64 = parts.iter().map(|part| part.dataset.meta().profiles).sum();
        let last = parts.len().saturating_sub(1);
        let note = |(index, part): (usize, Part)| {
            let Part { mut dataset, class, bounds } = part;
            let of_class = held.iter().filter(|held| class.may_take(held.dataset()));
            let of_class: Vec<_> = of_class.map(|held| (held.block, held.index)).collect();
            let covers = covers::within(&of_class, &bounds, class.of_rules);
            dataset.note_deletions(last_deletion);
            dataset.note_covers(covers::stored(covers, &log_ranges));
            dataset.note_left_out(if index == last { before.saturating_sub(after) } else { 0 });
            dataset.note_retention(class.name);
            dataset
        };
        parts.into_iter().enumerate().map(note).collect()
    }

    /// Profiles of the inputs as they were flushed, but for those that are too old and those of deleted tenants.
    fn profiles(&self) -> u64 {
        let datasets = self.inputs.iter().flat_map(|block| &block.datasets);
        let kept = datasets
            .filter(|dataset| !is_expired(self.now_ns, &self.limits, dataset))
            .filter(|dataset| !self.catalogue.retired.contains_key(&dataset.tenant.number));
        kept.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum()
    }

    /// What the catalogue will say of a block but for its datasets.
    fn header(&self, tenant: Option<TenantNumber>, datasets: &[EncodedDataset], part: u32) -> BlockMeta {
        let last_ns = datasets.iter().map(|dataset| dataset.meta().last_ns).max().unwrap_or(0);
        BlockMeta {
            path: merged_path(self.level, tenant, self.lease.fence, part, last_ns),
            level: self.level,
            size_bytes: 0,
            toc_crc32c: 0,
            log_ranges: log_ranges(&self.inputs),
            epoch: self.lease.fence,
            datasets: Vec::new(),
            sources: self.inputs.iter().map(|block| block.path.clone()).collect(),
            part,
            parts: 0,
        }
    }
}

impl Output<'_> {
    async fn add(&mut self, tenant: TenantNumber, datasets: Vec<EncodedDataset>) -> Result<(), Error> {
        for dataset in datasets {
            // A tenant of several parts is a large one: a shared block holds each tenant once.
            let is_large = dataset.size_bytes() >= OWN_BYTES_MIN && self.own_blocks < OWN_BLOCKS_MAX;
            let limits = self.job.limits.of(&dataset.meta().tenant.id);
            let kept_secs = limits.retention_of(dataset.meta().retention_selector.as_deref());
            let shared = self.shared.entry(kept_secs).or_default();
            let is_held = shared.last().is_some_and(|held| held.meta().tenant.number == tenant);
            if is_large || is_held {
                self.own_blocks += 1;
                self.make(Some(tenant), vec![dataset]).await?;
                continue;
            }
            shared.push(dataset);
            if shared.iter().map(EncodedDataset::size_bytes).sum::<u64>() >= SHARED_BYTES_MAX {
                let shared = std::mem::take(shared);
                self.make_shared(shared).await?;
            }
        }
        Ok(())
    }

    async fn make_shared(&mut self, shared: Vec<EncodedDataset>) -> Result<(), Error> {
        let tenant = match shared.as_slice() {
            [] => return Ok(()),
            [only] => Some(only.meta().tenant.number),
            _ => None,
        };
        self.make(tenant, shared).await
    }

    async fn make(
        &mut self,
        tenant: Option<TenantNumber>,
        datasets: Vec<EncodedDataset>,
    ) -> Result<(), Error> {
        if let Some((tenant, datasets)) = self.ready.replace((tenant, datasets)) {
            self.put(tenant, datasets, false).await?;
        }
        Ok(())
    }

    async fn put(
        &mut self,
        tenant: Option<TenantNumber>,
        mut datasets: Vec<EncodedDataset>,
        is_last: bool,
    ) -> Result<(), Error> {
        let part = u32::try_from(self.put.len()).unwrap_or(u32::MAX);
        let of_all = datasets.iter().map(EncodedDataset::meta);
        self.profiles += of_all.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum::<u64>();
        // Those of tenants of whom nothing is left: all parts together weigh what the inputs did.
        let left_out = self.job.profiles().saturating_sub(self.profiles);
        if let Some(dataset) = datasets.last_mut().filter(|_| is_last) {
            dataset.note_left_out(dataset.meta().profiles_left_out + left_out);
        }
        let mut header = self.job.header(tenant, &datasets, part);
        header.parts = if is_last { part + 1 } else { 0 };
        let block: SpooledBlock = assemble(header, datasets);
        self.put.push(block.put(self.store).await?);
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<BlockMeta>, Error> {
        for shared in std::mem::take(&mut self.shared).into_values() {
            self.make_shared(shared).await?;
        }
        if let Some((tenant, datasets)) = self.ready.take() {
            self.put(tenant, datasets, true).await?;
        }
        Ok(self.put)
    }
}

/// Scopes in so many groups of about as many samples each, fewer where there are fewer scopes.
fn split(samples: BTreeMap<ScopeName, u64>, groups: u64) -> Vec<BTreeSet<ScopeName>> {
    let all: u64 = samples.values().sum();
    let per_group = all.div_ceil(groups.max(1)).max(1);
    let (mut parts, mut current, mut held) = (Vec::new(), BTreeSet::new(), 0);
    for (scope, samples) in samples {
        if held + samples > per_group && !current.is_empty() {
            parts.push(std::mem::take(&mut current));
            held = 0;
        }
        held += samples;
        current.insert(scope);
    }
    parts.extend((!current.is_empty()).then_some(current));
    parts
}

/// The ranges of all inputs; those that touch are one.
fn log_ranges(inputs: &[Arc<BlockMeta>]) -> Vec<LogRange> {
    let mut all: Vec<LogRange> = inputs.iter().flat_map(|block| block.log_ranges.iter().copied()).collect();
    all.sort_by_key(|range| (range.log, range.first));
    let mut joined: Vec<LogRange> = Vec::new();
    for range in all {
        match joined.last_mut() {
            Some(last) if last.log == range.log && range.first <= last.next => {
                last.next = last.next.max(range.next);
            }
            _ => joined.push(range),
        }
    }
    joined
}
