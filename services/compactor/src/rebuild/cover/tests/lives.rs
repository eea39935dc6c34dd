//! Lives of a bucket whose blocks know which records they hold: flushed, merged, died in between, swept in part.

use std::collections::VecDeque;

use cambium_blocks::series_table::ScopeName;
use cambium_model::block::{LogId, LogRange, Offset, Partition, RetentionClass};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};

use super::super::*;
use crate::merge_job::covers;
use crate::rebuild::{Contents, rebuilt};

mod random;

/// A record, by log and offset: one profile.
type Record = (u32, u64);

/// A block and what is really inside.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) meta: Arc<BlockMeta>,
    records: BTreeSet<Record>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    /// Whose each record is; none for one that holds nothing.
    logs: BTreeMap<u32, Vec<Option<u32>>>,
    epochs: BTreeMap<u32, u64>,
    next: BTreeMap<u32, u64>,
    fence: u64,
    pub(super) bucket: BTreeMap<String, Held>,
    pub(super) damaged: Vec<Damaged>,
    committed: Vec<Held>,
    garbage: VecDeque<String>,
    deleted: BTreeSet<Record>,
    /// How many rules of retention there are now: a record's number sorts it into one of their classes.
    rules: u64,
}

fn tenant(number: u32) -> Tenant {
    Tenant { id: TenantId::new(&format!("t{number}")).unwrap(), number: TenantNumber(number) }
}

fn log_id(log: u32) -> LogId {
    LogId { partition: Partition(log), log: 0 }
}

/// The service of a record.
fn scope(record: Record) -> ScopeName {
    let value = char::from(b'a' + (record.1 * 7 % 5) as u8).to_string();
    ScopeName { value: value.as_str().into(), label: "service_name".into() }
}

fn dataset(number: u32, profiles: usize) -> DatasetMeta {
    DatasetMeta {
        tenant: tenant(number),
        first_ns: 1,
        last_ns: 2,
        series: 1,
        profiles: profiles as u64,
        samples: 1,
        types: Vec::new(),
        scopes: Vec::new(),
        labels: Vec::new(),
        sections: Vec::new(),
        deletions_done: 0,
        covers: Vec::new(),
        profiles_left_out: 0,
        retention_selector: None,
    }
}

/// An output of a merge on its way: datasets with what is inside.
type Part = Vec<(DatasetMeta, BTreeSet<Record>)>;

impl World {
    fn owner(&self, record: Record) -> Option<u32> {
        self.logs[&record.0][record.1 as usize]
    }

    fn epoch(&mut self, log: u32) -> u64 {
        *self.epochs.entry(log).or_insert(1)
    }

    /// Appends records of these tenants.
    fn append(&mut self, log: u32, tenants: &[u32]) {
        self.logs.entry(log).or_default().extend(tenants.iter().map(|tenant| Some(*tenant)));
    }

    /// A block of so many records from where the log is committed.
    fn cut(&mut self, log: u32, count: u64) -> Held {
        let first = *self.next.entry(log).or_default();
        let next = first + count;
        let epoch = self.epoch(log);
        let mut records: BTreeMap<u32, BTreeSet<Record>> = BTreeMap::new();
        for offset in first..next {
            if let Some(owner) = self.owner((log, offset)) {
                records.entry(owner).or_default().insert((log, offset));
            }
        }
        let range = LogRange { log: log_id(log), first: Offset(first), next: Offset(next) };
        let datasets = records.iter().map(|(owner, held)| dataset(*owner, held.len())).collect();
        let meta = BlockMeta {
            path: format!("l0/{log}-{first}-e{epoch}"),
            level: 0,
            size_bytes: 1,
            toc_crc32c: 0,
            log_ranges: vec![range],
            epoch,
            datasets,
            sources: Vec::new(),
            part: 0,
            parts: 1,
        };
        Held { meta: Arc::new(meta), records: records.into_values().flatten().collect() }
    }

    fn put(&mut self, held: &Held) {
        self.bucket.entry(held.meta.path.clone()).or_insert_with(|| held.clone());
    }

    /// Flushes what stands in the log and these.
    pub(super) fn flush(&mut self, log: u32, tenants: &[u32]) {
        self.append(log, tenants);
        self.take(log, u64::MAX);
    }

