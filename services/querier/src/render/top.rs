//! The heaviest frames, value by value what `go tool pprof -top` prints.
//!
//! `self` is what was measured in the frame itself, `cumulative` what was measured in it and everything it called.
//! Inlined functions are frames of their own; a frame that calls itself counts once per stack.
//!
//! ```text
//! {"unit","total","entries":[{"name","file","line","column","address","self","cumulative"},…],"unresolved"}
//! ```
//!
//! Entries come with the largest self value first, then the largest cumulative one, then by name. A part that does not
//! count at the chosen granularity is "" or 0; `name` is `[binary]` or `<unknown>` where nothing else is known of the
//! code; `address` is hexadecimal text, because JSON's numbers end at 2⁵³. In a diff `total`, `self` and `cumulative` are
//! lists [left, right] and entries come with the largest change first.

use super::json::{push_int, push_list, push_text, push_values};
use super::{Visit, depth_first};
use crate::fold::add;
use crate::resolve::frame::Frame;
use crate::resolve::{FrameTree, ROOT_FRAME};

/// Bytes of an entry, about.
const ENTRY_BYTES: usize = 120;

/// A frame's values over all its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopEntry<const N: usize> {
    /// Position in the tree's frames.
    pub frame: u32,
    /// Measured in the frame itself.
    pub self_values: [i64; N],
    /// Measured in it and in what it called, recursion counted once.
    pub cumulative: [i64; N],
}

/// Every frame with a value, in the order of the answer. `None` where a sum does not fit 64 bits.
pub fn entries<const N: usize>(tree: &FrameTree<N>) -> Option<Vec<TopEntry<N>>> {
    let mut sums: Vec<TopEntry<N>> = (0..tree.frames.len() as u32)
        .map(|frame| TopEntry { frame, self_values: [0; N], cumulative: [0; N] })
        .collect();
    let mut open = OpenFrames::new(tree.frames.len());
    for Visit { node, depth, .. } in depth_first(tree) {
        let node = &tree.nodes[node as usize];
        let recursive = open.enter(depth, node.frame);
        let entry = &mut sums[node.frame as usize];
        for column in 0..N {
            add(&mut entry.self_values[column], node.self_values[column])?;
            if !recursive {
                add(&mut entry.cumulative[column], node.cumulative[column])?;
            }
        }
    }
    // Samples without a stack belong to the total and to no frame.
    sums.retain(|entry| {
        entry.frame != ROOT_FRAME && (entry.self_values != [0; N] || entry.cumulative != [0; N])
    });
    sums.sort_unstable_by(|a, b| {
        let (name, other) = (&tree.frames[a.frame as usize], &tree.frames[b.frame as usize]);
        let larger = rank(&b.self_values).cmp(&rank(&a.self_values));
        larger
            .then_with(|| rank(&b.cumulative).cmp(&rank(&a.cumulative)))
            .then_with(|| name.function().cmp(&other.function()))
            .then_with(|| name.cmp(other))
    });
    Some(sums)
}

/// What entries are ordered by: a value's size, or how much it changed from left to right.
fn rank<const N: usize>(values: &[i64; N]) -> u64 {
    match values[..] {
        [left, right] => right.abs_diff(left),
        _ => values.iter().map(|value| value.unsigned_abs()).max().unwrap_or_default(),
    }
}

/// Renders a tree whose values are in `unit`. `None` where a sum does not fit 64 bits.
pub fn render<const N: usize>(tree: &FrameTree<N>, unit: &str) -> Option<Vec<u8>> {
    let entries = entries(tree)?;
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    out.extend_from_slice(br#"{"unit":"#);
    push_text(&mut out, unit);
    out.extend_from_slice(br#","total":"#);
    push_values(&mut out, &tree.total());
    out.extend_from_slice(br#","entries":["#);
    push_list(&mut out, &entries, |out, entry| push_entry(out, &tree.frames[entry.frame as usize], entry));
    out.extend_from_slice(br#"],"unresolved":"#);
    push_int(&mut out, tree.unresolved as i64);
    out.push(b'}');
    Some(out)
}

fn push_entry<const N: usize>(out: &mut Vec<u8>, frame: &Frame, entry: &TopEntry<N>) {
    let address = if frame.address == 0 { String::new() } else { format!("{:#x}", frame.address) };
    out.extend_from_slice(br#"{"name":"#);
    push_text(out, &frame.function());
    out.extend_from_slice(br#","file":"#);
    push_text(out, &frame.file);
    out.extend_from_slice(br#","line":"#);
    push_int(out, frame.line);
    out.extend_from_slice(br#","column":"#);
    push_int(out, frame.column);
    out.extend_from_slice(br#","address":"#);
    push_text(out, &address);
    out.extend_from_slice(br#","self":"#);
    push_values(out, &entry.self_values);
    out.extend_from_slice(br#","cumulative":"#);
    push_values(out, &entry.cumulative);
    out.push(b'}');
}

/// Which frames lie on the path to the node being visited, and how often.
struct OpenFrames {
    path: Vec<u32>,
    times: Vec<u32>,
}

impl OpenFrames {
    fn new(frames: usize) -> Self {
        Self { path: Vec::new(), times: vec![0; frames] }
    }

    /// Goes on to a node at this depth; says whether its frame was already on the path.
    fn enter(&mut self, depth: u32, frame: u32) -> bool {
        for left in self.path.drain(depth as usize..) {
            self.times[left as usize] -= 1;
        }
        self.path.push(frame);
        self.times[frame as usize] += 1;
        self.times[frame as usize] > 1
    }
}
