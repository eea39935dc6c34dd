//! The ingester: holds the recent head, answers from it, cuts it into blocks.
//!
//! ```text
//!   record ──► log.append (fsync) ──► apply in offset order ──► ack
//!                                        │
//!                                        ▼
//!             generation: tenant ─► head { series, stack traces, samples, rollups }
//!                                        │ size | age | request | shutdown
//!                                        ▼
//!             frozen cut ──► encode ──► PUT if absent ──► ONE transaction: block + committed offset ──► truncate log
//! ```
//!
//! Subsystems: [`head`] turns profiles into columns, [`partition`] orders appends and keeps the generations,
//! [`dedup`] knows the pushes of the acceptance window, [`flush`] makes blocks of cuts, [`service`] runs them, [`grpc`]
//! lets other processes write and ask, [`opened`] keeps what they ask.
//!
//! Laws:
//! - a profile is applied once, after its record is durable and before it is acknowledged;
//! - heads and blocks never overlap: the catalogue says up to which offset a log is in blocks, a generation begins
//!   and ends at an offset, and a reader gets the generations from that offset on;
//! - a cut is frozen: every retry of its flush writes the same bytes under the same name;
//! - nothing acknowledged is dropped here, ever: what does not fit is refused before the log (503).

pub mod config;

pub mod head;

pub mod dedup;

pub mod partition;

pub mod flush;

pub mod service;

pub mod tenure;

pub mod claims;

mod leftover;

mod follow;

mod open;

pub mod opened;

pub mod grpc;

pub mod metrics;

pub mod error;

pub use config::Config;
pub use error::Error;
pub use service::{Deps, Handle, Heads, Service};
pub use tenure::{Claims, Leased, Tenures};
