//! Kafka as the log: what is acknowledged is on as many brokers as the topic says, so it survives a machine.
//!
//! ```text
//!   distributor ─► KafkaProducer ─► queue (bounded) ─► batches ─► partition n of the topic, acks = all
//!                        │                                              │
//!                        └──────────── offset ◄─────────────────────────┤
//!   owner of n ──► KafkaLog n ── read, wait ◄── one consumer, assigned ◄┘
//!                       └── append (through the same producer)
//! ```
//!
//! One topic, a Kafka partition for each of ours, one log of a partition for ever: [`LogId`] `log` is 0. Kafka's offsets
//! are the log's, and how far a log is in blocks stands in the catalogue only: there are no consumer groups, nothing is
//! committed to Kafka, and an offset that is not there any more is an error, never a jump.
//!
//! Laws:
//! - an acknowledged record is on `min.insync.replicas` brokers, once: the producer is idempotent;
//! - back-pressure is [`Error::QueueFull`](crate::Error::QueueFull), at once;
//! - a topic that is not as the configuration says is refused, and never altered ([`topic`]);
//! - a message without our mark, or whose bytes do not fit it, is an [`Entry::Poison`](crate::Entry::Poison).

pub mod config;

pub mod topic;

pub mod producer;

pub mod log;

pub mod logs;

mod client;

mod cursor;

mod partition;

mod mark;

mod metrics;

#[cfg(test)]
mod tests;

use cambium_model::block::{LogId, Partition};

pub use config::Config;
pub use log::KafkaLog;
pub use logs::KafkaLogs;
pub use metrics::KafkaMetrics;
pub use producer::KafkaProducer;
pub use topic::ensure_topic;

/// The log of a partition.
pub fn log_id(partition: Partition) -> LogId {
    LogId { partition, log: 0 }
}
