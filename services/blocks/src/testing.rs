//! Datasets for tests, of this crate and of those above: built from profiles as a head builds them, only slower and
//! simpler.

use std::collections::BTreeMap;
use std::sync::Arc;

use cambium_model::labels::{Labels, SERVICE_NAME};
use cambium_model::profile::{Profile, ProfileId, SampleLabelValue, SampleLabels};
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::{SECOND_NS, bucket_start};
use hashbrown::{HashMap, HashSet};

use crate::Dataset;
use crate::dataset::{CHUNK_SAMPLES, Chunk, NewProfile, NewSamples, RollupKey};
use crate::series_table::ScopeName;

mod faults;

mod laws;

pub use faults::{FaultyStore, PutFault};
pub use laws::store_laws;

/// A tenant of this number, named `tenant-<number>`.
pub fn tenant(number: u32) -> Tenant {
    let id = TenantId::new(&format!("tenant-{number}")).expect("letters, digits and a hyphen");
    Tenant { id, number: TenantNumber(number) }
}

/// Profiles in, a dataset out.
#[derive(Debug)]
pub struct DatasetBuilder {
    dataset: Dataset,
    chunk: Chunk,
    chunk_samples: usize,
    series: HashMap<(Labels, ProfileType), u32>,
    scope_nodes: Vec<u32>,
    nodes: HashMap<(u32, LocationId), u32>,
    locations: HashMap<LocationId, u32>,
    label_sets: HashMap<SampleLabels, u32>,
    /// Rollups that are not kept because a sum does not fit: queries read the samples.
    overflowed: HashSet<RollupKey>,
}

impl DatasetBuilder {
    /// An empty dataset of this tenant.
    pub fn new(tenant: Tenant) -> Self {
        Self {
            dataset: Dataset::new(tenant),
            chunk: Chunk::default(),
            chunk_samples: CHUNK_SAMPLES,
            series: HashMap::new(),
            scope_nodes: Vec::new(),
            nodes: HashMap::new(),
            locations: HashMap::new(),
            label_sets: HashMap::from_iter([(SampleLabels::new(), 0)]),
            overflowed: HashSet::new(),
        }
    }

    /// Seals a chunk at this many samples, so that few samples make several chunks.
    pub fn chunk_samples(mut self, samples: usize) -> Self {
        self.chunk_samples = samples;
        self
    }

    /// Takes in every type of a profile. The scope is the value of `service_name`. Samples of value 0 are left out.
    pub fn push(&mut self, profile: &Profile) {
        for (index, profile_type) in profile.types.iter().enumerate() {
            self.push_type(profile, index, profile_type);
        }
    }

    /// The dataset of what was pushed.
    pub fn finish(mut self) -> Dataset {
        if !self.chunk.profiles.is_empty() {
            self.dataset.chunks.push(Arc::new(self.chunk));
        }
        self.dataset
    }

    fn push_type(&mut self, profile: &Profile, index: usize, profile_type: &ProfileType) {
        let series = self.series_row(&profile.labels, profile_type);
        let scope_index = self.dataset.series.scope_of[series as usize];
        let scope_node = self.scope_nodes[scope_index as usize];
        let mut samples: BTreeMap<(u32, u32), i64> = BTreeMap::new();
        for (sample, value) in profile.column(index).iter().enumerate().filter(|(_, value)| **value != 0) {
            let node = self.node(profile, profile.sample_nodes[sample], scope_node);
            let label_set = match profile.sample_label_sets.get(sample) {
                Some(set) => self.label_set(&profile.label_sets[*set as usize]),
                None => 0,
            };
            *samples.entry((node, label_set)).or_default() += value;
        }
        samples.retain(|_, value| *value != 0);
        self.roll_up(
            RollupKey {
                type_index: self.dataset.series.type_of[series as usize],
                scope_index,
                bucket_ns: bucket_start(profile.time_ns),
            },
            &samples,
        );
        let stacks: Vec<u32> = samples.keys().map(|(node, _)| *node).collect();
        let values: Vec<i64> = samples.values().copied().collect();
        let mut label_sets: Vec<u32> = samples.keys().map(|(_, label_set)| *label_set).collect();
        if label_sets.iter().all(|label_set| *label_set == 0) {
            label_sets.clear();
        }
        let new = NewProfile {
            id: profile.id,
            series,
            time_ns: profile.time_ns,
            duration_ns: profile.duration_ns,
            period: profile.period,
        };
        self.chunk.push(new, NewSamples { stacks: &stacks, values: &values, label_sets: &label_sets });
        if self.chunk.stacks.len() >= self.chunk_samples {
            self.dataset.chunks.push(Arc::new(std::mem::take(&mut self.chunk)));
        }
    }

