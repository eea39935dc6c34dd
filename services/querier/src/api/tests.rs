//! Every endpoint over a whole querier in memory: two tenants with the same series, one of them with other values.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use cambium_blocks::Source;
use cambium_blocks::cache::Cache;
use cambium_blocks::testing::DatasetBuilder;
use cambium_blocks::writer::{self, Compression};
use cambium_metastore::catalogue::{FlushCommit, OpenLog};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::{Catalogue, KvStore, Symbols, Tenants, symbols};
use cambium_model::block::{LogId, LogRange, Offset, Partition};
use cambium_model::deletion::Deletion;
use cambium_model::labels::Labels;
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::stacktrace::{NO_PARENT, Node};
use cambium_model::symbols::Location;
use cambium_model::tenant::{Tenant, TenantId};
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_runtime::clock::{Clock, MockClock};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tenancy::{Access, Identity};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::answer::STATS_HEADER;
use super::*;
use crate::heads::{Found, Heads, HeadsError};
use crate::resolve::testing::{Stacks, stacks};
use crate::{Config, Deps};

mod errors;
mod plans;

/// What the clock shows, in seconds.
const NOW: i64 = 1_700_000_000;
/// The type of every profile here.
const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// A querier with its endpoints.
struct House {
    router: Router,
    querier: Querier,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The data of an answer that must have succeeded.
    fn data(&self) -> Value {
        let answer = self.json();
        assert_eq!(self.status, StatusCode::OK, "{answer}");
        assert_eq!(answer["status"], "success");
        assert!(answer["stats"]["milliseconds"]["plan"].is_number(), "{answer}");
        answer["data"].clone()
    }
}

/// Heads that never change.
struct StillHeads(HashMap<Tenant, Arc<dyn Source>>);

#[async_trait]
impl Heads for StillHeads {
    async fn heads(&self, tenant: &Tenant, _logs: &[OpenLog]) -> Result<Found, HeadsError> {
        let heads = self.0.get(tenant).into_iter().map(Arc::clone).collect();
        Ok(Found { heads, missing: Vec::new() })
    }
}

/// A profile of the stacks, and the names it needs.
fn profile(pod: &str, seconds_ago: i64, text: &str) -> (Profile, Stacks) {
    let read = stacks(text);
    let tree = &read.tree;
    let below_root = |node: u32| if node == 0 { NO_PARENT } else { node - 1 };
    let sampled: Vec<u32> =
        (0..tree.len() as u32).filter(|node| tree.self_values[*node as usize] != 0).collect();
    let time_ns = (NOW - seconds_ago) * SECOND_NS;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&time_ns.to_be_bytes());
    id[8..].copy_from_slice(&Labels::from_pairs([("pod", pod)]).unwrap().fingerprint().to_be_bytes());
    let profile = Profile {
        id: ProfileId(id),
        labels: Labels::from_pairs([("service_name", "api"), ("pod", pod)]).unwrap(),
        types: vec![CPU.parse().unwrap()],
        time_ns,
        duration_ns: 10 * SECOND_NS,
        period: 10_000_000,
        locations: tree.locations[1..].to_vec(),
        nodes: (1..tree.len() as u32)
            .map(|node| Node { parent: below_root(tree.parents[node as usize]), location: node - 1 })
            .collect(),
        sample_nodes: sampled.iter().map(|node| below_root(*node)).collect(),
        values: sampled.iter().map(|node| tree.self_values[*node as usize]).collect(),
        sample_label_sets: Vec::new(),
        label_sets: Vec::new(),
    };
    (profile, read)
}

/// The profiles of the first tenant.
fn first_profiles() -> Vec<(Profile, Stacks)> {
    vec![
        profile("a", 60, "main;run;work 20\nmain;run 5"),
        profile("a", 30, "main;run;work 10"),
        profile("b", 30, "main;idle 5\nmain;0x1f@/lib/libc.so 2"),
    ]
}

/// Those of the second one: the same series, other stacks.
fn second_profiles() -> Vec<(Profile, Stacks)> {
    vec![profile("a", 60, "secret 424242"), profile("hidden", 30, "secret 7")]
}

impl House {
    async fn new() -> Self {
        Self::with_limits(TenantLimits::default()).await
    }

    async fn with_limits(limits: TenantLimits) -> Self {
        Self::with(limits, false).await
    }

