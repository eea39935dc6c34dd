//! What the distributor tells Prometheus.
//!
//! The discard counters keep Pyroscope's words as reasons where it has them, so that its dashboards and alerts apply.
//! A refusal that is no discard (503: the sender keeps the profile and retries) is not counted there.

use std::time::Duration;

use cambium_model::tenant::TenantId;
use cambium_proto::pprof::{self, Bound, Fault};
use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Why a profile was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The tenant sent more than its rate.
    RateLimited,
    /// Larger than allowed as received.
    BodySizeLimitExceeded,
    /// Larger than allowed after decompression.
    ProfileSizeLimit,
    /// Too many samples.
    SamplesLimit,
    /// Too many labels on a sample.
    SampleLabelsLimit,
    /// Past another limit of the decoder: stack depth, symbol length, numbers of messages.
    ProfileLimit,
    /// Not a profile.
    MalformedProfile,
    /// Parameters or fields that cannot be read.
    MalformedRequest,
    /// Too old or too new.
    NotInIngestionWindow,
    /// A new series of a tenant that has as many as it may.
    SeriesLimit,
    /// Labels that are no label set, or names that are not allowed.
    InvalidLabels,
    /// A label given twice.
    DuplicateLabelNames,
    /// Too many labels.
    MaxLabelNamesPerSeries,
    /// A label's name is too long.
    LabelNameTooLong,
    /// A label's value is too long.
    LabelValueTooLong,
}

impl Reason {
    /// The reason of a profile that the decoder refuses.
    pub(crate) fn of_profile(error: &pprof::Error) -> Self {
        match (error, error.fault()) {
            (pprof::Error::Limit { bound: Bound::Samples, .. }, _) => Self::SamplesLimit,
            (pprof::Error::Limit { bound: Bound::Labels, .. }, _) => Self::SampleLabelsLimit,
            (_, Fault::OverLimit) => Self::ProfileLimit,
            (_, Fault::TooLarge) => Self::ProfileSizeLimit,
            (_, Fault::Malformed) => Self::MalformedProfile,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::BodySizeLimitExceeded => "body_size_limit_exceeded",
            Self::ProfileSizeLimit => "profile_size_limit",
            Self::SamplesLimit => "samples_limit",
            Self::SampleLabelsLimit => "sample_labels_limit",
            Self::ProfileLimit => "profile_limit",
            Self::MalformedProfile => "malformed_profile",
            Self::MalformedRequest => "malformed_request",
            Self::NotInIngestionWindow => "not_in_ingestion_window",
            Self::SeriesLimit => "series_limit",
            Self::InvalidLabels => "invalid_labels",
            Self::DuplicateLabelNames => "duplicate_label_names",
            Self::MaxLabelNamesPerSeries => "max_label_names_per_series",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
        }
    }
}

/// A step of a push whose time is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// From a whole body to the record: waiting for a decode worker, and its work.
    Decode,
    /// Writing names that this process had not seen.
    Symbols,
    /// Until the record is durable.
    Sink,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTenant {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Discarded {
    tenant: String,
    reason: &'static str,
}

/// The distributor's metrics.
#[derive(Clone, Debug)]
pub(crate) struct DistributorMetrics {
    received_profiles: Family<OfTenant, Counter>,
    received_bytes: Family<OfTenant, Counter>,
    acked_profiles: Family<OfTenant, Counter>,
    acked_samples: Family<OfTenant, Counter>,
    duplicate_profiles: Family<OfTenant, Counter>,
    discarded_profiles: Family<Discarded, Counter>,
    discarded_samples: Family<Discarded, Counter>,
    discarded_bytes: Family<Discarded, Counter>,
    decode_seconds: Histogram,
    symbols_seconds: Histogram,
    sink_seconds: Histogram,
    pub(crate) in_flight_bytes: Gauge,
}

/// The counters of one tenant that every push touches, looked up once.
#[derive(Clone, Debug)]
pub(crate) struct TenantCounters {
    pub(crate) received_profiles: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) acked_profiles: Counter,
    pub(crate) acked_samples: Counter,
    pub(crate) duplicate_profiles: Counter,
}

