//! The nouns of profiling, and nothing else: no I/O, no clock, no async, no Arrow.
//!
//! ```text
//!   pushed pprof ──► Profile { id, labels, types, locations, nodes, samples }
//!                       │         │        │        │
//!                       │         │        │        └── LocationId: 16 bytes, valid across blocks
//!                       │         │        └── ProfileType: name:sample:unit:period:unit[:delta]
//!                       │         └── Labels ──► Selector matches ──► series
//!                       └── ProfileId: a retry carries the same one
//!   flushed head  ──► BlockMeta { log range, datasets: one per tenant }
//! ```
//!
//! Laws: every type here is a value; times are nanoseconds since the Unix epoch and say so in their names;
//! ranges are half-open; whatever reaches these types has been validated by the constructor.

pub mod tenant;

pub mod labels;

pub mod selector;

pub mod profile_type;

pub mod stacktrace;

pub mod symbols;

pub mod profile;

pub mod time;

pub mod block;

pub mod limits;

pub mod retention;

pub mod deletion;