    /// All profiles in one block, or in heads.
    async fn with(limits: TenantLimits, in_block: bool) -> Self {
        let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
        let clock: Arc<dyn Clock> = Arc::new(MockClock::at(NOW * SECOND_NS));
        let metrics = Metrics::new();
        let tenants = Arc::new(Tenants::new(Arc::clone(&kv), Arc::clone(&clock)));
        let symbols = Arc::new(Symbols::new(
            Arc::clone(&kv),
            Arc::clone(&clock),
            &symbols::Config::default(),
            &metrics,
        ));
        let mut heads: HashMap<Tenant, Arc<dyn Source>> = HashMap::new();
        let mut datasets = Vec::new();
        for (name, profiles) in [("first", first_profiles()), ("second", second_profiles())] {
            let tenant = tenants.resolve_or_create(&TenantId::new(name).unwrap()).await.unwrap();
            let mut builder = DatasetBuilder::new(tenant.clone());
            for (profile, Stacks { names, .. }) in &profiles {
                builder.push(profile);
                let named = names.iter().filter(|(id, _)| id.is_named());
                let named: Vec<_> = named.map(|(id, location)| (*id, Location::clone(location))).collect();
                symbols.write_missing(tenant.number, &named).await.unwrap();
                let objects: Vec<_> = names
                    .iter()
                    .filter_map(|(id, location)| Some((id.as_native()?.0, location.mapping.clone())))
                    .collect();
                symbols.write_missing_objects(tenant.number, &objects).await.unwrap();
            }
            if in_block {
                datasets.push(builder.finish());
            } else {
                heads.insert(tenant, Arc::new(builder.finish()));
            }
        }
        let (catalogue, store) = (Catalogue::new(kv), InMemory::new());
        if in_block {
            let log = LogId { partition: Partition(0), log: 0 };
            let range = LogRange { log, first: Offset(0), next: Offset(1) };
            let epoch = catalogue.open_log(log, "").await.unwrap().epoch;
            let block = writer::encode(&datasets, range, epoch, 0, Compression::Hot).unwrap();
            writer::put(&store, &block).await.unwrap();
            let flush = FlushCommit { range, epoch, block: Some(block.meta), tenure: None };
            catalogue.commit_flush(&flush).await.unwrap();
        }
        let overrides = Overrides { defaults: limits, ..Overrides::default() };
        let deps = Deps {
            catalogue: Arc::new(catalogue),
            tenants,
            symbols,
            store: Arc::new(store),
            cache: Arc::new(Cache::new(1 << 20, &metrics)),
            heads: Arc::new(StillHeads(heads)),
            limits: watch::Sender::new(Arc::new(overrides)).subscribe(),
            clock,
            metrics,
        };
        let querier = Querier::new(Config::default(), deps);
        Self { router: router(querier.clone()), querier }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, tenant: &str, path: &str, params: &[(&str, &str)]) -> Answer {
        self.send(request(tenant, Method::GET, &format!("{path}?{}", encoded(params)), Body::empty())).await
    }

    async fn sql(&self, tenant: &str, statement: &Value, accept: &str) -> Answer {
        let mut request = request(tenant, Method::POST, "/api/v1/sql", Body::from(statement.to_string()));
        request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        request.headers_mut().insert(header::ACCEPT, accept.parse().unwrap());
        self.send(request).await
    }
}

fn request(tenant: &str, method: Method, uri: &str, body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri).body(body).unwrap();
    let tenant = TenantId::new(tenant).unwrap();
    request.extensions_mut().insert(Identity { tenant, access: vec![Access::Read] });
    request
}

/// Parameters as a query string or a form has them.
fn encoded(params: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") }
            })
            .collect()
    };
    let pairs: Vec<String> =
        params.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

#[tokio::test]
async fn a_merge_comes_in_every_form() {
    let house = House::new().await;
    let ask = async |format| house.get("first", "/api/v1/query", &[("query", CPU), ("format", format)]).await;
    let graph = ask("flamegraph").await.data();
    assert_eq!(graph["total"], 42);
    assert_eq!(graph["unit"], "nanoseconds");
    assert_eq!(graph["unresolved"], 1);
    assert_eq!(graph["nodes"].as_array().unwrap().len(), 6);
    let top = ask("top").await.data();
    assert_eq!(
        top["entries"][0],
        json!({"name": "work", "file": "", "line": 0, "column": 0, "address": "", "self": 30, "cumulative": 30})
    );
    assert_eq!(top["entries"].as_array().unwrap().len(), 5);
    let cases = [
        ("arrow", "application/vnd.apache.arrow.stream", &b""[..]),
        ("pprof", "application/octet-stream", &[0x1f, 0x8b]),
        ("tree", "text/plain; charset=utf-8", b"unit: nanoseconds\n"),
        ("folded", "text/plain; charset=utf-8", b"main;run 5\nmain;run;work 30\n"),
        ("dot", "text/vnd.graphviz; charset=utf-8", b"digraph \"process_cpu:cpu"),
        ("speedscope", "application/json", b"{\"$schema\":"),
    ];
    for (format, content_type, start) in cases {
        let answer = ask(format).await;
        assert_eq!(answer.status, StatusCode::OK, "{format}: {}", answer.text());
        assert_eq!(answer.headers[header::CONTENT_TYPE], content_type, "{format}");
        assert!(answer.body.starts_with(start), "{format}: {}", answer.text());
        let stats: Value = serde_json::from_slice(answer.headers[STATS_HEADER].as_bytes()).unwrap();
        assert_eq!(stats["heads"], 1, "{format}");
    }
}

