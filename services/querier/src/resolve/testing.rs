//! Small trees for tests, a line per stack: `main;run;work 5`.
//!
//! A frame is `name` or `name:line`, in the file `name.rs`; `outer>inner` is one location with `inner` inlined into
//! `outer`; `main:3/0x40` adds an address in `/bin/app`; `0x1f@/lib/libc.so` is an address without names.

use std::sync::Arc;

use cambium_model::stacktrace::{LocationId, PathHash};
use cambium_model::symbols::{Function, Line, Location, Mapping};
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::frame::View;
use super::{FrameTree, Names};
use crate::fold::testing::fold;
use crate::fold::{Granularity, Truncation, truncate};
use crate::merged::MergedTree;

/// A tree and the names of its locations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stacks {
    /// The sums.
    pub tree: MergedTree,
    /// What is known of the locations.
    pub names: Names,
}

/// Reads stacks.
pub(crate) fn stacks(text: &str) -> Stacks {
    let mut read = Stacks::default();
    let mut nodes: HashMap<PathHash, u32> = HashMap::from([(PathHash::ROOT, 0)]);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (stack, value) = line.rsplit_once(' ').unwrap_or(("", line));
        let mut node = 0;
        for frame in stack.split(';').filter(|frame| !frame.is_empty()) {
            let (id, location) = location(frame);
            read.names.insert(id, Arc::new(location));
            let path = read.tree.paths[node as usize].child(id);
            node = *nodes.entry(path).or_insert_with(|| read.tree.push(node, id, path, 0));
        }
        read.tree.self_values[node as usize] += value.parse::<i64>().expect("a line ends with its value");
    }
    read
}

/// Stacks folded, truncated and named.
pub(crate) fn frames(
    text: &str,
    granularity: Granularity,
    view: View,
    truncation: Truncation,
) -> FrameTree<1> {
    let Stacks { tree, names } = stacks(text);
    let folded = fold([&tree], granularity).expect("small sums");
    FrameTree::expand(&truncate(folded, truncation), &names, granularity, view).expect("small sums")
}

/// Two sides folded into one.
pub(crate) fn both(left: &str, right: &str, view: View) -> FrameTree<2> {
    let (left, right) = (stacks(left), stacks(right));
    let names: Names = left.names.into_iter().chain(right.names).collect();
    let folded = fold([&left.tree, &right.tree], Granularity::Function).expect("small sums");
    FrameTree::expand(&truncate(folded, Truncation::NONE), &names, Granularity::Function, view)
        .expect("small sums")
}

fn location(frame: &str) -> (LocationId, Location) {
    let number =
        |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a hexadecimal number");
    if frame.starts_with("0x") {
        let (address, file) = frame.split_once('@').unwrap_or((frame, ""));
        let mapping = Mapping { file: file.into(), build_id: "".into() };
        let id = LocationId::native(mapping.build_ref(), number(address));
        return (id, Location { mapping, address: number(address), lines: Vec::new() });
    }
    let (chain, address) = frame.split_once('/').unwrap_or((frame, "0x0"));
    let lines: Vec<Line> = chain.split('>').rev().map(line).collect();
    let functions: Vec<&str> = lines.iter().map(|line| &*line.function.name).collect();
    let id = LocationId::named(xxh3_64(functions.join(">").as_bytes()), xxh3_64(frame.as_bytes()));
    let file = if address == "0x0" { "" } else { "/bin/app" };
    let mapping = Mapping { file: file.into(), build_id: "".into() };
    (id, Location { mapping, address: number(address), lines })
}

fn line(text: &str) -> Line {
    let (name, line) = text.split_once(':').unwrap_or((text, "0"));
    let file = format!("{name}.rs").into();
    let function = Function { name: name.into(), system_name: name.into(), file, start_line: 1 };
    Line { function, line: line.parse().expect("a line number"), column: 0 }
}
