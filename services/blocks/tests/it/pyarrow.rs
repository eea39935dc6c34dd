//! An independent reader agrees: pyarrow reads the sections of a block as docs/block-format.md says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cambium_blocks::Source;
use cambium_blocks::source::{Pick, TreeScan};
use cambium_blocks::testing::{Shape, random_dataset, tenant};
use cambium_blocks::writer::Compression;
use cambium_model::profile::SampleLabelValue;
use cambium_model::stacktrace::NO_PARENT;
use cambium_model::time::TimeRange;

use crate::downsampled::downsampled;
use crate::store::{block, run, sources};

/// The Python that `make test` has given pyarrow, or the system's where that has it.
fn python() -> Result<PathBuf, String> {
    let python = std::env::var_os("CAMBIUM_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    succeed(Command::new(&python).args(["-c", "import pyarrow.parquet"]))?;
    Ok(python)
}

/// What the command printed.
fn succeed(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What our own reader says, in the words of read_block.py.
async fn describe(source: &dyn Source, tenant: &str) -> Vec<String> {
    let table = source.series().await.unwrap();
    let mut lines = Vec::new();
    for row in 0..table.len() as u32 {
        let profile_type = &table.types[table.type_of[row as usize] as usize];
        let profiles = source.profiles(&vec![row..row + 1], TimeRange::ALL).await.unwrap();
        let (count, total) = (profiles.total.len(), profiles.total.iter().sum::<i64>());
        lines.push(format!("series {tenant} {profile_type} {} {count} {total}", table.labels(row)));
    }
    for (index, profile_type) in (0..).zip(&table.types) {
        let of_type =
            table.type_of.partition_point(|of| *of < index)..table.type_of.partition_point(|of| *of <= index);
        let rows = vec![of_type.start as u32..of_type.end as u32];
        let partial = source.tree(&TreeScan { rows, range: TimeRange::ALL, pick: Pick::Sum }).await.unwrap();
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for (node, value) in partial.self_values.iter().enumerate() {
            let mut node = partial.tree.nodes[node];
            let mut path = Vec::new();
            while node.parent != NO_PARENT {
                path.push(format!("{:?}", partial.tree.locations[node.location as usize]));
                node = partial.tree.nodes[node.parent as usize];
            }
            *sums.entry(path.join(",")).or_default() += value;
        }
        // The script also prints stacks whose values cancel out; ours cannot tell those from stacks never seen.
        sums.retain(|_, sum| *sum != 0);
        lines.extend(sums.iter().map(|(path, sum)| format!("stack {tenant} {profile_type} {path} {sum}")));
    }
    for (set, labels) in source.sample_labels().await.unwrap().iter().enumerate() {
        for (name, value) in labels {
            let value = match value {
                SampleLabelValue::Text(text) => text.to_string(),
                SampleLabelValue::Number(number, unit) => format!("{number} {unit}"),
            };
            lines.push(format!("labels {tenant} {set} {name} {value}"));
        }
    }
    lines
}

#[test]
fn pyarrow_reads_the_same() {
    let python = match python() {
        Ok(python) => python,
        Err(why) if std::env::var_os("CI").is_some() => panic!("python with pyarrow is needed: {why}"),
        Err(why) => {
            eprintln!("SKIPPED pyarrow_reads_the_same: python with pyarrow is needed: {why}");
            return;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/read_block.py");
    let random = |number, shape| random_dataset(tenant(number), u64::from(number), shape);
    let datasets = [random(1, &Shape::default()), random(2, &Shape::dense())];
    let hot = block(&datasets, 0, Compression::Hot);
    let sums = downsampled(std::slice::from_ref(&hot), &[], true).unwrap();
    for block in [hot, block(&datasets, 3, Compression::Cold), sums] {
        let mut expected = run(async {
            let mut lines = Vec::new();
            for (source, dataset) in sources(&block).await.iter().zip(&block.meta.datasets) {
                lines.extend(describe(source, dataset.tenant.id.as_str()).await);
            }
            lines
        });
        expected.sort();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("block.blk");
        std::fs::write(&file, &block.bytes).unwrap();
        let printed = succeed(Command::new(&python).arg(&script).arg(&file)).unwrap();
        let got: Vec<&str> =
            printed.lines().filter(|line| !(line.starts_with("stack ") && line.ends_with(" 0"))).collect();
        assert_eq!(got, expected);
    }
}
