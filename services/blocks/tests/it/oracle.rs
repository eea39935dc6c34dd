//! Every answer of a source, computed the slow way from the pushed profiles.

use std::collections::{BTreeMap, BTreeSet};

use cambium_blocks::series_table::{RowSet, SeriesTable};
use cambium_blocks::source::{Pick, SampleScan, TreeScan};
use cambium_blocks::tree::{MEAN_SCALE, PartialTree, Tree};
use cambium_blocks::{Error, Source};
use cambium_model::labels::Labels;
use cambium_model::profile::{Profile, ProfileId, SampleLabels};
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::{LocationId, NO_PARENT};
use cambium_model::time::{TimeRange, bucket_start};
use futures::TryStreamExt;

type Path = Vec<LocationId>;
type SeriesKey = (ProfileType, Labels);
/// Type, labels, time, stack, sample labels and value of a sample.
type Sample = (SeriesKey, i64, Path, SampleLabels, i64);

/// One type of one pushed profile.
#[derive(Clone)]
struct Held {
    series: SeriesKey,
    id: ProfileId,
    time_ns: i64,
    duration_ns: i64,
    period: i64,
    samples: BTreeMap<(Path, SampleLabels), i64>,
}

pub struct Oracle {
    profiles: Vec<Held>,
}

impl Oracle {
    pub fn new(profiles: &[Profile]) -> Self {
        let types = |profile: &Profile| 0..profile.types.len();
        let held = profiles.iter().flat_map(|profile| types(profile).map(move |index| hold(profile, index)));
        Self { profiles: held.collect() }
    }

    fn series(&self) -> BTreeSet<SeriesKey> {
        self.profiles.iter().map(|profile| profile.series.clone()).collect()
    }

    /// Checks everything that the source answers about these series, which are of one type, and this range.
    pub async fn check(
        &self,
        source: &dyn Source,
        profile_type: &ProfileType,
        keep: impl Fn(&Labels) -> bool,
        range: TimeRange,
    ) {
        let table = source.series().await.unwrap();
        let keys: Vec<SeriesKey> = (0..table.len() as u32).map(|row| key(&table, row)).collect();
        assert_eq!(BTreeSet::from_iter(keys.iter().cloned()), self.series());
        assert_eq!(keys.len(), self.series().len());
        let mut rows = RowSet::new();
        for (row, (held, labels)) in (0..).zip(&keys) {
            let scope_labels = ["service_name".to_owned()];
            let scope = labels.scope(&scope_labels);
            let named = &table.scopes[table.scope_of[row as usize] as usize];
            assert_eq!((&*named.label, &*named.value), (scope.label, scope.value));
            assert_eq!(table.fingerprints[row as usize], labels.fingerprint());
            if held == profile_type && keep(labels) {
                match rows.last_mut() {
                    Some(run) if run.end == row => run.end += 1,
                    _ => rows.push(row..row + 1),
                }
            }
        }
        let of_row = |row: u32| -> Vec<&Held> {
            let mut found: Vec<&Held> = self
                .profiles
                .iter()
                .filter(|held| held.series == keys[row as usize] && range.contains(held.time_ns))
                .collect();
            found.sort_by_key(|held| (held.time_ns, held.id));
            found
        };
        let wanted: Vec<(u32, Vec<&Held>)> =
            rows.iter().cloned().flatten().map(|row| (row, of_row(row))).collect();
        self.check_profiles(source, &rows, range, &wanted).await;
        if !source.is_downsampled() {
            self.check_samples(source, &rows, range, &wanted, &table).await;
            return self.check_trees(source, &rows, range, &wanted).await;
        }
        let scan = SampleScan { rows: rows.clone(), range, at: None };
        assert!(matches!(source.samples(&scan).await.err(), Some(Error::Downsampled { .. })));
        // A profile counts in a tree where its bucket begins in the range, and before its last instant.
        let is_begun = |held: &&Held| {
            let start_ns = bucket_start(held.time_ns);
            range.start_ns <= start_ns && start_ns < range.end_ns.saturating_sub(1)
        };
        let of_row = |row: u32| {
            let of_series = self.profiles.iter().filter(|held| held.series == keys[row as usize]);
            (row, of_series.filter(is_begun).collect())
        };
        let wanted: Vec<(u32, Vec<&Held>)> = rows.iter().cloned().flatten().map(of_row).collect();
        self.check_sums(source, &rows, range, &wanted).await;
    }

