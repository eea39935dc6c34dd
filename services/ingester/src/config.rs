//! What an operator may turn.

use std::time::Duration;

use cambium_runtime::quantity::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// The ingester's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Flush a partition when its head holds this many bytes of columns.
    pub flush_bytes: ByteSize,
    /// Flush a partition when its oldest record is this old.
    pub flush_interval: Span,
    /// All heads together, those being flushed included; past it writes are answered 503 until a flush is done.
    pub head_bytes_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            flush_bytes: ByteSize(128 << 20),
            flush_interval: Span(Duration::from_secs(300)),
            head_bytes_max: ByteSize(384 << 20),
        }
    }
}