    /// Flushes so many of the records in the log.
    pub(super) fn take(&mut self, log: u32, count: u64) {
        let waiting = self.logs[&log].len() as u64 - self.next.get(&log).copied().unwrap_or(0);
        let count = count.min(waiting);
        // What an owner replays and does not flush yet stays in the log.
        if count == 0 || (tenants_of(self, log, count) == 0) {
            return;
        }
        let held = self.cut(log, count);
        self.put(&held);
        *self.next.entry(log).or_default() += count;
        self.committed.push(held);
    }

    /// Offsets that hold nothing are committed without a block.
    pub(super) fn skip(&mut self, log: u32, count: u64) {
        self.flush(log, &[]);
        self.logs.entry(log).or_default().extend((0..count).map(|_| None));
        *self.next.entry(log).or_default() += count;
    }

    /// An owner puts a block and dies; the next one opens the log.
    pub(super) fn zombie(&mut self, log: u32, tenants: &[u32]) {
        self.append(log, tenants);
        let waiting = self.logs[&log].len() as u64 - self.next.get(&log).copied().unwrap_or(0);
        let held = self.cut(log, waiting);
        if !held.records.is_empty() {
            self.put(&held);
        }
        *self.epochs.get_mut(&log).unwrap() += 1;
    }

    pub(super) fn damage(&mut self, path: &str) {
        self.bucket.remove(path);
        self.damaged.push(Damaged { path: path.to_owned(), what: "is damaged".to_owned() });
    }

    /// Merges a log's oldest blocks; dies after so many parts, if any number is given.
    pub(super) fn merge_log(&mut self, log: u32, count: usize, dies_after: Option<usize>) {
        let of_log = self.committed.iter().filter(|held| held.meta.level == 0);
        let mut inputs: Vec<Held> =
            of_log.filter(|held| held.meta.log_ranges[0].log == log_id(log)).cloned().collect();
        inputs.truncate(count);
        self.merge(&inputs, 1, dies_after);
    }

    /// Blocks of an owner, 0 for those of several tenants.
    fn owned(&self, owner: u32) -> Vec<Held> {
        let is_owned = |held: &&Held| match held.meta.datasets.as_slice() {
            [only] => only.tenant.number.0 == owner,
            _ => owner == 0,
        };
        self.committed.iter().filter(|held| held.meta.level > 0).filter(is_owned).cloned().collect()
    }

    pub(super) fn merge_owner(&mut self, owner: u32, which: &[usize], dies_after: Option<usize>) {
        let owned = self.owned(owner);
        let inputs: Vec<Held> = which.iter().filter_map(|index| owned.get(*index)).cloned().collect();
        let level = inputs.iter().map(|held| held.meta.level).max().map_or(1, |level| (level + 1).min(3));
        self.merge(&inputs, level, dies_after);
    }

    /// As the compactor does: large tenants have blocks of their own, split by scope; the others share.
    fn merge(&mut self, inputs: &[Held], level: u8, dies_after: Option<usize>) {
        if inputs.is_empty() {
            return;
        }
        self.fence += 1;
        let mut parts: Vec<Part> = Vec::new();
        let mut shared: Part = Vec::new();
        let datasets = inputs.iter().flat_map(|held| &held.meta.datasets);
        let tenants: BTreeSet<u32> = datasets.map(|dataset| dataset.tenant.number.0).collect();
        let log_ranges = joined(inputs);
        for number in tenants {
            let mut merged = self.merge_tenant(number, inputs, &log_ranges);
            let is_large = number % 2 == 1 || merged.len() > 1;
            if is_large {
                parts.extend(merged.into_iter().map(|d| vec![d]))
            } else {
                shared.append(&mut merged)
            }
        }
        parts.extend((!shared.is_empty()).then_some(shared));
        let of_inputs = inputs.iter().flat_map(|held| &held.meta.datasets);
        let before: u64 = of_inputs.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum();
        let of_outputs = parts.iter().flatten().map(|(dataset, _)| dataset);
        let after: u64 = of_outputs.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum();
        if let Some((last, _)) = parts.last_mut().and_then(|part| part.last_mut()) {
            last.profiles_left_out += before - after;
        }
        let count = parts.len();
        let mut outputs = Vec::new();
        for (part, datasets) in parts.into_iter().enumerate() {
            let (datasets, records): (Vec<_>, Vec<_>) = datasets.into_iter().unzip();
            let meta = BlockMeta {
                path: format!("l{level}/f{}-{part}", self.fence),
                level,
                size_bytes: 1,
                toc_crc32c: 0,
                log_ranges: log_ranges.clone(),
                epoch: self.fence,
                datasets,
                sources: inputs.iter().map(|held| held.meta.path.clone()).collect(),
                part: part as u32,
                parts: if part + 1 == count { count as u32 } else { 0 },
            };
            outputs.push(Held { meta: Arc::new(meta), records: records.into_iter().flatten().collect() });
        }
        outputs.iter().take(dies_after.unwrap_or(usize::MAX)).for_each(|held| self.put(held));
        let is_input = |held: &Held| inputs.iter().any(|input| input.meta.path == held.meta.path);
        let current = self.committed.iter().filter(|held| is_input(held)).count() == inputs.len();
        if dies_after.is_none() && current {
            self.committed.retain(|held| !is_input(held));
            self.committed.extend(outputs);
            self.garbage.extend(inputs.iter().map(|held| held.meta.path.clone()));
        }
    }

