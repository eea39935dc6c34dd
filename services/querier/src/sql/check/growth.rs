//! How large a value can become: a WITH query whose value is twice that of the one before doubles with each, and forty of
//! them are a few hundred bytes. No operator's account of memory sees a value that is being made.
//!
//! Counted are the columns and constants that an expression is made of once every query that it reads from is written
//! out. Functions whose results are more than the sum of their arguments do not exist in the session, but for one that
//! repeats what it puts between the elements of a list: that must be a constant.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Select, SelectItem, SetExpr,
    TableFactor, TableWithJoins, Visit, Visitor,
};

use crate::error::Error;

/// Most columns and constants of one expression, written out.
const LEAVES_MAX: u64 = 1_000;

/// Refuses a query in which a value could grow too much.
///
/// Errors: [`Error::SqlRefused`].
pub(super) fn check(query: &Query) -> Result<(), Error> {
    let mut growth = Growth::default();
    growth.query(query, &HashMap::new());
    if growth.greatest > LEAVES_MAX {
        let what = format!("an expression of more than {LEAVES_MAX} columns and constants, written out,");
        return Err(Error::SqlRefused { what });
    }
    Ok(())
}

/// The leaves of the largest value of each query that can be named.
type Named = HashMap<String, u64>;

#[derive(Default)]
struct Growth {
    /// The leaves of the largest expression so far.
    greatest: u64,
}

impl Growth {
    /// The leaves of the query's largest value.
    fn query(&mut self, query: &Query, outer: &Named) -> u64 {
        let mut named = outer.clone();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let leaves = self.query(&cte.query, &named);
            named.insert(cte.alias.name.value.to_lowercase(), leaves);
        }
        self.body(&query.body, &named)
    }

    fn body(&mut self, body: &SetExpr, named: &Named) -> u64 {
        match body {
            SetExpr::Select(select) => self.select(select, named),
            SetExpr::Query(query) => self.query(query, named),
            SetExpr::SetOperation { left, right, .. } => self.body(left, named).max(self.body(right, named)),
            SetExpr::Values(values) => {
                let all = values.rows.iter().flat_map(|row| row.iter());
                all.map(|value| self.expression(value, 1, named)).max().unwrap_or(1)
            }
            _ => 1,
        }
    }

    fn select(&mut self, select: &Select, named: &Named) -> u64 {
        let from = select.from.iter().map(|table| self.tables(table, named)).max().unwrap_or(1);
        let filters = [&select.selection, &select.having, &select.qualify, &select.prewhere];
        for filter in filters.into_iter().flatten() {
            self.expression(filter, from, named);
        }
        let items = select.projection.iter().map(|item| match item {
            SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => {
                self.expression(value, from, named)
            }
            _ => from,
        });
        items.max().unwrap_or(1)
    }

    fn tables(&mut self, table: &TableWithJoins, named: &Named) -> u64 {
        let joined = table.joins.iter().map(|join| &join.relation);
        [&table.relation].into_iter().chain(joined).map(|factor| self.table(factor, named)).max().unwrap_or(1)
    }

    fn table(&mut self, factor: &TableFactor, named: &Named) -> u64 {
        match factor {
            TableFactor::Table { name, .. } => {
                let ident = name.0.last().and_then(|part| part.as_ident());
                ident.and_then(|ident| named.get(&ident.value.to_lowercase())).copied().unwrap_or(1)
            }
            TableFactor::Derived { subquery, .. } => self.query(subquery, named),
            TableFactor::NestedJoin { table_with_joins, .. } => self.tables(table_with_joins, named),
            _ => 1,
        }
    }

    /// The leaves of an expression over tables whose largest value has so many.
    fn expression(&mut self, value: &Expr, from: u64, named: &Named) -> u64 {
        // A query inside may read whatever has a name.
        let inside = named.values().copied().max().unwrap_or(1).max(from);
        let mut leaves = Leaves { from, inside, queries: 0, count: 0 };
        let _: ControlFlow<()> = value.visit(&mut leaves);
        self.greatest = self.greatest.max(leaves.count);
        leaves.count.max(1)
    }
}

/// Counts leaves.
struct Leaves {
    from: u64,
    inside: u64,
    /// Queries around the current place.
    queries: usize,
    count: u64,
}

impl Visitor for Leaves {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        let leaves = match expression {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if self.queries > 0 => self.inside,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.from,
            Expr::Value(_) => 1,
            Expr::Function(function) if !repeats_a_constant(function) => u64::MAX,
            _ => 0,
        };
        self.count = self.count.saturating_add(leaves);
        ControlFlow::Continue(())
    }
}

/// Whether the function puts a constant between the elements of a list, or nothing.
fn repeats_a_constant(function: &Function) -> bool {
    let name = function.name.to_string().to_lowercase();
    if !["array_to_string", "array_join", "list_to_string", "list_join"].contains(&name.trim_matches('"')) {
        return true;
    }
    let FunctionArguments::List(list) = &function.args else { return false };
    let constant = |argument: &FunctionArg| {
        matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(_))))
    };
    list.args.iter().skip(1).all(constant)
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use crate::error::Error;

    fn doubling(levels: usize, step: &str) -> String {
        let steps: String = (1..=levels)
            .map(|level| format!(", t{level} AS (SELECT {step} AS s FROM t{})", level - 1))
            .collect();
        format!("WITH t0 AS (SELECT 'x' AS s){steps} SELECT length(s) FROM t{levels}")
    }

    #[test]
    fn values_do_not_grow_without_bound() {
        let nested = |levels: usize| {
            let inner = (0..levels).fold("SELECT 'x' AS s".to_owned(), |inner, level| {
                format!("SELECT s || s AS s FROM ({inner}) AS t{level}")
            });
            format!("SELECT length(s) FROM ({inner}) AS t")
        };
        let refused = [
            doubling(10, "s || s"),
            doubling(10, "concat(s, s)"),
            doubling(5, "concat(s, s, s, s)"),
            doubling(10, "(SELECT s || s FROM t0)"),
            nested(10),
            format!("SELECT concat({}'a')", "'a',".repeat(1_000)),
            doubling(1, "array_to_string(['', '', ''], s)"),
            doubling(1, "\"array_to_string\"(['', '', ''], s)"),
        ];
        for sql in refused {
            let result = check(&sql);
            assert!(
                matches!(&result, Err(Error::SqlRefused { what }) if what.contains("1000 columns")),
                "{sql}"
            );
        }
        let allowed = [
            doubling(9, "s || s"),
            doubling(40, "upper(s)"),
            "SELECT array_to_string(functions, ';') FROM stacks".to_owned(),
            nested(9),
            "WITH a AS (SELECT pod, sum(value) AS n FROM samples GROUP BY pod), \
             b AS (SELECT pod, n, CASE WHEN n > 5 THEN n * 2 ELSE n + 1 END AS m FROM a) \
             SELECT pod, sum(n) + sum(m) / max(m) FROM b WHERE m > (SELECT avg(m) FROM b) GROUP BY pod"
                .to_owned(),
        ];
        for sql in allowed {
            assert!(check(&sql).is_ok(), "{sql}");
        }
    }
}
