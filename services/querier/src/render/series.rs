//! Points over time and lists of what exists, in Prometheus' JSON.

use cambium_model::labels::Labels;
use cambium_model::profile_type::ProfileType;
use serde_json::{Map, Value, json};

use crate::merged::{MatrixSeries, SeriesEntry};

/// The label under which a series' profile type is listed.
pub const PROFILE_TYPE_LABEL: &str = "__profile_type__";

/// A matrix: `{"resultType":"matrix","result":[{"metric":{…},"values":[[seconds,"value"],…]}]}`.
pub fn matrix(series: &[MatrixSeries]) -> Value {
    let result: Vec<Value> = series
        .iter()
        .map(|series| {
            let values: Vec<Value> = series
                .points
                .iter()
                .map(|point| json!([seconds(point.time_ns), point.value.to_string()]))
                .collect();
            json!({"metric": label_map(&series.labels), "values": values})
        })
        .collect();
    json!({"resultType": "matrix", "result": result})
}

/// Profile types with their parts.
pub fn profile_types(types: &[ProfileType]) -> Value {
    let entry = |of: &ProfileType| {
        json!({
            "id": of.to_string(),
            "name": *of.name,
            "sample_type": *of.sample_type,
            "sample_unit": *of.sample_unit,
            "period_type": *of.period_type,
            "period_unit": *of.period_unit,
            "delta": of.delta,
        })
    };
    types.iter().map(entry).collect()
}

/// Label sets, each with its profile type as `__profile_type__`.
pub fn label_sets(entries: &[SeriesEntry]) -> Value {
    let entry = |entry: &SeriesEntry| {
        let mut labels = Map::new();
        labels.insert(PROFILE_TYPE_LABEL.to_owned(), entry.profile_type.to_string().into());
        labels.extend(label_map(&entry.labels));
        Value::Object(labels)
    };
    entries.iter().map(entry).collect()
}

/// Labels as an object.
pub fn label_map(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Unix seconds: whole ones as an integer, else with milliseconds as Prometheus writes them.
fn seconds(time_ns: i64) -> Value {
    const MILLISECOND_NS: i64 = 1_000_000;
    let millis = time_ns.div_euclid(MILLISECOND_NS);
    if millis % 1_000 == 0 { Value::from(millis / 1_000) } else { Value::from(millis as f64 / 1_000.0) }
}
