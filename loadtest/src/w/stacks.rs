//! Stacks to make universes from: real ones, or made-up ones of the same shape where no real profile is at hand, and
//! new ones by crossing two that share a frame.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::ProfileId;
use cambium_model::stacktrace::{NO_PARENT, Node};
use cambium_model::symbols::{Function, Line, Location, Mapping};
use cambium_proto::pprof::{Decoder, Decompressor, Limits, Push};

use crate::random::at;

/// Real profiles with many stacks: one whose stacks share most of their frames (5 nodes a stack), one whose stacks
/// share few (21 nodes a stack).
const BASES: [&str; 2] = ["go-heap-4types.pb.gz", "large-cpu-20k-samples.pb.gz"];
/// Crossings tried for each stack wanted, before giving up.
const CROSSINGS_PER_STACK: u64 = 100;
/// Size of a made-up base.
const MADE_UP: (u64, u64) = (4_000, 6_000);

/// Distinct stacks, the outermost frame first, as positions in a table of locations.
#[derive(Debug)]
pub(crate) struct Stacks {
    pub(crate) locations: Vec<Location>,
    pub(crate) stacks: Vec<Vec<u32>>,
}

impl Stacks {
    /// The narrow and the wide base; a made-up one for each that is not there.
    pub(crate) fn bases(folder: &Path, seed: u64) -> anyhow::Result<[Self; 2]> {
        let base = |name| {
            let path = folder.join(name);
            if !path.exists() {
                return Ok(Self::made_up(seed));
            }
            Self::read(&path).with_context(|| path.display().to_string())
        };
        let [narrow, wide] = BASES.map(base);
        Ok([narrow?, wide?])
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        Self::decode(&std::fs::read(path)?)
    }

    /// The stacks of a pprof, gzip or not; its values are left out.
    pub(crate) fn decode(body: &[u8]) -> anyhow::Result<Self> {
        let mut decompressor = Decompressor::new();
        let raw = decompressor.decompress(body, 1 << 30)?;
        let limits = Limits::from(&TenantLimits::default());
        let push =
            Push { id: ProfileId([0; 16]), labels: Labels::empty(), name: None, addresses_relative: false };
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(raw, &limits, push)?;
        let profile = &decoded.profile;
        let mut leaves = profile.sample_nodes.clone();
        leaves.sort_unstable();
        leaves.dedup();
        leaves.retain(|leaf| *leaf != NO_PARENT);
        Ok(Self {
            locations: (0..profile.locations.len()).map(|location| decoded.location(location)).collect(),
            stacks: leaves.iter().map(|leaf| outermost_first(&profile.nodes, *leaf)).collect(),
        })
    }

    /// Each stack is the beginning of an earlier one and up to a dozen calls more; some functions are called often.
    fn made_up(seed: u64) -> Self {
        let (functions, stacks) = MADE_UP;
        let locations = (0..functions).map(|number| {
            let name: Arc<str> = format!("app/package{:03}.function{number}", number % 211).into();
            let file = format!("app/package{:03}/file.go", number % 211).into();
            let function = Function { name: Arc::clone(&name), system_name: name, file, start_line: 10 };
            let line = Line { function, line: 10 + (number % 90) as i64, column: 0 };
            let mapping = Mapping { file: "/app/server".into(), build_id: "made-up".into() };
            Location { mapping, address: 0x40_0000 + 16 * number, lines: vec![line] }
        });
        let mut made = Self { locations: locations.collect(), stacks: Vec::new() };
        let mut seen = HashSet::new();
        for index in 0..stacks {
            let random = |place| at(seed, u64::MAX, index, place);
            let mut stack: Vec<u32> = match made.stacks.len() as u64 {
                0 => Vec::new(),
                held => {
                    let above = &made.stacks[(random(0) % held) as usize];
                    above[..random(1) as usize % (above.len() + 1)].to_vec()
                }
            };
            for call in 0..4 + random(2) % 12 {
                let pick = random(3 + call) % functions;
                stack.push((pick * pick / functions) as u32);
            }
            if seen.insert(stack.clone()) {
                made.stacks.push(stack);
            }
        }
        made
    }

    /// So many distinct stacks, in random order: those of the base, then crossings of two of them, the outer part of
    /// one and the inner part of another that has the same frame, so that every call in them is a real one. Fewer where
    /// the base does not cross to as many.
    pub(crate) fn draw(&self, count: usize, seed: u64) -> Vec<Vec<u32>> {
        let mut order: Vec<usize> = (0..self.stacks.len()).collect();
        order.sort_by_key(|index| at(seed, 0, 0, *index as u64));
        let mut drawn: Vec<Vec<u32>> =
            order.iter().take(count).map(|index| self.stacks[*index].clone()).collect();
        if drawn.len() == count {
            return drawn;
        }
        let mut known: HashSet<Vec<u32>> = drawn.iter().cloned().collect();
        let mut with_frame: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
        for (number, stack) in (0..).zip(&self.stacks) {
            for (depth, frame) in (0..).zip(stack) {
                with_frame.entry(*frame).or_default().push((number, depth));
            }
        }
        for attempt in 0..count as u64 * CROSSINGS_PER_STACK {
            let random = |place| at(seed, 1, attempt, place) as usize;
            let outer = &self.stacks[random(0) % self.stacks.len()];
            let cut = random(1) % outer.len();
            let candidates = &with_frame[&outer[cut]];
            let (inner, depth) = candidates[random(2) % candidates.len()];
            let inner = &self.stacks[inner as usize][depth as usize..];
            let crossed = [&outer[..cut], inner].concat();
            if known.insert(crossed.clone()) {
                drawn.push(crossed);
                if drawn.len() == count {
                    break;
                }
            }
        }
        // Popularity must not tell real stacks from crossings.
        drawn.sort_by_cached_key(|stack| {
            stack.iter().fold(seed, |hash, frame| at(hash, 2, u64::from(*frame), 0))
        });
        drawn
    }
}

/// The locations of a stack, from the outermost frame to this node's.
pub(crate) fn outermost_first(nodes: &[Node], leaf: u32) -> Vec<u32> {
    let mut stack = Vec::new();
    let mut node = leaf;
    while node != NO_PARENT {
        stack.push(nodes[node as usize].location);
        node = nodes[node as usize].parent;
    }
    stack.reverse();
    stack
}
