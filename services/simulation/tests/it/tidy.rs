//! The house's own laws: which room may open a door to which, what a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which rooms each room may depend on. A new edge needs an ADR and a line here and in docs/architecture.md.
const EDGES: &[(&str, &[&str])] = &[
    // L0
    ("model", &[]),
    // L1
    ("proto", &["model", "runtime"]),
    ("runtime", &["model"]),
    // L2
    ("cluster", &["runtime", "model"]),
    ("ingestlog", &["runtime", "model"]),
    ("blocks", &["runtime", "model", "proto"]),
    ("metastore", &["runtime", "model", "proto"]),
    // L3
    ("distributor", &["runtime", "model", "proto", "cluster", "ingestlog", "metastore"]),
    ("ingester", &["runtime", "model", "proto", "cluster", "ingestlog", "metastore", "blocks"]),
    ("querier", &["runtime", "model", "proto", "cluster", "metastore", "blocks"]),
    ("compactor", &["runtime", "model", "metastore", "blocks"]),
    // L4
    (
        "server",
        &[
            "runtime",
            "model",
            "proto",
            "cluster",
            "ingestlog",
            "metastore",
            "blocks",
            "distributor",
            "ingester",
            "querier",
            "compactor",
        ],
    ),
    // L5
    ("peers", &[]),
    ("loadtest", &["model", "proto"]),
    (
        "simulation",
        &[
            "model",
            "proto",
            "runtime",
            "ingestlog",
            "metastore",
            "blocks",
            "ingester",
            "querier",
            "compactor",
            "server",
            "loadtest",
            "peers",
        ],
    ),
    ("peers", &["runtime"]),
];

/// Licences that go with Apache-2.0, as SPDX names them.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    // Binds who changes the library's own files (foca), not who uses it.
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not come in: TLS is rustls with ring everywhere, but in librdkafka, which knows OpenSSL only.
const BANNED: &[&str] = &["native-tls", "aws-lc-sys"];

/// Crates of which a second version would be a second, incompatible set of types.
const SINGLE: &[&str] = &["arrow", "parquet", "object_store", "tonic", "prost", "tokio", "datafusion"];

/// Second versions all the same: those of tikv-client, whose types stay behind the seam of the metadata store.
const SECOND: &[(&str, &str)] = &[("tonic", "0.10."), ("prost", "0.12.")];

/// Longest source file.
const FILE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What builds on this platform depend on: packages of other platforms need not have been downloaded.
fn metadata() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline", "--filter-platform", &platform].map(String::from).to_vec())
        .exec()
        .unwrap()
}

#[test]
fn rooms_open_only_the_doors_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let room = package.name.strip_prefix("cambium-").unwrap_or(&package.name);
        let Some(allowed) = allowed.get(room) else {
            wrong.push(format!("{room} is not in the plan"));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(other) = dependency.name.strip_prefix("cambium-") else { continue };
            let test_only = dependency.kind == DependencyKind::Development;
            if !test_only && !allowed.contains(&other) {
                wrong.push(format!("{room} -> {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that docs/architecture.md does not have: {wrong:#?}");
}

#[test]
fn only_the_querier_knows_datafusion() {
    let metadata = metadata();
    let with_datafusion = metadata.workspace_packages().into_iter().filter(|package| {
        package.dependencies.iter().any(|dependency| dependency.name.starts_with("datafusion"))
    });
    let names: Vec<String> = with_datafusion.map(|package| package.name.to_string()).collect();
    assert_eq!(names, ["cambium-querier"]);
}

#[test]
fn licences_go_with_ours() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let licence = package.license.clone().unwrap_or_default().replace('/', " OR ");
        // Enough for what there is: one alternative of every AND part must be allowed.
        let fits = licence
            .replace(['(', ')'], "")
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|alternative| LICENCES.contains(&alternative.trim())));
        if !fits {
            wrong.push(format!("{} {}: {licence:?}", package.name, package.version));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_banned_crate_and_no_second_copy() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in &metadata.packages {
        assert!(!BANNED.contains(&package.name.as_str()), "{} is banned", package.name);
        let source = package.source.as_ref().map(|source| source.is_crates_io());
        assert_ne!(source, Some(false), "{} does not come from the registry", package.name);
        let (name, version) = (package.name.as_str(), package.version.to_string());
        if !SECOND.iter().any(|(second, old)| *second == name && version.starts_with(old)) {
            versions.entry(name).or_default().insert(version);
        }
    }
    for name in SINGLE {
        let held = versions.get(name).cloned().unwrap_or_default();
        assert!(held.len() <= 1, "{name} is there in versions {held:?}");
    }
}

#[test]
fn versions_stand_in_one_place() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        for line in manifest.lines().skip_while(|line| !line.starts_with("[dependencies]")) {
            let pins = line.contains("version = \"")
                || line.split_once(" = \"").is_some_and(|(_, v)| v.starts_with(|c: char| c.is_ascii_digit()));
            assert!(!pins, "{}: {line}: versions belong into [workspace.dependencies]", package.name);
        }
    }
}

#[test]
fn files_are_short_and_named_after_nouns() {
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{} has {lines} lines", path.display()));
        }
        if path.ends_with("mod.rs") {
            wrong.push(format!("{}: foo.rs + foo/, not mod.rs", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_capacity_is_what_its_script_says() {
    const COMMAND: &str = "docs/capacity.sh 100 1000 10000";
    let output =
        std::process::Command::new("sh").args(COMMAND.split(' ')).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = format!("<!-- {COMMAND} -->\n\n{}\n", String::from_utf8(output.stdout).unwrap());
    let page = std::fs::read_to_string(root().join("docs/capacity.md")).unwrap();
    assert!(page.contains(&said), "put this into docs/capacity.md:\n{said}");
}

/// Our Rust files, generated ones aside.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir()
            && !name.starts_with('.')
            && !["target", "data", "node_modules", "golden"].contains(&name.as_str())
        {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}
