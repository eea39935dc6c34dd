//! The main job: a profile in, its functions out, the same before and after a flush and a restart.

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Client, Sandbox};

use crate::BINARY;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// A time inside the acceptance window.
#[expect(clippy::disallowed_methods, reason = "the process under test lives in real time")]
pub fn now_ns() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_nanos() as i64
}

/// What people look at, in every form.
fn answers(client: &Client) -> Vec<String> {
    let all_time = [("query", QUERY), ("start", "0")];
    let mut found = Vec::new();
    for format in ["top", "flamegraph", "folded", "tree", "dot", "speedscope"] {
        let parameters: Vec<_> = all_time.iter().copied().chain([("format", format)]).collect();
        let answer = client.get("/api/v1/query", &parameters).unwrap();
        assert_eq!(answer.status, 200, "{format}: {}", answer.text());
        found.push(without_stats(&answer.text()));
    }
    let labels = client.get("/api/v1/label/pod/values", &[("start", "0")]).unwrap();
    found.push(without_stats(&labels.text()));
    found
}

fn assert_same(found: &[String], expected: &[String], when: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{when}");
    }
}

/// An answer without what it cost, which may differ.
fn without_stats(text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(mut answer)) => {
            answer.remove("stats");
            serde_json::Value::Object(answer).to_string()
        }
        _ => text.to_owned(),
    }
}

#[test]
fn what_is_pushed_is_answered_at_once_after_a_flush_and_after_a_restart() {
    let mut sandbox = Sandbox::running(BINARY, &[]);
    let now = now_ns();
    let mut expected = 0;
    for pod in 0..5 {
        let profile = Synthetic { time_ns: now - pod * 1_000_000_000, samples: 10 + pod as u64, value: 7 };
        expected += profile.total();
        let labels = format!(r#"{{service_name="api",pod="p{pod}"}}"#);
        let answer = sandbox.client().push(&labels, &[("name", "process_cpu")], &profile.pprof()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(sandbox.client().total(QUERY), expected, "a query sees what was acked before it");
    }
    let from_head = answers(&sandbox.client());
    assert_eq!(sandbox.flush().unwrap(), 1);
    assert_same(&answers(&sandbox.client()), &from_head, "from the block");
    sandbox.stop();
    sandbox.start();
    assert_same(&answers(&sandbox.client()), &from_head, "after a restart");
    sandbox.kill();
    sandbox.start();
    assert_same(&answers(&sandbox.client()), &from_head, "after kill -9");
    assert_eq!(sandbox.client().total(&format!(r#"{QUERY}{{pod="p3"}}"#)), 13 * 7);
}

#[test]
fn a_retry_is_acknowledged_and_not_counted_again() {
    let mut sandbox = Sandbox::running(BINARY, &[]);
    let profile = Synthetic { time_ns: now_ns(), samples: 3, value: 5 };
    let push = |sandbox: &Sandbox| {
        let answer =
            sandbox.client().push(r#"{service_name="api"}"#, &[("name", "process_cpu")], &profile.pprof());
        assert_eq!(answer.unwrap().status, 200);
        assert_eq!(sandbox.client().total(QUERY), profile.total());
    };
    push(&sandbox);
    push(&sandbox);
    sandbox.flush().unwrap();
    push(&sandbox);
    sandbox.kill();
    sandbox.start();
    push(&sandbox);
    sandbox.stop();
    sandbox.start();
    push(&sandbox);
}
