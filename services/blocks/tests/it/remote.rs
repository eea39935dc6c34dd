//! A head in another process answers as the head itself, ships no more than is asked for, and stops when nobody waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cambium_blocks::series_table::{RowSet, SeriesTable};
use cambium_blocks::shape::FoldBy;
use cambium_blocks::source::{Pick, Profiles, SampleScan, Samples, ScanStats, TreeScan};
use cambium_blocks::testing::{DatasetBuilder, Shape, random_dataset, random_profiles, tenant};
use cambium_blocks::tree::{PartialTree, Tree};
use cambium_blocks::without::Without;
use cambium_blocks::{Dataset, Error, Source};
use cambium_model::deletion::Deletion;
use cambium_model::labels::Labels;
use cambium_model::profile::SampleLabels;
use cambium_model::stacktrace::LocationId;
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_runtime::clock::MockClock;
use cambium_runtime::error::{HasKind, Kind};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};

use crate::contract::shapes;
use crate::owner::{Owner, asker};
use crate::store::run;

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(30);

async fn opened(dataset: &Dataset) -> Arc<dyn Source> {
    Owner::of(vec![Arc::new(dataset.clone())]).opened().await.remove(0)
}

/// What a merge makes of a partial tree: by path the location that stands for it and the sum, where there is one at or
/// below it.
fn merged(partial: &PartialTree, by: FoldBy) -> BTreeMap<u64, (Option<LocationId>, i64)> {
    let shape = partial.tree.shape(by);
    let sums = shape.sum(&partial.self_values).expect("small values");
    let mut live: Vec<bool> = sums.iter().map(|sum| *sum != 0).collect();
    for place in (1..shape.len()).rev() {
        live[shape.parents[place] as usize] |= live[place];
    }
    let row = |place: usize| {
        let location = partial.tree.locations.get(shape.locations[place] as usize).copied();
        (shape.paths[place].0, (location, sums[place]))
    };
    (0..shape.len()).filter(|place| live[*place]).map(row).collect()
}

/// Batches without samples need not travel.
async fn all_samples(source: &dyn Source, scan: &SampleScan) -> Vec<Samples> {
    let batches: Vec<Samples> = source.samples(scan).await.unwrap().try_collect().await.unwrap();
    batches.into_iter().filter(|batch| !batch.nodes.is_empty()).collect()
}

