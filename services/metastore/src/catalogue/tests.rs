use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use cambium_model::block::{DatasetMeta, Partition};
use cambium_model::deletion::{Deletion, RecordedDeletion};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::TimeRange;
use cambium_runtime::clock::MockClock;
use proptest::prelude::*;

use super::*;
use crate::kv::memory::MemoryStore;
use crate::kv::testing::{Fault, FaultyStore};
use crate::leases::{Lease, Leases};

fn log(number: u32) -> LogId {
    LogId { partition: Partition(number / 2), log: number % 2 }
}

fn tenant(number: u32) -> Tenant {
    Tenant { id: TenantId::new(&format!("t{number}")).unwrap(), number: TenantNumber(number) }
}

/// A dataset of the tenant with profiles from `times.start` to `times.end`, both included.
fn dataset(number: u32, times: Range<i64>) -> DatasetMeta {
    DatasetMeta {
        tenant: tenant(number),
        first_ns: times.start,
        last_ns: times.end,
        series: 1,
        profiles: 1,
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

/// A flush of these offsets into a block with these datasets.
fn flush(log: LogId, offsets: Range<u64>, epoch: u64, datasets: Vec<DatasetMeta>) -> FlushCommit {
    let range = LogRange { log, first: Offset(offsets.start), next: Offset(offsets.end) };
    let block = BlockMeta {
        path: format!("{log}/{}-{epoch}", offsets.start),
        level: 0,
        size_bytes: 9,
        toc_crc32c: 9,
        log_ranges: vec![range],
        epoch,
        datasets,
        sources: Vec::new(),
        part: 0,
        parts: 1,
    };
    FlushCommit { range, epoch, block: Some(block), tenure: None }
}

fn store() -> FaultyStore {
    FaultyStore::new(Arc::new(MemoryStore::new()))
}

fn catalogue(store: &FaultyStore) -> Catalogue {
    Catalogue::new(Arc::new(store.clone()))
}

async fn paths(catalogue: &Catalogue, tenant_number: u32, range: TimeRange) -> Vec<String> {
    let view = catalogue.view(&tenant(tenant_number), range).await.unwrap();
    view.blocks.iter().map(|block| block.path.clone()).collect()
}

#[tokio::test]
async fn the_partition_count_is_fixed_by_the_first() {
    let catalogue = catalogue(&store());
    assert_eq!(catalogue.fix_partition_count(16).await.unwrap(), 16);
    assert_eq!(catalogue.fix_partition_count(32).await.unwrap(), 16);
}

#[tokio::test]
async fn a_flush_moves_the_log_and_shows_its_block() {
    let store = store();
    let catalogue = catalogue(&store);
    let opened = catalogue.open_log(log(0), "node-a").await.unwrap();
    assert_eq!(opened, LogState { epoch: 1, committed_next: Offset(0) });
    let both = vec![dataset(1, 100..200), dataset(2, 500..600)];
    catalogue.commit_flush(&flush(log(0), 0..10, 1, both)).await.unwrap();
    let nothing_new = FlushCommit { block: None, ..flush(log(0), 10..15, 1, Vec::new()) };
    catalogue.commit_flush(&nothing_new).await.unwrap();
    catalogue.commit_flush(&flush(log(0), 15..16, 1, vec![dataset(1, 300..400)])).await.unwrap();

    let path = |first: u64| format!("0000-00000000/{first}-1");
    let cases = [
        (1, TimeRange::ALL, vec![path(0), path(15)]),
        (1, TimeRange::new(0, 100), vec![]),
        (1, TimeRange::new(0, 101), vec![path(0)]),
        (1, TimeRange::new(200, 301), vec![path(0), path(15)]),
        (2, TimeRange::ALL, vec![path(0)]),
        (3, TimeRange::ALL, vec![]),
    ];
    for (tenant_number, range, expected) in cases {
        assert_eq!(paths(&catalogue, tenant_number, range).await, expected, "{tenant_number} {range:?}");
    }
    let view = catalogue.view(&tenant(1), TimeRange::ALL).await.unwrap();
    assert_eq!(view.logs, [OpenLog { log: log(0), next: Offset(16), holder: "node-a".to_owned() }]);
    assert_eq!(
        catalogue.open_log(log(0), "").await.unwrap().committed_next,
        Offset(16),
        "replay starts here"
    );
}

#[tokio::test]
async fn the_last_to_open_a_log_fences_the_others() {
    let store = store();
    let (old, new) = (catalogue(&store), catalogue(&store));
    let before = old.open_log(log(0), "old").await.unwrap();
    old.commit_flush(&flush(log(0), 0..5, before.epoch, vec![])).await.unwrap();
    let after = new.open_log(log(0), "new").await.unwrap();
    assert_eq!((after.epoch, after.committed_next), (before.epoch + 1, Offset(5)));

    let late = flush(log(0), 5..9, before.epoch, vec![dataset(1, 0..1)]);
    let error = old.commit_flush(&late).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { ours: 1, current: 2, .. }), "{error:?}");
    assert_eq!(error.kind(), error::Kind::Unavailable);
    assert_eq!(paths(&new, 1, TimeRange::ALL).await, Vec::<String>::new());
    new.commit_flush(&flush(log(0), 5..9, after.epoch, vec![])).await.unwrap();

    let own_again = flush(log(0), 0..5, before.epoch, vec![]);
    old.commit_flush(&own_again).await.expect("what was committed before the fence stays committed");
}

