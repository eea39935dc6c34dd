//! A distributor with a clock that stands still, a metastore that can fail and a sink that remembers.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Extension;
use axum::body::Body;
use bytes::Bytes;
use cambium_distributor::sink::{Ack, Sink, SinkError};
use cambium_distributor::{Config, Deps, Handle, Service, http};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::kv::testing::FaultyStore;
use cambium_metastore::{KvStore, Symbols, Tenants, symbols};
use cambium_model::block::Partition;
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::profile::Profile;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_proto::record;
use cambium_proto::wire::perftools;
use cambium_runtime::clock::{Clock, MockClock};
use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tenancy::{Access, Identity};
use hashbrown::HashMap;
use http_body_util::BodyExt;
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

pub const NOW_NS: i64 = 1_700_000_000_000_000_000;
pub const SECOND_NS: i64 = 1_000_000_000;

pub struct Rig {
    pub service: Service,
    pub handle: Handle,
    pub clock: MockClock,
    pub store: FaultyStore,
    pub sink: RecordingSink,
    pub limits: watch::Sender<Arc<Overrides>>,
    pub active_series: watch::Sender<Arc<HashMap<TenantNumber, u64>>>,
    pub metrics: Metrics,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(Config::default(), TenantLimits::default())
    }

    pub fn with(config: Config, defaults: TenantLimits) -> Self {
        let clock = MockClock::at(NOW_NS);
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        let kv: Arc<dyn KvStore> = Arc::new(store.clone());
        let metrics = Metrics::new();
        let symbols = |kv| Symbols::new(kv, Arc::clone(&shared_clock), &symbols::Config::default(), &metrics);
        let sink = RecordingSink { state: Arc::default(), symbols: Arc::new(symbols(Arc::clone(&kv))) };
        let limits = watch::Sender::new(Arc::new(Overrides { defaults, ..Overrides::default() }));
        let active_series = watch::Sender::default();
        let deps = Deps {
            tenants: Arc::new(Tenants::new(Arc::clone(&kv), Arc::clone(&shared_clock))),
            symbols: Arc::new(symbols(kv)),
            sink: Arc::new(sink.clone()),
            partitions: NonZeroU32::new(8).unwrap(),
            active_series: active_series.subscribe(),
            limits: limits.subscribe(),
            clock: Arc::clone(&shared_clock),
            metrics: metrics.clone(),
        };
        let service = Service::new(config, deps);
        let handle = service.handle();
        Self { service, handle, clock, store, sink, limits, active_series, metrics }
    }

    /// Posts a body to `/api/v1/profiles` with this query string, as tenant `anonymous`.
    pub async fn post(&self, query: &str, body: impl Into<Body>) -> Answer {
        self.post_as(Some(identity("anonymous", &[Access::Write])), query, body).await
    }

    pub async fn post_as(&self, from: Option<Identity>, query: &str, body: impl Into<Body>) -> Answer {
        let router = http::router(self.handle.clone());
        let router = match from {
            Some(identity) => router.layer(Extension(identity)),
            None => router,
        };
        let uri = format!("/api/v1/profiles?{query}");
        let request = axum::http::Request::post(uri).body(body.into()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap();
        let message = json["error"].as_str().unwrap_or_default().to_owned();
        Answer { status, retry_after, message, data: json["data"].clone() }
    }

    /// The value of a metric, by its name and labels as the text format writes them; 0 if it is not there.
    pub fn metric(&self, name_and_labels: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub fn set_limits(&self, defaults: TenantLimits) {
        self.limits.send_replace(Arc::new(Overrides { defaults, ..Overrides::default() }));
    }

    pub fn publish_active_series(&self, count: u64) {
        self.active_series.send_replace(Arc::new(HashMap::from([(TenantNumber(1), count)])));
    }
}

pub fn identity(tenant: &str, access: &[Access]) -> Identity {
    Identity { tenant: TenantId::new(tenant).unwrap(), access: access.to_vec() }
}

#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub message: String,
    pub data: Value,
}

/// What the sink does with the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Duplicate,
    Fail(Kind),
    Hang,
}

/// Remembers records, and whether the names of everything in them could be resolved when they came.
#[derive(Debug, Clone)]
pub struct RecordingSink {
    state: Arc<Mutex<SinkState>>,
    symbols: Arc<Symbols>,
}

