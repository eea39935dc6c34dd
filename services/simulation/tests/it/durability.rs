//! `kill -9` at every named point: what was acknowledged is counted exactly once afterwards.

use std::collections::BTreeMap;

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Client, Sandbox};

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// Profiles of one run, each of its own series so that each can be counted alone.
const PROFILES: i64 = 8;
/// A flush is asked for after this many.
const FLUSH_AFTER: i64 = 5;

/// Where to die: on the way of a record into the log, of a cut into a block, of a block into the catalogue, of the
/// log's old records out. A number says at which time; the first commits belong to the start.
const POINTS: &[&str] = &[
    "log-append-before-write:1",
    "log-append-before-write:6",
    "log-append-after-write:1",
    "log-append-after-write:6",
    "log-append-after-sync:1",
    "log-append-after-sync:6",
    "flush-before-encode:1",
    "block-put-before:1",
    "block-put-after:1",
    "flush-before-commit:1",
    "flush-before-truncate:1",
    "log-truncate-before:1",
    "log-truncate-after-delete:1",
    "flush-after-truncate:1",
    "kv-commit-before:1",
    "kv-commit-before:2",
    "kv-commit-before:3",
    "kv-commit-before:4",
    "kv-commit-before:5",
    "kv-commit-before:6",
    "kv-commit-after:1",
    "kv-commit-after:2",
    "kv-commit-after:3",
    "kv-commit-after:4",
    "kv-commit-after:5",
    "kv-commit-after:6",
];

struct Run {
    profiles: BTreeMap<i64, Vec<u8>>,
    acked: Vec<i64>,
}

impl Run {
    fn new() -> Self {
        let now = now_ns();
        let profile = |pod: i64| Synthetic { time_ns: now + pod, samples: 3, value: pod + 1 }.pprof();
        Self { profiles: (0..PROFILES).map(|pod| (pod, profile(pod))).collect(), acked: Vec::new() }
    }

    /// Pushes everything, flushing on the way, until done or until the server is dead.
    fn push_all(&mut self, sandbox: &Sandbox) -> Result<(), String> {
        for (&pod, profile) in &self.profiles {
            let answer = push(&sandbox.client(), pod, profile)?;
            assert_eq!(answer, 200, "pod {pod}");
            self.acked.push(pod);
            if pod + 1 == FLUSH_AFTER {
                sandbox.flush()?;
            }
        }
        sandbox.flush().map(drop)
    }

    /// Every acked profile once; others once or not at all.
    fn check_acked(&self, client: &Client, point: &str) {
        for pod in self.profiles.keys() {
            let total = client.total(&format!(r#"{QUERY}{{pod="p{pod}"}}"#));
            let once = 3 * (pod + 1);
            if self.acked.contains(pod) {
                assert_eq!(total, once, "{point}: acked profile {pod}");
            } else {
                assert!(
                    total == once || total == 0,
                    "{point}: profile {pod} counts {total}, not 0 or {once}"
                );
            }
        }
    }

    /// Clients retry what was not acked, and some retry what was: each counts once.
    fn retry_all(&self, client: &Client, point: &str) {
        for (&pod, profile) in &self.profiles {
            assert_eq!(push(client, pod, profile), Ok(200), "{point}: retry of {pod}");
        }
        let all: i64 = self.profiles.keys().map(|pod| 3 * (pod + 1)).sum();
        assert_eq!(client.total(QUERY), all, "{point}: after retries");
    }
}

fn push(client: &Client, pod: i64, profile: &[u8]) -> Result<u16, String> {
    let labels = format!(r#"{{service_name="api",pod="p{pod}"}}"#);
    let answer =
        client.push(&labels, &[("name", "process_cpu")], profile).map_err(|error| error.to_string())?;
    // A server that dies while it answers leaves half an answer.
    if answer.status == 200 && !answer.text().contains("success") {
        return Err(format!("half an answer: {}", answer.text()));
    }
    Ok(answer.status)
}

#[test]
fn every_acknowledged_profile_is_counted_once_whenever_the_process_is_killed() {
    for point in POINTS {
        let mut sandbox = Sandbox::new(BINARY, &[]);
        let mut run = Run::new();
        if sandbox.start_crashing_at(Some(point)).is_some() {
            let end = run.push_all(&sandbox);
            assert!(end.is_err(), "{point} was never reached: this test tests nothing");
            sandbox.wait_dead();
        }
        sandbox.start();
        run.check_acked(&sandbox.client(), point);
        run.retry_all(&sandbox.client(), point);
        sandbox.flush().unwrap();
        run.retry_all(&sandbox.client(), point);
        sandbox.kill();
        sandbox.start();
        run.retry_all(&sandbox.client(), point);
    }
}
