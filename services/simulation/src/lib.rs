//! Dev-only: a sandbox around the real binary, for tests that look from the outside.
//!
//! ```text
//!   test ──► Sandbox { data folder } ──► cambium-under-test (a process) ──► HTTP
//!               │        kill -9, restart on the same folder, crash at a named point, time that runs faster
//!               └──► golden/: real profiles and what Go's pprof says of them
//!   soak ──► a day in minutes: Sandbox, a fleet that pushes, an oracle that asks
//! ```
//!
//! Laws: tests wait for conditions with a deadline, never for luck; a sandbox owns its folder and its process and
//! leaves neither behind.

pub mod sandbox;

pub mod http;

pub mod cluster;

pub mod process;

pub mod soak;

pub use http::{Answer, Client};
pub use sandbox::Sandbox;
