//! The ingester as its callers see it: writes, heads, flushes, restarts, over in-memory seams.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod sandbox;

mod cluster;

mod tenures;

mod lives;

mod flush;

mod grpc;

mod restart;

mod retries;
