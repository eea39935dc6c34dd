//! The role that answers: plan, scan, aggregate, resolve, render. The only room with DataFusion.
//!
//! ```text
//!   HTTP ──► api ──► request ──► admission ──► plan ──► engine ──► merged ──► fold ──► resolve ──► render ──► HTTP
//!                                               │         │                             │
//!                         catalogue + heads ────┘         └── blocks::Source            └── names, in batches
//! ```
//!
//! - `request`, `merged`: what can be asked and what the engine answers: numbers and identities, no names.
//! - `plan`: which blocks, which rows; pure.
//! - `engine`: DataFusion plans whose leaves are partial trees of one source each and whose root is one tree per group.
//! - `sql`: one SELECT over four tables that hold this tenant's profiles and nothing else.
//! - `fold`, `resolve`, `render`, `api`: from sums to what people read.
//!
//! Laws: a query sees every profile acked before it began, each once; no leaf drops anything, only the root truncates;
//! sums are checked and an overflow is an error; names are touched after aggregation; a dropped query stops its scans.

use std::sync::Arc;

use cambium_blocks::cache::Cache;
use cambium_metastore::{Catalogue, Symbols, Tenants};
use cambium_model::limits::Overrides;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;
use tokio::sync::watch;

pub mod config;

pub mod error;

pub mod heads;

pub mod request;

pub mod merged;

pub mod explain;

mod admission;

mod metrics;

mod plan;

mod engine;

mod sql;

pub mod fold;

pub mod resolve;

pub mod render;

pub mod api;

pub use config::Config;
pub use engine::Querier;
pub use error::Error;
pub use heads::Heads;

/// What a querier works with.
#[derive(Clone)]
pub struct Deps {
    /// Committed blocks.
    pub catalogue: Arc<Catalogue>,
    /// Names and numbers of tenants.
    pub tenants: Arc<Tenants>,
    /// Names of locations.
    pub symbols: Arc<Symbols>,
    /// Where blocks lie.
    pub store: Arc<dyn ObjectStore>,
    /// What was read of them before.
    pub cache: Arc<Cache>,
    /// What is not in blocks yet.
    pub heads: Arc<dyn Heads>,
    /// What each tenant may ask for.
    pub limits: watch::Receiver<Arc<Overrides>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the querier counts.
    pub metrics: Metrics,
}
