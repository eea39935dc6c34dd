//! A querier of this process over stored blocks, for figures that reach from the question to the flame graph.

use std::sync::Arc;

use anyhow::ensure;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tower::ServiceExt;

use cambium_blocks::Source;
use cambium_blocks::shape::FoldBy;
use cambium_metastore::catalogue::{FlushCommit, OpenLog};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::symbols;
use cambium_metastore::{Catalogue, KvStore, Symbols, Tenants};
use cambium_model::block::BlockMeta;
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::selector::ProfileQuery;
use cambium_model::tenant::{Tenant, TenantId};
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_querier::fold::{Truncated, Truncation, truncate, unite};
use cambium_querier::heads::{Found, HeadsError};
use cambium_querier::merged::Merged;
use cambium_querier::request::{Aggregation, MergeQuery, Pick};
use cambium_querier::{Config, Deps, Heads, Querier};
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::quantity::ByteSize;
use cambium_runtime::tenancy::{Access, Identity};

use crate::fleet::{Stored, tenant};

/// The flame graph that is made where a request does not say how large.
pub const DEFAULT_VIEW: Truncation = Truncation { max_nodes: 8_192, min_fraction: 0.0 };

/// Who answers.
pub struct Questions {
    pub querier: Querier,
    pub symbols: Arc<Symbols>,
    _limits: watch::Sender<Arc<Overrides>>,
}

/// The same sources for everyone, whatever blocks there are.
struct FixedHeads(Vec<Arc<dyn Source>>);

#[async_trait]
impl Heads for FixedHeads {
    async fn heads(&self, _tenant: &Tenant, _logs: &[OpenLog]) -> Result<Found, HeadsError> {
        Ok(Found { heads: self.0.clone(), missing: Vec::new() })
    }
}

impl Questions {
    /// A querier that finds this block in its catalogue.
    pub async fn of_block(stored: &Stored) -> anyhow::Result<Self> {
        let questions = Self::new(stored, Vec::new());
        questions.commit(&stored.meta).await?;
        Ok(questions)
    }

    /// Lets it find this block as well, which lies in the same store.
    pub async fn commit(&self, block: &BlockMeta) -> anyhow::Result<()> {
        let range = block.log_ranges[0];
        let catalogue = &self.querier.deps().catalogue;
        let epoch = catalogue.open_log(range.log, "bench").await?.epoch;
        let block = Some(block.clone());
        Ok(catalogue.commit_flush(&FlushCommit { range, epoch, block, tenure: None }).await?)
    }

    /// A querier that finds only these sources.
    pub fn of_sources(stored: &Stored, sources: Vec<Arc<dyn Source>>) -> Self {
        Self::new(stored, sources)
    }

    fn new(stored: &Stored, heads: Vec<Arc<dyn Source>>) -> Self {
        let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (config, metrics) = (symbols::Config::default(), Metrics::new());
        let symbols = Arc::new(Symbols::new(Arc::clone(&kv), Arc::clone(&clock), &config, &metrics));
        // Workload W is of another time.
        let defaults = TenantLimits { retention_secs: 0, ..TenantLimits::default() };
        let (sender, limits) = watch::channel(Arc::new(Overrides { defaults, ..Overrides::default() }));
        let deps = Deps {
            catalogue: Arc::new(Catalogue::new(Arc::clone(&kv))),
            tenants: Arc::new(Tenants::new(kv, Arc::clone(&clock))),
            symbols: Arc::clone(&symbols),
            store: Arc::clone(&stored.store),
            cache: Arc::clone(&stored.cache),
            heads: Arc::new(FixedHeads(heads)),
            limits,
            clock,
            metrics,
        };
        // Sums are to be made, not to be remembered.
        let config = Config { partial_trees_bytes: ByteSize(0), ..Config::default() };
        Self { querier: Querier::new(config, deps), symbols, _limits: sender }
    }

    /// The sum of everything the query selects.
    pub async fn merge(&self, query: &str, fold_by: FoldBy) -> anyhow::Result<Merged> {
        let query: ProfileQuery = query.parse()?;
        let pick = Pick::Range { range: TimeRange::ALL, aggregation: Aggregation::Sum };
        let query = MergeQuery { tenant: tenant(), query, pick, fold_by, by: Vec::new(), exact: false };
        Ok(self.querier.merge(&query).await?)
    }

    /// The same as a flame graph without names: folded by function and truncated to the default view.
    pub async fn flame_graph(&self, query: &str) -> anyhow::Result<Truncated<1>> {
        let mut merged = self.merge(query, FoldBy::Function).await?;
        let group = merged.groups.pop().ok_or_else(|| anyhow::anyhow!("one group was asked for"))?;
        let folded = unite([group.tree]);
        Ok(truncate(folded.ok_or_else(|| anyhow::anyhow!("the sum overflows"))?, DEFAULT_VIEW))
    }
}

/// What the endpoints answer this tenant.
pub async fn get(router: &Router, tenant: &TenantId, uri: &str) -> anyhow::Result<Vec<u8>> {
    let mut request = Request::get(uri).body(Body::empty())?;
    let access = [Access::Read].into_iter().collect();
    request.extensions_mut().insert(Identity { tenant: tenant.clone(), access });
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes().to_vec();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// Text as a parameter of a URI.
pub fn url_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Unix seconds as a parameter.
pub fn decimal(time_ns: i64) -> String {
    format!("{}.{:09}", time_ns / SECOND_NS, time_ns % SECOND_NS)
}