/// Compares every answer about these rows.
async fn assert_alike(local: &dyn Source, remote: &dyn Source, rows: &RowSet, range: TimeRange) {
    let profiles = local.profiles(rows, range).await.unwrap();
    assert_eq!(remote.profiles(rows, range).await.unwrap(), profiles);
    let count: usize = rows.iter().map(|run| run.len()).sum();
    let times: Vec<Option<i64>> = rows
        .iter()
        .cloned()
        .flatten()
        .map(|row| {
            let last = profiles.series.iter().rposition(|held| *held == row).filter(|_| row % 3 != 0);
            last.map(|at| profiles.time_ns[at])
        })
        .collect();
    let picks = [Pick::Sum, Pick::Mean((0..count as u32).collect()), Pick::At(times.clone())];
    for pick in picks.clone() {
        let scan = TreeScan { rows: rows.clone(), range, pick };
        let (here, there) = (local.tree(&scan).await.unwrap(), remote.tree(&scan).await.unwrap());
        for by in [FoldBy::Location, FoldBy::Function] {
            assert_eq!(merged(&there, by), merged(&here, by), "{scan:?}");
        }
    }
    for at in [None, Some(times)] {
        let scan = SampleScan { rows: rows.clone(), range, at };
        assert_eq!(all_samples(remote, &scan).await, all_samples(local, &scan).await);
    }
    assert_eq!(remote.sample_labels().await.unwrap(), local.sample_labels().await.unwrap());
    let (here, there) = (local.stack_tree().await.unwrap(), remote.stack_tree().await.unwrap());
    assert_eq!((&here.nodes, &here.paths, &here.locations), (&there.nodes, &there.paths, &there.locations));
    // Whoever has the whole tree gets sums on it.
    for pick in picks {
        let scan = TreeScan { rows: rows.clone(), range, pick };
        let partial = remote.tree(&scan).await.unwrap();
        assert!(Arc::ptr_eq(&partial.tree, &there));
        assert_eq!(partial.self_values, local.tree(&scan).await.unwrap().self_values);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn answers_are_those_of_the_head(seed in any::<u64>(), (shape, range) in shapes(), some in any::<u64>()) {
        let dataset = random_dataset(tenant(1), seed, &shape);
        run(async {
            let remote = opened(&dataset).await;
            for profile_type in &dataset.series.types {
                let mut rows = dataset.series.select(Some(profile_type), &"{}".parse().unwrap());
                rows.retain(|run| some >> (run.start % 64) & 1 == 0);
                assert_alike(&dataset, &*remote, &rows, range).await;
            }
        });
    }

    #[test]
    fn deleted_profiles_are_left_out_of_both(seed in any::<u64>(), (shape, range) in shapes()) {
        let dataset = random_dataset(tenant(1), seed, &shape);
        let middle = shape.start_ns + shape.span_ns / 2;
        let selector = r#"{pod="pod-1"}"#.parse().unwrap();
        let deletion = Deletion { selector, range: TimeRange::new(middle - 300 * SECOND_NS, middle) };
        run(async {
            let remote = Without::new(opened(&dataset).await, vec![deletion.clone()]);
            let local = Without::new(Arc::new(dataset.clone()), vec![deletion]);
            for profile_type in &dataset.series.types {
                let rows = dataset.series.select(Some(profile_type), &"{}".parse().unwrap());
                let scan = TreeScan { rows, range, pick: Pick::Sum };
                let (here, there) = (local.tree(&scan).await.unwrap(), remote.tree(&scan).await.unwrap());
                assert_eq!(merged(&there, FoldBy::Function), merged(&here, FoldBy::Function));
            }
        });
    }
}

/// A head with one small service and one large.
fn uneven() -> Dataset {
    let mut builder = DatasetBuilder::new(tenant(1));
    let label = |name: &str| Labels::from_pairs([("service_name", name)]).unwrap();
    let large = Shape { profiles: 40, samples: 400, depth: 12, locations: 3_000, ..Shape::default() };
    for mut profile in random_profiles(1, &large) {
        profile.labels = label("large");
        builder.push(&profile);
    }
    for mut profile in random_profiles(2, &Shape { profiles: 3, types: 1, ..Shape::default() }) {
        profile.labels = label("small");
        builder.push(&profile);
    }
    builder.finish()
}

#[test]
fn of_one_service_only_its_own_travels() {
    let dataset = uneven();
    run(async {
        let remote = opened(&dataset).await;
        let table = remote.series().await.unwrap();
        let rows = table.select(Some(&table.types[0]), &r#"{service_name="small"}"#.parse().unwrap());
        let before = remote.stats();
        assert!(Arc::ptr_eq(&table, &remote.series().await.unwrap()));
        assert_eq!(remote.stats(), before, "what never changes is fetched once");
        let scan = TreeScan { rows: rows.clone(), range: TimeRange::ALL, pick: Pick::Sum };
        let partial = remote.tree(&scan).await.unwrap();
        let profiles = remote.profiles(&rows, TimeRange::ALL).await.unwrap();
        let cost = remote.stats().since(&before);
        assert_eq!((cost.requests, cost.profile_rows), (2, profiles.series.len() as u64));
        assert!(cost.profile_rows > 0 && partial.tree.len() < 100, "{}", partial.tree.len());
        let whole = remote.stats();
        remote.stack_tree().await.unwrap();
        let whole = remote.stats().since(&whole).bytes_fetched;
        assert!(cost.bytes_fetched * 20 < whole, "{} of {whole} bytes", cost.bytes_fetched);
        let rows = vec![0..table.len() as u32];
        let scan = SampleScan { rows, range: TimeRange::ALL, at: None };
        let samples: usize = all_samples(&*remote, &scan).await.iter().map(|batch| batch.nodes.len()).sum();
        assert_eq!(remote.stats().sample_rows, samples as u64);
    });
}

#[test]
fn a_large_head_travels_whole() {
    let mut dataset = Dataset::new(tenant(1));
    let table = Arc::make_mut(&mut dataset.series);
    table.types.push("process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta".parse().unwrap());
    table.scopes.push(cambium_blocks::series_table::ScopeName { value: "a".into(), label: "".into() });
    for row in 0..150_000 {
        let labels = Labels::from_pairs([("pod", format!("pod-with-quite-a-long-name-{row:040}"))]).unwrap();
        table.push(&labels, labels.fingerprint(), 0, 0);
    }
    let bytes: usize = table.columns["pod"].values.iter().map(|value| value.len()).sum();
    assert!(bytes > 8 << 20, "twice what one message may have: {bytes}");
    run(async {
        let remote = opened(&dataset).await;
        let found = remote.series().await.unwrap();
        assert_eq!(found.columns["pod"].values, dataset.series.columns["pod"].values);
        // A request that is large, too.
        let rows: RowSet = (0..75_000).map(|row| 2 * row..2 * row + 1).collect();
        let pick = Pick::At(vec![Some(i64::MAX); rows.len()]);
        let partial = remote.tree(&TreeScan { rows, range: TimeRange::ALL, pick }).await.unwrap();
        assert!(partial.tree.is_empty());
    });
}

#[test]
fn a_sum_that_does_not_fit_is_the_same_error() {
    let mut profile = random_profiles(7, &Shape { profiles: 1, ..Shape::default() }).remove(0);
    let mut builder = DatasetBuilder::new(tenant(1));
    profile.types.truncate(1);
    profile.nodes.clear();
    profile.sample_label_sets.clear();
    profile.sample_nodes = vec![u32::MAX; 2];
    for id in 0..2 {
        (profile.id.0[0], profile.values) = (id, vec![i64::MAX, 0]);
        builder.push(&profile);
    }
    let dataset = builder.finish();
    run(async {
        let remote = opened(&dataset).await;
        let scan = TreeScan { rows: vec![0..1], range: TimeRange::ALL, pick: Pick::Sum };
        let (here, there) =
            (dataset.tree(&scan).await.err().unwrap(), remote.tree(&scan).await.err().unwrap());
        assert!(matches!(there, Error::Overflow { .. }), "{there}");
        assert_eq!(there.to_string(), here.to_string());
    });
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begun,
    GivenUp,
}

/// A source whose answers take for ever, and that says when one is begun and given up.
#[derive(Debug)]
struct Endless {
    dataset: Dataset,
    events: mpsc::Sender<Event>,
}

/// An answer under way.
struct Answer(mpsc::Sender<Event>);

impl Endless {
    fn begin(&self) -> Answer {
        self.events.try_send(Event::Begun).expect("there is room");
        Answer(self.events.clone())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.try_send(Event::GivenUp).expect("there is room");
    }
}

#[async_trait]
impl Source for Endless {
    async fn series(&self) -> Result<Arc<SeriesTable>, Error> {
        self.dataset.series().await
    }

    async fn profiles(&self, rows: &RowSet, range: TimeRange) -> Result<Profiles, Error> {
        self.dataset.profiles(rows, range).await
    }

    async fn tree(&self, _: &TreeScan) -> Result<PartialTree, Error> {
        let _answer = self.begin();
        std::future::pending().await
    }

    async fn samples(&self, _: &SampleScan) -> Result<BoxStream<'static, Result<Samples, Error>>, Error> {
        let answer = self.begin();
        let batch = Samples {
            series: vec![0; 1_000],
            time_ns: vec![0; 1_000],
            nodes: vec![0; 1_000],
            values: vec![1; 1_000],
            label_sets: Vec::new(),
        };
        let batches = stream::repeat(batch).map(move |batch| {
            let _ = &answer;
            Ok(batch)
        });
        Ok(batches.boxed())
    }

    async fn stack_tree(&self) -> Result<Arc<Tree>, Error> {
        self.dataset.stack_tree().await
    }

    async fn sample_labels(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        self.dataset.sample_labels().await
    }

    fn stats(&self) -> ScanStats {
        ScanStats::default()
    }
}

fn endless() -> (Owner, Events) {
    let (events, receiver) = mpsc::channel(8);
    let dataset = random_dataset(tenant(1), 1, &Shape::default());
    (Owner::of(vec![Arc::new(Endless { dataset, events })]), Events(receiver))
}

struct Events(mpsc::Receiver<Event>);

impl Events {
    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(DEADLINE, self.0.recv()).await;
        event.expect("an answer begins and is given up").expect("the source is there")
    }

    /// Asks until the owner has begun to answer.
    async fn begun<T>(&mut self, asked: impl Future<Output = T>) {
        tokio::select! {
            event = self.next() => assert_eq!(event, Event::Begun),
            _ = asked => panic!("there is no answer"),
        }
    }
}

