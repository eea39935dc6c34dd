use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, UInt32Type, UInt64Type};
use arrow::util::pretty::pretty_format_batches;
use cambium_blocks::testing::{Shape, random_profiles, tenant};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_model::stacktrace::{LocationId, PathHash};
use cambium_model::symbols::{Function, Line, Location};
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_runtime::clock::SystemClock;
use cambium_runtime::metrics::Metrics;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::displayable;

use super::*;
use crate::engine::oracle::{Single, World, block_on};

fn world() -> World {
    let profiles = random_profiles(7, &Shape::default());
    World { source_of: (0..profiles.len()).map(|index| index % 3).collect(), profiles }
}

fn symbols() -> Arc<Symbols> {
    let clock = Arc::new(SystemClock::new());
    Arc::new(Symbols::new(Arc::new(MemoryStore::new()), clock, &Default::default(), &Metrics::new()))
}

fn runtime(bytes: usize) -> Arc<RuntimeEnv> {
    RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes))).build_arc().unwrap()
}

fn ask(sql: &str, range: TimeRange, rows_max: u64) -> Result<SqlAnswer, Error> {
    let query = SqlQuery { tenant: tenant(1), sql: sql.to_owned(), range, rows_max };
    let stages = Stages::new(Arc::new(SystemClock::new()));
    let run =
        async { run(runtime(64 << 20), symbols(), &stages, &world().sources(), &query, check(sql)?).await };
    block_on(run)
}

/// The rows of an answer as text, one per line, cells apart by `|`.
fn rows(sql: &str) -> Vec<String> {
    rows_of(&ask(sql, TimeRange::ALL, 10_000).unwrap())
}

fn rows_of(answer: &SqlAnswer) -> Vec<String> {
    let table = pretty_format_batches(&answer.batches).unwrap().to_string();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|")).collect()
}

/// Some of the world's profiles, grouped and summed.
fn grouped(keep: impl Fn(&Single) -> bool, key: impl Fn(&Single) -> String) -> Vec<String> {
    let mut groups: BTreeMap<String, (i64, usize)> = BTreeMap::new();
    for one in world().singles().iter().filter(|one| keep(one)) {
        let (sum, count) = groups.entry(key(one)).or_default();
        *sum += one.total();
        *count += one.values.len();
    }
    groups.retain(|_, (_, count)| *count > 0);
    groups.into_iter().map(|(key, (sum, count))| format!("{key}|{sum}|{count}")).collect()
}

fn label(one: &Single, name: &str) -> String {
    one.labels.get(name).unwrap_or_default().to_owned()
}

#[test]
fn samples_sum_as_the_profiles_do() {
    let got = rows("SELECT pod, sum(value), count(*) FROM samples GROUP BY pod ORDER BY pod");
    assert_eq!(got, grouped(|_| true, |one| label(one, "pod")));
    let got = rows(
        "SELECT service_name, sum(value), count(*) FROM samples WHERE pod <> 'pod-0' AND zone = '' \
         AND profile_type LIKE 'memory:alloc%' GROUP BY service_name ORDER BY 1",
    );
    let keep = |one: &Single| {
        let of_type = one.profile_type.to_string().starts_with("memory:alloc");
        label(one, "pod") != "pod-0" && label(one, "zone").is_empty() && of_type
    };
    assert_eq!(got, grouped(keep, |one| label(one, "service_name")));
}

