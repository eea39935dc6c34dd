//! `kill -9` while what nobody wants any more goes: what is too old, what a deleted tenant had, objects that nothing refers
//! to. What should be there is there once afterwards, nothing else is, and no object stays behind.

use std::fs;
use std::path::Path;
use std::thread;

use cambium_loadtest::synthetic::Synthetic;
use cambium_metastore::KvStore;
use cambium_metastore::kv::redb::RedbStore;
use cambium_metastore::kv::{Key, KeyRange, scan_all};
use cambium_runtime::clock::{Clock, FastClock};
use cambium_simulation::{Client, Sandbox};

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";
const DAY_NS: i64 = 86_400_000_000_000;
/// Profiles pushed at once, each of its own series.
const PODS: i64 = 3;
/// Samples of a profile: more names than are erased at once.
const SAMPLES: u64 = 300;
/// Ten hours in a second: a grace, the hour before a tenant is erased and the six between two listings pass in no time. So do
/// the deadlines of requests, which are therefore asked for less before they pass.
const SPEED: u32 = 36_000;

/// Takes what is 3 to 9 days old, and merges nothing.
const PUSHING: &[&str] =
    &["--auth", "header", "--limits.reject-older-than-secs", "864000", "--compactor.interval", "1h"];
/// Merges at once, and removes nothing.
const MERGING: &[&str] = &["--auth", "header", "--compactor.interval", "20ms"];

