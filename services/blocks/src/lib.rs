//! The storage format on an object store: write a block, read it, scan it.
//!
//! ```text
//!   head ──► Dataset (columns in memory) ──► writer ──► one immutable object ──► reader ──► BlockSource
//!                │                                                                            │
//!                └───────────────────────── Source: series, profiles, tree, samples ◄────────┘
//!                                              │
//!                                            remote: the same of a head in another process, over gRPC
//! ```
//!
//! A query scans [`Source`]s and cannot tell a head's dataset from a block's, nor from one elsewhere.
//!
//! Laws: a block is immutable and written under its final name, put-if-absent; the same dataset gives the same bytes;
//! nothing here knows names of functions, only location ids; only this crate builds block paths; every section is a
//! complete Parquet file with its checksum in the table of contents (docs/block-format.md).

pub mod series_table;

pub mod path_table;

pub mod shape;

pub mod tree;

pub mod dataset;

pub mod source;

pub mod without;

pub mod remote;

mod plan;

mod sums;

mod offload;

mod memory;

pub mod layout;

pub mod toc;

pub mod writer;

pub mod reader;

pub mod merge;

pub mod cache;

pub mod verify;

pub mod local;

pub mod stores;

pub mod guarded;

pub mod testing;

pub mod error;

pub use dataset::Dataset;
pub use error::Error;
pub use reader::BlockSource;
pub use source::Source;
