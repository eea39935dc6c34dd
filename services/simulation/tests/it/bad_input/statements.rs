//! SQL that is refused: whatever is not one SELECT over the four tables, and what cannot be computed.

use cambium_simulation::Sandbox;

use super::{Case, assert_unharmed, sql};
use crate::BINARY;

/// Longest statement that the server takes, bytes.
const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// Most memory of a server whose queries may reserve 64 MiB.
const PEAK_BYTES_MAX: u64 = 1 << 30;

/// Every refused statement.
pub fn cases() -> Vec<Case> {
    let forbidden = FORBIDDEN.iter().map(|(statement, named)| {
        sql(
            statement,
            400,
            &format!("{named} is not allowed, only one SELECT over samples, profiles, series and stacks is"),
        )
    });
    let unreadable = UNREADABLE.iter().map(|(statement, message)| sql(statement, 400, message));
    let long = format!("SELECT '{}'", "x".repeat(STATEMENT_BYTES_MAX));
    let deep = format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500));
    let sized = [
        sql(&doubling(40), 400, "sql: reading tables more than 200 times is not allowed"),
        sql(
            &format!("SELECT 1{}", "+1".repeat(501)),
            400,
            "sql: the statement has 502 operators and keywords, at most 500",
        ),
        sql(&long, 400, "sql: the statement has 65545 bytes, at most 65536 are allowed"),
        sql(&deep, 400, "sql: SQL error: RecursionLimitExceeded"),
    ];
    forbidden.chain(unreadable).chain(sized).collect()
}

/// What the message calls each of them.
const FORBIDDEN: &[(&str, &str)] = &[
    ("INSERT INTO samples VALUES (1)", "INSERT"),
    ("DELETE FROM samples", "DELETE"),
    ("UPDATE samples SET value = 1", "UPDATE"),
    ("TRUNCATE TABLE samples", "TRUNCATE"),
    ("CREATE TABLE t AS SELECT 1", "CREATE"),
    ("CREATE VIEW v AS SELECT 1", "CREATE"),
    ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "CREATE"),
    ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE"),
    ("DROP TABLE samples", "DROP"),
    ("COPY samples TO '/tmp/x'", "COPY"),
    ("COPY (SELECT 1) TO 's3://b/x' STORED AS PARQUET", "COPY"),
    ("SET datafusion.execution.batch_size = 1", "SET"),
    ("SHOW TABLES", "SHOW"),
    ("EXPLAIN SELECT 1", "EXPLAIN"),
    ("PREPARE p AS SELECT 1", "PREPARE"),
    ("SELECT 1; SELECT 2", "more than one statement (2)"),
    ("SELECT 1; DROP TABLE samples", "more than one statement (2)"),
    ("SELECT * INTO t FROM samples", "SELECT INTO"),
    ("SELECT * FROM information_schema.tables", "table information_schema.tables"),
    ("SELECT * FROM datafusion.public.samples", "table datafusion.public.samples"),
    ("SELECT * FROM '/etc/passwd'", "table /etc/passwd"),
    ("SELECT * FROM 'https://example.com/x.csv'", "table https://example.com/x.csv"),
    ("SELECT * FROM other", "table other"),
    ("SELECT 1 WHERE 1 IN (SELECT 1 FROM other)", "table other"),
    ("WITH s AS (SELECT * FROM other) SELECT * FROM s", "table other"),
    ("SELECT * FROM generate_series(1, 10)", "table function generate_series(1, 10)"),
    ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT * FROM n", "WITH RECURSIVE"),
    ("SELECT * FROM samples FOR UPDATE", "FOR UPDATE"),
];

const UNREADABLE: &[(&str, &str)] = &[
    ("", "sql: the statement is empty"),
    (";", "sql: the statement is empty"),
    ("SELEC 1", "sql: "),
    ("SELECT FROM WHERE", "sql: "),
    ("SELECT 'open", "sql: "),
    ("SELECT nothing FROM samples", "nothing"),
    ("SELECT nothing(value) FROM samples", "nothing"),
    ("SELECT 1 / 0", "sql: "),
    ("SELECT CAST('x' AS INT)", "sql: "),
    ("SELECT value + 'x' FROM samples", "sql: "),
    ("SELECT sum(sum(value)) FROM samples", "sql: "),
    ("SELECT * FROM samples JOIN samples USING (nothing)", "sql: "),
];

