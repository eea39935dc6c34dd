//! What may be run: one SELECT that reads the four tables. Decided on the parsed statement, before anything is planned.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    Query, Select, SetExpr, Statement as Ast, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

mod growth;

use super::profile_tables::Kind;
use super::{STATEMENT_BYTES_MAX, message, stacks};
use crate::error::Error;

/// Most operators and keywords of a statement. A chain such as `1+1+…` parses to a tree as deep as it is long, which
/// the parser's own bound on nesting does not see, and on which whatever walks the tree would overflow its stack: a
/// chain of this many needs some 4 MiB of it without optimisation.
const OPERATORS_MAX: usize = 500;

/// Most tables that a statement reads, WITH queries counted as often as they are named.
const READS_MAX: usize = 200;

/// Parses a statement and refuses everything but one SELECT over the four tables.
///
/// Errors: [`Error::Sql`] where it cannot be read, [`Error::SqlRefused`] naming what is not allowed.
pub(crate) fn check(sql: &str) -> Result<Statement, Error> {
    if sql.len() > STATEMENT_BYTES_MAX {
        let message =
            format!("the statement has {} bytes, at most {STATEMENT_BYTES_MAX} are allowed", sql.len());
        return Err(Error::Sql { message });
    }
    let operators = operators(sql);
    if operators > OPERATORS_MAX {
        let message = format!(
            "the statement has {operators} operators and keywords, at most {OPERATORS_MAX} are allowed"
        );
        return Err(Error::Sql { message });
    }
    let unreadable = |error| Error::Sql { message: message(&error) };
    let mut statements = DFParser::parse_sql(sql).map_err(unreadable)?;
    let statement = match (statements.pop_front(), statements.len()) {
        (None, _) => return Err(Error::Sql { message: "the statement is empty".to_owned() }),
        (Some(statement), 0) => statement,
        (Some(_), more) => return refuse(format!("more than one statement ({})", more + 1)),
    };
    let ast = match &statement {
        Statement::Statement(ast) if matches!(**ast, Ast::Query(_)) => ast,
        other => return refuse(first_word(&other.to_string())),
    };
    if let ControlFlow::Break(what) = ast.visit(&mut OnlySelect::default()) {
        return refuse(what);
    }
    if let Ast::Query(query) = &**ast {
        growth::check(query)?;
    }
    let (tables, _) = resolve_table_references(&statement, true).map_err(unreadable)?;
    match tables.iter().find(|table| !is_ours(table)) {
        Some(other) => refuse(format!("table {other}")),
        None => Ok(statement),
    }
}

/// Tokens that can make the parsed tree deeper: all but names, constants, commas and parentheses, whose nesting the
/// parser bounds. None where the statement cannot be read, which the parser will say better.
fn operators(sql: &str) -> usize {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let deepens = |token: &&Token| match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Whitespace(_) | Token::Comma | Token::LParen | Token::RParen | Token::Number(..) => false,
        Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) | Token::EOF => false,
        _ => true,
    };
    tokens.iter().filter(deepens).count()
}

fn refuse<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::SqlRefused { what: what.into() })
}

fn first_word(statement: &str) -> String {
    statement.split_whitespace().next().unwrap_or_default().to_owned()
}

fn is_ours(table: &TableReference) -> bool {
    let names = [Kind::Series.name(), Kind::Profiles.name(), Kind::Samples.name(), stacks::NAME];
    matches!(table, TableReference::Bare { table } if names.contains(&&**table))
}

/// Looks at every query and subquery, and counts the tables that they read when every WITH query is written out as
/// often as it is named: the planner does that, and a few hundred bytes can make it go on for ever.
#[derive(Default)]
struct OnlySelect {
    /// The names of WITH queries, by where these stand in the tree.
    named: HashMap<*const Query, String>,
    /// What they read, by name; the most where a name is given twice.
    reads: HashMap<String, usize>,
    /// What the queries around the current place have read so far, outermost first.
    open: Vec<usize>,
}

impl OnlySelect {
    fn read(&mut self, tables: usize) {
        if let Some(reads) = self.open.last_mut() {
            *reads = reads.saturating_add(tables);
        }
    }
}

