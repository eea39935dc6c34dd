//! Limits that a tenant's own settings draw, on servers where they are tiny.

use std::time::{Duration, Instant};

use cambium_loadtest::synthetic::Synthetic;
use cambium_proto::wire::perftools::{Label, Sample};
use cambium_simulation::Sandbox;

use super::pushes::{gzip, sound, spoilt, string};
use super::{Case, QUERY, assert_unharmed, check, get, good_push, push, sql};
use crate::BINARY;
use crate::main_job::now_ns;

/// Longest wait for a count that owners publish every second.
const DEADLINE: Duration = Duration::from_secs(60);

const TINY: &[&str] = &[
    "--limits.request-body-bytes-max=20000",
    "--limits.profile-bytes-max=50000",
    "--limits.profile-samples-max=10",
    "--limits.stack-depth-max=4",
    "--limits.sample-labels-max=2",
    "--limits.symbol-bytes-max=50",
    "--limits.label-names-max=2",
    "--limits.label-name-bytes-max=20",
    "--limits.label-value-bytes-max=10",
    "--limits.reject-older-than-secs=60",
    "--limits.reject-newer-than-secs=60",
    "--limits.query-range-secs-max=7200",
    "--limits.sql-rows-max=5",
];

fn pushes() -> Vec<Case> {
    let bomb = vec![0; 10 << 20];
    let label = Label { key: 3, str: 4, ..Label::default() };
    let labels = |text: &str, message: &str| push(&[("labels", text)], b"", 422, message);
    vec![
        push(&[], vec![0; 20_001], 413, "the body has more than 20000 bytes (request_body_bytes_max)"),
        push(&[], vec![0x0a; 20_000], 400, "sample_type[0]: field 1 has wire type 2 at byte 3"),
        push(&[], gzip(&bomb), 413, "the profile has more than 50000 bytes uncompressed (profile_bytes_max)"),
        push(
            &[],
            [gzip(&[b'\n', 0].repeat(20_000)), gzip(&bomb)].concat(),
            413,
            "the profile has more than 50000 bytes uncompressed (profile_bytes_max)",
        ),
        spoilt(
            |p| p.sample = vec![p.sample[0].clone(); 11],
            422,
            "sample: 11 messages, at most 10 are allowed (profile_samples_max)",
        ),
        spoilt(
            |p| p.sample.push(Sample { location_id: vec![1; 6], value: vec![1], label: Vec::new() }),
            422,
            "sample[3].location_id: 5 frames, at most 4 are allowed (stack_depth_max)",
        ),
        spoilt(
            |p| p.sample[1].label = vec![label; 3],
            422,
            "sample[1]: 3 labels, at most 2 are allowed (sample_labels_max)",
        ),
        spoilt(
            |p| p.function[0].name = string(p, &"x".repeat(51)),
            422,
            "function[0].name: 51 bytes, at most 50 are allowed (symbol_bytes_max)",
        ),
        labels(r#"{a="1",b="2",c="3"}"#, "the series has 3 labels, 2 are allowed (label_names_max)"),
        labels(
            r#"{a_name_with_21_bytes_="1"}"#,
            "label name \"a_name_with_21_bytes_\" has 21 bytes, 20 are allowed (label_name_bytes_max)",
        ),
        labels(
            r#"{a="12345678901"}"#,
            "the value of label a has 11 bytes, 10 are allowed (label_value_bytes_max)",
        ),
        spoilt(|p| p.time_nanos -= 120_000_000_000, 422, "60s are allowed (reject_older_than_secs)"),
        spoilt(|p| p.time_nanos += 120_000_000_000, 422, "60s are allowed (reject_newer_than_secs)"),
    ]
}

fn queries() -> Vec<Case> {
    let long = [("query", QUERY), ("start", "0"), ("end", "7201")];
    let message = "the range has 7201 s, at most 7200 s are allowed (query_range_secs_max)";
    vec![
        get("query", &long, 422, message),
        get("labels", &long, 422, message),
        get("query_range", &[&long[..], &[("step", "60")]].concat(), 422, message),
        sql("VALUES (1), (2), (3), (4), (5), (6)", 422, "sql: the answer has more than 5 rows"),
    ]
}

#[test]
fn every_limit_names_itself() {
    let sandbox = Sandbox::running(BINARY, TINY);
    let client = sandbox.client();
    check(&client, &[pushes(), queries()].concat());
    let types = client.json("/api/v1/profile_types", &[]);
    assert_eq!(types["data"], serde_json::json!([]), "something broken was stored");
    assert_eq!(good_push(&client).status, 200);
    let total = client.json("/api/v1/query", &[("query", QUERY), ("format", "top")]);
    assert_eq!(total["data"]["total"], 15);
}

#[test]
fn a_sender_over_its_rate_is_told_when_to_come_back() {
    let sandbox =
        Sandbox::running(BINARY, &["--limits.ingestion-rate-bytes=1", "--limits.ingestion-burst-bytes=100"]);
    assert_eq!(sound().sample.len(), 3);
    assert_unharmed(&sandbox);
    // The first push was larger than the burst: it was let in and is being paid for.
    let refused = good_push(&sandbox.client());
    assert_eq!(refused.status, 429, "{}", refused.text());
    let message = refused.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("over the ingestion rate of 1 bytes/s, burst 100"), "{message}");
    let seconds: u64 = refused.retry_after.expect("Retry-After").parse().expect("seconds");
    assert!((60..=3_600).contains(&seconds), "{seconds}");
    assert_eq!(sandbox.client().total(QUERY), 15, "what is refused is not stored");
}

#[test]
fn a_new_series_over_the_limit_is_refused_and_an_old_one_is_not() {
    let sandbox = Sandbox::running(BINARY, &["--limits.series-max=1"]);
    let client = sandbox.client();
    let send = |pod: i64| {
        let profile = Synthetic { time_ns: now_ns(), samples: 1, value: 1 }.pprof();
        client.push(&format!(r#"{{pod="p{pod}"}}"#), &[], &profile).expect("an answer")
    };
    #[expect(clippy::disallowed_methods, reason = "the process under test lives in real time")]
    let began = Instant::now();
    let mut taken = 0;
    // The owner publishes what is active once a second: until then, new ones pass.
    let refused = loop {
        assert_eq!(send(0).status, 200, "a series that is there goes on");
        let answer = send(taken + 1);
        if answer.status != 200 {
            break answer;
        }
        assert!(began.elapsed() < DEADLINE, "{taken} new series and none refused");
        taken += 1;
    };
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    let message = refused.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("1 are allowed (series_max): the series is new and is refused"), "{message}");
    assert_eq!(client.total(QUERY), 2 * taken + 1);
}
