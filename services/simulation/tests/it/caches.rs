//! Whoever operates a server sees what each of its caches holds and how often it has what is asked for.

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::Sandbox;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

#[test]
fn caches_are_counted() {
    let sandbox = Sandbox::running(BINARY, &["--blocks.disk-cache-bytes", "32MiB"]);
    let client = sandbox.client();
    let profile = Synthetic { time_ns: now_ns() - 60_000_000_000, samples: 1, value: 7 }.pprof();
    for _ in 0..2 {
        let answer = client.push(r#"{service_name="api"}"#, &[("name", "process_cpu")], &profile).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    sandbox.flush().unwrap();
    let requests = |cache: &str, outcome: &str| {
        sandbox.metric(&format!(r#"cambium_cache_requests_total{{cache="{cache}",outcome="{outcome}"}}"#))
    };
    assert_eq!(client.total(QUERY), 7);
    for cache in ["known_locations", "known_objects", "locations", "objects", "decoded_sections", "disk"] {
        sandbox.metric(&format!(r#"cambium_cache_bytes{{cache="{cache}"}}"#));
    }
    assert!(requests("known_locations", "miss") > 0.0, "the first push");
    assert!(requests("known_locations", "hit") > 0.0, "the second");
    let (asked_cold, cold) = (requests("decoded_sections", "hit"), requests("decoded_sections", "miss"));
    assert!(cold > 0.0);
    assert_eq!(client.total(QUERY), 7);
    assert!(requests("decoded_sections", "hit") > asked_cold);
    assert_eq!(requests("decoded_sections", "miss"), cold, "all is there");
}
