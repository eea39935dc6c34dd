//! Tests of the whole: what people see, what survives, what the house looks like.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod a_day;

mod tidy;

mod main_job;

mod golden;

mod cluster;

mod compaction;

mod deletion;

mod downsampling;

mod durability;

mod recovery;

mod removal;

mod bad_input;

mod caches;

mod isolation;

mod grpc;

mod own_profile;

/// The binary with failpoints.
const BINARY: &str = env!("CARGO_BIN_EXE_cambium-under-test");
