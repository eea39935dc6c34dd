//! The tables `series`, `profiles` and `samples`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use cambium_blocks::source::{Profiles, SampleScan, Samples};
use cambium_blocks::tree::Tree;
use cambium_model::labels::Labels;
use cambium_model::profile::{SampleLabelValue, SampleLabels};
use cambium_model::profile_type::ProfileType;
use cambium_model::time::TimeRange;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashSet;

use super::BATCH_ROWS;
use super::filters::{SeriesFilter, TIME, Target, intersection, target};
use super::tables::{SeriesColumn, TableSource, Tables, text_column, text_field, text_values};
use crate::error::Error;

/// Which of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One row per series.
    Series,
    /// One row per profile.
    Profiles,
    /// One row per sample.
    Samples,
}

/// One of the tables.
#[derive(Debug)]
pub(super) struct ProfileTable {
    tables: Arc<Tables>,
    kind: Kind,
    schema: SchemaRef,
}

impl Kind {
    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Profiles => "profiles",
            Self::Samples => "samples",
        }
    }

    fn schema(self, tables: &Tables) -> SchemaRef {
        let time = Field::new(TIME, DataType::Timestamp(TimeUnit::Nanosecond, None), false);
        let number = |name: &str, kind: DataType| Field::new(name, kind, false);
        let mut fields = match self {
            Self::Series => vec![text_field("profile_type"), number("fingerprint", DataType::UInt64)],
            Self::Profiles => vec![
                time,
                text_field("profile_type"),
                number("duration_ns", DataType::Int64),
                number("period", DataType::Int64),
                number("value", DataType::Int64),
                number("samples", DataType::UInt32),
            ],
            Self::Samples => vec![
                time,
                text_field("profile_type"),
                number("value", DataType::Int64),
                number("stack_id", DataType::UInt64),
                text_field("sample_labels"),
            ],
        };
        fields.extend(tables.label_fields());
        Arc::new(Schema::new(fields))
    }
}

impl ProfileTable {
    /// The table of this kind.
    pub fn new(tables: Arc<Tables>, kind: Kind) -> Self {
        let schema = kind.schema(&tables);
        Self { tables, kind, schema }
    }

    fn target(&self, filter: &Expr) -> Target {
        let mut series = vec!["profile_type".to_owned()];
        if self.kind == Kind::Series {
            series.push("fingerprint".to_owned());
        }
        series.extend(self.tables.labels.iter().map(|name| name.column.clone()));
        match (target(filter, &series), self.kind) {
            // A series has no time.
            (Target::Time(_), Kind::Series) => Target::Other,
            (found, _) => found,
        }
    }
}

#[async_trait]
impl TableProvider for ProfileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match self.target(filter) {
            Target::Series | Target::Time(_) => TableProviderFilterPushDown::Exact,
            Target::Other => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut range = self.tables.range;
        let mut of_series = Vec::new();
        for filter in filters {
            match self.target(filter) {
                Target::Time(wanted) => range = intersection(range, wanted),
                Target::Series => of_series.push(filter.clone()),
                Target::Other => {
                    return Err(DataFusionError::Internal(format!("filter {filter} was not accepted")));
                }
            }
        }
        let filter = SeriesFilter::new(session, of_series, Kind::Series.schema(&self.tables))?;
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = projection.cloned().unwrap_or(all);
        let schema = Arc::new(self.schema.project(&columns)?);
        let scan = TableScan {
            tables: Arc::clone(&self.tables),
            kind: self.kind,
            schema: Arc::clone(&schema),
            range,
            filter: Arc::new(filter),
        };
        let plan = StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, None)?;
        Ok(Arc::new(plan))
    }
}

/// A scan of one table: all sources, one after the other.
#[derive(Clone, Debug)]
struct TableScan {
    tables: Arc<Tables>,
    kind: Kind,
    schema: SchemaRef,
    range: TimeRange,
    filter: Arc<SeriesFilter>,
}

impl PartitionStream for TableScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = match self.kind {
            Kind::Series => self.clone().series(),
            Kind::Profiles | Kind::Samples => {
                let scan = self.clone();
                let sources = stream::iter(self.tables.sources.clone());
                sources
                    .then(move |one| {
                        let scan = scan.clone();
                        async move { scan.rows(one).await }
                    })
                    .try_flatten()
                    .boxed()
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches.map_ok(cut).try_flatten()))
    }
}

/// A batch in pieces of [`BATCH_ROWS`].
fn cut(batch: RecordBatch) -> impl futures::Stream<Item = Result<RecordBatch>> {
    let rows = batch.num_rows();
    let starts = (0..rows).step_by(BATCH_ROWS);
    stream::iter(starts.map(move |start| Ok(batch.slice(start, BATCH_ROWS.min(rows - start)))))
}

type Batches = BoxStream<'static, Result<RecordBatch>>;

impl TableScan {
    /// Each series with a profile in range once, over all sources.
    fn series(self) -> Batches {
        let start = (self, 0, HashSet::new());
        let batches = stream::try_unfold(start, |(scan, next, mut seen)| async move {
            let Some(one) = scan.tables.sources.get(next).cloned() else { return Ok(None) };
            let batch = scan.new_series(&one, &mut seen).await?;
            Ok(Some((batch, (scan, next + 1, seen))))
        });
        batches.boxed()
    }