fn scans() -> (TreeScan, SampleScan) {
    let (rows, range): (RowSet, _) = (vec![0..1], TimeRange::ALL);
    (TreeScan { rows: rows.clone(), range, pick: Pick::Sum }, SampleScan { rows, range, at: None })
}

#[test]
fn work_stops_when_the_caller_goes_away() {
    let (owner, mut events) = endless();
    let (tree, samples) = scans();
    run(async {
        let remote = owner.opened().await.remove(0);
        let mut batches = remote.samples(&samples).await.unwrap();
        assert_eq!(batches.next().await.unwrap().unwrap().nodes.len(), 1_000);
        drop(batches);
        assert_eq!([events.next().await, events.next().await], [Event::Begun, Event::GivenUp]);
        let mut asked = remote.tree(&tree);
        events.begun(&mut asked).await;
        drop(asked);
        assert_eq!(events.next().await, Event::GivenUp);
    });
}

#[test]
fn work_stops_at_the_deadline() {
    let (mut owner, mut events) = endless();
    let clock = MockClock::at(0);
    owner.clock = Arc::new(clock.clone());
    let (tree, samples) = scans();
    run(async {
        let remote = owner.opened().await.remove(0);
        let batches = remote.samples(&samples).await.unwrap();
        assert_eq!(events.next().await, Event::Begun);
        let mut asked = remote.tree(&tree);
        events.begun(&mut asked).await;
        clock.advance(Duration::from_secs(60));
        let error = asked.await.err().unwrap();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        let error = batches.try_for_each(|_| std::future::ready(Ok(()))).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert_eq!([events.next().await, events.next().await], [Event::GivenUp; 2]);
    });
}

