//! What form an answer takes, and the way from sums to that form.

use cambium_blocks::shape::FoldBy;
use cambium_model::profile_type::ProfileType;
use datafusion::error::DataFusionError;

use super::params::{ParamError, Params};
use crate::engine::{Querier, off_loop};
use crate::error::Error;
use crate::fold::{Granularity, Truncation, truncate, unite};
use crate::merged::{MergedTree, Stats};
use crate::render;
use crate::request::MergeQuery;
use crate::resolve::frame::View;
use crate::resolve::{FrameTree, look_up};

/// Nodes of a flame graph where the request does not say (Pyroscope's default).
const MAX_NODES_DEFAULT: usize = 8_192;

/// What naming and rendering a node costs, in rows of a scan.
pub(super) const RENDER_ROWS: usize = 16;

/// The forms of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Flamegraph,
    Arrow,
    Pprof,
    Top,
    Tree,
    Folded,
    Dot,
    Speedscope,
}

const FORMS: [(&str, Form); 8] = [
    ("flamegraph", Form::Flamegraph),
    ("arrow", Form::Arrow),
    ("pprof", Form::Pprof),
    ("top", Form::Top),
    ("tree", Form::Tree),
    ("folded", Form::Folded),
    ("dot", Form::Dot),
    ("speedscope", Form::Speedscope),
];

const GRANULARITIES: [(&str, Granularity); 3] =
    [("function", Granularity::Function), ("line", Granularity::Line), ("address", Granularity::Address)];

/// What a request says of the form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub form: Form,
    pub granularity: Granularity,
    /// What a flame graph may leave out. Nothing else ever leaves anything out.
    pub truncation: Truncation,
}

impl Shape {
    /// Reads `format`, `granularity`, `max_nodes`, `min_fraction` and `exact`.
    pub(super) fn read(params: &Params) -> Result<Self, ParamError> {
        let form = params.choice("format", &FORMS)?.unwrap_or(Form::Flamegraph);
        let granularity = params.choice("granularity", &GRANULARITIES)?.unwrap_or_default();
        let asked = Truncation {
            max_nodes: params.count("max_nodes")?.unwrap_or(MAX_NODES_DEFAULT),
            min_fraction: params.fraction("min_fraction")?.unwrap_or_default(),
        };
        let exact = params.flag("exact")?;
        let truncates = matches!(form, Form::Flamegraph | Form::Arrow) && !exact;
        Ok(Self { form, granularity, truncation: if truncates { asked } else { Truncation::NONE } })
    }

    /// What the merge must fold by.
    pub(super) fn fold_by(self) -> FoldBy {
        match self.form.view() {
            View::Graph => self.granularity.fold_by(),
            View::Report => FoldBy::Location,
        }
    }
}

impl Form {
    /// The body's type; `None` for JSON that goes into the envelope.
    pub(super) fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Flamegraph | Self::Top => None,
            Self::Arrow => Some(render::arrow::CONTENT_TYPE),
            Self::Pprof => Some("application/octet-stream"),
            Self::Tree | Self::Folded => Some("text/plain; charset=utf-8"),
            Self::Dot => Some("text/vnd.graphviz; charset=utf-8"),
            Self::Speedscope => Some("application/json"),
        }
    }

    /// How frames are compared. Flame graphs fold by function before their names are known, so that only what they show
    /// is looked up; reports have every location's names, so that names alone decide.
    fn view(self) -> View {
        match self {
            Self::Flamegraph | Self::Arrow | Self::Speedscope => View::Graph,
            Self::Top | Self::Tree | Self::Folded | Self::Dot | Self::Pprof => View::Report,
        }
    }

    /// Renders a merge's tree.
    pub(super) fn render(self, tree: &FrameTree<1>, query: &MergeQuery) -> Result<Vec<u8>, Error> {
        let profile_type = &query.query.profile_type;
        let unit = &profile_type.sample_unit;
        let title = query.query.to_string();
        let overflow = || overflow(profile_type);
        match self {
            Self::Flamegraph => Ok(render::flamegraph::render(tree, unit)),
            Self::Arrow => {
                render::arrow::render(tree, unit).map_err(|error| DataFusionError::from(error).into())
            }
            Self::Top => render::top::render(tree, unit).ok_or_else(overflow),
            Self::Tree => Ok(render::tree::render(tree, unit).into_bytes()),
            Self::Folded => Ok(render::folded::render(tree).into_bytes()),
            Self::Dot => Ok(render::dot::render(tree, unit, &title).ok_or_else(overflow)?.into_bytes()),
            Self::Speedscope => Ok(render::speedscope::render(tree, unit, &title)),
            Self::Pprof => unreachable!("a pprof is made of samples, not of a tree of frames"),
        }
    }
}

/// Truncates, names and renders trees that were merged as the shape wants; adds what it took to the stats.
pub(super) async fn draw<const N: usize>(
    querier: &Querier,
    query: &MergeQuery,
    shape: Shape,
    trees: [MergedTree; N],
    stats: &mut Stats,
    render: impl FnOnce(&FrameTree<N>) -> Result<Vec<u8>, Error> + Send + 'static,
) -> Result<Vec<u8>, Error> {
    let Shape { form, granularity, truncation } = shape;
    let profile_type = &query.query.profile_type;
    let deps = querier.deps();
    let began = deps.clock.monotonic();
    let nodes: usize = trees.iter().map(MergedTree::len).sum();
    let reduce = move || Some(truncate(unite(trees)?, truncation));
    let truncated = off_loop(nodes, reduce).await.ok_or_else(|| overflow(profile_type))?;
    let folded = deps.clock.monotonic();
    let locations = truncated.tree.locations[1..].iter().copied();
    let names = look_up(&deps.symbols, &query.tenant, locations).await?;
    let resolved = deps.clock.monotonic();
    let overflow = overflow(profile_type);
    let shown = truncated.tree.len() * RENDER_ROWS;
    let body = off_loop(shown, move || {
        let tree = FrameTree::expand(&truncated, &names, granularity, form.view()).ok_or(overflow)?;
        render(&tree)
    })
    .await?;
    let spent = &mut stats.milliseconds;
    spent.merge += (folded - began).as_secs_f64() * 1e3;
    spent.resolve += (resolved - folded).as_secs_f64() * 1e3;
    spent.render += (deps.clock.monotonic() - resolved).as_secs_f64() * 1e3;
    Ok(body)
}

/// The error of a sum over this type.
pub(super) fn overflow(profile_type: &ProfileType) -> Error {
    Error::Overflow { profile_type: profile_type.to_string() }
}
