//! What needs the process to itself: fail points are global.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod failing_disk;