#[tokio::test]
async fn commits_follow_each_other() {
    let catalogue = catalogue(&store());
    let unopened = catalogue.commit_flush(&flush(log(0), 0..1, 1, vec![])).await.unwrap_err();
    assert_eq!(unopened.to_string(), "log 0000-00000000 was never opened");
    catalogue.open_log(log(0), "").await.unwrap();
    catalogue.commit_flush(&flush(log(0), 0..5, 1, vec![])).await.unwrap();
    for offsets in [6..9, 4..9, 0..9] {
        let mut other = flush(log(0), offsets.clone(), 1, vec![]);
        other.block.as_mut().unwrap().path.push_str("-other");
        let error = catalogue.commit_flush(&other).await.unwrap_err();
        assert!(matches!(error, Error::OutOfOrder { committed_next: 5, .. }), "{offsets:?}: {error:?}");
        assert_eq!(error.kind(), error::Kind::Internal);
    }
}

#[tokio::test]
async fn a_flush_is_committed_once_however_often_it_is_tried() {
    for fault in [Fault::Pass, Fault::UndeterminedCommitted, Fault::UndeterminedLost, Fault::Unavailable] {
        for block in [true, false] {
            let store = store();
            let catalogue = catalogue(&store);
            catalogue.open_log(log(0), "").await.unwrap();
            let mut first = flush(log(0), 0..5, 1, vec![dataset(1, 0..1)]);
            if !block {
                first.block = None;
            }
            store.inject([fault]);
            let result = catalogue.commit_flush(&first).await;
            assert_eq!(result.is_err(), fault == Fault::Unavailable, "{fault:?}");
            catalogue.commit_flush(&first).await.unwrap();
            let second = flush(log(0), 5..6, 1, vec![dataset(1, 0..1)]);
            catalogue.commit_flush(&second).await.unwrap();
            catalogue.commit_flush(&first).await.expect("also when the log has moved on");
            let shown = paths(&catalogue, 1, TimeRange::ALL).await;
            assert_eq!(shown.len(), 1 + usize::from(block), "{fault:?} {shown:?}");
        }
    }
}

#[tokio::test]
async fn opening_survives_an_undetermined_commit() {
    for fault in [Fault::UndeterminedCommitted, Fault::UndeterminedLost] {
        let store = store();
        let catalogue = catalogue(&store);
        store.inject([fault]);
        let state = catalogue.open_log(log(0), "").await.unwrap();
        catalogue.commit_flush(&flush(log(0), 0..1, state.epoch, vec![])).await.expect("we hold the log");
    }
}