    async fn new_series(
        &self,
        one: &TableSource,
        seen: &mut HashSet<(ProfileType, Labels)>,
    ) -> Result<RecordBatch> {
        let rows = self.filter.rows(&self.tables, one)?;
        let mut live: Vec<u32> = if one.span.is_some_and(|(first, last)| self.range.covers(first, last)) {
            rows.into_iter().flatten().collect()
        } else {
            one.source.profiles(&rows, self.range).await.map_err(Error::from)?.series
        };
        live.sort_unstable();
        live.dedup();
        live.retain(|row| {
            let profile_type = one.series.types[one.series.type_of[*row as usize] as usize].clone();
            seen.insert((profile_type, one.series.labels(*row)))
        });
        let columns = self.schema.fields().iter().map(|field| match field.name().as_str() {
            "profile_type" => SeriesColumn::profile_type(&one.series).of(&one.series, &live),
            "fingerprint" => SeriesColumn::Fingerprint.of(&one.series, &live),
            name => SeriesColumn::label(&one.series, self.tables.label(name)).of(&one.series, &live),
        });
        self.batch(columns.collect(), live.len())
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        // A count of rows alone has no columns.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// The rows of one source's profiles or samples.
    async fn rows(self, one: TableSource) -> Result<Batches> {
        let rows = self.filter.rows(&self.tables, &one)?;
        if rows.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let columns = Columns::new(&self, &one).await?;
        if self.kind == Kind::Profiles {
            let profiles = one.source.profiles(&rows, self.range).await.map_err(Error::from)?;
            let batch = columns.profiles(&profiles)?;
            return Ok(stream::once(std::future::ready(Ok(batch))).boxed());
        }
        let scan = SampleScan { rows, range: self.range, at: None };
        let samples = one.source.samples(&scan).await.map_err(Error::from)?;
        Ok(samples.map(move |samples| columns.samples(&samples.map_err(Error::from)?)).boxed())
    }
}

/// The projected columns of one source, with their distinct values at hand.
struct Columns {
    scan: TableScan,
    one: TableSource,
    /// Parallel to the schema's fields.
    columns: Vec<Column>,
}

/// How a column is made.
enum Column {
    Time,
    Duration,
    Period,
    Value,
    SampleCount,
    StackId(Arc<Tree>),
    SampleLabels(ArrayRef),
    OfSeries(SeriesColumn),
}

impl Columns {
    async fn new(scan: &TableScan, one: &TableSource) -> Result<Self> {
        let mut columns = Vec::new();
        for field in scan.schema.fields() {
            columns.push(match field.name().as_str() {
                TIME => Column::Time,
                "duration_ns" => Column::Duration,
                "period" => Column::Period,
                "value" => Column::Value,
                "samples" => Column::SampleCount,
                "stack_id" => Column::StackId(one.source.stack_tree().await.map_err(Error::from)?),
                "sample_labels" => {
                    let sets = one.source.sample_labels().await.map_err(Error::from)?;
                    Column::SampleLabels(text_values(sets.iter().map(sample_labels_text)))
                }
                "profile_type" => Column::OfSeries(SeriesColumn::profile_type(&one.series)),
                name => Column::OfSeries(SeriesColumn::label(&one.series, scan.tables.label(name))),
            });
        }
        Ok(Self { scan: scan.clone(), one: one.clone(), columns })
    }

    fn profiles(&self, profiles: &Profiles) -> Result<RecordBatch> {
        let numbers = |values: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
        let columns = self.columns.iter().map(|column| match column {
            Column::Time => times(&profiles.time_ns),
            Column::Duration => numbers(&profiles.duration_ns),
            Column::Period => numbers(&profiles.period),
            Column::Value => numbers(&profiles.total),
            Column::SampleCount => Arc::new(UInt32Array::from(profiles.samples.clone())),
            Column::OfSeries(column) => column.of(&self.one.series, &profiles.series),
            Column::StackId(_) | Column::SampleLabels(_) => unreachable!("profiles have no such column"),
        });
        self.scan.batch(columns.collect(), profiles.series.len())
    }

    fn samples(&self, samples: &Samples) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|column| -> ArrayRef {
            match column {
                Column::Time => times(&samples.time_ns),
                Column::Value => Arc::new(Int64Array::from(samples.values.clone())),
                Column::StackId(tree) => {
                    let paths = samples.nodes.iter().map(|node| tree.paths[*node as usize].0);
                    Arc::new(UInt64Array::from_iter_values(paths))
                }
                Column::SampleLabels(values) => {
                    let sets = &samples.label_sets;
                    let set = |sample: usize| sets.get(sample).copied().unwrap_or(0);
                    text_column(values, (0..samples.values.len()).map(set))
                }
                Column::OfSeries(column) => column.of(&self.one.series, &samples.series),
                Column::Duration | Column::Period | Column::SampleCount => {
                    unreachable!("samples have no such column")
                }
            }
        });
        self.scan.batch(columns.collect(), samples.values.len())
    }
}

fn times(time_ns: &[i64]) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(time_ns.to_vec()))
}

/// `thread="main",bytes=4096bytes`; empty for no labels.
fn sample_labels_text(labels: &SampleLabels) -> String {
    let pair = |(name, value): &(Arc<str>, SampleLabelValue)| match value {
        SampleLabelValue::Text(text) => format!("{name}={text:?}"),
        SampleLabelValue::Number(number, unit) => format!("{name}={number}{unit}"),
    };
    labels.iter().map(pair).collect::<Vec<_>>().join(",")
}