    async fn check_profiles(
        &self,
        source: &dyn Source,
        rows: &RowSet,
        range: TimeRange,
        wanted: &[(u32, Vec<&Held>)],
    ) {
        let profiles = source.profiles(rows, range).await.unwrap();
        let expected: Vec<_> = wanted
            .iter()
            .flat_map(|(row, held)| held.iter().map(move |held| (*row, *held)))
            .map(|(row, held)| {
                (
                    row,
                    held.time_ns,
                    held.duration_ns,
                    held.period,
                    held.total(),
                    held.samples.len() as u32,
                    held.id,
                )
            })
            .collect();
        let ids = if profiles.ids.is_empty() {
            expected.iter().map(|row| row.6).collect()
        } else {
            profiles.ids.clone()
        };
        let got: Vec<_> = (0..profiles.series.len())
            .map(|i| {
                (
                    profiles.series[i],
                    profiles.time_ns[i],
                    profiles.duration_ns[i],
                    profiles.period[i],
                    profiles.total[i],
                    profiles.samples[i],
                    ids[i],
                )
            })
            .collect();
        assert_eq!(got, expected);
    }

    async fn check_samples(
        &self,
        source: &dyn Source,
        rows: &RowSet,
        range: TimeRange,
        wanted: &[(u32, Vec<&Held>)],
        table: &SeriesTable,
    ) {
        let scan = SampleScan { rows: rows.clone(), range, at: None };
        self.check_scan(source, &scan, wanted, table).await;
        let newest: Vec<(u32, Vec<&Held>)> =
            wanted.iter().map(|(row, held)| (*row, held.last().copied().into_iter().collect())).collect();
        let times = newest.iter().map(|(_, held)| held.first().map(|held| held.time_ns)).collect();
        self.check_scan(source, &SampleScan { at: Some(times), ..scan }, &newest, table).await;
    }

    async fn check_scan(
        &self,
        source: &dyn Source,
        scan: &SampleScan,
        wanted: &[(u32, Vec<&Held>)],
        table: &SeriesTable,
    ) {
        let batches: Vec<_> = source.samples(scan).await.unwrap().try_collect().await.unwrap();
        let tree = source.stack_tree().await.unwrap();
        let label_sets = source.sample_labels().await.unwrap();
        let mut got: Vec<Sample> = Vec::new();
        for batch in batches {
            let labelled = !batch.label_sets.is_empty();
            for i in 0..batch.nodes.len() {
                let labels = if labelled {
                    label_sets[batch.label_sets[i] as usize].clone()
                } else {
                    SampleLabels::new()
                };
                got.push((
                    key(table, batch.series[i]),
                    batch.time_ns[i],
                    path(&tree, batch.nodes[i]),
                    labels,
                    batch.values[i],
                ));
            }
        }
        let mut expected: Vec<Sample> = Vec::new();
        for held in wanted.iter().flat_map(|(_, held)| held) {
            for ((path, labels), value) in &held.samples {
                expected.push((held.series.clone(), held.time_ns, path.clone(), labels.clone(), *value));
            }
        }
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
    }