#[test]
fn no_question_is_asked_after_the_deadline() {
    let clock = MockClock::at(0);
    run(async {
        let owner = Owner::of(vec![Arc::new(uneven())]);
        let asker = asker(Arc::new(clock.clone()));
        let opened = asker.open(owner.connect(&asker.tasks).await, &[]).await.unwrap();
        clock.advance(Duration::from_secs(60));
        let error = opened.heads[0].1.series().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert_eq!(opened.heads[0].1.stats().requests, 0);
    });
}

#[test]
fn an_owner_that_is_gone_is_unavailable() {
    let (owner, mut events) = endless();
    let (tree, _) = scans();
    run(async {
        let remote = owner.opened().await.remove(0);
        let mut asked = remote.tree(&tree);
        events.begun(&mut asked).await;
        owner.hung_up.send_replace(true);
        let error = asked.await.err().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        let error = remote.series().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    });
}

#[test]
fn heads_are_closed_when_the_last_of_them_is_dropped() {
    let owner = Owner::of(vec![Arc::new(uneven()), Arc::new(uneven())]);
    run(async {
        let mut closed: watch::Receiver<usize> = owner.closed.subscribe();
        let mut heads = owner.opened().await;
        drop(heads.remove(0));
        heads[0].sample_labels().await.unwrap();
        assert_eq!(*closed.borrow(), 0, "the other is still held");
        drop(heads);
        closed.wait_for(|closed| *closed == 2).await.unwrap();
    });
}