    fn roll_up(&mut self, key: RollupKey, samples: &BTreeMap<(u32, u32), i64>) {
        if self.overflowed.contains(&key) {
            return;
        }
        let sums = Arc::make_mut(self.dataset.rollups.entry(key).or_default());
        let stacks = Arc::make_mut(&mut self.dataset.stacks[key.scope_index as usize]);
        for ((node, _), value) in samples {
            let slot = stacks.iter().position(|held| held == node).unwrap_or_else(|| {
                stacks.push(*node);
                stacks.len() - 1
            });
            sums.resize(sums.len().max(slot + 1), 0);
            let sum = &mut sums[slot];
            let Some(added) = sum.checked_add(*value) else {
                self.dataset.rollups.remove(&key);
                self.overflowed.insert(key);
                return;
            };
            *sum = added;
        }
    }

    fn series_row(&mut self, labels: &Labels, profile_type: &ProfileType) -> u32 {
        let key = (labels.clone(), profile_type.clone());
        if let Some(row) = self.series.get(&key) {
            return *row;
        }
        let table = Arc::make_mut(&mut self.dataset.series);
        let type_index = position_or_push(&mut table.types, profile_type.clone());
        let scope_labels = [SERVICE_NAME.to_owned()];
        let scope = labels.scope(&scope_labels);
        let name = ScopeName { value: scope.value.into(), label: scope.label.into() };
        let scope_index = position_or_push(&mut table.scopes, name);
        if self.scope_nodes.len() == scope_index as usize {
            self.scope_nodes.push(Arc::make_mut(&mut self.dataset.tree).push_scope());
            self.dataset.stacks.push(Arc::default());
        }
        let row = table.push(labels, labels.fingerprint(), type_index, scope_index);
        self.series.insert(key, row);
        row
    }

    fn node(&mut self, profile: &Profile, node: u32, scope_node: u32) -> u32 {
        if node == NO_PARENT {
            return scope_node;
        }
        let Node { parent, location } = profile.nodes[node as usize];
        let above = self.node(profile, parent, scope_node);
        let id = profile.locations[location as usize];
        if let Some(found) = self.nodes.get(&(above, id)) {
            return *found;
        }
        let tree = Arc::make_mut(&mut self.dataset.tree);
        let location = *self.locations.entry(id).or_insert_with(|| {
            tree.locations.push(id);
            (tree.locations.len() - 1) as u32
        });
        let path = tree.paths[above as usize].child(id);
        let added = tree.push_node(Node { parent: above, location }, path);
        self.nodes.insert((above, id), added);
        added
    }

    fn label_set(&mut self, labels: &SampleLabels) -> u32 {
        if let Some(found) = self.label_sets.get(labels) {
            return *found;
        }
        let sets = Arc::make_mut(&mut self.dataset.label_sets);
        sets.push(labels.clone());
        let position = (sets.len() - 1) as u32;
        self.label_sets.insert(labels.clone(), position);
        position
    }
}

fn position_or_push<T: PartialEq>(items: &mut Vec<T>, item: T) -> u32 {
    if let Some(found) = items.iter().position(|held| *held == item) {
        return found as u32;
    }
    items.push(item);
    (items.len() - 1) as u32
}

/// How large and how varied random profiles are.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Pushes.
    pub profiles: usize,
    /// Values of `service_name`; besides, some series have none.
    pub services: u64,
    /// Values of `pod`.
    pub pods: u64,
    /// Sample types per push, 1 to 4.
    pub types: usize,
    /// Samples per push, at most.
    pub samples: u64,
    /// Frames per stack, at most.
    pub depth: u64,
    /// Distinct locations.
    pub locations: u64,
    /// Time of the first profile, nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Profiles lie within this many nanoseconds.
    pub span_ns: i64,
    /// Whether some samples have labels.
    pub sample_labels: bool,
}

