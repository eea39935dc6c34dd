//! The durable log in front of the head: a batch is acknowledged once its record is here.
//!
//! ```text
//!   append ─┐                       ┌─ LocalLog: segment files, one fsync per group of appends
//!   append ─┼─► Log ── offset ack ──┼─ KafkaLog: a partition of a topic, on several brokers (feature `kafka`)
//!   append ─┘    ▲                  └─ MemoryLog: the same contract, for as long as the process lives
//!                │
//!   wait(from), read(from): records and, where some are lost or are none, gaps and poison that say which
//! ```
//!
//! Laws: [`log`] states the contract, [`contract`] tests it against every implementation. A returned offset means
//! durable; offsets are 0, 1, 2, … in the order of the appends and are never given twice; nothing is skipped in
//! silence.

pub mod log;

pub mod logs;

pub mod memory;

pub mod local;

#[cfg(feature = "kafka")]
pub mod kafka;

pub mod contract;

pub mod testing;

pub use local::LocalLog;
pub use log::{Entry, Error, Log};
pub use logs::Logs;
pub use memory::MemoryLog;
