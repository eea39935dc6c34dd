//! speedscope's file format, a profile of kind "sampled": <https://www.speedscope.app/file-format-schema.json>.
//!
//! Each path with a value of its own is one sample whose weight is that value; samples without a stack are an empty one.

use hashbrown::HashMap;

use super::depth_first;
use super::json::{push_int, push_list, push_text};
use crate::resolve::FrameTree;

/// Renders a tree whose values are in `unit`; `name` is the profile's title.
pub fn render(tree: &FrameTree<1>, unit: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(
        br#"{"$schema":"https://www.speedscope.app/file-format-schema.json","exporter":"cambium","name":"#,
    );
    push_text(&mut out, name);
    out.extend_from_slice(br#","activeProfileIndex":0,"shared":{"frames":["#);
    let Sampled { frames, stacks, weights } = sampled(tree);
    push_list(&mut out, &frames, |out, frame| {
        let frame = &tree.frames[*frame as usize];
        out.extend_from_slice(br#"{"name":"#);
        push_text(out, &frame.title());
        if !frame.file.is_empty() {
            out.extend_from_slice(br#","file":"#);
            push_text(out, &frame.file);
        }
        for (key, value) in
            [(br#","line":"#.as_slice(), frame.line), (br#","col":"#.as_slice(), frame.column)]
        {
            if value != 0 {
                out.extend_from_slice(key);
                push_int(out, value);
            }
        }
        out.push(b'}');
    });
    out.extend_from_slice(br#"]},"profiles":[{"type":"sampled","name":"#);
    push_text(&mut out, name);
    out.extend_from_slice(br#","unit":"#);
    push_text(&mut out, unit_name(unit));
    out.extend_from_slice(br#","startValue":0,"endValue":"#);
    push_int(&mut out, tree.total()[0]);
    out.extend_from_slice(br#","samples":["#);
    push_list(&mut out, &stacks, |out, stack| {
        out.push(b'[');
        push_list(out, stack, |out, frame| push_int(out, i64::from(*frame)));
        out.push(b']');
    });
    out.extend_from_slice(br#"],"weights":["#);
    push_list(&mut out, &weights, |out, weight| push_int(out, *weight));
    out.extend_from_slice(b"]}]}");
    out
}

/// A tree as lists of frames.
struct Sampled {
    /// Frames of the tree in the order of their first use, which no source decides.
    frames: Vec<u32>,
    /// Every path with a value, outermost frame first, as positions in `frames`.
    stacks: Vec<Vec<u32>>,
    /// The paths' values.
    weights: Vec<i64>,
}

fn sampled(tree: &FrameTree<1>) -> Sampled {
    let mut all = Sampled { frames: Vec::new(), stacks: Vec::new(), weights: Vec::new() };
    let mut positions = HashMap::new();
    let mut path = Vec::new();
    for visit in depth_first(tree) {
        let node = &tree.nodes[visit.node as usize];
        if visit.depth > 0 {
            path.truncate(visit.depth as usize - 1);
            path.push(*positions.entry(node.frame).or_insert_with(|| {
                all.frames.push(node.frame);
                (all.frames.len() - 1) as u32
            }));
        }
        if node.self_values[0] != 0 {
            all.stacks.push(path.clone());
            all.weights.push(node.self_values[0]);
        }
    }
    all
}

/// The format's word for a unit; it knows six.
fn unit_name(unit: &str) -> &'static str {
    match unit {
        "nanoseconds" => "nanoseconds",
        "microseconds" => "microseconds",
        "milliseconds" => "milliseconds",
        "seconds" => "seconds",
        "bytes" => "bytes",
        _ => "none",
    }
}