#[test]
fn ranges_bound_the_tables_and_times_filter_them() {
    let start_ns = Shape::default().start_ns;
    let range = TimeRange::new(start_ns + 500 * SECOND_NS, start_ns + 2_000 * SECOND_NS);
    let profiles =
        |range: TimeRange| world().singles().iter().filter(|one| range.contains(one.time_ns)).count();
    let count = |sql: &str| rows_of(&ask(sql, range, 10).unwrap())[0].parse::<usize>().unwrap();
    assert_eq!(count("SELECT count(*) FROM profiles"), profiles(range));
    let middle = start_ns + 1_000 * SECOND_NS;
    let text = "to_timestamp_nanos(1700001000000000000)";
    let later = TimeRange::new(middle, range.end_ns);
    assert_eq!(count(&format!("SELECT count(*) FROM profiles WHERE time >= {text}")), profiles(later));
    assert_eq!(
        count("SELECT count(*) FROM profiles WHERE time >= '2023-11-14T22:30:00'"),
        profiles(later),
        "the same instant"
    );
    assert_eq!(count("SELECT count(*) FROM profiles WHERE NOT time >= '2023-11-14T22:30:00'"), {
        profiles(TimeRange::new(range.start_ns, middle))
    });
    let series: BTreeSet<String> = world()
        .singles()
        .iter()
        .filter(|one| range.contains(one.time_ns))
        .map(|one| format!("{}{:?}", one.profile_type, one.labels))
        .collect();
    assert_eq!(count("SELECT count(*) FROM series"), series.len());
}

#[test]
fn profiles_have_their_own_columns() {
    let got = rows("SELECT sum(duration_ns), max(period), sum(value), sum(samples) FROM profiles");
    let singles = world().singles();
    let duration: i64 = singles.iter().map(|one| one.duration_ns).sum();
    let period = singles.iter().map(|one| one.period).max().unwrap();
    let total: i64 = singles.iter().map(Single::total).sum();
    let samples: usize = singles.iter().map(|one| one.values.len()).sum();
    assert_eq!(got, [format!("{duration}|{period}|{total}|{samples}")]);
    assert_eq!(rows("SELECT count(*) FROM samples WHERE sample_labels = 'thread=\"main\"'").len(), 1);
}

#[test]
fn stacks_are_named_and_join_samples() {
    let stages = Stages::new(Arc::new(SystemClock::new()));
    let symbols = symbols();
    let id = LocationId::named(1, 1);
    let line = |name: &str| Line {
        function: Function { name: name.into(), file: "main.go".into(), ..Function::default() },
        ..Line::default()
    };
    let location = Location { lines: vec![line("inlined"), line("outer")], ..Location::default() };
    let sql = "SELECT depth, leaf, root, functions, files, stacks.stack_id, sampled.stack_id IS NOT NULL \
               FROM stacks LEFT JOIN (SELECT DISTINCT stack_id FROM samples) AS sampled \
               ON stacks.stack_id = sampled.stack_id ORDER BY depth, stacks.stack_id";
    let query = SqlQuery { tenant: tenant(1), sql: sql.to_owned(), range: TimeRange::ALL, rows_max: 100_000 };
    let answer = block_on(async {
        symbols.write_missing(tenant(1).number, &[(id, location)]).await.unwrap();
        run(runtime(64 << 20), Arc::clone(&symbols), &stages, &world().sources(), &query, check(sql).unwrap())
            .await
    });
    let answer = answer.unwrap();
    let text = rows_of(&answer);
    assert!(text[0].starts_with("0|||[]|[]|"), "{}", text[0]);
    let wanted =
        format!("1|inlined|outer|[inlined, outer]|[main.go, main.go]|{}|", PathHash::ROOT.child(id).0);
    assert!(text.iter().any(|row| row.starts_with(&wanted)), "{wanted} {text:?}");
    let mut ids = BTreeSet::new();
    let mut sampled = 0;
    for batch in &answer.batches {
        ids.extend(batch.column(5).as_primitive::<UInt64Type>().values().iter().copied());
        assert!(batch.column(0).as_primitive::<UInt32Type>().values().iter().all(|depth| *depth <= 4));
        sampled += batch.column(6).as_boolean().true_count();
    }
    assert_eq!(ids.len(), text.len(), "each stack once");
    let paths: BTreeSet<_> =
        world().singles().into_iter().flat_map(|one| one.values.into_keys().map(|(path, _)| path)).collect();
    assert_eq!(sampled, paths.len());
}

