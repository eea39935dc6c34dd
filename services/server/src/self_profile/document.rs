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

/// The innermost frames among which the allocator's are.
const ALLOCATOR_FRAMES_MAX: usize = 16;

/// Takes jemalloc's own frames off the inner end: who asked for the memory is what a heap profile tells.
pub fn leave_allocator(stacks: &mut Stacks, named: &Named) {
    let of_allocator = |place: &Place| {
        let lines = named.get(place).map(|lines| &**lines).unwrap_or_default();
        lines.iter().any(|line| line.function.system_name.starts_with("_rjem_"))
    };
    for (stack, _) in stacks {
        let inner = &stack[..stack.len().min(ALLOCATOR_FRAMES_MAX)];
        let frames = inner.iter().rposition(of_allocator).map_or(0, |outermost| outermost + 1);
        stack.drain(..frames);
    }
}

/// The profile, gzip pprof. Places without a name keep their address and the file that they are in.
pub fn encode(header: &Header<'_>, stacks: &Stacks, objects: &Objects, named: &Named) -> Vec<u8> {
    let mut encoder = Encoder::new(header);
    if let Some(executable) = objects.executable() {
        encoder.mapping(executable);
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cambium_model::symbols::{Function, Line};

    use super::*;

    #[test]
    fn who_asked_for_memory_is_innermost() {
        let place = |address| Place { object: 0, address };
        let line = |name: &str| {
            let function = Function { system_name: name.into(), ..Function::default() };
            Arc::from([Line { function, ..Line::default() }])
        };
        let names = ["prof_backtrace_impl", "_rjem_je_prof_tctx_create", "_rjem_malloc", "work", "main"];
        let named: Named = (0..).map(place).zip(names.map(line)).collect();
        let mut stacks: Stacks = vec![
            ((0..5).map(place).collect(), vec![1]),
            ((3..5).map(place).collect(), vec![1]),
            ((0..3).map(place).collect(), vec![1]),
        ];
        leave_allocator(&mut stacks, &named);
        let left: Vec<Vec<u64>> =
            stacks.iter().map(|(stack, _)| stack.iter().map(|place| place.address).collect()).collect();
        assert_eq!(left, [vec![3, 4], vec![3, 4], vec![]]);
    }
}
