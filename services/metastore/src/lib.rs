//! The metadata store: what the nodes of a cluster must agree on, and the names of everything ever profiled.
//!
//! ```text
//!   distributor     ingester      querier      compactor     admin
//!        │              │            │             │           │
//!   tenants, symbols  catalogue  catalogue,   catalogue,   tokens      repositories: typed, over any store
//!        │              │         symbols      leases          │
//!        └──────────────┴─────┬──────┴────────────┘
//!                        keys (one table)                       the only place that builds keys
//!                             │
//!                   kv::KvStore: snapshot, commit               the seam
//!               │             │             │
//!          kv::memory      kv::redb      kv::tikv              tests; the single binary; a cluster
//! ```
//!
//! Laws: only this crate builds keys; every value is a message of `cambium.metastore.v1` or a number; a repository
//! decides on one snapshot and writes in one transaction whose preconditions are what it read; no repository ever
//! assumes that a commit without an answer failed.

pub mod kv;

pub mod keys;

mod error;

pub mod tenants;

pub mod catalogue;

pub mod leases;

pub mod owners;

pub mod symbols;

pub mod tokens;

pub mod backup;

pub use catalogue::Catalogue;
pub use error::Error;
pub use kv::KvStore;
pub use leases::Leases;
pub use owners::Owners;
pub use symbols::Symbols;
pub use tenants::Tenants;