#[test]
fn filters_on_labels_and_time_reach_the_scan() {
    let plan = |sql: &str| {
        block_on(async {
            let tables = Arc::new(Tables::open(&world().sources(), TimeRange::ALL).await.unwrap());
            let context = session(runtime(1 << 20));
            let table = ProfileTable::new(tables, Kind::Samples);
            context.register_table("samples", Arc::new(table)).unwrap();
            let frame = context.sql(sql).await.unwrap();
            displayable(&*frame.create_physical_plan().await.unwrap()).indent(false).to_string()
        })
    };
    let pushed = [
        "SELECT value FROM samples WHERE pod = 'pod-1'",
        "SELECT value FROM samples WHERE pod IN ('a', 'b') AND zone <> 'a' OR pod LIKE 'x%'",
        "SELECT value FROM samples WHERE profile_type = 'a:b:c:d:e' AND time < '2024-01-01'",
        "SELECT value FROM samples WHERE time BETWEEN '2023-01-01' AND '2024-01-01'",
        "SELECT value FROM samples WHERE regexp_like(pod, 'a.*')",
    ];
    for sql in pushed {
        assert!(!plan(sql).contains("FilterExec"), "{sql}\n{}", plan(sql));
    }
    for sql in [
        "SELECT pod FROM samples WHERE value > 3",
        "SELECT pod FROM samples WHERE pod = 'a' AND random() < 0.5",
    ] {
        assert!(plan(sql).contains("FilterExec"), "{sql}\n{}", plan(sql));
    }
}

#[test]
fn an_answer_is_bounded_and_an_error_says_why() {
    let all = ask("SELECT value FROM samples", TimeRange::ALL, 10_000).unwrap();
    let count: usize = all.batches.iter().map(|batch| batch.num_rows()).sum();
    assert!(ask("SELECT value FROM samples", TimeRange::ALL, count as u64).is_ok());
    let too_long = ask("SELECT value FROM samples", TimeRange::ALL, count as u64 - 1).unwrap_err();
    assert!(matches!(too_long, Error::SqlTooLarge { unit: "rows", .. }), "{too_long:?}");
    let cases = [
        ("SELECT nobody FROM samples", "nobody"),
        ("SELECT sum(pod, 1) FROM samples", "sum"),
        ("SELECT no_such_function(1)", "no_such_function"),
        ("SELECT 1 / (value - value) FROM samples", "ivide by zero"),
        ("SELECT * FROM samples WHERE value = 'x'", "x"),
    ];
    for (sql, part) in cases {
        match ask(sql, TimeRange::ALL, 10_000) {
            Err(Error::Sql { message }) => assert!(message.contains(part), "{sql}: {message}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn a_statement_without_memory_is_refused() {
    let sql = "SELECT a.value FROM samples a, samples b, samples c ORDER BY a.value + b.value + c.value";
    let query = SqlQuery { tenant: tenant(1), sql: sql.to_owned(), range: TimeRange::ALL, rows_max: 10 };
    let stages = Stages::new(Arc::new(SystemClock::new()));
    let run =
        async { run(runtime(4_096), symbols(), &stages, &world().sources(), &query, check(sql)?).await };
    let error = block_on(run).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error:?}");
}

#[test]
fn a_dropped_statement_stops() {
    let sql = "SELECT count(*) FROM samples a, samples b, samples c, samples d, samples e, samples f";
    let query = SqlQuery { tenant: tenant(1), sql: sql.to_owned(), range: TimeRange::ALL, rows_max: 10 };
    let stages = Stages::new(Arc::new(SystemClock::new()));
    // The runtime waits for its blocking threads when it ends: this returns only if the statement has stopped.
    block_on(async {
        let sources = world().sources();
        let mut running =
            Box::pin(run(runtime(64 << 20), symbols(), &stages, &sources, &query, check(sql).unwrap()));
        for _ in 0..100 {
            assert!(futures::poll!(&mut running).is_pending());
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn an_empty_world_has_empty_tables() {
    let stages = Stages::new(Arc::new(SystemClock::new()));
    for table in ["samples", "profiles", "series", "stacks"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let query = SqlQuery { tenant: tenant(1), sql: sql.clone(), range: TimeRange::ALL, rows_max: 10 };
        let sources = Sources::default();
        let statement = check(&sql).unwrap();
        let answer =
            block_on(run(runtime(1 << 20), symbols(), &stages, &sources, &query, statement)).unwrap();
        assert_eq!(answer.batches[0].column(0).as_primitive::<Int64Type>().value(0), 0);
    }
}
