//! A profile of this process as pprof.

use std::collections::{BTreeSet, HashMap};

use cambium_model::symbols::Location;
use cambium_proto::pprof::{Encoder, Header, gzip};

use super::names::Named;
use super::objects::{Objects, Place};

/// Stacks, innermost place first, with a value for each sample type.
pub type Stacks = Vec<(Vec<Place>, Vec<i64>)>;

/// Every place in the stacks.
pub fn places(stacks: &Stacks) -> BTreeSet<Place> {
    stacks.iter().flat_map(|(stack, _)| stack).copied().collect()
}

/// The profile, gzip pprof. Places without a name keep their address and the file that they are in.
pub fn encode(header: &Header<'_>, stacks: &Stacks, objects: &Objects, named: &Named) -> Vec<u8> {
    let mut encoder = Encoder::new(header);
    let mut ids = HashMap::new();
    for (stack, values) in stacks {
        let mut id = |place: &Place| {
            *ids.entry(*place).or_insert_with(|| {
                encoder.location(&Location {
                    mapping: objects.mapping(place.object).clone(),
                    address: place.address,
                    lines: named.get(place).map(|lines| lines.to_vec()).unwrap_or_default(),
                })
            })
        };
        let stack: Vec<u64> = stack.iter().map(&mut id).collect();
        encoder.sample(&stack, values, &Vec::new());
    }
    gzip(&encoder.finish())
}
