//! What one tenant may send and ask for. Defaults follow Pyroscope's and Mimir's, named where they differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::retention::RetentionRules;
use crate::tenant::TenantId;

/// The limits of a tenant. Every bound answers with its own name in the message, so that an operator finds the knob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Ingestion rate, bytes of uncompressed profiles per second.
    pub ingestion_rate_bytes: u64,
    /// Bytes that may arrive at once above the rate.
    pub ingestion_burst_bytes: u64,
    /// Bytes of a request's body, as received.
    pub request_body_bytes_max: u64,
    /// Bytes of one profile after decompression.
    pub profile_bytes_max: u64,
    /// Samples in one profile, counted as pprof messages.
    pub profile_samples_max: u64,
    /// Frames of one stack trace; a deeper one is refused, never cut, because a cut stack is a wrong one.
    pub stack_depth_max: u64,
    /// Labels on one sample.
    pub sample_labels_max: u64,
    /// Bytes of one symbol's text (function name or file).
    pub symbol_bytes_max: u64,
    /// Labels of one series.
    pub label_names_max: u64,
    /// Bytes of a label's name.
    pub label_name_bytes_max: u64,
    /// Bytes of a label's value.
    pub label_value_bytes_max: u64,
    /// Series in heads at one time. Enforced by distributors on counts that owners publish: it can be passed by what
    /// arrives between two publications (1 s).
    pub series_max: u64,
    /// Profiles older than this are refused; a profile's retry is recognised for as long. Seconds.
    pub reject_older_than_secs: u64,
    /// Profiles further in the future than this are refused. Seconds.
    pub reject_newer_than_secs: u64,
    /// How long profiles are kept, by their own time; 0 for ever. Seconds.
    pub retention_secs: u64,
    /// How long profiles of some series are kept instead, the first selector that matches counts:
    /// `[{selector: '{namespace="ci"}', retention_secs: 604800}]`.
    pub retention_rules: RetentionRules,
    /// Age from which on only sums are kept of what is in blocks of the highest level: stack traces by series and ten minutes,
    /// each profile's total; 0 for never. Seconds.
    pub downsample_after_secs: u64,
    /// Labels that name a scope, first present wins.
    pub scope_labels: Vec<String>,
    /// Longest range of one query, seconds; 0 for any.
    pub query_range_secs_max: u64,
    /// Bytes of blocks that one query may need, wherever they are cached; 0 for any.
    pub query_bytes_max: u64,
    /// How long one query may take, seconds; 0 for as long as the querier lets every query.
    pub query_secs_max: u64,
    /// Queries that may run at once.
    pub queries_concurrent_max: u64,
    /// Rows of one SQL answer.
    pub sql_rows_max: u64,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            // Pyroscope: 4 MB/s and 2 MB; one busy node sends more than that.
            ingestion_rate_bytes: 64 << 20,
            ingestion_burst_bytes: 256 << 20,
            request_body_bytes_max: 64 << 20,
            profile_bytes_max: 64 << 20,
            // Pyroscope's 16,000 refuses real profiles (google/pprof's large.cpu has 20,430 samples).
            profile_samples_max: 1 << 20,
            stack_depth_max: 1_024,
            sample_labels_max: 100,
            symbol_bytes_max: 65_535,
            label_names_max: 40,
            label_name_bytes_max: 1_024,
            label_value_bytes_max: 2_048,
            series_max: 100_000,
            reject_older_than_secs: 3_600,
            reject_newer_than_secs: 600,
            retention_secs: 30 * 86_400,
            retention_rules: RetentionRules::default(),
            downsample_after_secs: 0,
            scope_labels: ["service_name", "container", "job", "systemd_unit", "comm"]
                .map(String::from)
                .to_vec(),
            query_range_secs_max: 0,
            // A day of 500 busy series has 1.3 GB of samples.
            query_bytes_max: 64 << 30,
            query_secs_max: 0,
            queries_concurrent_max: 16,
            sql_rows_max: 100_000,
        }
    }
}

/// The limits of every tenant: the defaults, and the few who have their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overrides {
    /// For tenants without an entry.
    pub defaults: TenantLimits,
    /// Whole limits by tenant name; what an overrides file leaves out has been filled in from the defaults.
    pub tenants: BTreeMap<String, TenantLimits>,
}

impl Overrides {
    /// The limits of a tenant.
    pub fn of(&self, tenant: &TenantId) -> &TenantLimits {
        self.tenants.get(tenant.as_str()).unwrap_or(&self.defaults)
    }
}
