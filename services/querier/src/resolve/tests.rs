use super::testing::{frames, stacks};
use super::*;
use crate::fold::Truncation;
use crate::fold::testing::fold;

/// Each node as `path self cumulative`, in the tree's order.
fn picture(tree: &FrameTree<1>) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for node in &tree.nodes {
        let title = tree.frame(node).title();
        let path = if node.parent == NO_PARENT {
            title.into_owned()
        } else {
            format!("{}/{title}", paths[node.parent as usize])
        };
        paths.push(path);
    }
    let values = tree.nodes.iter().map(|node| (node.self_values[0], node.cumulative[0]));
    paths.iter().zip(values).map(|(path, (own, all))| format!("{path} {own} {all}")).collect()
}

fn check(text: &str, granularity: Granularity, view: View, expected: &[&str]) {
    let tree = frames(text, granularity, view, Truncation::NONE);
    assert_eq!(picture(&tree), expected, "{text:?}");
}

#[test]
fn inlined_functions_become_nodes_and_the_innermost_one_has_the_value() {
    let text = "main;run>work>add 5\nmain;run>work 3\nmain;run;leaf 2";
    let expected = [
        "total 0 10",
        "total/main 0 10",
        "total/main/run 0 10",
        "total/main/run/work 3 8",
        "total/main/run/work/add 5 5",
        "total/main/run/leaf 2 2",
    ];
    check(text, Granularity::Function, View::Report, &expected);
}

#[test]
fn reports_fold_addresses_into_their_binary_and_graphs_do_not() {
    let text = "main;0x10@/lib/libc.so 5\nmain;0x20@/lib/libc.so 3\nmain;0x30 1";
    let report = ["total 0 9", "total/main 0 9", "total/main/[libc.so] 8 8", "total/main/<unknown> 1 1"];
    check(text, Granularity::Function, View::Report, &report);
    let graph = [
        "total 0 9",
        "total/main 0 9",
        "total/main/libc.so 0x10 5 5",
        "total/main/libc.so 0x20 3 3",
        "total/main/0x30 1 1",
    ];
    check(text, Granularity::Function, View::Graph, &graph);
    assert_eq!(frames(text, Granularity::Function, View::Graph, Truncation::NONE).unresolved, 3);
}

#[test]
fn lines_and_addresses_keep_frames_apart() {
    let text = "main:1/0x10 1\nmain:1/0x20 2\nmain:2/0x30 4";
    check(text, Granularity::Function, View::Report, &["total 0 7", "total/main 7 7"]);
    check(text, Granularity::Line, View::Report, &["total 0 7", "total/main 3 3", "total/main 4 4"]);
    let addresses = ["total 0 7", "total/0x10 main 1 1", "total/0x20 main 2 2", "total/0x30 main 4 4"];
    check(text, Granularity::Address, View::Report, &addresses);
}

#[test]
fn what_was_dropped_hangs_from_the_innermost_frame_of_its_parent() {
    let text = "main>run;a 50\nmain>run;b 3\nmain>run;c;d 4\nmain>run;other 43";
    let truncation = Truncation { max_nodes: 3, min_fraction: 0.0 };
    let tree = frames(text, Granularity::Function, View::Graph, truncation);
    let expected = [
        "total 0 100",
        "total/main 0 100",
        "total/main/run 0 100",
        "total/main/run/a 50 50",
        "total/main/run/other 43 43",
        "total/main/run/other 7 7",
    ];
    assert_eq!(picture(&tree), expected);
    let dropped: Vec<u32> = tree.nodes.iter().map(|node| node.dropped).collect();
    assert_eq!(dropped, [0, 0, 0, 0, 0, 3]);
}

#[test]
fn a_location_nobody_knows_is_still_a_frame() {
    let read = stacks("main;work 5");
    let folded = fold([&read.tree], Granularity::Function).unwrap();
    let truncated = Truncated { tree: folded, others: Vec::new() };
    let tree = FrameTree::expand(&truncated, &Names::new(), Granularity::Function, View::Report).unwrap();
    assert_eq!(picture(&tree), ["total 0 5", "total/<unknown> 0 5", "total/<unknown>/<unknown> 5 5"]);
    assert_eq!(tree.unresolved, 2);
}
