//! The stacks of one service, in order of popularity, with the location ids of its own binary.

use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::ProfileId;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::symbols::Location;
use cambium_proto::pprof::{Decoder, Encoder, Header, Limits, Push};

use super::stacks::Stacks;

/// Stacks as a tree: what the decoder makes of a profile that has each of them once.
#[derive(Debug)]
pub(crate) struct Universe {
    /// Parents first.
    pub(crate) nodes: Vec<Node>,
    /// What the nodes refer to.
    pub(crate) locations: Vec<Location>,
    /// Their ids.
    pub(crate) ids: Vec<LocationId>,
    /// The innermost node of each stack, the most popular stack first.
    pub(crate) leaves: Vec<u32>,
}

impl Universe {
    /// The universe of a service with so many stacks, drawn from a base; with fewer where the base does not give them.
    pub(crate) fn new(base: &Stacks, count: usize, service: u64, seed: u64) -> anyhow::Result<Self> {
        let stacks = base.draw(count, seed);
        let count = stacks.len();
        let mut encoder = Encoder::new(&Header { sample_types: &[("rank", "count")], ..Header::default() });
        let mut ids = vec![0; base.locations.len()];
        for (rank, stack) in (1..).zip(&stacks) {
            let innermost_first: Vec<u64> = stack
                .iter()
                .rev()
                .map(|location| {
                    let id = &mut ids[*location as usize];
                    if *id == 0 {
                        *id = encoder.location(&salted(&base.locations[*location as usize], service));
                    }
                    *id
                })
                .collect();
            encoder.sample(&innermost_first, &[rank], &Vec::new());
        }
        let limits = Limits { samples_max: count, bytes_max: 1 << 30, ..(&TenantLimits::default()).into() };
        let push =
            Push { id: ProfileId([0; 16]), labels: Labels::empty(), name: None, addresses_relative: false };
        let raw = encoder.finish();
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(&raw, &limits, push)?;
        let locations =
            (0..decoded.profile.locations.len()).map(|location| decoded.location(location)).collect();
        let profile = decoded.profile;
        let mut leaves = vec![NO_PARENT; count];
        for (leaf, rank) in profile.sample_nodes.iter().zip(&profile.values) {
            leaves[*rank as usize - 1] = *leaf;
        }
        anyhow::ensure!(
            !leaves.contains(&NO_PARENT),
            "two stacks of service {service} have the same locations"
        );
        Ok(Self { nodes: profile.nodes, locations, ids: profile.locations, leaves })
    }

    /// How many stacks.
    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// The locations of a stack, the innermost first.
    pub(crate) fn stack(&self, rank: u32) -> impl Iterator<Item = u32> {
        let mut node = self.leaves[rank as usize];
        std::iter::from_fn(move || {
            let Node { parent, location } = *self.nodes.get(node as usize)?;
            node = parent;
            Some(location)
        })
    }
}

/// The same code in another binary, built in another folder: neither the location's id nor its function's is shared.
fn salted(location: &Location, service: u64) -> Location {
    let mut salted = location.clone();
    salted.mapping.build_id = format!("svc-{service:02}/{}", location.mapping.build_id).into();
    for line in &mut salted.lines {
        line.function.file = format!("/build/svc-{service:02}/{}", line.function.file).into();
    }
    salted
}