/// Pushes profiles of this age, whose source is of the tenant's name.
fn push(sandbox: &Sandbox, tenant: &str, days: i64) {
    let client = sandbox.client().as_tenant(tenant);
    let time_ns = now_ns() - days * DAY_NS;
    for pod in 0..PODS {
        let profile = Synthetic { time_ns: time_ns + pod, samples: SAMPLES, value: pod + 1 }.pprof();
        let labels = format!(r#"{{service_name="api",pod="{tenant}-{days}-{pod}"}}"#);
        let body = renamed(profile, tenant);
        let answer = client.push(&labels, &[("name", "process_cpu")], &body).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// The profile with the file `main.rs` called by this name of four letters.
fn renamed(mut profile: Vec<u8>, name: &str) -> Vec<u8> {
    let at = profile.windows(7).position(|bytes| bytes == b"main.rs").unwrap();
    profile[at..at + 4].copy_from_slice(name.as_bytes());
    profile
}

/// What a tenant has of the profiles of these days: each of them once.
fn check(client: &Client, tenant: &str, days: &[i64], point: &str) {
    let client = client.as_tenant(tenant);
    for (day, pod) in days.iter().flat_map(|day| (0..PODS).map(move |pod| (day, pod))) {
        let total = client.total(&format!(r#"{QUERY}{{pod="{tenant}-{day}-{pod}"}}"#));
        assert_eq!(total, SAMPLES as i64 * (pod + 1), "{point}: pod {pod} of {tenant}, {day} days ago");
    }
    let all = days.len() as i64 * SAMPLES as i64 * PODS * (PODS + 1) / 2;
    assert_eq!(client.total(QUERY), all, "{point}: all of {tenant}");
}

/// How many objects lie in the folder.
fn objects(folder: &Path) -> usize {
    // What the server deletes meanwhile is not there.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { objects(&entry.path()) } else { 1 }).sum()
}

fn blocks(sandbox: &Sandbox) -> usize {
    objects(&sandbox.data_dir().join("blocks/v1"))
}

/// Levels and tenants of the blocks in force.
fn inventory(sandbox: &Sandbox) -> Vec<(i64, String)> {
    let listed = sandbox.operator().json("/api/v1/admin/blocks", &[]);
    let row = |row: &serde_json::Value| (row["level"].as_i64().unwrap(), row["tenants"].to_string());
    listed["data"].as_array().unwrap().iter().map(row).collect()
}

fn wait_for(sandbox: &Sandbox, what: &str, is_done: impl Fn(&Sandbox) -> bool) {
    // Each look takes a millisecond or more.
    let looked = (0..20_000).any(|_| {
        let _ = sandbox.operator().get("/ready", &[]);
        is_done(sandbox)
    });
    assert!(looked, "{what}: not done; {} objects, {:?}", blocks(sandbox), inventory(sandbox));
}

/// The folder with everything merged as far as it goes; a crash on the way has left an object that nothing refers to.
fn merged(pushed: &Sandbox, count: usize) -> Sandbox {
    let mut sandbox = Sandbox::copy_of(pushed, MERGING);
    if sandbox.start_crashing_at(Some("block-put-after")).is_some() {
        sandbox.wait_dead();
    }
    sandbox.start();
    wait_for(&sandbox, "merged", |sandbox| {
        let held = inventory(sandbox);
        held.len() == count && held.iter().all(|(level, _)| *level == 3)
    });
    sandbox.kill();
    sandbox
}

/// Kills a server on a copy of the folder at the point, lets another finish, and gives it back in ordinary time.
fn finished(
    folder: &Sandbox,
    arguments: &[&str],
    point: &str,
    ahead_ns: i64,
    is_done: impl Fn(&Sandbox) -> bool,
) -> Sandbox {
    let mut sandbox = Sandbox::copy_of(folder, arguments);
    let clock = FastClock::at(now_ns() + ahead_ns, SPEED);
    sandbox.set_clock(&clock);
    if sandbox.start_crashing_at(Some(point)).is_some() {
        sandbox.wait_dead();
    }
    sandbox.start();
    wait_for(&sandbox, point, is_done);
    sandbox.kill();
    sandbox.set_clock(&FastClock::at(clock.now_ns(), 1));
    sandbox.start();
    sandbox
}

/// Some points at a time: most of it is waiting.
fn each(points: &[&str], check: impl Fn(&str) + Sync) {
    let check = &check;
    thread::scope(|scope| {
        for some in points.chunks(points.len().div_ceil(3)) {
            scope.spawn(move || some.iter().for_each(|point| check(point)));
        }
    });
}

/// Where to die while a block that is too old goes and its object after it, and in the sweeps of what the merges before have
/// left.
const RETENTION_POINTS: &[&str] = &[
    "compact-before-merge",
    "compact-before-commit",
    "compact-after-commit",
    "sweep-before-delete",
    "sweep-before-forget",
    "orphan-before-delete",
    "kv-commit-before:3",
    "kv-commit-before:5",
    "kv-commit-before:7",
    "kv-commit-before:9",
    "kv-commit-after:3",
    "kv-commit-after:5",
    "kv-commit-after:7",
    "kv-commit-after:9",
];

#[test]
fn what_is_too_old_goes_and_nothing_else_whenever_the_compactor_is_killed() {
    let mut pushed = Sandbox::running(BINARY, PUSHING);
    push(&pushed, "days", 9);
    pushed.flush().unwrap();
    push(&pushed, "days", 5);
    push(&pushed, "ever", 5);
    pushed.flush().unwrap();
    pushed.kill();
    let merged = merged(&pushed, 2);
    let overrides = merged.data_dir().join("overrides.yaml");
    fs::write(&overrides, "overrides: {days: {retention_secs: 172800}}\n").unwrap();
    let overrides = overrides.to_str().unwrap();
    let mut arguments = vec!["--limits.retention-secs", "0", "--overrides-file", overrides];
    arguments.extend(["--auth", "header", "--compactor.interval", "10m"]);
    assert!(blocks(&merged) > 2, "what the merges have left");
    each(RETENTION_POINTS, |point| {
        // Two days later an object that nothing refers to is old enough to go.
        let one_left = |sandbox: &Sandbox| blocks(sandbox) == 1;
        let sandbox = finished(&merged, &arguments, point, 2 * DAY_NS, one_left);
        check(&sandbox.client(), "days", &[], point);
        check(&sandbox.client(), "ever", &[5], point);
        assert_eq!(inventory(&sandbox).len(), 1, "{point}");
    });
}

/// Where to die while a deleted tenant's part of blocks is left out, and its names go.
const TENANT_POINTS: &[&str] = &[
    "flush-before-commit",
    "compact-before-merge:1",
    "compact-before-merge:2",
    "block-put-before:2",
    "block-put-after:2",
    "compact-before-commit:1",
    "compact-before-commit:2",
    "compact-after-commit:1",
    "compact-after-commit:2",
    "kv-deleted-some:1",
    "kv-deleted-some:2",
    "erase-before-state",
    "sweep-before-delete",
    "sweep-before-forget",
    "kv-commit-before:4",
    "kv-commit-before:8",
    "kv-commit-after:4",
    "kv-commit-after:8",
];

fn states(sandbox: &Sandbox, tenant: &str) -> Vec<String> {
    let listed = sandbox.operator().json(&format!("/api/v1/admin/tenants/{tenant}"), &[]);
    let state = |tenant: &serde_json::Value| tenant["state"].as_str().unwrap().to_owned();
    listed["data"].as_array().unwrap().iter().map(state).collect()
}

/// How many values of the metadata store have this in them.
fn mentions(sandbox: &Sandbox, text: &str) -> usize {
    let store = RedbStore::open(&sandbox.data_dir().join("metastore.redb"), 1 << 20).unwrap();
    let all = KeyRange { start: Key::new(&b""[..]), end: Key::new(&[u8::MAX; 4][..]) };
    let reading = async { scan_all(&*store.snapshot().await.unwrap(), all).await.unwrap() };
    let entries = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(reading);
    let has = |value: &[u8]| value.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    entries.iter().filter(|(_, value)| has(value)).count()
}

/// A folder with two tenants: in a merged block, in one of level 0 and in a head.
fn of_two_tenants() -> Sandbox {
    let mut pushed = Sandbox::running(BINARY, PUSHING);
    let push_both = |sandbox: &Sandbox, days| ["gone", "kept"].map(|tenant| push(sandbox, tenant, days));
    push_both(&pushed, 5);
    pushed.flush().unwrap();
    pushed.kill();
    let mut folder = Sandbox::copy_of(&merged(&pushed, 1), PUSHING);
    folder.start();
    push_both(&folder, 4);
    folder.flush().unwrap();
    push_both(&folder, 3);
    folder
}

#[test]
fn a_deleted_tenant_is_erased_to_the_last_name_whenever_the_compactor_is_killed() {
    let mut folder = of_two_tenants();
    for tenant in ["gone", "kept"] {
        check(&folder.client(), tenant, &[5, 4, 3], "before");
    }
    assert_eq!(folder.operator().delete("/api/v1/admin/tenants/gone").unwrap().status, 200);
    folder.kill();
    assert!(mentions(&folder, "gone.rs") > 256 && mentions(&folder, "gone-5") > 0, "its names are there");
    let arguments = ["--auth", "header", "--compactor.interval", "10m"];
    each(TENANT_POINTS, |point| {
        // A block for each day.
        let is_done = |sandbox: &Sandbox| blocks(sandbox) == 3 && states(sandbox, "gone") == ["erased"];
        let mut sandbox = finished(&folder, &arguments, point, DAY_NS, is_done);
        check(&sandbox.client(), "gone", &[], point);
        check(&sandbox.client(), "kept", &[5, 4, 3], point);
        let held = inventory(&sandbox);
        assert!(held.len() == 3 && held.iter().all(|(_, names)| names == r#"["kept"]"#), "{point}: {held:?}");
        sandbox.kill();
        for text in ["gone.rs", "gone-5", "gone-4", "gone-3"] {
            assert_eq!(mentions(&sandbox, text), 0, "{point}: {text}");
        }
        assert!(mentions(&sandbox, "kept.rs") > 256, "{point}: the other's names");
    });
}

#[test]
fn a_tenant_is_deleted_or_not_when_the_process_is_killed() {
    let mut folder = of_two_tenants();
    folder.kill();
    let path = "/api/v1/admin/tenants/gone";
    for (point, state, days) in
        [("retire-before-commit", "active", &[5, 4, 3][..]), ("retire-after-commit", "hidden", &[])]
    {
        let mut sandbox = Sandbox::copy_of(&folder, PUSHING);
        sandbox.start_crashing_at(Some(point)).unwrap();
        assert!(sandbox.operator().delete(path).is_err(), "{point} was never reached");
        sandbox.wait_dead();
        sandbox.start();
        assert_eq!(states(&sandbox, "gone"), [state], "{point}");
        check(&sandbox.client(), "gone", days, point);
        assert_eq!(sandbox.operator().delete(path).unwrap().status, 200, "{point}: once more");
        assert_eq!(states(&sandbox, "gone"), ["hidden"], "{point}");
        check(&sandbox.client(), "gone", &[], point);
        check(&sandbox.client(), "kept", &[5, 4, 3], point);
    }
}
