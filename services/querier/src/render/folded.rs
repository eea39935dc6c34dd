//! Stacks as text, outermost frame first, the form that flame graph scripts read: `main;run;work 42`.
//!
//! A `;` or a line break inside a name would end the frame, so they become `:` and a space. Samples without a stack are
//! one line of their own.

use std::fmt::Write as _;

use super::depth_first;
use crate::resolve::FrameTree;

/// What a sample without a stack is called.
const NO_STACK: &str = "(no stack)";

/// Renders a tree.
pub fn render(tree: &FrameTree<1>) -> String {
    let names: Vec<String> = tree
        .frames
        .iter()
        .map(|frame| frame.printed().replace(';', ":").replace(['\n', '\r'], " "))
        .collect();
    let mut out = String::new();
    let mut path: Vec<&str> = Vec::new();
    for visit in depth_first(tree) {
        let node = &tree.nodes[visit.node as usize];
        if visit.depth > 0 {
            path.truncate(visit.depth as usize - 1);
            path.push(&names[node.frame as usize]);
        }
        let value = node.self_values[0];
        if value != 0 {
            let stack = if path.is_empty() { NO_STACK.to_owned() } else { path.join(";") };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{stack} {value}");
        }
    }
    out
}
