//! The call tree as text for a terminal: a line per path, callees indented below their caller.
//!
//! ```text
//! unit: nanoseconds
//!         self    cumulative
//!            0            30  total
//!           10            30    main.main
//!           20            20      main.work
//! ```

use std::fmt::Write as _;

use super::depth_first;
use crate::resolve::FrameTree;

/// Renders a tree whose values are in `unit`.
pub fn render(tree: &FrameTree<1>, unit: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "unit: {unit}\n{:>12}  {:>12}", "self", "cumulative");
    for visit in depth_first(tree) {
        let node = &tree.nodes[visit.node as usize];
        let indent = 2 + 2 * visit.depth as usize;
        let _ = writeln!(
            out,
            "{:>12}  {:>12}{:indent$}{}",
            node.self_values[0],
            node.cumulative[0],
            "",
            tree.frame(node).printed()
        );
    }
    out
}
