//! The call graph for Graphviz: a box per frame, an arrow per caller and callee, as Go's pprof draws it.
//!
//! Only the drawing is limited, to what fits a page: the heaviest boxes and arrows. All values are of the whole profile.
//! An arrow counts once per stack however often the stack takes it; one over frames that are not drawn is dotted.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::depth_first;
use super::top::{self, TopEntry};
use crate::fold::add;
use crate::resolve::FrameTree;

/// Boxes drawn at most (Go pprof's default).
const BOXES_MAX: usize = 80;
/// The least part of the total that gets a box (Go pprof's default).
const BOX_FRACTION: f64 = 0.005;
/// The least part of the total that gets an arrow (Go pprof's default).
const ARROW_FRACTION: f64 = 0.001;
/// Font sizes of the lightest and the heaviest box.
const FONT_SIZES: (f64, f64) = (8.0, 24.0);

/// From one frame to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Arrow {
    value: i64,
    /// Whether every stack takes it over frames that are not drawn.
    indirect: bool,
    /// How often it lies on the path being visited.
    open: u32,
}

/// Renders a tree whose values are in `unit`; `None` where a sum does not fit 64 bits.
pub fn render(tree: &FrameTree<1>, unit: &str, title: &str) -> Option<String> {
    let total = tree.total()[0];
    let boxes = boxes(top::entries(tree)?, total);
    let numbers: HashMap<u32, usize> = boxes.iter().map(|entry| entry.frame).zip(1..).collect();
    let arrows = arrows(tree, &numbers)?;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "digraph {} {{\nnode [style=filled fillcolor=\"#f8f8f8\"]", quoted(title));
    let legend = format!(
        "{}\\ntotal {total} {unit}\\n{} of {} frames",
        escaped(title),
        boxes.len(),
        tree.frames.len() - 2
    );
    let _ = writeln!(out, "L [shape=box fontsize=16 label=\"{legend}\"]");
    let heaviest = boxes.iter().map(|entry| entry.self_values[0].unsigned_abs()).max().unwrap_or_default();
    for (entry, number) in boxes.iter().zip(1..) {
        let own = entry.self_values[0];
        let scale = if heaviest == 0 { 0.0 } else { (own.unsigned_abs() as f64 / heaviest as f64).sqrt() };
        let size = FONT_SIZES.0 + (FONT_SIZES.1 - FONT_SIZES.0) * scale;
        let name = tree.frames[entry.frame as usize].printed();
        let label =
            format!("{}\\n{}\\nof {}", escaped(&name), share(own, total), share(entry.cumulative[0], total));
        let _ = writeln!(
            out,
            "N{number} [label=\"{label}\" shape=box fontsize={size:.0} tooltip={}]",
            quoted(&name)
        );
    }
    for ((from, to), arrow) in sorted(arrows) {
        let part = fraction(arrow.value, total);
        if part < ARROW_FRACTION {
            continue;
        }
        let style = if arrow.indirect { " style=dotted" } else { "" };
        let (weight, width) = (1.0 + part * 100.0, 1.0 + part * 5.0);
        let _ = writeln!(
            out,
            "N{from} -> N{to} [label=\" {}\" weight={weight:.0} penwidth={width:.1}{style}]",
            arrow.value
        );
    }
    out.push_str("}\n");
    Some(out)
}

/// The frames that are drawn: the heaviest by cumulative value.
fn boxes(mut entries: Vec<TopEntry<1>>, total: i64) -> Vec<TopEntry<1>> {
    entries.retain(|entry| fraction(entry.cumulative[0], total) >= BOX_FRACTION);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.cumulative[0].unsigned_abs()));
    entries.truncate(BOXES_MAX);
    entries
}

/// A frame of the path being visited, as the drawing sees it.
#[derive(Clone, Copy)]
struct Step {
    /// The nearest box at or above the frame.
    nearest: Option<usize>,
    /// Whether the frame itself is that box.
    is_drawn: bool,
    /// The arrow into it.
    arrow: Option<(usize, usize)>,
}

/// All arrows between boxes, by the boxes' numbers.
fn arrows(tree: &FrameTree<1>, numbers: &HashMap<u32, usize>) -> Option<BTreeMap<(usize, usize), Arrow>> {
    let mut arrows: BTreeMap<(usize, usize), Arrow> = BTreeMap::new();
    let mut path: Vec<Step> = Vec::new();
    for visit in depth_first(tree).into_iter().skip(1) {
        for step in path.drain(visit.depth as usize - 1..) {
            if let Some(arrow) = step.arrow.and_then(|key| arrows.get_mut(&key)) {
                arrow.open -= 1;
            }
        }
        let node = &tree.nodes[visit.node as usize];
        let caller = path.last().copied().unwrap_or(Step { nearest: None, is_drawn: true, arrow: None });
        let Some(number) = numbers.get(&node.frame).copied() else {
            path.push(Step { nearest: caller.nearest, is_drawn: false, arrow: None });
            continue;
        };
        let key = caller.nearest.filter(|from| *from != number).map(|from| (from, number));
        if let Some(key) = key {
            let arrow = arrows.entry(key).or_insert(Arrow { indirect: true, ..Arrow::default() });
            arrow.indirect &= !caller.is_drawn;
            arrow.open += 1;
            if arrow.open == 1 {
                add(&mut arrow.value, node.cumulative[0])?;
            }
        }
        path.push(Step { nearest: Some(number), is_drawn: true, arrow: key });
    }
    Some(arrows)
}

/// The heaviest first, so that Graphviz lays them out first.
fn sorted(arrows: BTreeMap<(usize, usize), Arrow>) -> Vec<((usize, usize), Arrow)> {
    let mut sorted: Vec<_> = arrows.into_iter().collect();
    sorted.sort_by_key(|(key, arrow)| (std::cmp::Reverse(arrow.value.unsigned_abs()), *key));
    sorted
}

fn fraction(value: i64, total: i64) -> f64 {
    if total == 0 { 0.0 } else { value.unsigned_abs() as f64 / total.unsigned_abs() as f64 }
}

fn share(value: i64, total: i64) -> String {
    format!("{value} ({:.2}%)", fraction(value, total) * 100.0)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}