    fn merge_tenant(&self, number: u32, inputs: &[Held], log_ranges: &[LogRange]) -> Part {
        let of_tenant = |meta: &BlockMeta| meta.datasets.iter().position(|d| d.tenant.number.0 == number);
        let held: Vec<(&Arc<BlockMeta>, usize)> =
            inputs.iter().filter_map(|held| Some((&held.meta, of_tenant(&held.meta)?))).collect();
        let datasets = held.iter().map(|(meta, index)| &meta.datasets[*index]);
        let mut classes: BTreeSet<Option<String>> =
            datasets.map(|dataset| dataset.retention_selector.clone()).collect();
        if self.rules > 0 && classes.remove(&None) {
            classes.extend((0..=self.rules).map(|index| Some(format!("{index} of {}", self.rules))));
        }
        let mut parts: Part = Vec::new();
        for class in classes {
            parts.extend(self.merge_class(number, class, inputs, &held, log_ranges));
        }
        let of_inputs = held.iter().map(|(meta, index)| &meta.datasets[*index]);
        let before: u64 = of_inputs.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum();
        let after: u64 = parts.iter().map(|(dataset, _)| dataset.profiles).sum();
        if let Some((last, _)) = parts.last_mut() {
            last.profiles_left_out = before - after;
        }
        parts
    }

    fn merge_class(
        &self,
        number: u32,
        class: Option<String>,
        inputs: &[Held],
        held: &[(&Arc<BlockMeta>, usize)],
        log_ranges: &[LogRange],
    ) -> Part {
        let index = (0..=self.rules).find(|index| class == Some(format!("{index} of {}", self.rules)));
        let of_rules = index.map(|index| RetentionClass { rules: self.rules, index: index as u32 });
        let of_class = held.iter().copied().filter(|(meta, index)| {
            let of = &meta.datasets[*index].retention_selector;
            *of == class || (of.is_none() && of_rules.is_some())
        });
        let held: Vec<(&Arc<BlockMeta>, usize)> = of_class.collect();
        let is_held = |input: &&Held| held.iter().any(|(meta, _)| meta.path == input.meta.path);
        let told_apart = |input: &Held| {
            let own = input.meta.datasets.iter().find(|dataset| dataset.tenant.number.0 == number);
            own.is_some_and(|dataset| dataset.retention_selector.is_some())
        };
        let all = inputs.iter().filter(is_held).flat_map(|input| {
            let is_of_class = move |record: &&Record| {
                told_apart(input) || index.is_none_or(|index| record.1 * 5 % (self.rules + 1) == index)
            };
            input.records.iter().filter(is_of_class).filter(|r| self.owner(**r) == Some(number))
        });
        let records: BTreeSet<Record> =
            all.filter(|record| !self.deleted.contains(record)).copied().collect();
        let scopes: BTreeSet<ScopeName> = records.iter().map(|record| scope(*record)).collect();
        let groups: Vec<BTreeSet<ScopeName>> = if records.len() > 4 && scopes.len() > 1 {
            // Where it is split depends on what there is, as in the compactor.
            let cut = 1 + records.len() % (scopes.len() - 1).max(1);
            let (low, high) = (scopes.iter().take(cut), scopes.iter().skip(cut));
            vec![low.cloned().collect(), high.cloned().collect()]
        } else {
            vec![scopes]
        };
        let mut parts: Part = Vec::new();
        for (group, bounds) in groups.iter().zip(covers::bounds(&groups)) {
            let own: BTreeSet<Record> =
                records.iter().filter(|r| group.contains(&scope(**r))).copied().collect();
            if own.is_empty() {
                continue;
            }
            let covers = covers::stored(covers::within(&held, &bounds, of_rules), log_ranges);
            let retention_selector = class.clone();
            parts.push((DatasetMeta { covers, retention_selector, ..dataset(number, own.len()) }, own));
        }
        parts
    }

