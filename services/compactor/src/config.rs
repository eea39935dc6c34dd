//! What an operator may turn.

use std::time::Duration;

use cambium_runtime::quantity::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// The compactor's settings. How long a tenant's profiles are kept is in its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often to look for work.
    pub interval: Span,
    /// Largest block to make: what would be larger is split by service.
    pub block_bytes_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Span(Duration::from_secs(30)), block_bytes_max: ByteSize(2 << 30) }
    }
}
