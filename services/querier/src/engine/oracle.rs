//! Queries over a list of profiles, done the naive way, and the same profiles as sources: what tests compare.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cambium_blocks::Source;
use cambium_blocks::testing::{DatasetBuilder, Shape, random_profiles, tenant};
use cambium_model::labels::Labels;
use cambium_model::profile::{Profile, ProfileId, SampleLabels};
use cambium_model::profile_type::ProfileType;
use cambium_model::selector::ProfileQuery;
use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_runtime::clock::SystemClock;
use cambium_runtime::metrics::Metrics;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use proptest::prelude::*;

use super::merge::Env;
use super::partial_trees::PartialTrees;
use super::sources::Sources;
use super::stages::Stages;
use crate::merged::{MergedTree, ROOT_LOCATION};

/// Outermost frame first.
pub(crate) type Path = Vec<LocationId>;

/// One type of one pushed profile.
#[derive(Clone, Debug)]
pub(crate) struct Single {
    pub id: ProfileId,
    pub labels: Labels,
    pub profile_type: ProfileType,
    pub time_ns: i64,
    pub duration_ns: i64,
    pub period: i64,
    /// Each (stack, label set) with a nonzero value.
    pub values: BTreeMap<(Path, SampleLabels), i64>,
}

impl Single {
    pub fn total(&self) -> i64 {
        self.values.values().sum()
    }
}

/// Profiles, some in the sources of a query.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub profiles: Vec<Profile>,
    /// The source that holds each profile.
    pub source_of: Vec<usize>,
}

/// Random worlds of up to four sources.
pub(crate) fn worlds() -> impl Strategy<Value = World> {
    (any::<u64>(), 1..=4_usize, any::<u64>(), any::<bool>()).prop_map(
        |(seed, sources, spread, sample_labels)| {
            let shape = Shape { span_ns: 120 * SECOND_NS, sample_labels, types: 2, ..Shape::default() };
            let profiles = random_profiles(seed, &shape);
            let spread = |index: usize| (spread.rotate_left(7 * index as u32) % sources as u64) as usize;
            World { source_of: (0..profiles.len()).map(spread).collect(), profiles }
        },
    )
}

/// The first instant of random worlds.
pub(crate) const START_NS: i64 = 1_700_000_000 * SECOND_NS;

/// Ranges that hold all, some or none of a random world.
pub(crate) fn ranges() -> impl Strategy<Value = TimeRange> {
    (-20..140_i64, 0..160_i64).prop_map(|(start, length)| {
        TimeRange::new(START_NS + start * SECOND_NS, START_NS + (start + length) * SECOND_NS)
    })
}

/// Queries that select some of a random world.
pub(crate) fn queries() -> impl Strategy<Value = ProfileQuery> {
    let types = prop::sample::select(vec![
        "memory:alloc_objects:count:space:bytes",
        "memory:alloc_space:bytes:space:bytes",
        "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta",
        "no:such:type:a:b",
    ]);
    let selectors = prop::sample::select(vec![
        "{}",
        r#"{service_name="service-1"}"#,
        r#"{service_name!="service-1"}"#,
        r#"{service_name=""}"#,
        r#"{pod=~"pod-[01]",zone=""}"#,
        r#"{pod!~"pod-0",service_name=~".+"}"#,
        r#"{zone="a"}"#,
        r#"{nobody="x"}"#,
    ]);
    (types, selectors)
        .prop_map(|(profile_type, selector)| format!("{profile_type}{selector}").parse().unwrap())
}

/// What series are grouped by.
pub(crate) fn bys() -> impl Strategy<Value = Vec<String>> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    prop::sample::select(vec![
        names(&[]),
        names(&["pod"]),
        names(&["zone", "service_name"]),
        names(&["nobody"]),
    ])
}

