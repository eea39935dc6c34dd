//! Label matching over many series.

use cambium_blocks::series_table::{ScopeName, SeriesTable};
use cambium_model::labels::Labels;
use cambium_model::selector::Selector;

use crate::Bench;
use crate::ceiling::Ceiling;
use crate::cpu::best;
use crate::table::{Row, Unit};

const SERIES: u64 = 200_000;

/// The labels of a series: ten, three of them its own.
pub fn series_labels(series: u64) -> Labels {
    Labels::from_pairs([
        ("cluster", "c1".to_owned()),
        ("container", format!("cont-{}", series % 4)),
        ("container_id", format!("{:016x}", cambium_loadtest::random::mix(series))),
        ("instance", format!("10.{}.{}.{}:4040", series >> 16, series >> 8 & 255, series & 255)),
        ("namespace", format!("ns-{:02}", series % 50)),
        ("node", format!("node-{:03}", series % 500)),
        ("pod", format!("svc-{:02}-pod-{series:06}", series % 200)),
        ("region", format!("region-{}", series % 3)),
        ("service_name", format!("svc-{:03}", series % 200)),
        ("version", format!("v1.{}", series % 7)),
    ])
    .expect("distinct names")
}

/// Series matched per second.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut table = SeriesTable::default();
    table.types.push("process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta".parse()?);
    table.scopes.push(ScopeName { value: "all".into(), label: "".into() });
    for series in 0..SERIES {
        let labels = series_labels(series);
        table.push(&labels, labels.fingerprint(), 0, 0);
    }
    for (name, selector, least) in [
        ("low cardinality", r#"{namespace="ns-07",service_name="svc-007"}"#, 100e6),
        ("unique values", r#"{pod=~"svc-07-.*7"}"#, 10e6),
    ] {
        let parsed: Selector = selector.parse()?;
        let (seconds, rows) = best(|| Ok(table.select(None, &parsed)))?;
        let found: usize = rows.iter().map(|run| run.len()).sum();
        bench.table.add(
            Row::new(format!("label match, series, {name}"), SERIES as f64 / seconds, Unit::PerSecond)
                .at_least(least)
                .scaled(&bench.ceilings()?, Ceiling::ScatterAdd)
                .note(format!("{selector}: {found} of {SERIES}")),
        );
    }
    Ok(())
}