#[tokio::test]
async fn a_flame_graph_can_be_cut_and_nothing_else() {
    let house = House::new().await;
    let dropped = async |params: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> = params.iter().copied().chain([("query", CPU)]).collect();
        house.get("first", "/api/v1/query", &all).await.data()["nodes_dropped"].clone()
    };
    assert_eq!(dropped(&[]).await, 0);
    assert_eq!(dropped(&[("max_nodes", "2")]).await, 3);
    assert_eq!(dropped(&[("min_fraction", "0.5")]).await, 2);
    assert_eq!(dropped(&[("max_nodes", "2"), ("exact", "true")]).await, 0);
    let top =
        house.get("first", "/api/v1/query", &[("query", CPU), ("format", "top"), ("max_nodes", "1")]).await;
    assert_eq!(top.data()["entries"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn selectors_ranges_and_aggregations_choose_profiles() {
    let house = House::new().await;
    let total = async |params: &[(&str, &str)]| {
        house.get("first", "/api/v1/query", params).await.data()["total"].clone()
    };
    let pod_a = format!("{CPU}{{pod=\"a\"}}");
    assert_eq!(total(&[("query", &pod_a)]).await, 35);
    assert_eq!(total(&[("query", &pod_a), ("agg", "avg")]).await, 18, "17.5, rounded once");
    assert_eq!(total(&[("query", &pod_a), ("agg", "last")]).await, 10);
    let minute_ago = (NOW - 60).to_string();
    assert_eq!(
        total(&[("query", CPU), ("start", &minute_ago), ("end", &minute_ago)]).await,
        25,
        "both ends belong"
    );
    assert_eq!(total(&[("query", CPU), ("end", "2023-11-14T22:12:00Z")]).await, 0);
    assert_eq!(total(&[("query", CPU), ("unknown", "ignored")]).await, 42);
}

#[tokio::test]
async fn a_single_profile_says_which_one_it_is() {
    let house = House::new().await;
    let near = (NOW - 58).to_string();
    let answer = house.get("first", "/api/v1/query", &[("query", CPU), ("time", &near)]).await;
    assert_eq!(answer.data()["total"], 25);
    let expected = json!({
        "labels": {"pod": "a", "service_name": "api"},
        "time_ns": (NOW - 60) * SECOND_NS,
        "duration_ns": 10 * SECOND_NS,
        "period": 10_000_000,
    });
    assert_eq!(answer.json()["profile"], expected);
}

#[tokio::test]
async fn groups_have_a_graph_each() {
    let house = House::new().await;
    let data = house.get("first", "/api/v1/query", &[("query", CPU), ("by", "pod")]).await.data();
    let groups: Vec<(&Value, &Value)> = data["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (&group["labels"], &group["data"]["total"]))
        .collect();
    assert_eq!(groups, [(&json!({"pod": "a"}), &json!(35)), (&json!({"pod": "b"}), &json!(7))]);
}

#[tokio::test]
async fn a_diff_compares_two_merges() {
    let house = House::new().await;
    let (left, right) = (format!("{CPU}{{pod=\"a\"}}"), format!("{CPU}{{pod=\"b\"}}"));
    let ask = async |format| {
        let params = [("left_query", left.as_str()), ("right_query", right.as_str()), ("format", format)];
        house.get("first", "/api/v1/diff", &params).await.data()
    };
    let graph = ask("flamegraph").await;
    assert_eq!(graph["total"], json!([35, 7]));
    assert_eq!(graph["nodes"][0], json!([-1, 0, 0, 35, 0, 7, -1, 0]));
    let top = ask("top").await;
    assert_eq!(top["entries"][0]["name"], "work");
    assert_eq!(top["entries"][0]["self"], json!([30, 0]));
}

#[tokio::test]
async fn values_over_time() {
    let house = House::new().await;
    let (start, end) = ((NOW - 60).to_string(), NOW.to_string());
    let times = [("query", CPU), ("start", &start), ("end", &end)];
    let ask = async |more: &[(&str, &str)]| {
        let params: Vec<(&str, &str)> = times.iter().chain(more).copied().collect();
        house.get("first", "/api/v1/query_range", &params).await.data()
    };
    let points = json!([[NOW - 60, "25"], [NOW - 30, "17"]]);
    let expected = json!({"resultType": "matrix", "result": [{"metric": {}, "values": points}]});
    assert_eq!(ask(&[("step", "30")]).await, expected);
    let by_pod = ask(&[("step", "1m"), ("by", "pod"), ("rate", "true")]).await;
    assert_eq!(by_pod["result"][0]["metric"], json!({"pod": "a"}));
    assert_eq!(by_pod["result"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn lists_say_what_exists() {
    let house = House::new().await;
    let ask = async |path: &str, params: &[(&str, &str)]| house.get("first", path, params).await;
    let types = ask("/api/v1/profile_types", &[]).await;
    assert_eq!(types.data()[0]["id"], CPU);
    assert_eq!(types.json()["truncated"], false);
    assert_eq!(ask("/api/v1/labels", &[]).await.data(), json!(["pod", "service_name"]));
    assert_eq!(ask("/api/v1/labels", &[("prefix", "p")]).await.data(), json!(["pod"]));
    assert_eq!(ask("/api/v1/label/pod/values", &[]).await.data(), json!(["a", "b"]));
    let cut = ask("/api/v1/label/pod/values", &[("limit", "1")]).await;
    assert_eq!((cut.data(), cut.json()["truncated"].clone()), (json!(["a"]), json!(true)));
    let series = ask("/api/v1/series", &[("match[]", "{pod=\"b\"}")]).await.data();
    assert_eq!(series, json!([{"__profile_type__": CPU, "pod": "b", "service_name": "api"}]));
    assert_eq!(ask("/api/v1/labels", &[("end", "2020-01-01T00:00:00Z")]).await.data(), json!([]));
}

#[tokio::test]
async fn sql_answers_in_three_forms() {
    let house = House::new().await;
    let statement = json!({"sql": "SELECT pod, sum(value) AS total FROM samples GROUP BY pod ORDER BY pod"});
    let rows = house.sql("first", &statement, "*/*").await;
    assert_eq!(rows.data(), json!([{"pod": "a", "total": 35}, {"pod": "b", "total": 7}]));
    let csv = house.sql("first", &statement, "text/csv").await;
    assert_eq!(csv.text(), "pod,total\na,35\nb,7\n");
    let arrow = house.sql("first", &statement, "application/vnd.apache.arrow.stream").await;
    assert_eq!(arrow.headers[header::CONTENT_TYPE], "application/vnd.apache.arrow.stream");
    let earlier = json!({"sql": statement["sql"], "end": NOW - 45});
    assert_eq!(house.sql("first", &earlier, "*/*").await.data(), json!([{"pod": "a", "total": 25}]));
}

#[tokio::test]
async fn a_form_is_as_good_as_a_query_string() {
    let house = House::new().await;
    let form = encoded(&[("query", CPU), ("format", "folded")]);
    let mut request = request("first", Method::POST, "/api/v1/query", Body::from(form));
    let content_type = "application/x-www-form-urlencoded".parse().unwrap();
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    let posted = house.send(request).await;
    let got = house.get("first", "/api/v1/query", &[("query", CPU), ("format", "folded")]).await;
    assert_eq!(posted.text(), got.text());
}

#[tokio::test]
async fn limits_are_the_tenants_own() {
    let house = House::with_limits(TenantLimits { series_max: 77, ..TenantLimits::default() }).await;
    assert_eq!(house.get("first", "/api/v1/status/limits", &[]).await.data()["series_max"], 77);
}

#[test]
fn every_route_is_documented() {
    let document = serde_json::to_value(openapi()).unwrap();
    let mut paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    paths.sort();
    let expected = [
        "/api/v1/diff",
        "/api/v1/label/{name}/values",
        "/api/v1/labels",
        "/api/v1/profile_types",
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/series",
        "/api/v1/sql",
        "/api/v1/status/limits",
    ];
    assert_eq!(paths, expected);
}
