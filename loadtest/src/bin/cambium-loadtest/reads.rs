//! Questions in Cambium's API: what people at a user interface ask while profiles come in, and what verification asks.

use std::time::Duration;

use cambium_loadtest::fleet::{CLUSTER_LABEL, Fleet, Kind, service_name};
use cambium_loadtest::random::at;
use http::HeaderValue;
use serde::Deserialize;
use url::form_urlencoded;

use crate::client::{Answer, Client};
use crate::recorder::Operation;

/// Points of a time series that a reader asks for, about.
const POINTS: i64 = 60;
/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Asks one server.
#[derive(Clone, Debug)]
pub struct Reader {
    http: Client,
    wait: Duration,
}

/// A path with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question(pub String);

impl Question {
    fn new(path: &str, parameters: &[(&str, &str)]) -> Self {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        Self(format!("{path}?{query}"))
    }

    /// The flame graph of `[start_ns, end_ns)`, cut to so many nodes.
    pub fn flamegraph(query: &str, range: (i64, i64), nodes_max: u32) -> Self {
        let [start, end] = bounds(range);
        let nodes = nodes_max.to_string();
        let parameters = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("format", "flamegraph"),
            ("agg", "sum"),
            ("max_nodes", &nodes),
        ];
        Self::new("/api/v1/query", &parameters)
    }

    /// Values over `[start_ns, start_ns + steps × step_s)`, in so many steps: a point is of the step that ends with it.
    pub fn steps(query: &str, start_ns: i64, steps: i64, step_s: i64, by: &str) -> Self {
        let first = start_ns + step_s * SECOND_NS - 1;
        let points = [first, first + (steps - 1) * step_s * SECOND_NS].map(seconds);
        let step = step_s.to_string();
        let parameters = [
            ("query", query),
            ("start", &points[0]),
            ("end", &points[1]),
            ("step", &step),
            ("agg", "sum"),
            ("by", by),
        ];
        Self::new("/api/v1/query_range", &parameters)
    }
}

impl Reader {
    /// For the server at `http://host:port`, with a bound on the wait for one answer.
    pub fn new(base: &str, wait: Duration) -> Self {
        Self { http: Client::new(base), wait }
    }

    /// Asks, and gives back what a good answer holds. Errors: in words.
    pub async fn ask(&self, question: &Question, tenant: Option<&HeaderValue>) -> Result<Answer, String> {
        let uri = self.http.uri(&question.0).map_err(|error| error.to_string())?;
        let answer = self.http.get(uri, tenant, self.wait).await.map_err(|error| error.why)?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.shown()) }
    }

    /// The total of a flame graph.
    pub async fn total(&self, question: &Question, tenant: Option<&HeaderValue>) -> Result<i64, String> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Graph,
        }
        #[derive(Deserialize)]
        struct Graph {
            total: i64,
        }
        let answer = self.ask(question, tenant).await?;
        let envelope: Envelope = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        Ok(envelope.data.total)
    }

    /// The sum of all points of a matrix.
    pub async fn sum(&self, question: &Question, tenant: Option<&HeaderValue>) -> Result<i64, String> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Matrix,
        }
        #[derive(Deserialize)]
        struct Matrix {
            result: Vec<Series>,
        }
        #[derive(Deserialize)]
        struct Series {
            values: Vec<(f64, String)>,
        }
        let answer = self.ask(question, tenant).await?;
        let envelope: Envelope = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let mut sum = 0_i64;
        for (_, value) in envelope.data.result.iter().flat_map(|series| &series.values) {
            let value: i64 = value.parse().map_err(|_| format!("{value:?} is no whole number"))?;
            sum = sum.checked_add(value).ok_or("the points' sum is beyond 64 bits")?;
        }
        Ok(sum)
    }
}

/// The question of a reader, chosen by its number. `range_ns` is the longest range; it ends at `now_ns` or earlier.
pub fn question(operation: Operation, number: u64, fleet: &Fleet, now_ns: i64, range_ns: i64) -> Question {
    let shape = fleet.shape();
    let random = |place| at(shape.seed, operation as u64, number, place);
    let end_ns = now_ns - (random(0) % (range_ns as u64 / 4).max(1)) as i64;
    // Short ranges are asked for more often than long ones.
    let part = (random(1) >> 32) as f64 / f64::from(u32::MAX);
    let start_ns = end_ns - 1 - (part * part * range_ns as f64) as i64;
    let kind = shape.kinds[random(2) as usize % shape.kinds.len()];
    let sample_type = random(3) as usize % kind.sample_types().len();
    let service = Some(random(4) % shape.services);
    let [start, end] = bounds((start_ns, end_ns));
    let range = [("start", start.as_str()), ("end", end.as_str())];
    let nodes_max = 8_192;
    match operation {
        Operation::QueryRange => {
            let step_s = ((end_ns - start_ns) / POINTS / SECOND_NS).max(1);
            let steps = ((end_ns - start_ns) / SECOND_NS / step_s).max(1);
            let query = selector(&shape.cluster, kind, sample_type, service);
            Question::steps(&query, start_ns, steps, step_s, "version")
        }
        Operation::MergeAll => {
            let query = selector(&shape.cluster, kind, sample_type, None);
            Question::flamegraph(&query, (start_ns, end_ns), nodes_max)
        }
        Operation::Labels => Question::new("/api/v1/labels", &range),
        Operation::LabelValues => Question::new("/api/v1/label/pod/values", &range),
        Operation::Flamegraph | Operation::Push | Operation::Check => {
            let query = selector(&shape.cluster, kind, sample_type, service);
            Question::flamegraph(&query, (start_ns, end_ns), nodes_max)
        }
    }
}

/// The query for one service of a fleet, or for all of it.
pub fn selector(cluster: &str, kind: Kind, sample_type: usize, service: Option<u64>) -> String {
    let service = service.map(|service| format!(",service_name=\"{}\"", service_name(service)));
    let profile_type = kind.profile_type(sample_type);
    format!("{profile_type}{{{CLUSTER_LABEL}=\"{cluster}\"{}}}", service.unwrap_or_default())
}

/// Start and end of `[start_ns, end_ns)` as the API takes them: both belong to the range.
fn bounds((start_ns, end_ns): (i64, i64)) -> [String; 2] {
    [start_ns, end_ns - 1].map(seconds)
}

/// Seconds since 1970, exact to the nanosecond.
fn seconds(time_ns: i64) -> String {
    format!("{}.{:09}", time_ns / SECOND_NS, time_ns % SECOND_NS)
}
