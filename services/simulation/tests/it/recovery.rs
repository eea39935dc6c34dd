//! The metadata store is lost: what was backed up and what the blocks say of themselves give the same sums again.

use std::fs;
use std::path::Path;
use std::process::Command;

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Client, Sandbox};
use serde_json::Value;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";
const DAY_NS: i64 = 86_400_000_000_000;
const PODS: i64 = 8;

/// Takes profiles of some days ago, and merges only where told to.
const FLUSHING: &[&str] =
    &["--auth", "header", "--limits.reject-older-than-secs", "864000", "--compactor.interval", "1h"];
/// Merges whatever is there.
const MERGING: &[&str] = &["--auth", "header", "--compactor.interval", "20ms"];

/// `cambium admin …` on the folder: whether it ended well, and what it said.
fn admin(folder: &Path, arguments: &[&str], crash_at: Option<&str>) -> (bool, String) {
    let mut command = Command::new(BINARY);
    command.arg("--data-dir").arg(folder).arg("admin").args(arguments).env_remove("CAMBIUM_CRASH_AT");
    if let Some(point) = crash_at {
        command.env("CAMBIUM_CRASH_AT", point);
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[track_caller]
fn good(folder: &Path, arguments: &[&str]) -> String {
    let (good, said) = admin(folder, arguments, None);
    assert!(good, "{arguments:?}: {said}");
    said
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A server's folder, copied, with no server on it.
fn copied(from: &Sandbox, arguments: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new(BINARY, arguments);
    copy(from.data_dir(), sandbox.data_dir());
    sandbox
}

/// Pushes a profile of value `pod` a sample for each of these pods; `pod` samples of each.
fn push(client: &Client, pods: std::ops::Range<i64>, start_ns: i64) {
    for pod in pods {
        let profile =
            Synthetic { time_ns: start_ns + pod * 60_000_000_000, samples: 3, value: pod + 1 }.pprof();
        let labels = format!(r#"{{service_name="api-{}",pod="p{pod}"}}"#, pod % 2);
        let answer = client.push(&labels, &[("name", "process_cpu")], &profile).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// What each of the tenants sees of each service and of ranges that begin and end within the profiles.
fn sums(sandbox: &Sandbox, start_ns: i64) -> Vec<String> {
    let mut seen = Vec::new();
    for tenant in ["red", "blue", "green"] {
        let client = sandbox.client().as_tenant(tenant);
        for service in ["api-0", "api-1"] {
            seen.push(client.total(&format!(r#"{QUERY}{{service_name="{service}"}}"#)).to_string());
        }
        for minutes in [0..3, 2..5, 0..100] {
            let second = |minute: i64| ((start_ns + minute * 60_000_000_000) / 1_000_000_000).to_string();
            let (start, end) = (second(minutes.start), second(minutes.end));
            let parameters = [("query", QUERY), ("start", &*start), ("end", &*end), ("format", "top")];
            seen.push(client.json("/api/v1/query", &parameters)["data"]["total"].to_string());
        }
    }
    seen
}

/// Blocks of several levels and records that are in none, of tenants one of which was deleted and came again; profiles that
/// were deleted.
fn lived(start_ns: i64) -> Sandbox {
    let mut sandbox = Sandbox::running(BINARY, FLUSHING);
    for (index, pods) in [0..2, 2..4, 4..6].into_iter().enumerate() {
        for tenant in ["red", "blue", "green"] {
            push(&sandbox.client().as_tenant(tenant), pods.clone(), start_ns);
        }
        assert_eq!(sandbox.flush(), Ok(1), "{index}");
    }
    sandbox.kill();
    let mut merged = copied(&sandbox, MERGING);
    merged.start();
    wait_merged(&merged);
    merged.kill();
    let mut sandbox = copied(&merged, FLUSHING);
    sandbox.start();
    assert_eq!(sandbox.operator().delete("/api/v1/admin/tenants/green").unwrap().status, 200);
    let red = sandbox.client().as_tenant("red");
    let answer = red.post("/api/v1/deletions", &[("match[]", r#"{pod="p1"}"#)], &[], &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    for tenant in ["red", "blue", "green"] {
        push(&sandbox.client().as_tenant(tenant), 6..7, start_ns);
    }
    assert_eq!(sandbox.flush(), Ok(1));
    push(&red, 7..PODS, start_ns);
    sandbox
}

fn wait_merged(sandbox: &Sandbox) {
    let levels = |sandbox: &Sandbox| {
        let listed = sandbox.operator().json("/api/v1/admin/blocks", &[]);
        let rows = listed["data"].as_array().unwrap().clone();
        rows.iter().map(|row| row["level"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Each look takes some milliseconds.
    let merged = (0..10_000).any(|_| levels(sandbox).iter().all(|level| *level == 3));
    assert!(merged, "{:?}", levels(sandbox));
}

#[test]
fn a_lost_metadata_store_is_restored_and_rebuilt_in_either_order() {
    let start_ns = now_ns() - 3 * DAY_NS;
    let mut sandbox = lived(start_ns);
    let expected = sums(&sandbox, start_ns);
    assert!(expected.iter().any(|sum| sum != "0"));
    let live = sandbox.data_dir().join("live.backup");
    let live = live.to_str().unwrap();
    let port = sandbox.operator_address();
    let mut command = Command::new(BINARY);
    command.arg("--data-dir").arg(sandbox.data_dir()).args(["--internal.listen", &port, "admin", "backup"]);
    let output = command.args([live, "--symbols"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (refused, said) = admin(sandbox.data_dir(), &["restore", live], None);
    assert!(!refused && said.contains("stop the server on this folder first"), "{said}");
    sandbox.kill();
    let file = sandbox.data_dir().join("backup");
    let file = file.to_str().unwrap();
    good(sandbox.data_dir(), &["backup", file, "--symbols"]);
    let length = |file: &str| fs::metadata(file).unwrap().len();
    assert_eq!(length(live), length(file), "of a running server, and of a folder");
    let names = |sandbox: &Sandbox| {
        let client = sandbox.client().as_tenant("blue");
        client.json("/api/v1/query", &[("query", QUERY), ("start", "0"), ("format", "top")])["data"].clone()
    };
    sandbox.start();
    let named = names(&sandbox);
    sandbox.kill();
    for commands in
        [[&["restore", live][..], &["rebuild-catalogue"]], [&["rebuild-catalogue"], &["restore", file]]]
    {
        let mut lost = copied(&sandbox, FLUSHING);
        fs::remove_file(lost.data_dir().join("metastore.redb")).unwrap();
        let dry = good(lost.data_dir(), &["rebuild-catalogue", "--dry-run"]);
        assert!(dry.contains("nothing was written"), "{dry}");
        assert!(!lost.data_dir().join("metastore.redb").exists());
        commands.iter().for_each(|command| drop(good(lost.data_dir(), command)));
        lost.start();
        assert_eq!(sums(&lost, start_ns), expected, "{commands:?}");
        assert_eq!(names(&lost), named, "{commands:?}");
        // It goes on as before.
        push(&lost.client().as_tenant("blue"), 0..1, start_ns + DAY_NS);
        assert_eq!(lost.flush(), Ok(1));
        lost.stop();
        let (refused, said) = admin(lost.data_dir(), &["rebuild-catalogue"], None);
        assert!(!refused && said.contains("say --replace"), "{said}");
        good(lost.data_dir(), &["rebuild-catalogue", "--replace"]);
        good(lost.data_dir(), &["restore", file]);
    }
}

#[test]
fn what_is_left_lying_about_is_not_counted() {
    let start_ns = now_ns() - 3 * DAY_NS;
    let mut sandbox = lived(start_ns);
    // A flush that is put and not committed; whoever comes next flushes more.
    sandbox.kill();
    assert!(sandbox.start_crashing_at(Some("flush-before-commit")).is_some());
    assert!(sandbox.flush().is_err());
    sandbox.wait_dead();
    sandbox.start();
    push(&sandbox.client().as_tenant("blue"), 7..PODS, start_ns);
    assert_eq!(sandbox.flush(), Ok(1));
    let expected = sums(&sandbox, start_ns);
    sandbox.kill();
    for point in
        ["block-put-before:1", "block-put-after:1", "compact-before-commit:1", "compact-after-commit:1"]
    {
        // What a merge has put before it died, or its inputs.
        let mut dying = copied(&sandbox, MERGING);
        if dying.start_crashing_at(Some(point)).is_some() {
            dying.wait_dead();
        }
        let mut lost = copied(&dying, MERGING);
        fs::remove_file(lost.data_dir().join("metastore.redb")).unwrap();
        let file = sandbox.data_dir().join(format!("backup-{point}"));
        good(dying.data_dir(), &["backup", file.to_str().unwrap()]);
        good(lost.data_dir(), &["restore", file.to_str().unwrap()]);
        let said = good(lost.data_dir(), &["rebuild-catalogue"]);
        assert!(!said.contains(" 0 are superseded"), "{point}: {said}");
        lost.start();
        assert_eq!(sums(&lost, start_ns), expected, "{point}: {said}");
        wait_merged(&lost);
        assert_eq!(sums(&lost, start_ns), expected, "{point}, merged");
    }
}

#[test]
fn a_rebuild_that_is_killed_is_done_again() {
    let start_ns = now_ns() - 3 * DAY_NS;
    let mut sandbox = lived(start_ns);
    let expected = sums(&sandbox, start_ns);
    sandbox.kill();
    for point in
        ["rebuild-marked", "rebuild-emptied", "rebuild-entered", "kv-commit-after:4", "kv-commit-before:6"]
    {
        let mut lost = copied(&sandbox, FLUSHING);
        let (ended, _) = admin(lost.data_dir(), &["rebuild-catalogue", "--replace"], Some(point));
        assert!(!ended, "{point}");
        assert!(
            lost.start_crashing_at(Some("never")).is_none(),
            "{point}: no server starts on half a catalogue"
        );
        good(lost.data_dir(), &["rebuild-catalogue", "--replace"]);
        lost.start();
        assert_eq!(sums(&lost, start_ns), expected, "{point}");
    }
}

#[test]
fn what_is_lost_is_said_and_the_rest_is_rebuilt() {
    let start_ns = now_ns() - 3 * DAY_NS;
    let mut sandbox = lived(start_ns);
    sandbox.kill();
    let listed = good(sandbox.data_dir(), &["blocks", "--level", "3", "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let path = sandbox.data_dir().join("blocks").join(listed[0]["path"].as_str().unwrap());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (good_all, said) = admin(sandbox.data_dir(), &["rebuild-catalogue", "--replace"], None);
    assert!(!good_all && said.contains("lost: v1/l3/") && said.contains("--allow-loss"), "{said}");
    good(sandbox.data_dir(), &["rebuild-catalogue", "--replace", "--allow-loss"]);
    sandbox.start();
}

/// Historic files, each of a pod of its own, in a folder beside the data.
fn historic(folder: &Path, start_ns: i64) {
    fs::create_dir_all(folder).unwrap();
    for pod in 0..PODS {
        let time_ns = start_ns + pod % 2 * DAY_NS + pod;
        let profile = Synthetic { time_ns, samples: 3, value: pod + 1 }.pprof();
        fs::write(folder.join(format!("{pod}.pb.gz")), profile).unwrap();
    }
}

const IMPORT_POINTS: &[&str] = &[
    "block-put-before:1",
    "block-put-after:1",
    "block-put-after:2",
    "import-before-commit:1",
    "import-before-commit:2",
    "import-after-commit:1",
    "import-after-commit:2",
    "kv-commit-before:1",
    "kv-commit-before:2",
    "kv-commit-before:3",
    "kv-commit-before:4",
    "kv-commit-before:5",
    "kv-commit-after:2",
    "kv-commit-after:3",
    "kv-commit-after:4",
    "kv-commit-after:5",
];

#[test]
fn an_import_counts_once_whenever_it_is_killed() {
    let all: i64 = (1..=PODS).map(|value| 3 * value).sum();
    let start_ns = now_ns() - 9 * DAY_NS;
    let files = tempfile::tempdir().unwrap();
    historic(files.path(), start_ns);
    let folder = files.path().to_str().unwrap();
    let import = [
        "import",
        "--name",
        "process_cpu",
        "--labels",
        r#"{service_name="old"}"#,
        "--output",
        "json",
        folder,
    ];
    let report = |said: &str| -> Value {
        serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"))
    };
    for point in IMPORT_POINTS {
        let mut sandbox = Sandbox::new(BINARY, &["--compactor.interval", "20ms"]);
        let (ended, said) = admin(sandbox.data_dir(), &import, Some(point));
        assert!(!ended, "{point}: {said}");
        // The next one is of other files first, so that its blocks are others.
        let one = files.path().join("5.pb.gz");
        let some = [&import[..7], &[one.to_str().unwrap()]].concat();
        good(sandbox.data_dir(), &some);
        good(sandbox.data_dir(), &import);
        let again = report(&good(sandbox.data_dir(), &import));
        assert_eq!((&again["imported"], &again["known"]), (&0.into(), &PODS.into()), "{point}: {again}");
        // Also where the metadata store is lost before anything is merged.
        let file = sandbox.data_dir().join("backup");
        good(sandbox.data_dir(), &["backup", file.to_str().unwrap()]);
        fs::remove_file(sandbox.data_dir().join("metastore.redb")).unwrap();
        good(sandbox.data_dir(), &["rebuild-catalogue"]);
        good(sandbox.data_dir(), &["restore", file.to_str().unwrap()]);
        let restored = report(&good(sandbox.data_dir(), &import));
        assert_eq!(
            (&restored["imported"], &restored["known"]),
            (&0.into(), &PODS.into()),
            "{point}: {restored}"
        );
        sandbox.start();
        assert_eq!(sandbox.client().total(QUERY), all, "{point}");
        wait_merged(&sandbox);
        assert_eq!(sandbox.client().total(QUERY), all, "{point}: merged");
        sandbox.kill();
        good(sandbox.data_dir(), &["rebuild-catalogue", "--replace"]);
        sandbox.start();
        assert_eq!(sandbox.client().total(QUERY), all, "{point}: rebuilt");
    }
}

#[test]
fn files_that_cannot_be_imported_do_not_stop_the_others() {
    let sandbox = Sandbox::new(BINARY, &[]);
    let files = tempfile::tempdir().unwrap();
    let (start_ns, folder) = (now_ns() - 9 * DAY_NS, files.path());
    historic(folder, start_ns);
    fs::write(folder.join("broken.pb.gz"), b"no profile").unwrap();
    let ancient = Synthetic { time_ns: start_ns - 60 * DAY_NS, samples: 1, value: 1 }.pprof();
    fs::write(folder.join("ancient.pb.gz"), ancient).unwrap();
    let manifest = folder.join("manifest.jsonl");
    let seconds = start_ns / 1_000_000_000;
    let lines = [
        format!(r#"{{"file":"1.pb.gz","labels":{{"service_name":"a"}},"time":{seconds}}}"#),
        r#"{"file":"2.pb.gz","labels":{"service_name":"b"}}"#.to_owned(),
        r#"{"file":"nowhere.pb.gz"}"#.to_owned(),
        r#"{"file":"3.pb.gz","label":{}}"#.to_owned(),
        r#"{"file":"broken.pb.gz"}"#.to_owned(),
        r#"{"file":"ancient.pb.gz"}"#.to_owned(),
    ];
    fs::write(&manifest, lines.join("\n")).unwrap();
    let import = ["import", "--name", "process_cpu", "--manifest", manifest.to_str().unwrap()];
    let (good_all, dry) = admin(sandbox.data_dir(), &[&import[..], &["--dry-run"]].concat(), None);
    assert!(!good_all && dry.contains("2 files would be imported"), "{dry}");
    assert!(!sandbox.data_dir().join("metastore.redb").exists(), "nothing was written");
    let (good_all, said) = admin(sandbox.data_dir(), &import, None);
    assert!(
        !good_all && said.contains("2 files imported") && said.contains("4 files were not imported"),
        "{said}"
    );
    for reason in [
        "nowhere.pb.gz: No such file",
        "manifest.jsonl:4: ",
        "broken.pb.gz: ",
        "ancient.pb.gz: it is older than",
    ] {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let listed: Value =
        serde_json::from_str(&good(sandbox.data_dir(), &["blocks", "--output", "json"])).unwrap();
    let profiles: u64 = listed.as_array().unwrap().iter().map(|row| row["profiles"].as_u64().unwrap()).sum();
    assert_eq!(profiles, 2, "{listed}");
    assert!(good(sandbox.data_dir(), &["blocks", "--level", "3"]).lines().count() <= 1);
}

#[test]
fn tenants_are_listed_created_and_deleted_whether_a_server_runs_or_not() {
    let mut sandbox = Sandbox::running(BINARY, &["--auth", "header"]);
    push(&sandbox.client().as_tenant("red"), 0..1, now_ns() - 60_000_000_000);
    sandbox.flush().unwrap();
    let port = sandbox.operator_address();
    let folder = sandbox.data_dir().to_str().unwrap().to_owned();
    let running = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["--data-dir", &folder, "--internal.listen", &port, "admin", "tenants"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(running(&["create", "blue"]).trim(), "blue: number 2, active");
    assert_eq!(running(&["delete", "blue"]).trim(), "blue: number 2, hidden");
    let listed = running(&["list"]);
    sandbox.kill();
    let offline = |arguments: &[&str]| good(sandbox.data_dir(), &[&["tenants"], arguments].concat());
    assert_eq!(offline(&["list"]), listed);
    assert!(listed.contains("red") && listed.contains("hidden"), "{listed}");
    assert_eq!(offline(&["create", "blue"]).trim(), "blue: number 2, hidden\nblue: number 3, active");
    let (known, said) = admin(sandbox.data_dir(), &["tenants", "status", "nobody"], None);
    assert!(!known && said.contains("there is and was no tenant nobody"), "{said}");
}