impl Visitor for OnlySelect {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return ControlFlow::Break("WITH RECURSIVE".to_owned());
        }
        if !query.locks.is_empty() {
            return ControlFlow::Break("FOR UPDATE".to_owned());
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.named.insert(&raw const *cte.query, cte.alias.name.value.to_lowercase());
        }
        self.open.push(0);
        reads_only(&query.body)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let reads = self.open.pop().unwrap_or_default();
        if reads > READS_MAX {
            return ControlFlow::Break(format!("reading tables more than {READS_MAX} times"));
        }
        match self.named.remove(&(&raw const *query)) {
            Some(name) => {
                let most = self.reads.entry(name).or_default();
                // What reads no table is still written out.
                *most = reads.max(1).max(*most);
            }
            None => self.read(reads),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        match select.into {
            Some(_) => ControlFlow::Break("SELECT INTO".to_owned()),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        match factor {
            TableFactor::Table { args: None, name, .. } => {
                let ident = name.0.last().and_then(|part| part.as_ident());
                let tables = ident.and_then(|ident| self.reads.get(&ident.value.to_lowercase())).copied();
                self.read(tables.unwrap_or(1));
                ControlFlow::Continue(())
            }
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => {
                ControlFlow::Continue(())
            }
            other => ControlFlow::Break(format!("table function {other}")),
        }
    }
}

fn reads_only(body: &SetExpr) -> ControlFlow<String> {
    match body {
        // Inner queries are visited by themselves; the parser bounds how deep set operations nest.
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {
            ControlFlow::Continue(())
        }
        SetExpr::SetOperation { left, right, .. } => {
            reads_only(left)?;
            reads_only(right)
        }
        SetExpr::Insert(inner) | SetExpr::Update(inner) | SetExpr::Delete(inner) | SetExpr::Merge(inner) => {
            ControlFlow::Break(first_word(&inner.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_select_over_the_four_tables() {
        let allowed = [
            "SELECT 1",
            "select * from samples",
            "SELECT pod, sum(value) FROM \"samples\" GROUP BY pod ORDER BY 2 DESC LIMIT 3",
            "WITH s AS (SELECT * FROM stacks) SELECT * FROM s JOIN samples USING (stack_id)",
            "SELECT * FROM profiles UNION ALL (SELECT * FROM profiles)",
            "SELECT (SELECT max(value) FROM profiles) FROM series",
            "SELECT unnest(functions) FROM stacks",
            "VALUES (1), (2)",
            "SELECT 1;",
        ];
        for sql in allowed {
            assert!(check(sql).is_ok(), "{sql}: {:?}", check(sql));
        }
        let refused = [
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
            ("RESET datafusion.execution.batch_size", "RESET"),
            ("SHOW TABLES", "SHOW"),
            ("EXPLAIN SELECT 1", "EXPLAIN"),
            ("EXPLAIN ANALYZE SELECT * FROM samples", "EXPLAIN"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("SELECT 1; SELECT 2", "more than one"),
            ("SELECT 1; DROP TABLE samples", "more than one"),
            ("SELECT * INTO t FROM samples", "SELECT INTO"),
            ("SELECT * FROM information_schema.tables", "table information_schema.tables"),
            ("SELECT * FROM datafusion.public.samples", "table datafusion.public.samples"),
            ("SELECT * FROM '/etc/passwd'", "table"),
            ("SELECT * FROM 'https://example.com/x.csv'", "table"),
            ("SELECT * FROM other", "table other"),
            ("SELECT * FROM \"Samples\"", "table"),
            ("SELECT 1 WHERE 1 IN (SELECT 1 FROM other)", "table other"),
            ("WITH s AS (SELECT * FROM other) SELECT * FROM s", "table other"),
            ("SELECT * FROM generate_series(1, 10)", "table function"),
            ("SELECT * FROM range(1, 1000000000)", "table function"),
            (
                "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT * FROM n",
                "WITH RECURSIVE",
            ),
            ("SELECT * FROM samples FOR UPDATE", "FOR UPDATE"),
            (
                "WITH a AS (SELECT * FROM samples, samples s), b AS (SELECT * FROM a, a x, a y, a z), \
                 c AS (SELECT * FROM b, B x, b y, b z, \"b\" w), d AS (SELECT * FROM c UNION SELECT * FROM c), \
                 e AS (SELECT 1 WHERE 1 IN (SELECT 1 FROM d) OR 1 IN (SELECT 1 FROM d)) SELECT * FROM e, e f",
                "reading tables more than 200 times",
            ),
        ];
        for (sql, named) in refused {
            match check(sql) {
                Err(Error::SqlRefused { what }) => assert!(what.contains(named), "{sql}: {what}"),
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn unreadable_statements_say_why() {
        let deep = format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500));
        let long = format!("SELECT '{}'", "x".repeat(STATEMENT_BYTES_MAX));
        let chain = format!("SELECT 1{}", "+1".repeat(OPERATORS_MAX));
        for sql in ["", ";", "SELEC 1", "SELECT 1 FROM WHERE 2", "SELECT 'open", &deep, &long, &chain] {
            let result = check(sql);
            assert!(matches!(result, Err(Error::Sql { .. })), "{:.40}: {result:?}", sql);
        }
    }
}