/// Pieces that make a tree as deep as they are many: start, piece, end.
const CHAINS: &[(&str, &str, &str)] = &[
    ("SELECT 1", "+1", ""),
    ("SELECT * FROM samples WHERE value=1", " OR value=2", ""),
    ("SELECT 1 WHERE true", " AND true", ""),
    ("SELECT ''", "||'a'", ""),
    ("SELECT 1", ",1", ""),
    ("SELECT 1 WHERE 1 IN (1", ",2", ")"),
    ("SELECT ", "- ", "1"),
    ("SELECT ", "NOT ", "true"),
    ("SELECT 1", " UNION ALL SELECT 1", ""),
    ("SELECT 1", " INTERSECT SELECT 1", ""),
    ("VALUES (1)", ",(1)", ""),
    ("SELECT 1", "::int", ""),
    ("SELECT functions", "[1]", " FROM stacks"),
    ("SELECT true", " BETWEEN true AND true", ""),
    ("SELECT 1", " IS NULL", ""),
    ("SELECT a", ".a", ""),
    ("SELECT 1 FROM samples", ",samples", ""),
];

/// What opens, what stands inside, what closes.
const NESTS: &[(&str, &str, &str)] = &[
    ("SELECT * FROM (", "SELECT 1", ") AS t"),
    ("SELECT (", "SELECT 1", ")"),
    ("SELECT [", "1", "]"),
    ("SELECT abs((", "SELECT 1", "))"),
];

/// Statements that grow in the parser, in the planner or at run time. Each may be computed or refused; none may take
/// the server down.
fn bombs() -> Vec<String> {
    let mut bombs = vec![
        "SELECT repeat('x', 2000000000)".to_owned(),
        "SELECT lpad('x', 2000000000, 'y')".to_owned(),
        "SELECT array_repeat(1, 2000000000)".to_owned(),
        doubling(40),
        growing(40, "s || s"),
        growing(9, "s || s"),
        growing(40, "concat(s, s)"),
        growing(40, "replace(s, 'x', 'xx')"),
        growing(40, "array_to_string(['', '', ''], s)"),
        growing(40, "encode(s, 'hex')"),
        growing(40, "array_to_string(array_replace_all(['a', 'a'], 'a', s), '')"),
    ];
    for (start, piece, end) in CHAINS {
        let most = (STATEMENT_BYTES_MAX - start.len() - end.len()) / piece.len();
        // As many as fit, and fewer, which may be let through.
        for count in [most, 490, 240, 160] {
            bombs.push(format!("{start}{}{end}", piece.repeat(count.min(most))));
        }
    }
    for (open, inner, close) in NESTS {
        bombs
            .extend([1_000, 45].map(|depth| format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))));
    }
    bombs
}

/// A few hundred bytes that name 2^2^levels rows.
fn doubling(levels: usize) -> String {
    let steps: String = (1..=levels)
        .map(|level| format!(", t{level} AS (SELECT a.x FROM t{0} a, t{0} b)", level - 1))
        .collect();
    format!("WITH t0 AS (SELECT 1 AS x UNION ALL SELECT 2){steps} SELECT count(x) FROM t{levels}")
}

/// A few hundred bytes that name a text of 2^levels bytes.
fn growing(levels: usize, step: &str) -> String {
    let steps: String =
        (1..=levels).map(|level| format!(", t{level} AS (SELECT {step} AS s FROM t{})", level - 1)).collect();
    format!("WITH t0 AS (SELECT 'x' AS s){steps} SELECT length(s) FROM t{levels}")
}

#[test]
fn no_statement_takes_the_server_down() {
    let sandbox = Sandbox::running(BINARY, &["--querier.timeout", "5s", "--querier.memory-max", "64MiB"]);
    for statement in bombs() {
        let answer = sql(&statement, 0, "").send(&sandbox.client());
        let refused = [400, 422, 504].contains(&answer.status);
        assert!(refused || answer.status == 200, "{statement:.80}: {} {:.200}", answer.status, answer.text());
        let peak_bytes = peak_bytes(sandbox.process_id());
        assert!(peak_bytes < PEAK_BYTES_MAX, "{statement:.80}: {peak_bytes} bytes at the peak");
    }
    assert_unharmed(&sandbox);
}

/// Most memory that a process has had, from the kernel; 0 where it does not say.
fn peak_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
}
