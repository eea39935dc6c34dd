//! Workloads W and H: fleets of services whose pods send what is popular in their service.
//!
//! ```text
//!   real profiles ─► Stacks ─► a Universe per service (its own binary: own location ids) ─► popularity ─► profiles
//! ```
//!
//! A service has a universe of stacks in order of popularity (Zipf, s = 1.0), shared by its pods. A profile is 150 to
//! 900 draws from it, each worth 10 ms of CPU; a stack drawn several times is one sample. Any profile of the stream
//! can be made alone, as a model value or as pprof bytes, and both decode to the same locations.

use std::path::Path;

use cambium_model::labels::{Labels, SERVICE_NAME};
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::symbols::Location;
use cambium_proto::pprof::{Encoder, Header};
use libdeflater::{CompressionLvl, Compressor};

use crate::random::at;
use popularity::Popularity;
use stacks::Stacks;
use universe::Universe;

pub(crate) mod popularity;
pub(crate) mod stacks;
pub(crate) mod universe;

/// Time between two rounds and duration of each profile, nanoseconds.
pub const INTERVAL_NS: i64 = 10_000_000_000;
/// CPU time that one draw stands for, nanoseconds.
pub const PERIOD_NS: i64 = 10_000_000;
/// The one profile type of the streams.
pub const PROFILE_TYPE: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

const SEED: u64 = 42;
/// Draws of a profile: at least, and how many counts there are.
const DRAWS: (u64, u64) = (150, 751);
/// Third and fourth place of [`at`] are a profile's; these stand for what is not a draw.
const DRAW_COUNT: u64 = u64::MAX;
const IDENTITY: u64 = u64::MAX - 1;

/// How large a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Services, each with a binary of its own.
    pub services: u64,
    /// Pods of each service; each is a series.
    pub pods: u64,
    /// Profiles of each series.
    pub rounds: u64,
    /// Stacks of the smallest service; services grow evenly up to the largest.
    pub stacks_min: usize,
    /// Stacks of the largest service.
    pub stacks_max: usize,
    /// The smallest so many services have wide trees: stacks that share few frames.
    pub wide: u64,
}

/// Workload W, the standard: 500 series × 120 rounds = 60,000 profiles of about 250 samples.
pub const W: Shape =
    Shape { services: 20, pods: 25, rounds: 120, stacks_min: 647, stacks_max: 6_000, wide: 2 };

/// Workload H, hostile: services with 40,000 stacks each, most of them rare.
pub const H: Shape =
    Shape { services: 8, pods: 25, rounds: 120, stacks_min: 40_000, stacks_max: 40_000, wide: 0 };

/// A stream.
#[derive(Debug)]
pub struct Workload {
    shape: Shape,
    services: Vec<Service>,
    profile_type: ProfileType,
}

#[derive(Debug)]
struct Service {
    universe: Universe,
    popularity: Popularity,
}

/// Some samples of a profile: position in the universe's order of popularity, and how often it was drawn.
type Drawn = Vec<(u32, i64)>;

impl Workload {
    /// Makes the universes, from the real profiles in `folder` where they are there, else from made-up stacks.
    pub fn new(shape: Shape, folder: &Path) -> anyhow::Result<Self> {
        let [narrow, wide] = Stacks::bases(folder, SEED)?;
        let services = (0..shape.services).map(|service| {
            let steps = (shape.services - 1).max(1) as usize;
            let count = shape.stacks_min + (shape.stacks_max - shape.stacks_min) * service as usize / steps;
            let base = if service < shape.wide { &wide } else { &narrow };
            let universe = Universe::new(base, count, service, at(SEED, service, IDENTITY, 0))?;
            let held = universe.len();
            anyhow::ensure!(
                held == count,
                "service {service} crosses to no more than {held} of {count} stacks"
            );
            Ok(Service { popularity: Popularity::zipf(universe.len()), universe })
        });
        let services = services.collect::<anyhow::Result<_>>()?;
        Ok(Self { shape, services, profile_type: PROFILE_TYPE.parse()? })
    }

    /// Series of the stream.
    pub fn series(&self) -> u64 {
        self.shape.services * self.shape.pods
    }

    /// Profiles of each series.
    pub fn rounds(&self) -> u64 {
        self.shape.rounds
    }

    /// Stacks of all services together.
    pub fn stacks(&self) -> usize {
        self.services.iter().map(|service| service.universe.len()).sum()
    }

    /// Every location of every service, with its names.
    pub fn locations(&self) -> impl Iterator<Item = (LocationId, &Location)> {
        let universes = self.services.iter().map(|service| &service.universe);
        universes.flat_map(|universe| universe.ids.iter().copied().zip(&universe.locations))
    }

    /// The labels of a series. Series of one service are `pods` apart: 0, 1, … are pods of the first service.
    pub fn labels(&self, series: u64) -> Labels {
        let service = series / self.shape.pods;
        let pod = format!("svc-{service:02}-pod-{series:04}");
        Labels::from_pairs([
            ("cluster", "c1"),
            ("namespace", &format!("ns-{:02}", service % 10)),
            ("node", &format!("node-{:02}", series % 25)),
            ("pod", &pod),
            (SERVICE_NAME, &format!("svc-{service:02}")),
        ])
        .expect("distinct names")
    }

