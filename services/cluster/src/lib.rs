//! Who is alive and who owns what: membership by gossip, and what follows from it.
//!
//! ```text
//!   gossip (UDP) ──► swim ──┐
//!                           ├──► membership ──► view ──► ring    partition ─► owner, tenant ─► shard, key ─► cache
//!   settings ─────► fixed ──┘                    │──► peers   node ─► gRPC channel, credentials
//!                                                └──► pages   /memberlist, /ring
//! ```
//!
//! Subsystems: [`node`] is what nodes say of themselves, [`view`] who is there; [`membership`] is the seam with [`swim`] and a
//! fixed list behind it; [`ring`] and [`peers`] use views; [`key`] is the cluster's secret; [`pages`] show it all.
//!
//! Laws:
//! - whoever lacks the cluster's key does not appear in a view and is not answered; without a key everything stays on loopback;
//! - a killed node has left every view within 6 s on a quiet network, a leaving one within two rounds of gossip;
//! - a name is one living node's: the later start has it, and both say so loudly;
//! - what a newer build says of itself passes through older ones unchanged; a node of a wire version that is not understood is
//!   seen and never used;
//! - placement is a pure function of the view, and says who should try: who owns is for leases to say;
//! - what a member sends does not grow with the cluster.

pub mod node;

pub mod view;

pub mod key;

pub mod membership;

pub mod swim;

pub mod ring;

pub mod peers;

pub mod pages;

mod metrics;

mod error;

pub use error::Error;
pub use membership::Membership;
pub use node::{Node, NodeName};
pub use ring::Ring;
pub use view::View;