impl DistributorMetrics {
    /// Registers the metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        // 50 µs to 13 s.
        let seconds = || Histogram::new(exponential_buckets(50e-6, 4.0, 10));
        let new = Self {
            received_profiles: Family::default(),
            received_bytes: Family::default(),
            acked_profiles: Family::default(),
            acked_samples: Family::default(),
            duplicate_profiles: Family::default(),
            discarded_profiles: Family::default(),
            discarded_samples: Family::default(),
            discarded_bytes: Family::default(),
            decode_seconds: seconds(),
            symbols_seconds: seconds(),
            sink_seconds: seconds(),
            in_flight_bytes: Gauge::default(),
        };
        metrics.register(|all| new.register(all));
        new
    }

    fn register(&self, all: &mut prometheus_client::registry::Registry) {
        for (name, help, family) in [
            ("discarded_profiles", "Profiles refused for good", &self.discarded_profiles),
            ("discarded_samples", "Samples in them, as far as they were decoded", &self.discarded_samples),
            ("discarded_bytes", "Their bytes as received", &self.discarded_bytes),
        ] {
            all.register(name, help, family.clone());
        }
        let registry = all.sub_registry_with_prefix("distributor");
        for (name, help, family) in [
            ("received_profiles", "Profiles received whole", &self.received_profiles),
            ("received_bytes", "Their bytes as received", &self.received_bytes),
            ("acked_profiles", "Profiles acknowledged, retries included", &self.acked_profiles),
            ("acked_samples", "Samples in them, as the sender counts them", &self.acked_samples),
            ("duplicate_profiles", "Retries acknowledged that added nothing", &self.duplicate_profiles),
        ] {
            registry.register(name, help, family.clone());
        }
        let stages = [
            ("decode_seconds", "From a body to its record", &self.decode_seconds),
            ("symbols_seconds", "Writing names not seen before", &self.symbols_seconds),
            ("sink_seconds", "Until the record is durable", &self.sink_seconds),
        ];
        for (name, help, histogram) in stages {
            registry.register(name, help, histogram.clone());
        }
        registry.register("in_flight_bytes", "Bytes of pushes under way", self.in_flight_bytes.clone());
    }

    /// The counters of one tenant.
    pub(crate) fn of(&self, tenant: &TenantId) -> TenantCounters {
        let labels = OfTenant { tenant: tenant.to_string() };
        TenantCounters {
            received_profiles: self.received_profiles.get_or_create_owned(&labels),
            received_bytes: self.received_bytes.get_or_create_owned(&labels),
            acked_profiles: self.acked_profiles.get_or_create_owned(&labels),
            acked_samples: self.acked_samples.get_or_create_owned(&labels),
            duplicate_profiles: self.duplicate_profiles.get_or_create_owned(&labels),
        }
    }

    /// Counts a profile that was refused for good: its bytes as received and, where known, its samples.
    pub(crate) fn discarded(&self, tenant: &TenantId, reason: Reason, bytes: u64, samples: u64) {
        let labels = Discarded { tenant: tenant.to_string(), reason: reason.as_str() };
        self.discarded_profiles.get_or_create_owned(&labels).inc();
        self.discarded_bytes.get_or_create_owned(&labels).inc_by(bytes);
        self.discarded_samples.get_or_create_owned(&labels).inc_by(samples);
    }

    /// Records how long a stage took.
    pub(crate) fn took(&self, stage: Stage, time: Duration) {
        let histogram = match stage {
            Stage::Decode => &self.decode_seconds,
            Stage::Symbols => &self.symbols_seconds,
            Stage::Sink => &self.sink_seconds,
        };
        histogram.observe(time.as_secs_f64());
    }
}
