//! The merge as a gzipped pprof: every location with its mapping, build id, file-relative address and inlined lines,
//! every sample with its labels. Nothing is folded and nothing dropped.

use std::sync::Arc;

use cambium_model::stacktrace::{LocationId, NO_PARENT};
use cambium_model::symbols::Location;
use cambium_proto::pprof::{Encoder, Header, gzip};
use hashbrown::HashMap;

use crate::merged::MergedSamples;
use crate::resolve::Names;

/// Renders a merge. Equal merges make equal bytes: the heaviest samples come first, then by path and labels.
pub fn render(merged: &MergedSamples, names: &Names) -> Vec<u8> {
    let profile_type = &merged.profile_type;
    let mut encoder = Encoder::new(&Header {
        sample_types: &[(&profile_type.sample_type, &profile_type.sample_unit)],
        period_type: (&profile_type.period_type, &profile_type.period_unit),
        period: merged.collected.period,
        time_ns: merged.collected.time_ns,
        duration_ns: merged.collected.duration_ns,
    });
    let tree = &merged.tree;
    let mut samples = merged.samples.clone();
    samples.sort_by_cached_key(|sample| {
        let path = tree.paths[sample.node as usize];
        let labels = Arc::clone(&merged.label_sets[sample.label_set as usize]);
        (std::cmp::Reverse(sample.value.unsigned_abs()), path, labels)
    });
    let mut ids: HashMap<LocationId, u64> = HashMap::new();
    let mut stack = Vec::new();
    for sample in &samples {
        stack.clear();
        let mut node = sample.node as usize;
        while tree.parents[node] != NO_PARENT {
            let location = tree.locations[node];
            stack.push(*ids.entry(location).or_insert_with(|| encode(&mut encoder, location, names)));
            node = tree.parents[node] as usize;
        }
        encoder.sample(&stack, &[sample.value], &merged.label_sets[sample.label_set as usize]);
    }
    gzip(&encoder.finish())
}

fn encode(encoder: &mut Encoder, id: LocationId, names: &Names) -> u64 {
    match names.get(&id) {
        Some(location) => encoder.location(location),
        None => {
            // Its address keeps it apart from other unknown ones; a named id has none of its own, so its hash serves.
            encoder.location(&Location { address: id.low(), ..Location::default() })
        }
    }
}
