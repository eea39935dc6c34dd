//! The querier's settings.

use std::time::Duration;

use cambium_runtime::quantity::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// Settings of the querier. What a tenant may ask for is in its limits, not here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long one query may take; must be shorter than the grace after which replaced blocks are swept.
    pub timeout: Span,
    /// Memory that all running queries together may reserve for merging and SQL. A query that needs more is refused.
    pub memory_max: ByteSize,
    /// Memory for partial sums of whole blocks, kept from one query to the next.
    pub partial_trees_bytes: ByteSize,
    /// Queries of one tenant that may wait while its `queries_concurrent_max` run; the next one is refused with 429.
    pub queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Span(Duration::from_secs(60)),
            memory_max: ByteSize(1 << 30),
            partial_trees_bytes: ByteSize(64 << 20),
            queue_max: 64,
        }
    }
}