    /// Deletes so many of the objects that were replaced, in the order in which they were.
    pub(super) fn sweep(&mut self, count: usize) {
        for path in self.garbage.drain(..count.min(self.garbage.len())) {
            self.bucket.remove(&path);
        }
    }

    /// Checks that the choice holds every record that was ever flushed once, and replays begin after them.
    fn check(&self) {
        let blocks: Vec<Arc<BlockMeta>> = self.bucket.values().map(|held| Arc::clone(&held.meta)).collect();
        let candidates =
            Candidates { blocks: &blocks, damaged: &[], is_wanted: &|_| true, complete_from_ns: 0 };
        let choice = choose(&candidates);
        assert!(choice.is_proven, "given up over {} blocks", blocks.len());
        let mut found = BTreeSet::new();
        for block in &choice.kept {
            for record in &self.bucket[&block.path].records {
                let twice = !found.insert(*record) && !self.deleted.contains(record);
                assert!(!twice, "{record:?} twice in {:#?}", paths(&choice.kept));
            }
        }
        let contents = Contents { blocks, damaged: Vec::new() };
        let rebuilt = rebuilt(&contents, &choice, &BTreeMap::new()).unwrap();
        for (log, owners) in &self.logs {
            let state = rebuilt.logs.get(&log_id(*log));
            let next = state.map_or(0, |state| state.committed_next.0);
            let before = (0..next).filter(|offset| owners[*offset as usize].is_some());
            let expected: BTreeSet<Record> = before.map(|offset| (*log, offset)).collect();
            let of_log: BTreeSet<Record> = found.iter().filter(|record| record.0 == *log).copied().collect();
            let live =
                |set: &BTreeSet<Record>| set.difference(&self.deleted).copied().collect::<BTreeSet<_>>();
            assert_eq!(
                live(&of_log),
                live(&expected),
                "of {:#?}\n{:#?}",
                paths(&choice.kept),
                paths(&choice.superseded)
            );
            let committed = self.committed.iter().flat_map(|held| &held.records);
            let lacks: Vec<_> = committed.filter(|r| r.0 == *log && r.1 >= next).collect();
            assert!(lacks.is_empty(), "{lacks:?} after {next}");
        }
        // Nothing tells a part all of which was deleted from one that is lost.
        if self.deleted.is_empty() {
            assert_eq!(choice.lost, [], "{:#?}", paths(&choice.kept));
        }
        assert!(rebuilt.fence <= self.fence);
    }
}

/// How many of the next records are anybody's.
fn tenants_of(world: &World, log: u32, count: u64) -> usize {
    let first = world.next.get(&log).copied().unwrap_or(0);
    (first..first + count).filter(|offset| world.owner((log, *offset)).is_some()).count()
}

fn paths(blocks: &[Arc<BlockMeta>]) -> Vec<&str> {
    blocks.iter().map(|block| block.path.as_str()).collect()
}

fn joined(inputs: &[Held]) -> Vec<LogRange> {
    let mut all: Vec<LogRange> = inputs.iter().flat_map(|held| held.meta.log_ranges.clone()).collect();
    all.sort_by_key(|range| (range.log, range.first));
    all.dedup();
    all.dedup_by(|next, last| {
        let touches = last.log == next.log && next.first <= last.next;
        if touches {
            last.next = last.next.max(next.next);
        }
        touches
    });
    all
}
