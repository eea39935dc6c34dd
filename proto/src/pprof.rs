//! pprof in and out: the product's hot path, without prost and without a string allocated per profile.
//!
//! ```text
//! body ──► Decompressor ──► raw bytes ──► Decoder
//!          gzip, zstd, raw                 1 walk    every message into tables; strings stay ranges of the bytes
//!                                          2 check   ids and positions; each error names field and index
//!                                          3 prune   drop_frames, keep_frames
//!                                          4 name    each string hashed once ─► LocationId
//!                                          5 fold    stacks ─► one tree; equal samples summed
//!                                            │
//!                                            └──► Decoded { profile, location(i), mappings() }
//! ```
//!
//! What is taken and what is refused: the messages of a profile may come in any order, repeated numbers packed or
//! not, ids need not be sequential, unknown fields are skipped. Nothing is repaired: a profile that contradicts
//! itself is refused whole. A label of a sample with neither text, number nor unit is no label (as in Go's pprof).
//!
//! A decoder keeps its tables between profiles; one per worker.

mod decode;

mod decompress;

mod encode;

mod error;

mod go_regex;

mod ids;

mod labels;

mod normalise;

mod profile_types;

mod prune;

mod samples;

mod stacks;

mod strings;

mod tables;

mod wire;

pub use decode::{Decoded, Decoder, Limits, Push, push_id};
pub use decompress::Decompressor;
pub use encode::{Encoder, Header, gzip};
pub use error::{Bound, Error, Fault, Place};
pub use profile_types::default_name;

#[cfg(test)]
mod tests;
