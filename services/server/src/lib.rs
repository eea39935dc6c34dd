//! The one binary `cambium`: command line, configuration, wiring.
//!
//! ```text
//!   cli ──► config ──► wiring ──► roles: distributor ─► ingester ─► blocks ◄─ querier
//!                        │
//!                        └──► http: one port for HTTP, gRPC and gRPC-web, tenancy in front
//! ```
//!
//! Laws: only this crate knows all roles; settings and components never mix; a role is built once, from its
//! settings and its `Deps`; what is stopped is stopped in the reverse order of the flow, and nothing acked is lost.

pub mod cli;

pub mod config;

pub mod wiring;

pub mod cluster;

pub mod http;

pub mod admin;

pub mod deletions;

pub mod inventory;

mod backup;

mod offline;

mod import;

pub mod self_profile;

pub mod crash;

pub use cli::main;
pub use config::Config;
pub use wiring::Running;

/// jemalloc: less fragmentation under many threads, and heap profiles of ourselves.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Heap profiling on, one sample per 512 KiB allocated; two arenas per core would idle at twice the memory. Large arrays
/// are kept for the next query as small ones are: by default they go back to the system at once, and a quarter of a
/// merge's time was the kernel giving them out again.
#[unsafe(no_mangle)]
pub static malloc_conf: &[u8] =
    b"prof:true,prof_active:true,lg_prof_sample:19,narenas:4,oversize_threshold:0,dirty_decay_ms:2000,muzzy_decay_ms:0,background_thread:true\0";
