//! A day in two minutes: see [`cambium_simulation::soak`]. `make soak` takes thirty. The first by name, so
//! that the others run beside it.

use cambium_simulation::soak::{Plan, run};

use crate::BINARY;

/// Objects at a time: blocks of level 0 and 1 that wait for their window, and what was replaced in the last quarter of an hour.
const OBJECTS_MAX: usize = 150;

#[test]
fn loses_nothing_and_grows_nothing() {
    let minute_ns = 60_000_000_000;
    let report = run(BINARY, Plan { speed: 720, hours: 24, interval_ns: 20 * minute_ns, kills: 3 }).unwrap();
    let (pushes, checks, unanswered) = (report.pushes, report.checks, report.unanswered);
    assert_eq!(pushes, 24 * 3 * 120, "of 3 tenants' 40 pods, three an hour");
    assert!(checks > 200 && unanswered < checks / 4, "{checks} sums compared, {unanswered} not answered");
    let [first, second] = report.halves();
    assert!(second < 1.3 * first + 50e6, "memory grew from {first} to {second}");
    let objects = report.objects_max();
    assert!((10..OBJECTS_MAX).contains(&objects), "{objects} objects");
}
