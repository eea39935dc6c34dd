use std::collections::BTreeMap;

use cambium_blocks::testing::tenant;
use cambium_model::labels::Labels;
use proptest::prelude::*;

use super::super::oracle::{self, START_NS, Single, block_on, by_part, bys, queries, worlds};
use super::*;

/// The value of some profiles of one step: of each series, then summed.
fn value(profiles: &[&Single], aggregation: Aggregation) -> Option<f64> {
    let mut series: BTreeMap<u64, Vec<&Single>> = BTreeMap::new();
    for one in profiles {
        series.entry(one.labels.fingerprint()).or_default().push(one);
    }
    let of_series = |profiles: &Vec<&Single>| -> f64 {
        let total: i64 = profiles.iter().map(|one| one.total()).sum();
        let last = profiles.iter().max_by_key(|one| (one.time_ns, one.id));
        match aggregation {
            Aggregation::Sum => total as f64,
            Aggregation::Avg => total as f64 / profiles.len() as f64,
            Aggregation::Last => last.map_or(0, |one| one.total()) as f64,
        }
    };
    (!series.is_empty()).then(|| series.values().map(of_series).sum())
}

fn asked(start_ns: i64, end_ns: i64, step_ns: i64) -> RangeQuery {
    RangeQuery {
        tenant: tenant(1),
        query: "memory:alloc_space:bytes:space:bytes".parse().unwrap(),
        start_ns,
        end_ns,
        step_ns,
        by: vec![],
        aggregation: Aggregation::Sum,
        per_second: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn points_equal_the_naive_ones(
        world in worlds(), query in queries(), by in bys(), per_second in any::<bool>(),
        start in -30..130_i64, length in -5..160_i64, step in 1..50_i64,
        aggregation in prop::sample::select(vec![Aggregation::Sum, Aggregation::Avg, Aggregation::Last]),
    ) {
        let (start_ns, step_ns) = (START_NS + start * SECOND_NS, step * SECOND_NS);
        let query = RangeQuery {
            query,
            by: by.clone(),
            aggregation,
            per_second,
            ..asked(start_ns, start_ns + length * SECOND_NS, step_ns)
        };
        let steps = Steps::of(&query).unwrap();
        let matrix = block_on(range(&oracle::env(), &world.sources(), &query, steps)).unwrap();
        let mut got: BTreeMap<Vec<(String, String)>, Vec<Point>> = BTreeMap::new();
        let key = |labels: &Labels| {
            labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        for series in matrix.series {
            prop_assert!(!series.points.is_empty());
            got.insert(key(&series.labels), series.points);
        }
        let selected = world.selected(&query.query, TimeRange::ALL);
        let mut time_ns = start_ns;
        while time_ns <= query.end_ns {
            let mut groups: BTreeMap<Vec<(String, String)>, Vec<&Single>> = BTreeMap::new();
            for one in selected.iter().filter(|one| time_ns - step_ns < one.time_ns && one.time_ns <= time_ns) {
                groups.entry(key(&by_part(&one.labels, &by))).or_default().push(one);
            }
            for (labels, profiles) in &groups {
                let mut expected = value(profiles, aggregation).unwrap();
                if per_second {
                    expected /= step as f64;
                }
                let points = got.get_mut(labels).expect("a group with profiles has points");
                let point = points.remove(0);
                prop_assert_eq!(point.time_ns, time_ns);
                prop_assert!((point.value - expected).abs() <= expected.abs() * 1e-12, "{point:?} {expected}");
            }
            time_ns += step_ns;
        }
        prop_assert!(got.values().all(Vec::is_empty), "too many points: {:?}", got);
    }
}

#[test]
fn points_are_bounded_and_steps_go_forward() {
    let cases = [
        (0, POINTS_MAX - 1, 1, Ok(POINTS_MAX)),
        (0, POINTS_MAX, 1, Err("at most 11000")),
        (i64::MIN, i64::MAX, 1, Err("at most 11000")),
        (0, 0, 10, Ok(1)),
        (0, 9, 10, Ok(1)),
        (0, 10, 10, Ok(2)),
        (5, 4, 10, Ok(0)),
        (0, 10, 0, Err("must be positive")),
        (0, 10, -1, Err("must be positive")),
    ];
    for (start_ns, end_ns, step_ns, expected) in cases {
        match (Steps::of(&asked(start_ns, end_ns, step_ns)), expected) {
            (Ok(steps), Ok(count)) => assert_eq!(steps.count, count),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{start_ns} {end_ns} {step_ns}: {got:?}"),
        }
    }
}

#[test]
fn a_point_covers_the_step_before_it_and_itself() {
    let steps = Steps::of(&asked(100, 130, 10)).unwrap();
    assert_eq!(steps.range(), TimeRange::new(91, 131));
    let indexes = [91, 99, 100, 101, 110, 111, 130].map(|time_ns| steps.index(time_ns));
    assert_eq!(indexes, [0, 0, 0, 1, 1, 2, 3]);
}
