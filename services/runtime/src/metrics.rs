//! The registry that roles are handed; never a global.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// A process's metrics, all named `cambium_…`. Clones share one registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    caches: Caches,
}

impl Metrics {
    /// A registry without metrics but those of caches.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("cambium");
        let caches = Caches::default();
        let requests = caches.requests.clone();
        registry.register("cache_requests", "Requests to caches by outcome: hit or miss", requests);
        registry.register_collector(Box::new(caches.clone()));
        Self { registry: Arc::new(Mutex::new(registry)), caches }
    }

    /// Registers metrics; called once by each role as it is built.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The counters of a cache of this name; `bytes` says how much it holds.
    pub fn cache(
        &self,
        cache: &'static str,
        bytes: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> CacheRequests {
        self.caches.held().insert(cache, Box::new(bytes));
        let counter = |outcome| {
            let labels = CacheLabels { cache, outcome };
            self.caches.requests.get_or_create(&labels).clone()
        };
        CacheRequests { hits: counter("hit"), misses: counter("miss") }
    }

    /// All metrics in OpenMetrics' text form.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// How often a cache has what it is asked for.
#[derive(Clone, Debug)]
pub struct CacheRequests {
    hits: Counter,
    misses: Counter,
}

impl CacheRequests {
    /// Counts what came of a request, and passes it on.
    pub fn count<T>(&self, found: Option<T>) -> Option<T> {
        if found.is_some() {
            self.hits.inc()
        } else {
            self.misses.inc()
        };
        found
    }

    /// Counts what came of many.
    pub fn add(&self, hits: usize, misses: usize) {
        self.hits.inc_by(hits as u64);
        self.misses.inc_by(misses as u64);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    cache: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabel {
    cache: &'static str,
}

type Bytes = Box<dyn Fn() -> u64 + Send + Sync>;

/// All caches of a process.
#[derive(Clone, Default)]
struct Caches {
    requests: Family<CacheLabels, Counter>,
    bytes: Arc<Mutex<BTreeMap<&'static str, Bytes>>>,
}

impl Caches {
    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Bytes>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.held().keys()).finish()
    }
}

impl Collector for Caches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Bytes that a cache holds";
        let mut metric = encoder.encode_descriptor("cache_bytes", help, None, MetricType::Gauge)?;
        for (cache, bytes) in &*self.held() {
            let gauge = ConstGauge::new(i64::try_from(bytes()).unwrap_or(i64::MAX));
            gauge.encode(metric.encode_family(&CacheLabel { cache })?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_share_their_metrics() {
        let metrics = Metrics::new();
        let (a, b) = (metrics.cache("a", || 7), metrics.cache("b", || 0));
        assert_eq!((a.count(Some(1)), a.count::<u8>(None), b.count(Some(2))), (Some(1), None, Some(2)));
        let text = metrics.encode();
        for line in [
            "cambium_cache_requests_total{cache=\"a\",outcome=\"hit\"} 1",
            "cambium_cache_requests_total{cache=\"a\",outcome=\"miss\"} 1",
            "cambium_cache_requests_total{cache=\"b\",outcome=\"miss\"} 0",
            "cambium_cache_bytes{cache=\"a\"} 7",
            "cambium_cache_bytes{cache=\"b\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE cambium_cache_bytes ").count(), 1, "{text}");
    }
}
