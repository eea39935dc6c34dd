//! Stack traces and sums on them.

use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_proto::wire::ingester as wire;

use super::{Malformed, all_below, has_length, ids};
use crate::shape::FoldBy;
use crate::tree::{PartialTree, SCOPE_LOCATION, Tree};

/// The stack traces as a message.
pub fn encode_tree(tree: &Tree) -> wire::Tree {
    let up = |(node, held): (u32, &Node)| if held.parent == NO_PARENT { 0 } else { node - held.parent };
    let location_ids: Vec<[u8; 16]> = tree.locations.iter().map(|location| location.0).collect();
    wire::Tree {
        up: (0..).zip(&tree.nodes).map(up).collect(),
        locations: tree.nodes.iter().filter(is_code).map(|node| node.location).collect(),
        location_ids: location_ids.into_flattened().into(),
    }
}

/// The nodes that are kept, and the locations that they need, in their order.
fn encode_part(tree: &Tree, keep: &[bool]) -> wire::Tree {
    const UNKNOWN: u32 = u32::MAX;
    let mut part = wire::Tree::default();
    let mut location_ids = Vec::new();
    let mut position_of = vec![UNKNOWN; tree.len()];
    let mut location_of = vec![UNKNOWN; tree.locations.len()];
    for (node, held) in tree.nodes.iter().enumerate().filter(|(node, _)| keep[*node]) {
        let position = part.up.len() as u32;
        position_of[node] = position;
        if !is_code(&held) {
            part.up.push(0);
            continue;
        }
        // Callers of what is kept are kept, and come before.
        part.up.push(position - position_of[held.parent as usize]);
        let location = &mut location_of[held.location as usize];
        if *location == UNKNOWN {
            *location = (location_ids.len() / 16) as u32;
            location_ids.extend_from_slice(&tree.locations[held.location as usize].0);
        }
        part.locations.push(*location);
    }
    part.location_ids = location_ids.into();
    part
}

fn is_code(node: &&Node) -> bool {
    node.parent != NO_PARENT
}

/// Stack traces.
///
/// # Errors
/// [`Malformed`] where a node comes before its caller, or has a location that is not there.
pub fn decode_tree(message: wire::Tree) -> Result<Tree, Malformed> {
    let wire::Tree { up, locations: location_of, location_ids } = message;
    let locations: Vec<LocationId> =
        ids("location_ids", &location_ids)?.iter().copied().map(LocationId).collect();
    has_length("locations", location_of.len(), up.iter().filter(|up| **up != 0).count())?;
    all_below("locations", &location_of, locations.len())?;
    let mut location_of = location_of.into_iter();
    let mut nodes = Vec::with_capacity(up.len());
    for (node, &up) in (0_u32..).zip(&up) {
        nodes.push(match up {
            0 => Node { parent: NO_PARENT, location: SCOPE_LOCATION },
            up => {
                let range = || Malformed::Range { column: "up", value: up.into(), end: u64::from(node) + 1 };
                let parent = node.checked_sub(up).ok_or_else(range)?;
                let location = location_of.next().ok_or(Malformed::Missing("a location"))?;
                Node { parent, location }
            }
        });
    }
    Ok(Tree::new(nodes, locations))
}

/// The sums as a message: with the part of the tree that they need, or without.
pub fn encode_partial(partial: &PartialTree, has_stack_tree: bool) -> wire::PartialTree {
    let keep = (!has_stack_tree).then(|| kept(partial));
    let mut message = wire::PartialTree {
        tree: keep.as_ref().map(|keep| encode_part(&partial.tree, keep)),
        ..wire::PartialTree::default()
    };
    let (mut position, mut last) = (0_u32, 0);
    for (node, value) in partial.self_values.iter().enumerate() {
        if keep.as_ref().is_some_and(|keep| !keep[node]) {
            continue;
        }
        if *value != 0 {
            message.nodes.push(position - last);
            message.values.push(*value);
            last = position;
        }
        position += 1;
    }
    message
}

/// The nodes that the sums need: those with values, their callers, and what makes them fold as they do among all others.
fn kept(partial: &PartialTree) -> Vec<bool> {
    let tree = &partial.tree;
    let mut keep: Vec<bool> = partial.self_values.iter().map(|value| *value != 0).collect();
    keep_callers(tree, &mut keep);
    // Where nodes fold into one, the smallest of their locations stands for all, also where its own node has no value.
    let shape = tree.shape(FoldBy::Function);
    let mut lacks = vec![false; shape.len()];
    for (keep, place) in keep.iter().zip(&shape.place_of_node) {
        lacks[*place as usize] |= *keep;
    }
    let stands_for_all = |node: usize| {
        let place = shape.place_of_node[node] as usize;
        (tree.nodes[node].location == shape.locations[place]).then_some(place)
    };
    for node in (0..tree.len()).filter(|node| keep[*node]) {
        stands_for_all(node).into_iter().for_each(|place| lacks[place] = false);
    }
    for (node, keep) in keep.iter_mut().enumerate() {
        if let Some(place) = stands_for_all(node).filter(|place| lacks[*place]) {
            (lacks[place], *keep) = (false, true);
        }
    }
    keep_callers(tree, &mut keep);
    keep
}

fn keep_callers(tree: &Tree, keep: &mut [bool]) {
    for (node, held) in tree.nodes.iter().enumerate().rev().filter(|(_, held)| is_code(held)) {
        keep[held.parent as usize] |= keep[node];
    }
}

/// The values of a tree of so many nodes.
///
/// # Errors
/// [`Malformed`]
pub fn decode_values(nodes: &[u32], values: &[i64], nodes_end: usize) -> Result<Vec<i64>, Malformed> {
    has_length("values", values.len(), nodes.len())?;
    let mut all = vec![0; nodes_end];
    let mut position = 0_u64;
    for (distance, value) in nodes.iter().zip(values) {
        position += u64::from(*distance);
        let range = Malformed::Range { column: "nodes", value: position, end: nodes_end as u64 };
        *all.get_mut(position as usize).ok_or(range)? = *value;
    }
    Ok(all)
}
