//! Filters that a scan answers exactly: those on a series' columns become rows, comparisons with a time become a range.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use cambium_blocks::series_table::RowSet;
use cambium_model::time::TimeRange;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;

use super::tables::{SeriesColumn, TableSource, Tables};
use crate::engine::{push_row, run};

/// The column of times.
pub(super) const TIME: &str = "time";

/// What a filter asks of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// Only of the series: each row's answer is that of its series.
    Series,
    /// Only of the time.
    Time(TimeRange),
    /// Of something else.
    Other,
}

/// What the filter asks of, where `series` are the names of a series' columns.
pub(super) fn target(filter: &Expr, series: &[String]) -> Target {
    if let Some(range) = time_range(filter) {
        return Target::Time(range);
    }
    let columns = filter.column_refs();
    let of_series = !columns.is_empty() && columns.iter().all(|column| series.contains(&column.name));
    if of_series && !filter.is_volatile() && is_plain(filter) { Target::Series } else { Target::Other }
}

/// Whether the filter can be computed from a row alone.
fn is_plain(filter: &Expr) -> bool {
    let needs_more = |part: &Expr| {
        let needs_more = matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Unnest(_)
        );
        Ok(needs_more)
    };
    !filter.exists(needs_more).unwrap_or(true)
}

/// The instants for which a comparison of `time` with a constant holds.
fn time_range(filter: &Expr) -> Option<TimeRange> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Some(intersection(time_range(left)?, time_range(right)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
            (Expr::Column(column), value) if column.name == TIME => compared(*op, instant(value)?),
            (value, Expr::Column(column)) if column.name == TIME => compared(op.swap()?, instant(value)?),
            _ => None,
        },
        Expr::Between(between) => match &*between.expr {
            Expr::Column(column) if column.name == TIME && !between.negated => {
                let from = compared(Operator::GtEq, instant(&between.low)?)?;
                Some(intersection(from, compared(Operator::LtEq, instant(&between.high)?)?))
            }
            _ => None,
        },
        _ => None,
    }
}

fn instant(value: &Expr) -> Option<i64> {
    match value {
        Expr::Literal(ScalarValue::TimestampNanosecond(Some(time_ns), None), _) => Some(*time_ns),
        _ => None,
    }
}

/// Profiles have times before the last instant, so a half-open range can say everything.
fn compared(op: Operator, time_ns: i64) -> Option<TimeRange> {
    let after = time_ns.saturating_add(1);
    match op {
        Operator::Lt => Some(TimeRange::new(i64::MIN, time_ns)),
        Operator::LtEq => Some(TimeRange::new(i64::MIN, after)),
        Operator::Gt => Some(TimeRange::new(after, i64::MAX)),
        Operator::GtEq => Some(TimeRange::new(time_ns, i64::MAX)),
        Operator::Eq => Some(TimeRange::new(time_ns, after)),
        _ => None,
    }
}

/// The instants of both ranges.
pub(super) fn intersection(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange::new(a.start_ns.max(b.start_ns), a.end_ns.min(b.end_ns))
}

/// Filters on series' columns, ready to be asked of each source.
#[derive(Debug)]
pub(super) struct SeriesFilter {
    /// `None` where every series passes.
    predicate: Option<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl SeriesFilter {
    /// The conjunction of filters whose target is [`Target::Series`]; `schema` is that of the table `series`.
    pub fn new(session: &dyn Session, filters: Vec<Expr>, schema: SchemaRef) -> Result<Self> {
        let named = DFSchema::try_from(Arc::clone(&schema))?;
        let unqualified = filters.into_iter().map(datafusion::logical_expr::expr_rewriter::unnormalize_col);
        let predicate = conjunction(unqualified)
            .map(|filter| session.create_physical_expr(filter, &named))
            .transpose()?;
        Ok(Self { predicate, schema })
    }

    /// The series of a source that pass.
    pub fn rows(&self, tables: &Tables, one: &TableSource) -> Result<RowSet> {
        let count = one.series.len() as u32;
        let Some(predicate) = &self.predicate else {
            return Ok(run(0, count));
        };
        let all: Vec<u32> = (0..count).collect();
        let mut columns = vec![SeriesColumn::profile_type(&one.series).of(&one.series, &all)];
        columns.push(SeriesColumn::Fingerprint.of(&one.series, &all));
        let labels = tables.labels.iter().map(|name| SeriesColumn::label(&one.series, &name.label));
        columns.extend(labels.map(|column| column.of(&one.series, &all)));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let passed = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
        let passed = passed.as_boolean();
        let mut rows = RowSet::new();
        for row in (0..passed.len()).filter(|row| passed.is_valid(*row) && passed.value(*row)) {
            push_row(&mut rows, row as u32);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn at(time_ns: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(time_ns), None))
    }

    #[test]
    fn filters_are_sorted_by_what_they_ask_of() {
        let series = ["pod".to_owned(), "zone".to_owned()];
        let cases = [
            (col("pod").eq(lit("a")), Target::Series),
            (col("pod").eq(col("zone")).or(col("pod").like(lit("x%"))), Target::Series),
            (col("samples.pod").is_not_null(), Target::Series),
            (col("pod").eq(lit("a")).and(col("value").gt(lit(1))), Target::Other),
            (lit(true), Target::Other),
            (col("time").gt_eq(at(5)), Target::Time(TimeRange::new(5, i64::MAX))),
            (at(5).gt(col("time")), Target::Time(TimeRange::new(i64::MIN, 5))),
            (col("time").between(at(5), at(9)), Target::Time(TimeRange::new(5, 10))),
            (col("time").gt(at(5)).and(col("time").lt_eq(at(9))), Target::Time(TimeRange::new(6, 10))),
            (col("time").eq(at(5)), Target::Time(TimeRange::new(5, 6))),
            (col("time").not_eq(at(5)), Target::Other),
            (col("time").gt(at(5)).or(col("pod").eq(lit("a"))), Target::Other),
            (col("time").gt(lit(5)), Target::Other),
        ];
        for (filter, expected) in cases {
            assert_eq!(target(&filter, &series), expected, "{filter}");
        }
    }
}
