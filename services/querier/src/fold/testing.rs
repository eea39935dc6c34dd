//! Trees folded as a merge of one source folds them.

use cambium_blocks::tree::{SCOPE_LOCATION, Tree};
use cambium_model::stacktrace::{NO_PARENT, Node};

use super::{FoldedTree, Granularity, unite};
use crate::merged::{MergedTree, ROOT_LOCATION};

/// The trees at a granularity, as one. `None` where a sum does not fit 64 bits.
pub(crate) fn fold<const N: usize>(
    trees: [&MergedTree; N],
    granularity: Granularity,
) -> Option<FoldedTree<N>> {
    let folded: Option<Vec<MergedTree>> = trees.iter().map(|tree| fold_one(tree, granularity)).collect();
    unite(folded?.try_into().ok()?)
}

fn fold_one(tree: &MergedTree, granularity: Granularity) -> Option<MergedTree> {
    let nodes = (0..).zip(&tree.parents).map(|(node, parent)| match *parent {
        NO_PARENT => Node { parent: NO_PARENT, location: SCOPE_LOCATION },
        parent => Node { parent, location: node },
    });
    let source = Tree::new(nodes.collect(), tree.locations.clone());
    let shape = source.shape(granularity.fold_by());
    let location =
        |location: &u32| source.locations.get(*location as usize).copied().unwrap_or(ROOT_LOCATION);
    Some(MergedTree {
        parents: shape.parents.clone(),
        locations: shape.locations.iter().map(location).collect(),
        paths: shape.paths.clone(),
        self_values: shape.sum(&tree.self_values)?,
    })
}