#[tokio::test]
async fn a_corrupt_entry_is_named() {
    let store = store();
    let catalogue = catalogue(&store);
    catalogue.open_log(log(0), "").await.unwrap();
    catalogue.commit_flush(&flush(log(0), 0..1, 1, vec![])).await.unwrap();
    // An entry of another log, under this one's key.
    let foreign = stored::BlockEntry::from(flush(log(1), 0..1, 1, vec![]).block.as_ref().unwrap());
    let txn = Txn::new().put(keys::block(log(0), Offset(0)), foreign.encode_to_vec());
    store.commit(txn).await.unwrap();
    let error = catalogue.view(&tenant(1), TimeRange::ALL).await.unwrap_err();
    assert_eq!(error.to_string(), "the stored block entry is corrupt");
    assert_eq!(error.kind(), error::Kind::Internal);
}

/// Two views through one cache, with a commit between their snapshots: each shows its own cut, whoever ends first.
#[tokio::test]
async fn overlapping_views_are_cuts_of_their_own() {
    for older_ends_first in [true, false] {
        let catalogue = catalogue(&store());
        catalogue.open_log(log(0), "").await.unwrap();
        catalogue.commit_flush(&flush(log(0), 0..5, 1, vec![dataset(1, 0..1)])).await.unwrap();
        let mut older = Box::pin(paths(&catalogue, 1, TimeRange::ALL));
        assert!(futures::poll!(&mut older).is_pending(), "it has its snapshot");
        catalogue.commit_flush(&flush(log(0), 5..9, 1, vec![dataset(1, 0..1)])).await.unwrap();
        let mut newer = Box::pin(paths(&catalogue, 1, TimeRange::ALL));
        assert!(futures::poll!(&mut newer).is_pending());
        let (older, newer) = if older_ends_first {
            let older = older.await;
            (older, newer.await)
        } else {
            let newer = newer.await;
            (older.await, newer)
        };
        assert_eq!((older.len(), newer.len()), (1, 2), "older first: {older_ends_first}");
    }
}

/// Blocks of level 1 that hold what these hold: one for each tenant.
fn merged(inputs: &[BlockMeta], fence: u64) -> Vec<BlockMeta> {
    let mut by_tenant: BTreeMap<u32, DatasetMeta> = BTreeMap::new();
    for held in inputs.iter().flat_map(|block| &block.datasets) {
        let number = held.tenant.number.0;
        let dataset = by_tenant.entry(number).or_insert_with(|| held.clone());
        dataset.first_ns = dataset.first_ns.min(held.first_ns);
        dataset.last_ns = dataset.last_ns.max(held.last_ns);
    }
    let block = |(part, (number, dataset)): (u32, (u32, DatasetMeta))| BlockMeta {
        path: format!("merged/{number}/{fence}-{part}"),
        level: 1,
        size_bytes: 9,
        toc_crc32c: 9,
        log_ranges: inputs.iter().flat_map(|block| block.log_ranges.clone()).collect(),
        epoch: fence,
        datasets: vec![dataset],
        sources: inputs.iter().map(|block| block.path.clone()).collect(),
        part,
        parts: 1,
    };
    (0..).zip(by_tenant).map(block).collect()
}

fn replacement(inputs: &[BlockMeta], outputs: Vec<BlockMeta>, lease: &Lease) -> Replacement {
    let inputs = inputs.iter().cloned().map(Arc::new).collect();
    Replacement { inputs, outputs, lease: lease.clone(), garbage_due_ns: 77 }
}

fn leases(store: &FaultyStore, holder: &str) -> Leases {
    Leases::new(Arc::new(store.clone()), Arc::new(MockClock::at(0)), holder)
}