impl World {
    /// The profiles as heads.
    pub fn sources(&self) -> Sources {
        let count = self.source_of.iter().max().map_or(1, |last| last + 1);
        let mut builders: Vec<DatasetBuilder> =
            (0..count).map(|_| DatasetBuilder::new(tenant(1)).chunk_samples(20)).collect();
        for (profile, source) in self.profiles.iter().zip(&self.source_of) {
            builders[*source].push(profile);
        }
        let dataset = |builder: DatasetBuilder| Arc::new(builder.finish()) as Arc<dyn Source>;
        Sources::of_heads(builders.into_iter().map(dataset).collect())
    }

    /// Every type of every profile by itself.
    pub fn singles(&self) -> Vec<Single> {
        self.profiles.iter().flat_map(singles).collect()
    }

    /// Those that a query selects.
    pub fn selected(&self, query: &ProfileQuery, range: TimeRange) -> Vec<Single> {
        let mut singles = self.singles();
        singles.retain(|one| one.profile_type == query.profile_type && query.selector.matches(&one.labels));
        singles.retain(|one| range.contains(one.time_ns));
        singles
    }
}

fn singles(profile: &Profile) -> Vec<Single> {
    let of_type = |(index, profile_type): (usize, &ProfileType)| {
        let mut values: BTreeMap<(Path, SampleLabels), i64> = BTreeMap::new();
        for (sample, value) in profile.column(index).iter().enumerate() {
            let labels = match profile.sample_label_sets.get(sample) {
                Some(set) => profile.label_sets[*set as usize].clone(),
                None => SampleLabels::new(),
            };
            *values.entry((path(profile, profile.sample_nodes[sample]), labels)).or_default() += value;
        }
        values.retain(|_, value| *value != 0);
        Single {
            id: profile.id,
            labels: profile.labels.clone(),
            profile_type: profile_type.clone(),
            time_ns: profile.time_ns,
            duration_ns: profile.duration_ns,
            period: profile.period,
            values,
        }
    };
    profile.types.iter().enumerate().map(of_type).collect()
}

fn path(profile: &Profile, mut node: u32) -> Path {
    let mut path = Path::new();
    while node != NO_PARENT {
        let held = profile.nodes[node as usize];
        path.push(profile.locations[held.location as usize]);
        node = held.parent;
    }
    path.reverse();
    path
}

/// The part of a label set that a query groups by.
pub(crate) fn by_part(labels: &Labels, by: &[String]) -> Labels {
    let names: BTreeSet<&String> = by.iter().collect();
    Labels::from_pairs(names.into_iter().map(|name| (name, labels.get(name).unwrap_or_default()))).unwrap()
}

/// The path of each node, root first. Checks on the way that the tree is one.
pub(crate) fn paths(tree: &MergedTree) -> Vec<Path> {
    assert_eq!(
        (tree.parents[0], tree.locations[0], tree.paths[0]),
        (NO_PARENT, ROOT_LOCATION, PathHash::ROOT)
    );
    let mut paths = vec![Path::new()];
    for node in 1..tree.len() {
        let parent = tree.parents[node] as usize;
        assert!(parent < node, "parents come first");
        assert_eq!(tree.paths[node], tree.paths[parent].child(tree.locations[node]));
        let mut path = paths[parent].clone();
        path.push(tree.locations[node]);
        paths.push(path);
    }
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "each path once");
    paths
}

/// The values of a tree by path, without zeros.
pub(crate) fn values(tree: &MergedTree) -> BTreeMap<Path, i64> {
    let values = paths(tree).into_iter().zip(tree.self_values.iter().copied());
    values.filter(|(_, value)| *value != 0).collect()
}

/// Where a test's query runs: three partitions, little memory.
pub(crate) fn env() -> Env {
    env_with_memory(64 << 20)
}

/// Where a test's query runs, with so many bytes of memory.
pub(crate) fn env_with_memory(bytes: usize) -> Env {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)));
    let context = TaskContext::default().with_runtime(runtime.build_arc().unwrap());
    Env {
        context: Arc::new(context),
        partitions_max: 3,
        stages: Stages::new(Arc::new(SystemClock::new())),
        trees: PartialTrees::new(1 << 20, &Metrics::new()),
    }
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
