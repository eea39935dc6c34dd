//! A cluster that does not change: the single binary, and tests of what needs a view.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;

use super::Membership;
use crate::error::Error;
use crate::node::{Node, NodeName, NodeState};
use crate::view::View;

/// A membership of given nodes.
#[derive(Debug)]
pub struct Fixed {
    view: watch::Sender<Arc<View>>,
    left: AtomicBool,
}

impl Fixed {
    /// `node` alone.
    pub fn alone(node: Node) -> Self {
        Self::new(node.name.clone(), [node])
    }

    /// The view that `this` has of `nodes`, itself among them.
    pub fn new(this: NodeName, nodes: impl IntoIterator<Item = Node>) -> Self {
        let view = View::new(this, nodes.into_iter().map(Arc::new), []);
        Self { view: watch::Sender::new(Arc::new(view)), left: AtomicBool::new(false) }
    }

    fn change(&self, state: NodeState) {
        self.view.send_modify(|view| {
            let changed = view.nodes().iter().map(|node| {
                if node.name == *view.this() && node.state != state {
                    Arc::new(Node { state, revision: node.revision + 1, ..Node::clone(node) })
                } else {
                    Arc::clone(node)
                }
            });
            *view = Arc::new(View::new(view.this().clone(), changed, []));
        });
    }
}

#[async_trait]
impl Membership for Fixed {
    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    async fn set_state(&self, state: NodeState) -> Result<(), Error> {
        if self.left.load(Ordering::Acquire) {
            return Err(Error::Left);
        }
        self.change(state);
        Ok(())
    }

    async fn leave(&self) -> Result<(), Error> {
        self.left.store(true, Ordering::Release);
        self.change(NodeState::Leaving);
        Ok(())
    }
}
