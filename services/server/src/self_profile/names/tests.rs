//! The child is a shell here that answers the same to every batch; the real one is asked in `simulation`.

use super::*;

/// Names that come from `script`, which is given the questions.
fn names(script: &'static str, timeout: Duration) -> (Names, Metrics) {
    let metrics = Metrics::new();
    let resolver = Resolver { program: "/bin/sh".into(), arguments: vec!["-c", script], timeout };
    (Names::with(resolver, &metrics), metrics)
}

fn places(addresses: std::ops::Range<u64>) -> BTreeSet<Place> {
    addresses.map(|address| Place { object: 0, address }).collect()
}

#[track_caller]
fn check_counts(metrics: &Metrics, batches: u64, failures: u64) {
    let text = metrics.encode();
    for (name, expected) in [("batches", batches), ("failures", failures)] {
        let line = format!("cambium_self_profiling_resolver_{name}_total {expected}\n");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn a_place_is_asked_for_once() {
    let script = r#"
        read question
        case "$question" in
        '{"object":null,"addresses":[1,2]}')
            echo '{"frames":[{"name":"f","system_name":"_f","file":"f.rs","line":3,"column":4}]}'
            echo '{"frames":[]}';;
        '{"object":null,"addresses":[3]}')
            echo '{"frames":[{"name":"g","system_name":"_g","file":"f.rs","line":5,"column":6}]}';;
        *) exit 1;;
        esac"#;
    let (names, metrics) = names(script, TIMEOUT);
    let objects = Objects::loaded();
    let first = names.of(&objects, &places(1..3)).await;
    assert_eq!(first.len(), 2);
    let line = &first[&Place { object: 0, address: 1 }][0];
    assert_eq!((&*line.function.name, &*line.function.system_name, line.line), ("f", "_f", 3));
    assert!(first[&Place { object: 0, address: 2 }].is_empty(), "known to have no name");

    let both = names.of(&objects, &places(1..4)).await;
    assert_eq!(both.len(), 3);
    let other = &both[&Place { object: 0, address: 3 }][0];
    assert!(Arc::ptr_eq(&other.function.file, &both[&Place { object: 0, address: 1 }][0].function.file));
    assert_eq!(names.of(&objects, &places(1..4)).await.len(), 3);
    check_counts(&metrics, 2, 0);
}

#[tokio::test]
async fn a_child_that_fails_costs_names_only() {
    let objects = Objects::loaded();
    for script in ["exit 1", "cat >/dev/null", "echo '{'", "echo '{\"frames\":[]}'; exit 3"] {
        let (names, metrics) = names(script, TIMEOUT);
        assert!(names.of(&objects, &places(1..2)).await.is_empty(), "{script}");
        check_counts(&metrics, 1, 1);
    }
}

#[tokio::test]
async fn a_child_that_hangs_is_given_up() {
    let (names, metrics) = names("exec sleep 60", Duration::from_millis(50));
    assert!(names.of(&Objects::loaded(), &places(1..2)).await.is_empty());
    check_counts(&metrics, 1, 1);
}

#[tokio::test]
async fn past_the_bound_everything_is_asked_for_again() {
    // Answers as many lines as the question has addresses.
    let script = "tr -cd ',' | tr ',' '\\n' | sed 's/.*/{\"frames\":[]}/'";
    let (names, metrics) = names(script, TIMEOUT);
    let objects = Objects::loaded();
    let all = PLACES_MAX as u64;
    assert_eq!(names.of(&objects, &places(0..10)).await.len(), 10);
    let found = names.of(&objects, &places(5..all + 5)).await;
    assert_eq!(found.len(), PLACES_MAX);
    assert_eq!(names.known.lock().await.lines.len(), PLACES_MAX);
    assert_eq!(names.of(&objects, &places(0..2 * all)).await.len(), PLACES_MAX, "the rest has no names");
    check_counts(&metrics, 3, 0);
}
