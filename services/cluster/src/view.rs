//! What one node knows of the cluster at a moment: a value, passed around in an `Arc`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::{Node, NodeName, Role};

/// The living nodes, and those that died lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    this: NodeName,
    nodes: Vec<Arc<Node>>,
    down: Vec<Arc<Node>>,
}

impl View {
    /// The view of node `this`: `nodes` live, those of `down` do not. Of two nodes of a name the later one counts.
    pub fn new(
        this: NodeName,
        nodes: impl IntoIterator<Item = Arc<Node>>,
        down: impl IntoIterator<Item = Arc<Node>>,
    ) -> Self {
        Self { this, nodes: by_name(nodes), down: by_name(down) }
    }

    /// Whose view it is.
    pub fn this(&self) -> &NodeName {
        &self.this
    }

    /// That node itself; none if another living node has its name.
    pub fn me(&self) -> Option<&Arc<Node>> {
        self.get(&self.this)
    }

    /// The living nodes by name, incompatible ones among them.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Nodes that left or died and are not forgotten yet, by name.
    pub fn down(&self) -> &[Arc<Node>] {
        &self.down
    }

    /// A living node.
    pub fn get(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.named(name.as_str())
    }

    /// A living node, by a name that may be none.
    pub fn named(&self, name: &str) -> Option<&Arc<Node>> {
        let found = self.nodes.binary_search_by(|node| node.name.as_str().cmp(name));
        found.ok().map(|index| &self.nodes[index])
    }

    /// The living nodes of a role that can be talked to, whatever their state.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().filter(move |node| node.is_compatible() && node.roles.contains(role))
    }

    /// Those of them that may be given work.
    pub fn usable(&self, role: Role) -> impl Iterator<Item = &Arc<Node>> {
        self.with_role(role).filter(|node| node.is_usable())
    }
}

fn by_name(nodes: impl IntoIterator<Item = Arc<Node>>) -> Vec<Arc<Node>> {
    let mut names = BTreeMap::<NodeName, Arc<Node>>::new();
    for node in nodes {
        let held = names.entry(node.name.clone()).or_insert_with(|| Arc::clone(&node));
        if (held.generation, held.revision) < (node.generation, node.revision) {
            *held = node;
        }
    }
    names.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::node;
    use crate::node::{NodeState, WIRE_VERSION_MAX};

    #[test]
    fn a_view_is_sorted_and_knows_what_may_be_used() {
        let with = |name: &str, change: fn(&mut Node)| {
            let mut node = node(name, "");
            change(&mut node);
            Arc::new(node)
        };
        let nodes = [
            with("e", |node| node.state = NodeState::Leaving),
            with("d", |node| node.state = NodeState::ReadOnly),
            with("c", |node| node.roles = [Role::Compactor].into_iter().collect()),
            with("b", |node| node.wire_version = WIRE_VERSION_MAX + 1),
            with("a", |node| node.generation = 2),
            with("a", |node| node.generation = 1),
        ];
        let view = View::new(nodes[0].name.clone(), nodes, []);
        let names = |nodes: Vec<&Arc<Node>>| nodes.iter().map(|n| n.name.to_string()).collect::<String>();
        assert_eq!(names(view.nodes().iter().collect()), "abcde");
        assert_eq!(names(view.with_role(Role::Querier).collect()), "ade");
        assert_eq!(names(view.usable(Role::Querier).collect()), "a");
        assert_eq!(names(view.usable(Role::Compactor).collect()), "c");
        assert_eq!(view.me().unwrap().state, NodeState::Leaving);
        assert_eq!(view.get(&NodeName::new("a").unwrap()).unwrap().generation, 2);
        assert_eq!(view.get(&NodeName::new("x").unwrap()), None);
    }
}