    async fn check_sums(
        &self,
        source: &dyn Source,
        rows: &RowSet,
        range: TimeRange,
        wanted: &[(u32, Vec<&Held>)],
    ) {
        let tree = async |pick| {
            let scan = TreeScan { rows: rows.clone(), range, pick };
            by_path(&source.tree(&scan).await.unwrap())
        };
        let mut sums = BTreeMap::new();
        wanted.iter().flat_map(|(_, held)| held).for_each(|held| held.add_to(&mut sums));
        assert_eq!(tree(Pick::Sum).await, without_zeros(sums), "sum");

        // As if every other series had as many profiles elsewhere, and every third were left out.
        let counts: Vec<u32> =
            (0..).zip(wanted).map(|(i, (_, held))| held.len() as u32 * (i % 3) * (1 + i % 2)).collect();
        let mut means = BTreeMap::new();
        for ((_, held), count) in wanted.iter().zip(&counts).filter(|(_, count)| **count > 0) {
            let mut of_series = BTreeMap::new();
            held.iter().for_each(|held| held.add_to(&mut of_series));
            for (path, sum) in of_series {
                let exact = (sum * MEAN_SCALE) as f64 / f64::from(*count);
                *means.entry(path).or_default() += exact.round() as i64;
            }
        }
        assert_eq!(tree(Pick::Mean(counts)).await, without_zeros(means), "mean");
    }

    async fn check_trees(
        &self,
        source: &dyn Source,
        rows: &RowSet,
        range: TimeRange,
        wanted: &[(u32, Vec<&Held>)],
    ) {
        self.check_sums(source, rows, range, wanted).await;
        let tree = async |pick| {
            let scan = TreeScan { rows: rows.clone(), range, pick };
            by_path(&source.tree(&scan).await.unwrap())
        };
        let last: Vec<Option<i64>> = (0..)
            .zip(wanted)
            .map(|(i, (_, held))| held.last().filter(|_| i % 4 != 3).map(|held| held.time_ns))
            .collect();
        let mut newest = BTreeMap::new();
        for (time, (_, held)) in last.iter().zip(wanted) {
            if let (Some(_), Some(held)) = (time, held.last()) {
                held.add_to(&mut newest);
            }
        }
        assert_eq!(tree(Pick::At(last)).await, without_zeros(newest), "at");
    }
}

impl Held {
    fn total(&self) -> i64 {
        self.samples.values().sum()
    }

    fn add_to(&self, sums: &mut BTreeMap<Path, i64>) {
        for ((path, _), value) in &self.samples {
            *sums.entry(path.clone()).or_default() += value;
        }
    }
}

fn hold(profile: &Profile, index: usize) -> Held {
    let mut samples: BTreeMap<(Path, SampleLabels), i64> = BTreeMap::new();
    for (sample, value) in profile.column(index).iter().enumerate() {
        let mut path = Path::new();
        let mut node = profile.sample_nodes[sample];
        while node != NO_PARENT {
            path.push(profile.locations[profile.nodes[node as usize].location as usize]);
            node = profile.nodes[node as usize].parent;
        }
        let set = profile.sample_label_sets.get(sample);
        let labels = set.map_or_else(SampleLabels::new, |set| profile.label_sets[*set as usize].clone());
        *samples.entry((path, labels)).or_default() += value;
    }
    samples.retain(|_, value| *value != 0);
    Held {
        series: (profile.types[index].clone(), profile.labels.clone()),
        id: profile.id,
        time_ns: profile.time_ns,
        duration_ns: profile.duration_ns,
        period: profile.period,
        samples,
    }
}

fn key(table: &SeriesTable, row: u32) -> SeriesKey {
    (table.types[table.type_of[row as usize] as usize].clone(), table.labels(row))
}

/// The locations from a node to the root.
fn path(tree: &Tree, mut node: u32) -> Path {
    let mut path = Path::new();
    while tree.nodes[node as usize].parent != NO_PARENT {
        path.push(tree.locations[tree.nodes[node as usize].location as usize]);
        node = tree.nodes[node as usize].parent;
    }
    path
}

/// Sums that are not 0, scopes folded into one.
fn by_path(partial: &PartialTree) -> BTreeMap<Path, i64> {
    assert_eq!(partial.self_values.len(), partial.tree.len());
    let mut sums = BTreeMap::new();
    for (node, value) in (0..).zip(&partial.self_values).filter(|(_, value)| **value != 0) {
        *sums.entry(path(&partial.tree, node)).or_default() += value;
    }
    without_zeros(sums)
}

fn without_zeros(mut sums: BTreeMap<Path, i64>) -> BTreeMap<Path, i64> {
    sums.retain(|_, value| *value != 0);
    sums
}
