//! What any process of Cambium needs and no domain knows: time, error kinds, tasks and shutdown, metrics, hedges, tenancy.
//!
//! ```text
//!   request ──► tenancy (who) ──► role ──► error::Kind ──► HTTP status | gRPC code, and whether to retry
//!                                  │
//!                clock, tasks, metrics, hedge: handed to it, never global
//! ```
//!
//! Laws: this is a closed list, a new file needs an ADR; nothing here is a global; the clock is the only source of
//! time; every task has a name and an owner.

pub mod clock;

pub mod error;

pub mod hedge;

pub mod tasks;

pub mod metrics;

pub mod tenancy;

pub mod quantity;

pub mod secret;