#[derive(Debug, Default)]
struct SinkState {
    behaviours: VecDeque<Behaviour>,
    records: Vec<(Partition, Tenant, Profile)>,
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct SinkFailure(Kind);

impl HasKind for SinkFailure {
    fn kind(&self) -> Kind {
        self.0
    }
}

impl RecordingSink {
    pub fn next(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviours.push_back(behaviour);
    }

    pub fn records(&self) -> Vec<(Partition, Tenant, Profile)> {
        self.state.lock().unwrap().records.clone()
    }

    pub fn profile(&self, index: usize) -> Profile {
        self.records()[index].2.clone()
    }

    pub fn len(&self) -> usize {
        self.state.lock().unwrap().records.len()
    }
}

#[async_trait]
impl Sink for RecordingSink {
    async fn write(&self, partition: Partition, record: Bytes) -> Result<Ack, SinkError> {
        let (tenant, profiles) = record::decode(&record).unwrap();
        let [profile] = <[Profile; 1]>::try_from(profiles).unwrap();
        let resolved = self.symbols.resolve(tenant.number, &profile.locations).await.unwrap();
        for (id, location) in profile.locations.iter().zip(&resolved.locations) {
            let location = location.as_ref().expect("names are written before the record");
            assert_eq!(id.is_named(), !location.lines.is_empty());
            assert!(!location.mapping.file.is_empty(), "objects are written before the record");
        }
        let behaviour = {
            let mut state = self.state.lock().unwrap();
            let behaviour = state.behaviours.pop_front();
            state.records.push((partition, tenant, profile));
            behaviour
        };
        match behaviour {
            None => Ok(Ack { duplicate: false }),
            Some(Behaviour::Duplicate) => Ok(Ack { duplicate: true }),
            Some(Behaviour::Fail(kind)) => Err(SinkError::new(partition, SinkFailure(kind))),
            Some(Behaviour::Hang) => std::future::pending().await,
        }
    }
}

/// A profile of the named functions `f0 ← f1 ← …` and one native frame: one sample per depth, `samples` in all, two
/// types. `time_ns` 0 leaves the time out.
pub fn pprof(samples: u64, time_ns: i64) -> Vec<u8> {
    pprof_message(samples, time_ns).encode_to_vec()
}

pub fn pprof_message(samples: u64, time_ns: i64) -> perftools::Profile {
    let mut strings: Vec<String> =
        ["", "samples", "count", "cpu", "nanoseconds", "/bin/app", "abc123", "app.c"]
            .map(String::from)
            .to_vec();
    let mut function = Vec::new();
    let mut location = vec![perftools::Location {
        id: 1,
        mapping_id: 1,
        address: 0x40_1234,
        ..perftools::Location::default()
    }];
    for i in 0..samples {
        function.push(perftools::Function {
            id: i + 1,
            name: strings.len() as i64,
            system_name: strings.len() as i64,
            filename: 7,
            start_line: 1,
        });
        strings.push(format!("f{i}"));
        let line = perftools::Line { function_id: i + 1, line: 10 + i as i64, column: 0 };
        location.push(perftools::Location {
            id: i + 2,
            mapping_id: 1,
            address: 0x40_2000 + i,
            line: vec![line],
            is_folded: false,
        });
    }
    let sample = (0..samples)
        .map(|i| perftools::Sample {
            location_id: (1..=i + 2).collect(),
            value: vec![1, 10_000_000],
            label: Vec::new(),
        })
        .collect();
    perftools::Profile {
        sample_type: vec![
            perftools::ValueType { r#type: 1, unit: 2 },
            perftools::ValueType { r#type: 3, unit: 4 },
        ],
        sample,
        mapping: vec![perftools::Mapping {
            id: 1,
            memory_start: 0x40_0000,
            memory_limit: 0x50_0000,
            filename: 5,
            build_id: 6,
            ..perftools::Mapping::default()
        }],
        location,
        function,
        string_table: strings,
        time_nanos: time_ns,
        duration_nanos: 10 * SECOND_NS,
        period_type: Some(perftools::ValueType { r#type: 3, unit: 4 }),
        period: 10_000_000,
        ..perftools::Profile::default()
    }
}
