//! What an operator can set. Limits of single tenants are not here: they are `cambium_model::limits`.

use std::time::Duration;

use cambium_runtime::quantity::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// Settings of a distributor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bodies and records held at one time, in all. Past it pushes are answered with 503: raise it where memory is
    /// free and the disk behind the log keeps up, add distributors where it does not. No push can be larger.
    pub bytes_in_flight_max: ByteSize,
    /// Longest time from a received body to its ack. Past it the answer is 503 and the sender retries, which is
    /// harmless even when the first attempt becomes durable later.
    pub push_timeout: Span,
    /// Largest gRPC message. Tenants' `request_body_bytes_max` hold besides; raise this one for a tenant that may
    /// send more over gRPC.
    pub grpc_message_bytes_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bytes_in_flight_max: ByteSize(256 << 20),
            push_timeout: Span(Duration::from_secs(10)),
            grpc_message_bytes_max: ByteSize(65 << 20),
        }
    }
}
