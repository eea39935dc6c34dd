//! `kill -9` while blocks are merged: every profile is counted exactly once afterwards, whoever takes the job up again.

use std::fs;
use std::process::Command;

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Client, Sandbox};

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// Profiles, each of its own series, in blocks of two.
const PROFILES: i64 = 8;
const DAY_NS: i64 = 86_400_000_000_000;

/// Where to die, and at which time: the first merge makes level 1, the second level 3. Besides merging, the leases and the
/// start commit to the catalogue.
const POINTS: &[&str] = &[
    "compact-before-merge:1",
    "compact-before-merge:2",
    "block-put-before:1",
    "block-put-before:2",
    "block-put-after:1",
    "block-put-after:2",
    "compact-before-commit:1",
    "compact-before-commit:2",
    "compact-after-commit:1",
    "compact-after-commit:2",
    "kv-commit-before:2",
    "kv-commit-before:3",
    "kv-commit-before:4",
    "kv-commit-before:5",
    "kv-commit-before:6",
    "kv-commit-before:7",
    "kv-commit-after:2",
    "kv-commit-after:3",
    "kv-commit-after:4",
    "kv-commit-after:5",
    "kv-commit-after:6",
    "kv-commit-after:7",
];

/// A folder with blocks of level 0 of three days ago that nobody has merged yet.
fn flushed() -> Sandbox {
    let mut sandbox =
        Sandbox::new(BINARY, &["--limits.reject-older-than-secs", "864000", "--compactor.interval", "1h"]);
    sandbox.start();
    let start = now_ns() - 3 * DAY_NS;
    for pod in 0..PROFILES {
        let profile = Synthetic { time_ns: start + pod, samples: 3, value: pod + 1 }.pprof();
        let labels = format!(r#"{{service_name="api",pod="p{pod}"}}"#);
        let answer = sandbox.client().push(&labels, &[("name", "process_cpu")], &profile).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        if pod % 2 == 1 {
            sandbox.flush().unwrap();
        }
    }
    sandbox.kill();
    sandbox
}

fn check(client: &Client, point: &str) {
    for pod in 0..PROFILES {
        let total = client.total(&format!(r#"{QUERY}{{pod="p{pod}"}}"#));
        assert_eq!(total, 3 * (pod + 1), "{point}: profile {pod}");
    }
}

/// How many blocks hold the profiles.
fn blocks(client: &Client) -> u64 {
    let answer = client.json("/api/v1/query", &[("query", QUERY), ("format", "top"), ("start", "0")]);
    answer["stats"]["blocks"].as_u64().unwrap_or_else(|| panic!("no blocks in {answer}"))
}

#[test]
fn every_profile_is_counted_once_whenever_the_compactor_is_killed() {
    let flushed = flushed();
    for point in POINTS {
        let mut sandbox = Sandbox::copy_of(&flushed, &["--compactor.interval", "20ms"]);
        if sandbox.start_crashing_at(Some(point)).is_some() {
            sandbox.wait_dead();
        }
        sandbox.start();
        check(&sandbox.client(), point);
        // Each look takes some milliseconds.
        let merged = (0..10_000).any(|_| blocks(&sandbox.client()) == 1);
        assert!(merged, "{point}: not merged");
        check(&sandbox.client(), point);
        let level_3 = sandbox.data_dir().join("blocks/v1/l3");
        assert!(level_3.is_dir(), "{point}: merged to the last level");
    }
}

/// A folder with one block of the last level.
fn merged() -> Sandbox {
    let flushed = flushed();
    let mut sandbox = Sandbox::copy_of(&flushed, &["--compactor.interval", "20ms"]);
    sandbox.start();
    assert!((0..10_000).any(|_| blocks(&sandbox.client()) == 1), "not merged");
    sandbox.kill();
    sandbox
}

/// A server on a copy of the folder, killed at the point if it comes by; stopped in any case.
fn killed_at(
    point: &str,
    folder: &Sandbox,
    arguments: &[&str],
    is_done: impl Fn(&Sandbox) -> bool,
) -> Sandbox {
    let mut sandbox = Sandbox::copy_of(folder, arguments);
    if sandbox.start_crashing_at(Some(point)).is_some() {
        sandbox.wait_dead();
    }
    sandbox.start();
    assert!((0..10_000).any(|_| is_done(&sandbox)), "{point}: not done");
    sandbox.kill();
    sandbox
}

/// Where to die while a block is rewritten or removed.
const LATER_POINTS: &[&str] = &[
    "compact-before-merge:1",
    "compact-before-commit:1",
    "compact-after-commit:1",
    "kv-commit-before:2",
    "kv-commit-before:3",
    "kv-commit-before:4",
    "kv-commit-after:2",
    "kv-commit-after:3",
    "kv-commit-after:4",
];

#[test]
fn a_deletion_is_carried_out_once_whenever_the_compactor_is_killed() {
    // Nobody carries it out here: this one looks for work once an hour.
    let mut folder = Sandbox::copy_of(&merged(), &["--compactor.interval", "1h"]);
    folder.start();
    let parameters = [("match[]", r#"{pod=~"p[0-3]"}"#)];
    let answer = folder.client().post("/api/v1/deletions", &parameters, &[], &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pending = |sandbox: &Sandbox| {
        let listed = sandbox.client().json("/api/v1/deletions", &[]);
        listed["data"][0]["pending_blocks"].as_u64()
    };
    assert_eq!(pending(&folder), Some(1));
    folder.kill();
    let left: i64 = (4..PROFILES).map(|pod| 3 * (pod + 1)).sum();
    for point in LATER_POINTS {
        let mut sandbox = killed_at(point, &folder, &["--compactor.interval", "20ms"], |sandbox| {
            pending(sandbox) == Some(0)
        });
        sandbox.start();
        assert_eq!(sandbox.client().total(QUERY), left, "{point}");
        assert_eq!(sandbox.client().delete("/api/v1/deletions/1").unwrap().status, 200);
        assert_eq!(sandbox.client().total(QUERY), left, "{point}: gone for good");
    }
}

/// A push that is retried while it may be counts once, also when its block has been merged and the process restarted.
#[test]
fn a_retry_is_recognised_in_merged_blocks() {
    let mut sandbox = Sandbox::running(BINARY, &["--compactor.interval", "20ms"]);
    // The window of ten minutes is over, and the hour of retries is not.
    let start = now_ns() - 30 * 60_000_000_000;
    let push = |client: &Client| {
        for pod in 0..PROFILES {
            let profile = Synthetic { time_ns: start + pod, samples: 3, value: pod + 1 }.pprof();
            let labels = format!(r#"{{service_name="api",pod="p{pod}"}}"#);
            let answer = client.push(&labels, &[("name", "process_cpu")], &profile).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    push(&sandbox.client());
    sandbox.flush().unwrap();
    let level_1 = sandbox.data_dir().join("blocks/v1/l1");
    let merged = (0..10_000).any(|_| blocks(&sandbox.client()) == 1 && level_1.is_dir());
    assert!(merged, "not merged");
    for _ in 0..2 {
        push(&sandbox.client());
        check(&sandbox.client(), "retried");
        sandbox.kill();
        sandbox.start();
    }
    push(&sandbox.client());
    sandbox.flush().unwrap();
    check(&sandbox.client(), "retried after a restart");
}

/// `cambium admin verify` of the folder: whether all blocks are whole, and what it says.
fn verify(sandbox: &Sandbox) -> (bool, String) {
    let folder = sandbox.data_dir().to_str().unwrap();
    let output = Command::new(BINARY).args(["--data-dir", folder, "admin", "verify"]).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn operators_can_have_blocks_verified() {
    let sandbox = flushed();
    let (whole, said) = verify(&sandbox);
    assert!(whole && said.contains("4 blocks") && said.contains("24 samples"), "{said}");
    let folder = sandbox.data_dir().join("blocks/v1/l0/0000");
    let hour = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let block = fs::read_dir(hour).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&block).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&block, bytes).unwrap();
    let (whole, said) = verify(&sandbox);
    let name = block.file_name().unwrap().to_str().unwrap();
    assert!(!whole && said.contains(name) && said.contains("1 of 4 blocks are damaged"), "{said}");
}