    /// The profile of a series and a round, as the decoder would give it. `start_ns` is the time of round 0.
    pub fn profile(&self, series: u64, round: u64, start_ns: i64) -> Profile {
        let Service { universe, .. } = self.service(series);
        let drawn = self.draw(series, round);
        let mut part = Part::new(universe);
        let sample_nodes = drawn.iter().map(|(rank, _)| part.node(universe.leaves[*rank as usize])).collect();
        let id = [IDENTITY, IDENTITY - 1].map(|half| at(SEED, series, round, half).to_be_bytes());
        Profile {
            id: ProfileId(id.concat().try_into().expect("two times eight bytes")),
            labels: self.labels(series),
            types: vec![self.profile_type.clone()],
            time_ns: start_ns + INTERVAL_NS * round as i64,
            duration_ns: INTERVAL_NS,
            period: PERIOD_NS,
            locations: part.locations.iter().map(|at| universe.ids[*at as usize]).collect(),
            nodes: part.nodes,
            sample_nodes,
            values: drawn.iter().map(|(_, count)| count * PERIOD_NS).collect(),
            sample_label_sets: Vec::new(),
            label_sets: Vec::new(),
        }
    }

    /// The same profile as uncompressed pprof.
    pub fn pprof(&self, series: u64, round: u64, start_ns: i64) -> Vec<u8> {
        let Service { universe, .. } = self.service(series);
        let mut encoder = Encoder::new(&Header {
            sample_types: &[("cpu", "nanoseconds")],
            period_type: ("cpu", "nanoseconds"),
            period: PERIOD_NS,
            time_ns: start_ns + INTERVAL_NS * round as i64,
            duration_ns: INTERVAL_NS,
        });
        let mut ids = vec![0; universe.locations.len()];
        for (rank, count) in self.draw(series, round) {
            let stack: Vec<u64> = universe
                .stack(rank)
                .map(|location| {
                    let id = &mut ids[location as usize];
                    if *id == 0 {
                        *id = encoder.location(&universe.locations[location as usize]);
                    }
                    *id
                })
                .collect();
            encoder.sample(&stack, &[count * PERIOD_NS], &Vec::new());
        }
        encoder.finish()
    }

    /// The same, compressed by [`gzip`].
    pub fn pprof_gz(&self, series: u64, round: u64, start_ns: i64) -> Vec<u8> {
        gzip(&self.pprof(series, round, start_ns))
    }

    fn service(&self, series: u64) -> &Service {
        &self.services[(series / self.shape.pods) as usize]
    }

    fn draw(&self, series: u64, round: u64) -> Drawn {
        let popularity = &self.service(series).popularity;
        let count = DRAWS.0 + at(SEED, series, round, DRAW_COUNT) % DRAWS.1;
        let draws = (0..count).map(|draw| popularity.rank(at(SEED, series, round, draw)));
        let mut ranks: Vec<u32> = draws.collect();
        ranks.sort_unstable();
        ranks.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len() as i64)).collect()
    }
}

/// gzip as agents do it, at level 1. Not `CompressionLvl::fastest()`: that is level 0, which stores the bytes as they
/// are and would spare a server the work of decompressing them.
pub fn gzip(raw: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::new(1).expect("1 is a level"));
    let mut out = vec![0; compressor.gzip_compress_bound(raw.len())];
    let length = compressor.gzip_compress(raw, &mut out).expect("the bound is enough room");
    out.truncate(length);
    out
}

/// The part of a universe's tree that one profile uses, renumbered.
struct Part<'a> {
    universe: &'a Universe,
    /// New position of each node and location; [`NO_PARENT`] while not used.
    node_positions: Vec<u32>,
    location_positions: Vec<u32>,
    nodes: Vec<Node>,
    /// Locations of the universe, in order of first use.
    locations: Vec<u32>,
    pending: Vec<u32>,
}

impl<'a> Part<'a> {
    fn new(universe: &'a Universe) -> Self {
        Self {
            universe,
            node_positions: vec![NO_PARENT; universe.nodes.len()],
            location_positions: vec![NO_PARENT; universe.locations.len()],
            nodes: Vec::new(),
            locations: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// The new position of a node of the universe; its ancestors get theirs first.
    fn node(&mut self, node: u32) -> u32 {
        let mut above = node;
        while above != NO_PARENT && self.node_positions[above as usize] == NO_PARENT {
            self.pending.push(above);
            above = self.universe.nodes[above as usize].parent;
        }
        while let Some(next) = self.pending.pop() {
            let Node { parent, location } = self.universe.nodes[next as usize];
            let parent = if parent == NO_PARENT { NO_PARENT } else { self.node_positions[parent as usize] };
            let location = self.location(location);
            self.node_positions[next as usize] = self.nodes.len() as u32;
            self.nodes.push(Node { parent, location });
        }
        self.node_positions[node as usize]
    }

    fn location(&mut self, location: u32) -> u32 {
        let position = &mut self.location_positions[location as usize];
        if *position == NO_PARENT {
            *position = self.locations.len() as u32;
            self.locations.push(location);
        }
        *position
    }
}

#[cfg(test)]
mod tests;
