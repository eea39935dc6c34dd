//! The whole program against servers of a few lines that keep sums, or lose or double some.

use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::protocol::Protocol;
use crate::report::Report;
use crate::run::{Plan, run};
use crate::scenario::Scenario;
use fake::{Fake, Fault};

mod fake;
mod wire;

const SCENARIO: &str = r#"
    about = "test"
    duration = "1s"
    [fleet]
    services = 3
    pods = 2
    kinds = ["cpu", "heap"]
    interval = "1s"
    draws = [5, 20]
    stacks = [10, 20]
    deploy_every = "400ms"
    rolling = "200ms"
    [load]
    retries_max = 3
    timeout = "300ms"
    [reads]
    flamegraph = 5.0
    labels = 5.0
    [verify]
    every = "300ms"
    checks_at_end = 10
"#;

async fn drive(fault: Fault, protocol: Protocol, tenants: u64) -> (Report, Fake) {
    let fake = Fake::start(fault).await;
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let plan = Plan {
        scenario,
        target: fake.base(),
        protocol,
        tenants,
        rate: 80.0,
        reads: true,
        profiles: None,
        pid: Some(std::process::id()),
    };
    (run(plan, CancellationToken::new()).await.unwrap(), fake)
}

/// Whether the report adds up, whatever it says.
fn check_counts(report: &Report) {
    let stream = &report.stream;
    assert_eq!(stream.begun, stream.acked + stream.refused + stream.unknown);
    assert_eq!(stream.scheduled, stream.begun + stream.not_begun);
    let page = crate::report::page::html(report);
    assert!(page.ends_with("</html>\n") && !page.contains("NaN"));
    assert!(page.contains(&crate::report::table::shown(report.operations[0].latency.p50_ms)));
    serde_json::to_string(report).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_brings_the_same_sums() {
    let cases = [(Protocol::Cambium, 0), (Protocol::Parca, 2), (Protocol::Pyroscope, 1)];
    let runs = cases.map(|(protocol, tenants)| drive(Fault::None, protocol, tenants));
    for ((protocol, tenants), (report, fake)) in cases.into_iter().zip(join_all(runs).await) {
        check_counts(&report);
        let outcome = report.verification.as_ref().unwrap();
        assert!(report.good(), "{protocol:?}: {outcome:?} {:?}", report.messages);
        // Three services, and all, of six profile types, each as a graph and as a series.
        assert!(outcome.equal >= 6 * 4 * 2 * tenants.max(1), "{outcome:?}");
        assert_eq!(report.stream.acked, report.stream.scheduled);
        assert_eq!(fake.tenants(), if tenants == 0 { 0 } else { tenants as usize });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_and_a_doubled_profile_are_found() {
    let runs = [Fault::Lose(30), Fault::Double(30)].map(|fault| drive(fault, Protocol::Cambium, 0));
    let [lost, doubled] = <[_; 2]>::try_from(join_all(runs).await).unwrap_or_else(|_| unreachable!("two"));
    for (report, _) in [&lost, &doubled] {
        let outcome = report.verification.as_ref().unwrap();
        assert!(!report.good() && outcome.mismatched >= 2, "{outcome:?}");
        assert!(outcome.equal > 0 && outcome.mismatches[0].question.contains("start="), "{outcome:?}");
        assert!(report.verdict().starts_with("WRONG"));
    }
    let mismatches = |report: &Report| report.verification.as_ref().unwrap().mismatches.clone();
    assert!(mismatches(&lost.0).iter().all(|mismatch| mismatch.answered < mismatch.low));
    assert!(mismatches(&doubled.0).iter().all(|mismatch| mismatch.answered > mismatch.high));
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_servers_are_asked_again_with_the_same_bytes() {
    let (report, fake) = drive(Fault::Busy(10), Protocol::Cambium, 0).await;
    check_counts(&report);
    assert!(report.good(), "{:?}", report.verification);
    assert!(report.stream.retries > 0 && report.stream.acked == report.stream.scheduled);
    // Each was taken in, and answered with 503, the first time: the same bytes came again and were recognised.
    assert_eq!(report.stream.duplicates, report.stream.retries);
    assert_eq!(fake.distinct_bodies() as u64, report.stream.scheduled);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_makes_bounds() {
    let (report, _) = drive(Fault::Mute(20), Protocol::Cambium, 0).await;
    check_counts(&report);
    let outcome = report.verification.as_ref().unwrap();
    assert!(report.good(), "{outcome:?}");
    assert!(report.stream.unknown > 0 && outcome.within_bounds > 0, "{outcome:?}");
    assert!(report.verdict().contains("within the bounds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_no_part_of_sums() {
    let (report, _) = drive(Fault::Refuse(7), Protocol::Cambium, 0).await;
    check_counts(&report);
    assert!(report.good() && report.stream.refused > 0, "{:?}", report.verification);
    assert!(report.messages.keys().any(|message| message.contains("### too old")), "{:?}", report.messages);
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let plan = |target: &str| Plan {
        scenario: scenario.clone(),
        target: target.to_owned(),
        protocol: Protocol::Cambium,
        tenants: 0,
        rate: 1.0,
        reads: true,
        profiles: None,
        pid: None,
    };
    for (target, expected) in [
        ("http://127.0.0.1:1", "nobody answers at http://127.0.0.1:1"),
        ("https://127.0.0.1:1", "only http is spoken"),
        ("127.0.0.1", "is not http://host:port"),
    ] {
        let run = run(plan(target), CancellationToken::new());
        let error = tokio::time::timeout(Duration::from_secs(10), run).await.unwrap().unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
}
