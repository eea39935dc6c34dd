//! Fleets that live: services of many pods that are deployed, replaced and profiled all the time.
//!
//! ```text
//!   real profiles ─► Bases ─► a Universe per service ─► popularity ─┐
//!   offset ─► pods: who runs in this slot now, of which version ────┼─► Push: labels, pprof.gz, its sums
//!   seed, tenant, slot, kind, round ─► draws ───────────────────────┘
//! ```
//!
//! Laws: a push is a function of the seed, its place and the start time, so any can be made alone and again, byte by
//! byte. Its sums are those of its samples, one for each sample type. Times are nanoseconds.

use cambium_model::labels::{Labels, SERVICE_NAME};
use prost::Message;

use crate::random::{at, mix};
use crate::w::gzip;
use crate::w::popularity::Popularity;
use crate::w::universe::Universe;

pub use bases::{Bases, Skipped};
use code::{Code, Cut, Header};
pub use kinds::{Kind, TYPES_MAX};
use pods::Pod;

mod bases;
mod code;
mod kinds;
mod pods;
#[cfg(test)]
mod tests;

/// The label whose value all pods of a fleet share.
pub const CLUSTER_LABEL: &str = "cluster";

/// Third place of [`at`] is a round; these stand for what belongs to none.
const OF_UNIVERSES: u64 = u64::MAX;
const OF_BUILDS: u64 = u64::MAX - 1;
/// Fourth place of [`at`] is a draw; this stands for how many there are.
const DRAW_COUNT: u64 = u64::MAX;
/// A universe has at most so many times the stacks of its base: what crosses more often looks made up.
const CROSSED_MAX: usize = 8;
/// Of so many functions one is on another line in each new version.
const MOVED_FUNCTIONS: u64 = 16;
/// Pods on one node.
const PODS_PER_NODE: u64 = 20;

/// How large a fleet is and how it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// All of the fleet follows from it.
    pub seed: u64,
    /// The value of [`CLUSTER_LABEL`].
    pub cluster: String,
    /// Services, each with a binary of its own.
    pub services: u64,
    /// Pods of a service at one time.
    pub pods: u64,
    /// What is profiled in each pod; not empty.
    pub kinds: Vec<Kind>,
    /// Time between two profiles of one kind of a pod, and how long a profile of a duration lasts.
    pub interval_ns: i64,
    /// Draws of a profile, from and to; a stack that is drawn several times is one sample.
    pub draws: [u64; 2],
    /// Stacks of the smallest and of the largest service.
    pub stacks: [usize; 2],
    /// Time between two versions of a service; 0 for never.
    pub deploy_every_ns: i64,
    /// How long it takes a new version to replace the old one, pod by pod.
    pub rolling_ns: i64,
    /// How long a pod lives that no deploy replaces; 0 for ever.
    pub pod_lifetime_ns: i64,
    /// Labels whose values no two pods share, such as `run_id`.
    pub unique_labels: Vec<String>,
}

/// Which push of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Fleets of tenants have the same services and draw other profiles.
    pub tenant: u64,
    /// Below [`Fleet::series`].
    pub series: u64,
    /// How many pushes this series has had before.
    pub round: u64,
    /// When it is collected, from the fleet's start.
    pub offset_ns: i64,
}

/// What a pod sends at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// Which service.
    pub service: u64,
    /// What is profiled.
    pub kind: Kind,
    /// The series, without its name.
    pub labels: Labels,
    /// The pprof, gzip.
    pub body: Vec<u8>,
    /// The profile's own time, since 1970.
    pub time_ns: i64,
    /// Samples in the pprof.
    pub samples: u64,
    /// The sum of each of the kind's sample types, in order; 0 behind the last.
    pub sums: [i64; TYPES_MAX],
}

/// A fleet.
#[derive(Debug)]
pub struct Fleet {
    shape: Shape,
    services: Vec<Service>,
}

#[derive(Debug)]
struct Service {
    universe: Universe,
    popularity: Popularity,
    code: Code,
}

impl Fleet {
    /// Makes the services' stacks. Errors: a base whose stacks cannot be told apart.
    pub fn new(shape: Shape, bases: &Bases) -> anyhow::Result<Self> {
        let [least, most] = shape.stacks;
        let steps = shape.services.saturating_sub(1).max(1) as usize;
        let services = (0..shape.services).map(|service| {
            let base = bases.of(service);
            let wanted = least + most.saturating_sub(least) * service as usize / steps;
            let count = wanted.clamp(1, base.stacks.len() * CROSSED_MAX);
            let universe = Universe::new(base, count, service, at(shape.seed, service, OF_UNIVERSES, 0))?;
            let code = Code::new(&universe.locations);
            Ok(Service { popularity: Popularity::zipf(universe.len()), universe, code })
        });
        Ok(Self { services: services.collect::<anyhow::Result<_>>()?, shape })
    }

