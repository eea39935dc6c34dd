//! The seam: who is there, and what this node says of itself.
//!
//! Laws, kept by the contract suite: a view has this node in it, unless another has its name; names in a view are unique and
//! sorted; what this node says of itself is in its own view when the call returns, and in every other's soon; after
//! [`Membership::leave`] this node is leaving in its own view and not in any other's.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::Error;
use crate::node::NodeState;
use crate::view::View;

pub mod fixed;

#[cfg(test)]
mod contract;

/// A node's place in its cluster.
#[async_trait]
pub trait Membership: fmt::Debug + Send + Sync {
    /// What is known of the cluster, now and whenever that changes.
    fn view(&self) -> watch::Receiver<Arc<View>>;

    /// Says that this node is in another state.
    ///
    /// # Errors
    /// [`Error::Left`], [`Error::Stopped`].
    async fn set_state(&self, state: NodeState) -> Result<(), Error>;

    /// Says goodbye, and returns when others have been told. A second time it does nothing.
    ///
    /// # Errors
    /// [`Error::Stopped`]: nobody was told; others will find out.
    async fn leave(&self) -> Result<(), Error>;
}
