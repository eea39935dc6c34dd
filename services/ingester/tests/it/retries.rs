//! Retries at every point of the acceptance window, across flushes and restarts: each profile counts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cambium_ingestlog::testing::FaultyDisk;
use cambium_model::limits::TenantLimits;
use cambium_model::time::SECOND_NS;
use cambium_runtime::clock::Clock;
use object_store::memory::InMemory;
use proptest::prelude::*;

use crate::sandbox::{Durable, open_log, profile};

#[derive(Clone, Debug)]
enum Step {
    /// Push a new profile collected this many seconds ago.
    Push(i64),
    /// Push one of the earlier ones again.
    Retry(prop::sample::Index),
    Advance(u64),
    Flush,
    Kill,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_700_i64).prop_map(Step::Push),
        6 => any::<prop::sample::Index>().prop_map(Step::Retry),
        3 => (1..2_000_u64).prop_map(Step::Advance),
        2 => Just(Step::Flush),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
    ]
}

/// The distributor's rule: what is older than this is refused.
fn is_accepted(now_ns: i64, time_ns: i64) -> bool {
    now_ns - time_ns <= TenantLimits::default().reject_older_than_secs as i64 * SECOND_NS
}

async fn run(steps: Vec<Step>) {
    let disk = Arc::new(FaultyDisk::new(7));
    let mut durable = Durable::new(open_log(&disk).await, Arc::new(InMemory::new()));
    let mut running = durable.open().await;
    let mut pushed: BTreeMap<u32, i64> = BTreeMap::new();
    let mut acked: BTreeMap<u32, i64> = BTreeMap::new();
    for step in steps {
        let now_ns = durable.clock.now_ns();
        match step {
            Step::Push(age_secs) => {
                let number = pushed.len() as u32;
                // Unique times let the test tell profiles apart.
                let time_ns = now_ns - age_secs * SECOND_NS + i64::from(number);
                pushed.insert(number, time_ns);
                if is_accepted(now_ns, time_ns) {
                    assert_eq!(running.write(&profile(number, time_ns)).await.unwrap().applied, 1);
                    acked.insert(number, time_ns);
                }
            }
            Step::Retry(index) => {
                if pushed.is_empty() {
                    continue;
                }
                let number = index.index(pushed.len()) as u32;
                let time_ns = pushed[&number];
                if is_accepted(now_ns, time_ns) {
                    let ack = running.write(&profile(number, time_ns)).await.unwrap();
                    let known = acked.insert(number, time_ns).is_some();
                    assert_eq!(ack.duplicates, usize::from(known), "profile {number}");
                }
            }
            Step::Advance(secs) => durable.clock.advance(Duration::from_secs(secs)),
            Step::Flush => {
                running.handle.flush().await.unwrap();
            }
            Step::Kill => {
                running.kill();
                durable.log.close().await;
                disk.power_loss();
                durable.log = open_log(&disk).await;
                running = durable.open().await;
            }
            Step::Restart => {
                running.stop().await;
                durable.log = open_log(&disk).await;
                running = durable.open().await;
            }
        }
    }
    let mut expected: Vec<i64> = acked.into_values().collect();
    expected.sort_unstable();
    assert_eq!(running.times(&durable.store).await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_profile_counts_once(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
