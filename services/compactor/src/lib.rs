//! The compactor: fewer and larger blocks, none older than its tenant wants.
//!
//! ```text
//!   catalogue ─► plan (pure) ─► jobs ─► lease ─► merge: fetch ─► blocks::merge ─► PUT ─┐
//!                                 │                                                      ▼
//!                                 └──► removal of what is too old ─────────► ONE transaction: inputs out, outputs in,
//!                                                                            their objects to garbage, due after a grace
//!   garbage that is due, orphans ─► sweep ─► DELETE
//! ```
//!
//! Subsystems: [`plan`] decides, [`merge_job`] does one job, [`sweep`] deletes objects, [`service`] runs them in turn;
//! [`rebuild`] makes a lost catalogue from what the blocks say.
//!
//! Laws:
//! - levels: 0 as flushed; 1 by tenant, 10 minutes; 2, 2 hours; 3, a day, compressed for keeping;
//! - a job commits in one transaction, under its lease's fence, and only while all its inputs are there: a crash or a
//!   rival at any point leaves garbage, never a loss or a double count;
//! - no object is deleted while a query may read it: the grace is longer than any query;
//! - profiles keep the ids of their pushes as long as a push may be retried;
//! - names are never touched, and memory does not grow with the inputs: they are read from files in pieces.

pub mod config;

pub mod plan;

pub mod merge_job;

pub mod sweep;

pub mod service;

pub mod rebuild;

pub mod metrics;

pub mod error;

pub use config::Config;
pub use error::Error;
pub use service::{Deps, Service};