/// A log with two blocks, and the lease to merge them.
async fn two_blocks(store: &FaultyStore) -> (Catalogue, Vec<BlockMeta>, Lease) {
    let catalogue = catalogue(store);
    catalogue.open_log(log(0), "").await.unwrap();
    let flushes =
        [flush(log(0), 0..5, 1, vec![dataset(1, 0..1)]), flush(log(0), 5..6, 1, vec![dataset(1, 2..3)])];
    for flush in &flushes {
        catalogue.commit_flush(flush).await.unwrap();
    }
    let lease = leases(store, "us").acquire("merge").await.unwrap().unwrap();
    (catalogue, flushes.into_iter().filter_map(|flush| flush.block).collect(), lease)
}

#[tokio::test]
async fn a_replacement_is_done_once_however_often_it_is_tried() {
    for fault in [Fault::Pass, Fault::UndeterminedCommitted, Fault::UndeterminedLost, Fault::Unavailable] {
        let store = store();
        let (catalogue, inputs, lease) = two_blocks(&store).await;
        let outputs = merged(&inputs, lease.fence);
        let replacement = replacement(&inputs, outputs.clone(), &lease);
        store.inject([fault]);
        let result = catalogue.replace(&replacement).await;
        assert_eq!(result.is_err(), fault == Fault::Unavailable, "{fault:?}");
        catalogue.replace(&replacement).await.unwrap();
        assert_eq!(paths(&catalogue, 1, TimeRange::ALL).await, [outputs[0].path.clone()], "{fault:?}");

        let garbage = catalogue.garbage(78, 10).await.unwrap();
        assert_eq!(
            garbage.iter().map(|garbage| &garbage.path).collect::<Vec<_>>(),
            [&inputs[0].path, &inputs[1].path]
        );
        assert_eq!(catalogue.garbage(77, 10).await.unwrap(), [], "not due yet");
        catalogue.forget_garbage(&garbage[..1]).await.unwrap();
        assert_eq!(catalogue.garbage(78, 10).await.unwrap(), garbage[1..]);

        // Whose flush it was, may still be trying.
        catalogue.commit_flush(&flush(log(0), 5..6, 1, vec![dataset(1, 2..3)])).await.unwrap();
        assert_eq!(paths(&catalogue, 1, TimeRange::ALL).await.len(), 1);
        let since = catalogue.blocks_since(Partition(0), 2).await.unwrap();
        assert_eq!(since.len(), 1, "whoever looks for a log's pushes finds them in merged blocks");
        assert_eq!(catalogue.blocks_since(Partition(1), 2).await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_is_gone_cannot_be_replaced() {
    let store = store();
    let (catalogue, inputs, lease) = two_blocks(&store).await;
    catalogue.replace(&replacement(&inputs[..1], merged(&inputs[..1], lease.fence), &lease)).await.unwrap();
    let mut late = merged(&inputs, lease.fence);
    late[0].part = 9;
    let error = catalogue.replace(&replacement(&inputs, late, &lease)).await.unwrap_err();
    assert!(matches!(&error, Error::BlockGone { path } if *path == inputs[0].path), "{error:?}");
    assert_eq!(paths(&catalogue, 1, TimeRange::ALL).await.len(), 2);
}

#[tokio::test]
async fn whoever_lost_the_lease_replaces_nothing() {
    let store = store();
    let (catalogue, inputs, lost) = two_blocks(&store).await;
    let taken = leases(&store, "us").acquire("merge").await.unwrap().expect("an earlier life of us");
    assert!(taken.fence > lost.fence);
    let error =
        catalogue.replace(&replacement(&inputs, merged(&inputs, lost.fence), &lost)).await.unwrap_err();
    assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
    catalogue.replace(&replacement(&inputs, merged(&inputs, taken.fence), &taken)).await.unwrap();
}

#[tokio::test]
async fn blocks_may_go_without_any_coming() {
    let store = store();
    let (catalogue, inputs, lease) = two_blocks(&store).await;
    let outputs = merged(&inputs, lease.fence);
    catalogue.replace(&replacement(&inputs, outputs.clone(), &lease)).await.unwrap();
    for _ in 0..2 {
        catalogue.replace(&replacement(&outputs, Vec::new(), &lease)).await.unwrap();
        assert_eq!(paths(&catalogue, 1, TimeRange::ALL).await, Vec::<String>::new());
    }
    let Everything { logs, merged, .. } = catalogue.all().await.unwrap();
    assert_eq!((logs.len(), logs[0].next, logs[0].blocks.len(), merged.len()), (1, Offset(6), 0, 0));
}

#[tokio::test]
async fn deletions_are_seen_with_the_blocks_and_numbered_for_ever() {
    for fault in [Fault::Pass, Fault::UndeterminedCommitted, Fault::UndeterminedLost] {
        let store = store();
        let catalogue = catalogue(&store);
        let deletion = |pod: &str| Deletion {
            selector: format!(r#"{{pod=~"{pod}.*",zone!=""}}"#).parse().unwrap(),
            range: TimeRange::new(5, 9),
        };
        store.inject([fault]);
        assert_eq!(catalogue.delete(TenantNumber(1), &deletion("a"), 7).await.unwrap(), 1, "{fault:?}");
        assert_eq!(catalogue.delete(TenantNumber(1), &deletion("b"), 8).await.unwrap(), 2);
        assert_eq!(catalogue.delete(TenantNumber(2), &deletion("a"), 9).await.unwrap(), 1);
        let first = RecordedDeletion { id: 1, deletion: deletion("a"), created_ns: 7 };
        let second = RecordedDeletion { id: 2, deletion: deletion("b"), created_ns: 8 };
        let view = catalogue.view(&tenant(1), TimeRange::ALL).await.unwrap();
        assert_eq!(view.deletions, [first, second.clone()]);
        assert_eq!(catalogue.view(&tenant(3), TimeRange::ALL).await.unwrap().deletions, []);
        assert_eq!(catalogue.all().await.unwrap().deletions.len(), 2);
        catalogue.forget_deletion(TenantNumber(1), 1).await.unwrap();
        catalogue.forget_deletion(TenantNumber(1), 2).await.unwrap();
        assert_eq!(catalogue.view(&tenant(1), TimeRange::ALL).await.unwrap().deletions, []);
        assert_eq!(catalogue.delete(TenantNumber(1), &second.deletion, 9).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn a_tenant_has_only_so_many_deletions() {
    let catalogue = catalogue(&store());
    let deletion = Deletion { selector: "{}".parse().unwrap(), range: TimeRange::ALL };
    for created_ns in 0..DELETIONS_MAX as i64 {
        catalogue.delete(TenantNumber(1), &deletion, created_ns).await.unwrap();
    }
    let error = catalogue.delete(TenantNumber(1), &deletion, -1).await.unwrap_err();
    assert_eq!(error.kind(), error::Kind::Unprocessable);
    catalogue.delete(TenantNumber(2), &deletion, -1).await.unwrap();
}

/// One step of the property below.
#[derive(Clone, Debug)]
enum Action {
    /// Merge so many blocks that are there, from this one on, whatever they are.
    Merge { cache: usize, first: usize, count: usize, fault: Fault },
    /// Flush so many records of the log, with a block of these tenants' profiles at this time, or without one.
    Flush { log: u32, records: u64, tenants: Vec<u32>, time: i64, fault: Fault },
    /// Open the log anew.
    Open { log: u32 },
    /// Look, through one of two caches, and compare with the oracle.
    View { cache: usize, tenant: u32, range: Range<i64> },
}

fn action() -> impl Strategy<Value = Action> {
    let fault = prop_oneof![
        4 => Just(Fault::Pass),
        1 => Just(Fault::UndeterminedCommitted),
        1 => Just(Fault::UndeterminedLost),
    ];
    let flush = (0..3_u32, 1..4_u64, prop::collection::vec(1..4_u32, 0..3), 0..100_i64, fault.clone());
    prop_oneof![
        3 => flush.prop_map(|(log, records, mut tenants, time, fault)| {
            tenants.sort_unstable();
            tenants.dedup();
            Action::Flush { log, records, tenants, time, fault }
        }),
        1 => (0..2_usize, 0..8_usize, 1..6_usize, fault.clone())
            .prop_map(|(cache, first, count, fault)| Action::Merge { cache, first, count, fault }),
        1 => (0..3_u32).prop_map(|log| Action::Open { log }),
        2 => (0..2_usize, 1..4_u32, 0..100_i64, 0..50_i64).prop_map(|(cache, tenant, start, length)| {
            Action::View { cache, tenant, range: start..start + length }
        }),
    ]
}

/// Runs the actions beside the plainest oracle: lists of what was flushed.
async fn agrees_with_lists(actions: Vec<Action>) {
    let store = store();
    let caches = [catalogue(&store), catalogue(&store)];
    let mut flushed: Vec<BlockMeta> = Vec::new();
    let mut logs: HashMap<u32, (u64, u64)> = HashMap::new();
    let lease = leases(&store, "").acquire("merge").await.unwrap().unwrap();
    let mut parts = 0;
    for action in actions {
        match action {
            Action::Merge { cache, first, count, fault } => {
                let first = first.min(flushed.len());
                let inputs: Vec<_> = flushed.drain(first..flushed.len().min(first + count)).collect();
                if inputs.is_empty() {
                    continue;
                }
                let mut outputs = merged(&inputs, lease.fence);
                for output in &mut outputs {
                    output.part = parts;
                    output.path.push_str(&format!("-{parts}"));
                    parts += 1;
                }
                store.inject([fault]);
                caches[cache].replace(&replacement(&inputs, outputs.clone(), &lease)).await.unwrap();
                flushed.extend(outputs);
            }
            Action::Open { log: number } => {
                let (epoch, next) = logs.entry(number).or_default();
                *epoch += 1;
                let opened = caches[0].open_log(log(number), "").await.unwrap();
                assert_eq!(opened, LogState { epoch: *epoch, committed_next: Offset(*next) });
            }
            Action::Flush { log: number, records, tenants, time, fault } => {
                let Some((epoch, next)) = logs.get_mut(&number) else { continue };
                let datasets = tenants.iter().map(|number| dataset(*number, time..time)).collect();
                let mut flush = flush(log(number), *next..*next + records, *epoch, datasets);
                if tenants.is_empty() {
                    flush.block = None;
                }
                store.inject([fault]);
                caches[1].commit_flush(&flush).await.unwrap();
                flushed.extend(flush.block);
                *next += records;
            }
            Action::View { cache, tenant: number, range } => {
                let range = TimeRange::new(range.start, range.end);
                let view = caches[cache].view(&tenant(number), range).await.unwrap();
                let touches =
                    |block: &&BlockMeta| block.dataset(&tenant(number)).is_some_and(|d| d.touches(range));
                let mut expected: Vec<BlockMeta> = flushed.iter().filter(touches).cloned().collect();
                expected.sort_by(|a, b| a.path.cmp(&b.path));
                let mut seen: Vec<BlockMeta> = view.blocks.iter().map(|b| BlockMeta::clone(b)).collect();
                seen.sort_by(|a, b| a.path.cmp(&b.path));
                assert_eq!(seen, expected);
                let mut committed: Vec<_> =
                    logs.iter().map(|(n, (_, next))| (log(*n), Offset(*next))).collect();
                committed.sort_unstable();
                let open: Vec<_> = view.logs.iter().map(|open| (open.log, open.next)).collect();
                assert_eq!(open, committed);
            }
        }
    }
}

proptest! {
    #[test]
    fn views_agree_with_lists(actions in prop::collection::vec(action(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agrees_with_lists(actions));
    }
}