    /// How large it is.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What one tenant's pods send at one time: services × pods × kinds.
    pub fn series(&self) -> u64 {
        self.shape.series()
    }

    /// Stacks of all services together.
    pub fn stacks(&self) -> usize {
        self.services.iter().map(|service| service.universe.len()).sum()
    }

    /// The push of a place; `start_ns` is when the fleet starts, since 1970.
    pub fn push(&self, place: Place, start_ns: i64) -> Push {
        let Shape { seed, services, pods, kinds, interval_ns, .. } = &self.shape;
        // Services first: whoever comes one after the other is of another service.
        let number = place.series;
        let service = number % services;
        let slot = number / services % pods;
        let kind = kinds[(number / services / pods) as usize];
        let pod = Pod::of(&self.shape, place.tenant, service, slot, place.offset_ns);
        let Service { universe, popularity, code } = &self.services[service as usize];
        let header = Header {
            sample_types: kind.sample_types(),
            period_type: kind.period_type(),
            period: kind.period(),
            time_ns: start_ns + place.offset_ns,
            duration_ns: if kind.has_duration() { *interval_ns } else { 0 },
        };
        let build = Build::new(*seed, service, pod.version);
        let mut cut = Cut::new(code, &build, &header);
        let mut sums = [0; TYPES_MAX];
        let drawn = self.draw(place, popularity);
        for (rank, count) in &drawn {
            let values = kind.values(*count, u64::from(*rank));
            cut.sample(universe.stack(*rank), &values[..header.sample_types.len()]);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        Push {
            service,
            kind,
            labels: self.labels(service, &pod),
            body: gzip(&cut.finish().encode_to_vec()),
            time_ns: start_ns + place.offset_ns,
            samples: drawn.len() as u64,
            sums,
        }
    }

    /// Ranks of stacks, and how often each was drawn.
    fn draw(&self, place: Place, popularity: &Popularity) -> Vec<(u32, i64)> {
        let [least, most] = self.shape.draws;
        let seed = mix(self.shape.seed ^ mix(place.tenant));
        let count =
            least + at(seed, place.series, place.round, DRAW_COUNT) % (most.saturating_sub(least) + 1);
        let draws = (0..count).map(|draw| popularity.rank(at(seed, place.series, place.round, draw)));
        let mut ranks: Vec<u32> = draws.collect();
        ranks.sort_unstable();
        ranks.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len() as i64)).collect()
    }

    fn labels(&self, service: u64, pod: &Pod) -> Labels {
        let Shape { seed, cluster, unique_labels, .. } = &self.shape;
        let nodes = (self.shape.services * self.shape.pods).div_ceil(PODS_PER_NODE);
        let mut pairs = vec![
            (CLUSTER_LABEL.to_owned(), cluster.clone()),
            ("namespace".to_owned(), format!("ns-{:02}", service % 10)),
            ("node".to_owned(), format!("node-{:03}", pod.identity % nodes)),
            ("pod".to_owned(), pod.name(*seed, service)),
            ("version".to_owned(), format!("v{}", pod.version + 1)),
            (SERVICE_NAME.to_owned(), service_name(service)),
        ];
        for (number, name) in (0..).zip(unique_labels) {
            pairs.push((name.clone(), format!("{:016x}", at(*seed, pod.identity, OF_BUILDS, number))));
        }
        Labels::from_pairs(pairs).expect("the shape's labels are distinct")
    }
}

impl Shape {
    /// What one tenant's pods send at one time: services × pods × kinds.
    pub fn series(&self) -> u64 {
        self.services * self.pods * self.kinds.len() as u64
    }

    /// Labels that every push has, which therefore cannot be unique ones.
    pub const LABELS: [&str; 6] = [CLUSTER_LABEL, "namespace", "node", "pod", "version", SERVICE_NAME];
}

/// The name of a service, the value of its label `service_name`.
pub fn service_name(service: u64) -> String {
    format!("svc-{service:02}")
}

/// One version of a service's code: its own objects have a build id of their own, and some functions have moved.
struct Build {
    id: String,
    version: u64,
}

impl Build {
    fn new(seed: u64, service: u64, version: u64) -> Self {
        let half = |half| at(seed, service, OF_BUILDS, version * 2 + half);
        Self { id: format!("{:016x}{:016x}", half(0), half(1)), version }
    }

    /// Lines by which the function with this hash has moved since version 0.
    fn moved_by(&self, function: u64) -> i64 {
        let moved = mix(function ^ mix(self.version)).is_multiple_of(MOVED_FUNCTIONS);
        if moved { self.version as i64 } else { 0 }
    }
}
