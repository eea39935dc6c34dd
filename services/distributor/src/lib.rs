//! The distributor: accepts pushes, checks them, and makes them durable before it says so. Stateless: whatever it
//! remembers only saves work.
//!
//! ```text
//!  http ─┐   Admitted                 one job on a decode worker                           async
//!  grpc ─┼─► tenant, admission, ──► decompress ► rate ► decode ► validate ──► symbols ──► sink ──► ack
//!  self ─┘   body size              ► series limit ► route ► encode record    (metastore)  (log of the partition)
//! ```
//!
//! [`http`] and [`grpc`] turn wire into a [`Push`](service::Push) and errors into statuses; [`service`] holds the
//! flow; [`admission`] bounds memory, rate and series; [`validate`] knows the limits on labels and times; [`decode`]
//! is the only part that burns CPU; [`shard`] is the pure map from series to partition; [`sink`] is the seam to
//! whatever makes a record durable. [`history`] reads profiles that are not pushed but imported.
//!
//! Invariants:
//! - An ack follows the sink's ack, which follows the commit of every name the profile needs. A push that fails on
//!   the way leaves garbage at most: names without a profile, or a record whose sender was told to retry.
//! - A push is one record in one partition, with all its types: it is acknowledged whole or not at all.
//! - A retry of the same bytes and labels has the same id and, if it names the same time or none, meets the same
//!   partition, so that the owner can drop it.
//! - Every profile refused for good is counted once under its reason, see [`metrics`].
//! - Memory is bounded by the bytes in flight ([`Config::bytes_in_flight_max`]) and by one decompressed profile per
//!   core.

pub mod config;

pub mod service;

pub mod http;

pub mod grpc;

pub mod admission;

pub mod history;

mod decode;

mod validate;

pub mod shard;

pub mod sink;

pub mod error;

pub mod metrics;

pub use config::Config;
pub use error::Error;
pub use service::{Deps, Handle, Service};
