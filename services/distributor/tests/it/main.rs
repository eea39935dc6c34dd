//! The distributor through its doors, with an embedded metastore and a sink that records.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod durability;

mod grpc;

mod refusals;

mod rig;
