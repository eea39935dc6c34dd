//! The flame graph as JSON: every name once, nodes as short rows that point at names.
//!
//! ```text
//! {"unit","total","height","nodes_dropped","value_dropped","unresolved",
//!  "names":["total","main.run",…],
//!  "nodes":[[parent,name,self,cumulative,file,line],…]}
//! ```
//!
//! Nodes come depth first, node 0 is the root and its own parent (-1); siblings come with the largest cumulative value
//! first, then by name. `name` and `file` are positions in `names`, `file` -1 where there is none. `height` is the
//! deepest node's distance from the root. A node that stands for dropped ones has the name `other`, no file, and their
//! number as its line. In a diff `total` and `value_dropped` are lists [left, right], and a row is
//! `[parent,name,left self,left cumulative,right self,right cumulative,file,line]`.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::json::{push_int, push_list, push_text, push_values};
use super::{Visit, depth_first};
use crate::resolve::{FrameTree, OTHER_FRAME};

/// Bytes of a node's row, about.
const ROW_BYTES: usize = 40;
/// Bytes of a name, about.
const NAME_BYTES: usize = 48;

/// Renders a tree whose values are in `unit`.
pub fn render<const N: usize>(tree: &FrameTree<N>, unit: &str) -> Vec<u8> {
    let order = depth_first(tree);
    let names = Names::of(tree, &order);
    let dropped = Dropped::of(tree);
    let mut out = Vec::with_capacity(order.len() * ROW_BYTES + names.list.len() * NAME_BYTES);
    out.extend_from_slice(br#"{"unit":"#);
    push_text(&mut out, unit);
    out.extend_from_slice(br#","total":"#);
    push_values(&mut out, &tree.total());
    for (key, value) in [
        ("height", order.iter().map(|visit| i64::from(visit.depth)).max().unwrap_or_default()),
        ("nodes_dropped", dropped.nodes as i64),
    ] {
        push_key(&mut out, key);
        push_int(&mut out, value);
    }
    push_key(&mut out, "value_dropped");
    push_values(&mut out, &dropped.values);
    push_key(&mut out, "unresolved");
    push_int(&mut out, tree.unresolved as i64);
    push_key(&mut out, "names");
    out.push(b'[');
    push_list(&mut out, &names.list, |out, name| push_text(out, name));
    out.push(b']');
    push_key(&mut out, "nodes");
    out.push(b'[');
    push_list(&mut out, &order, |out, visit| push_row(out, tree, &names, visit));
    out.extend_from_slice(b"]}");
    out
}

fn push_key(out: &mut Vec<u8>, key: &str) {
    out.push(b',');
    push_text(out, key);
    out.push(b':');
}

fn push_row<const N: usize>(out: &mut Vec<u8>, tree: &FrameTree<N>, names: &Names<'_>, visit: &Visit) {
    let node = &tree.nodes[visit.node as usize];
    let parent = if visit.depth == 0 { -1 } else { i64::from(visit.parent) };
    out.push(b'[');
    push_int(out, parent);
    let (name, file) = names.of_frame[node.frame as usize];
    out.push(b',');
    push_int(out, name);
    for (own, cumulative) in node.self_values.iter().zip(&node.cumulative) {
        out.push(b',');
        push_int(out, *own);
        out.push(b',');
        push_int(out, *cumulative);
    }
    let line = if node.frame == OTHER_FRAME {
        i64::from(node.dropped)
    } else {
        tree.frames[node.frame as usize].line
    };
    out.push(b',');
    push_int(out, file);
    out.push(b',');
    push_int(out, line);
    out.push(b']');
}

/// What truncation took away.
pub(super) struct Dropped<const N: usize> {
    /// How many nodes.
    pub nodes: u64,
    /// Their values.
    pub values: [i64; N],
}

impl<const N: usize> Dropped<N> {
    pub(super) fn of(tree: &FrameTree<N>) -> Self {
        let mut all = Self { nodes: 0, values: [0; N] };
        for node in tree.nodes.iter().filter(|node| node.frame == OTHER_FRAME) {
            all.nodes += u64::from(node.dropped);
            for (sum, value) in all.values.iter_mut().zip(node.cumulative) {
                // With values of both signs the parts may pass 64 bits where their sum does not.
                *sum = sum.saturating_add(value);
            }
        }
        all
    }
}

/// Names of functions and files, each once, in the order of their first node.
struct Names<'a> {
    list: Vec<Cow<'a, str>>,
    /// Positions of each frame's name and file; -1 for none.
    of_frame: Vec<(i64, i64)>,
    positions: HashMap<Cow<'a, str>, i64>,
}

impl<'a> Names<'a> {
    fn of<const N: usize>(tree: &'a FrameTree<N>, order: &[Visit]) -> Self {
        let mut names =
            Self { list: Vec::new(), of_frame: vec![(-1, -1); tree.frames.len()], positions: HashMap::new() };
        for visit in order {
            let position = tree.nodes[visit.node as usize].frame as usize;
            if names.of_frame[position].0 >= 0 {
                continue;
            }
            let frame = &tree.frames[position];
            let name = names.position(frame.title());
            let file = if frame.file.is_empty() { -1 } else { names.position(Cow::Borrowed(&frame.file)) };
            names.of_frame[position] = (name, file);
        }
        names
    }

    fn position(&mut self, text: Cow<'a, str>) -> i64 {
        let next = self.list.len() as i64;
        let position = *self.positions.entry(text.clone()).or_insert(next);
        if position == next {
            self.list.push(text);
        }
        position
    }
}
