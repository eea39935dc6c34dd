//! Writes the seeds of every target to `corpus/`: `cargo run --example seeds`, after a format has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cambium_blocks::remote::labels::encode_label_sets;
use cambium_blocks::remote::profiles::{encode_profiles, encode_samples};
use cambium_blocks::remote::scans::{encode_sample_scan, encode_tree_scan};
use cambium_blocks::remote::series::encode_series;
use cambium_blocks::remote::stacks::encode_partial;
use cambium_blocks::source::{Pick, SampleScan, TreeScan};
use cambium_blocks::testing::{Shape, random_dataset, random_profiles, tenant};
use cambium_blocks::writer::{Compression, encode};
use cambium_blocks::{Dataset, Error, Source};
use cambium_cluster::swim;
use cambium_model::block::{LogId, LogRange, Offset, Partition};
use cambium_model::time::TimeRange;
use cambium_proto::pprof::Decompressor;
use cambium_proto::record;
use cambium_proto::wire::ingester::HeadRequest;
use futures::TryStreamExt;
use prost::Message;

/// Golden profiles with one speciality each, none large.
const PROFILES: [&str; 9] = [
    "edge-drop-frames",
    "edge-empty",
    "edge-mappings",
    "edge-names",
    "edge-no-locations",
    "edge-no-mappings",
    "edge-numeric-labels",
    "go-threadcreate",
    "node-cpu-lines",
];

const QUERIES: [&str; 12] = [
    "{}",
    r#"{service_name="api",pod="a"}"#,
    r#"{a!="b",c=~"x.*|y+",d!~"[a-z]{2,3}",}"#,
    r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{service_name="api"}"#,
    "memory:inuse_space:bytes:space:bytes",
    "parca_agent:samples:count::{}",
    r#"{k8s.pod='\u00e9\x41\n\U0001f600'}"#,
    r"{`a b`=`\`}",
    r#"{a="", b=""}"#,
    r#"{a="1",a="2"}"#,
    r#"{a=~"(?i:x)\\d+\\p{Greek}(?P<n>.)"}"#,
    r#"{a=~"((x{50}){50}){50}"}"#,
];

const MEMBER_BYTES_MAX: usize = 1 << 20;

fn main() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut decompressor = Decompressor::new();
    for name in PROFILES {
        let path = folder.join("../golden/profiles").join(format!("{name}.pb.gz"));
        let gzip = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let raw = decompressor.decompress(&gzip, MEMBER_BYTES_MAX).expect("golden profiles are sound");
        write(&folder, "decoder", &format!("{name}.pb"), raw);
        if name == "edge-empty" {
            write(&folder, "decoder", "edge-empty.pb.gz", &gzip);
        }
    }
    let small = Shape { profiles: 6, samples: 4, locations: 5, ..Shape::default() };
    write(&folder, "decoder", "two.record", &record::encode(&tenant(1), &random_profiles(3, &small)[..2]));

    let log = LogId { partition: Partition(1), log: 2 };
    let range = LogRange { log, first: Offset(10), next: Offset(20) };
    let datasets = [random_dataset(tenant(1), 8, &small), random_dataset(tenant(2), 9, &small)];
    for (name, datasets, compression) in
        [("hot.blk", &datasets[..1], Compression::Hot), ("two-cold.blk", &datasets[..], Compression::Cold)]
    {
        let block = encode(datasets, range, 3, 0, compression).expect("a small dataset can be encoded");
        write(&folder, "block", name, &block.bytes);
    }
    for (kind, (name, message)) in (0..).zip(messages(&datasets[0])) {
        write(&folder, "remote", name, &[&[kind], &message[..]].concat());
    }
    for (index, query) in QUERIES.iter().enumerate() {
        write(&folder, "query", &format!("{index:02}.txt"), query.as_bytes());
    }
    // One of each length is one of each message.
    let messages: BTreeMap<_, _> =
        swim::testing::messages().into_iter().map(|message| (message.len(), message)).collect();
    for (length, message) in messages.into_iter().step_by(3) {
        write(&folder, "gossip", &format!("{length}.message"), &message);
    }
}

/// A message of every kind that the target knows, in its order.
fn messages(dataset: &Dataset) -> [(&'static str, Vec<u8>); 7] {
    let (rows, range) = (vec![0..dataset.series.len() as u32], TimeRange::ALL);
    let sample_scan = SampleScan { rows: rows.clone(), range, at: None };
    let tree_scan = TreeScan { rows: rows.clone(), range, pick: Pick::Mean(vec![1; dataset.series.len()]) };
    let answers = async {
        let samples: Vec<_> = dataset.samples(&sample_scan).await?.try_collect().await?;
        Ok::<_, Error>((dataset.profiles(&rows, range).await?, samples, dataset.tree(&tree_scan).await?))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("nothing is needed");
    let (profiles, samples, partial) = runtime.block_on(answers).expect("a dataset answers");
    let samples = encode_samples(&samples[0]).next().expect("there are samples");
    let head = HeadRequest { id: vec![7; 16].into(), tenant_number: 1 };
    [
        ("series", encode_series(&dataset.series).encode_to_vec()),
        ("profiles", encode_profiles(profiles).encode_to_vec()),
        ("samples", samples.encode_to_vec()),
        ("partial-tree", encode_partial(&partial, false).encode_to_vec()),
        ("label-sets", encode_label_sets(&dataset.label_sets).encode_to_vec()),
        ("tree-request", encode_tree_scan(head.clone(), &tree_scan, false).encode_to_vec()),
        ("samples-request", encode_sample_scan(head, &sample_scan).encode_to_vec()),
    ]
}

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) {
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    fs::write(corpus.join(name), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
}