impl Default for Shape {
    /// Small enough for hundreds of cases, with every feature in it: several rollup buckets, four types, labels.
    fn default() -> Self {
        Self {
            profiles: 24,
            services: 3,
            pods: 3,
            types: 4,
            samples: 6,
            depth: 4,
            locations: 6,
            start_ns: 1_700_000_000 * SECOND_NS,
            span_ns: 3_000 * SECOND_NS,
            sample_labels: true,
        }
    }
}

impl Shape {
    /// Many profiles of few series and stacks, over hours: every kind of rollup pays.
    pub fn dense() -> Self {
        Self {
            profiles: 700,
            services: 1,
            pods: 1,
            types: 1,
            depth: 1,
            locations: 1,
            span_ns: 7_200 * SECOND_NS,
            ..Self::default()
        }
    }
}

/// Random profiles; the same seed and shape give the same ones.
pub fn random_profiles(seed: u64, shape: &Shape) -> Vec<Profile> {
    let mut random = Random(seed);
    (0..shape.profiles).map(|number| random_profile(&mut random, shape, number as u64)).collect()
}

/// The dataset of random profiles.
pub fn random_dataset(tenant: Tenant, seed: u64, shape: &Shape) -> Dataset {
    let mut builder = DatasetBuilder::new(tenant);
    random_profiles(seed, shape).iter().for_each(|profile| builder.push(profile));
    builder.finish()
}

const TYPES: [&str; 4] = [
    "memory:alloc_objects:count:space:bytes",
    "memory:alloc_space:bytes:space:bytes",
    "memory:inuse_objects:count:space:bytes",
    "memory:inuse_space:bytes:space:bytes",
];

fn random_profile(random: &mut Random, shape: &Shape, number: u64) -> Profile {
    let service = format!("service-{}", random.below(shape.services));
    let pod = format!("pod-{}", random.below(shape.pods));
    let mut pairs = vec![("pod", pod.as_str())];
    if !random.one_in(8) {
        pairs.push((SERVICE_NAME, &service));
    }
    if random.one_in(3) {
        pairs.push(("zone", "a"));
    }
    let mut types: Vec<ProfileType> =
        TYPES[..shape.types].iter().map(|text| text.parse().expect("a constant in the right form")).collect();
    let delta = random.one_in(4);
    if delta {
        types = vec!["process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta".parse().expect("as above")];
    }
    let samples = random.below(shape.samples + 1) as usize;
    let mut profile = Profile {
        id: ProfileId(((u128::from(random.next()) << 64) | u128::from(number)).to_be_bytes()),
        labels: Labels::from_pairs(pairs).expect("distinct names"),
        types,
        // Whole seconds, so that some series have two profiles of one time.
        time_ns: shape.start_ns + random.below((shape.span_ns / SECOND_NS).max(1) as u64) as i64 * SECOND_NS,
        duration_ns: if delta { 10 * SECOND_NS } else { 0 },
        period: random.below(3) as i64 * 10_000_000,
        locations: (0..shape.locations).map(|location| LocationId::named(location, location)).collect(),
        nodes: Vec::new(),
        sample_nodes: Vec::new(),
        values: Vec::new(),
        sample_label_sets: Vec::new(),
        label_sets: Vec::new(),
    };
    for _ in 0..samples {
        let mut node = NO_PARENT;
        for _ in 0..random.below(shape.depth + 1) {
            let location = random.below(shape.locations) as u32;
            profile.nodes.push(Node { parent: node, location });
            node = profile.nodes.len() as u32 - 1;
        }
        profile.sample_nodes.push(node);
    }
    let value_count = samples * profile.types.len();
    profile.values = (0..value_count).map(|_| random.below(2_000) as i64 - 500).collect();
    if shape.sample_labels && random.one_in(3) {
        profile.label_sets = label_sets();
        let count = profile.label_sets.len() as u64;
        profile.sample_label_sets = (0..samples).map(|_| random.below(count) as u32).collect();
    }
    profile
}

fn label_sets() -> Vec<SampleLabels> {
    let text = |name: &str, value: &str| (name.into(), SampleLabelValue::Text(value.into()));
    let number = |name: &str, value, unit: &str| (name.into(), SampleLabelValue::Number(value, unit.into()));
    vec![
        vec![],
        vec![text("thread", "main")],
        vec![number("bytes", 4_096, "bytes"), text("thread", "gc"), text("thread", "main")],
        vec![number("bytes", -1, "")],
    ]
}

/// splitmix64: enough chance for tests, the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}
