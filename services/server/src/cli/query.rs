//! `cambium query`, `labels`, `types` and `sql`: the read API as tables.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::ServerArgs;
use super::client::Client;
use super::print;

/// Rows of `top` without `--limit`.
const TOP_ROWS: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum QueryCommand {
    /// Functions by what they use themselves.
    Top(TopArgs),
    /// The merged flame graph, as JSON.
    Flamegraph(MergeArgs),
    /// The merged profile, for `go tool pprof`.
    Pprof(MergeArgs),
    /// Values over time.
    Series(SeriesArgs),
}

/// What to ask about.
#[derive(Args, Debug)]
pub(super) struct MergeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A profile type with label matchers: process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{service_name="api"}.
    query: String,
    /// Start of the range, RFC 3339 or unix seconds; an hour ago by default.
    #[arg(long)]
    start: Option<String>,
    /// End of the range; now by default.
    #[arg(long)]
    end: Option<String>,
    /// What makes two frames the same: function, line or address.
    #[arg(long)]
    granularity: Option<String>,
    /// Write to this file instead of standard output.
    #[arg(long, short = 'f')]
    file: Option<PathBuf>,
    /// For people or for scripts.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    merge: MergeArgs,
    /// How many functions; 0 for all.
    #[arg(long, default_value_t = TOP_ROWS)]
    limit: usize,
}

#[derive(Args, Debug)]
pub(super) struct SeriesArgs {
    #[command(flatten)]
    merge: MergeArgs,
    /// Seconds between two points.
    #[arg(long, default_value = "60")]
    step: String,
    /// Labels to group by, separated by commas.
    #[arg(long)]
    by: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct LabelsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// List the values of this label instead of all names.
    name: Option<String>,
    /// For people or for scripts.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct TypesArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// For people or for scripts.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct SqlArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// One SELECT over samples, profiles, series and stacks.
    sql: String,
    /// For people or for scripts.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// An answer's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) fn run(command: &QueryCommand) -> anyhow::Result<()> {
    match command {
        QueryCommand::Top(args) => top(args),
        QueryCommand::Flamegraph(args) => {
            let body = merge(args, &[("format", "flamegraph")])?;
            write_or_print(args, &body)
        }
        QueryCommand::Pprof(args) => {
            let body = merge(args, &[("format", "pprof")])?;
            match &args.file {
                Some(_) => write_or_print(args, &body),
                None => anyhow::bail!("a pprof is binary: say where to with --file"),
            }
        }
        QueryCommand::Series(args) => series(args),
    }
}

fn parameters(args: &MergeArgs, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = vec![("query".to_owned(), args.query.clone())];
    let optional = [("start", &args.start), ("end", &args.end), ("granularity", &args.granularity)];
    all.extend(optional.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value).clone()?))));
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all
}

fn merge(args: &MergeArgs, more: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
    Client::new(&args.server).get("/api/v1/query", &parameters(args, more))
}

fn write_or_print(args: &MergeArgs, body: &[u8]) -> anyhow::Result<()> {
    match &args.file {
        Some(path) => Ok(std::fs::write(path, body)?),
        None => {
            print(&String::from_utf8_lossy(body));
            Ok(())
        }
    }
}

fn top(args: &TopArgs) -> anyhow::Result<()> {
    let body = merge(&args.merge, &[("format", "top")])?;
    if args.merge.output == Output::Json || args.merge.file.is_some() {
        return write_or_print(&args.merge, &body);
    }
    let answer: Value = serde_json::from_slice(&body)?;
    let data = &answer["data"];
    let unit = data["unit"].as_str().unwrap_or_default();
    let total = data["total"].as_i64().unwrap_or_default();
    let mut table = table(&["self", "self %", "cumulative", "cum %", "function"]);
    let entries = data["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = if args.limit == 0 { entries.len() } else { args.limit };
    for entry in entries.iter().take(shown) {
        let (own, cumulative) =
            (entry["self"].as_i64().unwrap_or(0), entry["cumulative"].as_i64().unwrap_or(0));
        table.add_row([
            human(own, unit),
            share(own, total),
            human(cumulative, unit),
            share(cumulative, total),
            entry["name"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    align_numbers(&mut table, 4);
    print(&format!("total {}, {} functions\n{table}", human(total, unit), entries.len()));
    Ok(())
}

fn series(args: &SeriesArgs) -> anyhow::Result<()> {
    let mut more = vec![("step", args.step.as_str())];
    more.extend(args.by.as_deref().map(|by| ("by", by)));
    let body = Client::new(&args.merge.server).get("/api/v1/query_range", &parameters(&args.merge, &more))?;
    if args.merge.output == Output::Json || args.merge.file.is_some() {
        return write_or_print(&args.merge, &body);
    }
    let answer: Value = serde_json::from_slice(&body)?;
    let mut table = table(&["time", "value", "labels"]);
    for series in answer["data"]["result"].as_array().into_iter().flatten() {
        for point in series["values"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.add_row([text(&point[0]), text(&point[1]), series["metric"].to_string()]);
        }
    }
    align_numbers(&mut table, 2);
    print(&table.to_string());
    Ok(())
}

pub(super) fn labels(args: &LabelsArgs) -> anyhow::Result<()> {
    let path = match &args.name {
        Some(name) => format!("/api/v1/label/{name}/values"),
        None => "/api/v1/labels".to_owned(),
    };
    list(&args.server, &path, args.output, |entry| entry.as_str().map(str::to_owned))
}

pub(super) fn types(args: &TypesArgs) -> anyhow::Result<()> {
    list(&args.server, "/api/v1/profile_types", args.output, |entry| entry["id"].as_str().map(str::to_owned))
}

fn list(
    server: &ServerArgs,
    path: &str,
    output: Output,
    line: impl Fn(&Value) -> Option<String>,
) -> anyhow::Result<()> {
    let body = Client::new(server).get(path, &[])?;
    if output == Output::Json {
        print(&String::from_utf8_lossy(&body));
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(&body)?;
    for text in answer["data"].as_array().into_iter().flatten().filter_map(line) {
        print(&text);
    }
    Ok(())
}

pub(super) fn sql(args: &SqlArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let request = json!({ "sql": args.sql });
    if args.output == Output::Json {
        let body = client.post_json("/api/v1/sql", &request, "application/json")?;
        print(&String::from_utf8_lossy(&body));
        return Ok(());
    }
    let body = client.post_json("/api/v1/sql", &request, "text/csv")?;
    print(String::from_utf8_lossy(&body).trim_end());
    Ok(())
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().copied());
    table
}

fn align_numbers(table: &mut Table, columns: usize) {
    for column in table.column_iter_mut().take(columns) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A value as people read it: 1.5s, 12MiB, 42.
fn human(value: i64, unit: &str) -> String {
    let scales: &[(&str, f64)] = match unit {
        "nanoseconds" => &[("h", 3.6e12), ("min", 6e10), ("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)],
        "bytes" => &[("TiB", 1.0995e12), ("GiB", 1.0737e9), ("MiB", 1.0486e6), ("KiB", 1024.0), ("B", 1.0)],
        _ => return value.to_string(),
    };
    let value = value as f64;
    let fitting = scales.iter().find(|(_, scale)| value.abs() >= *scale);
    match fitting {
        Some((name, scale)) => format!("{:.2}{name}", value / scale),
        None => format!("{value}{}", scales[scales.len() - 1].0),
    }
}

fn share(part: i64, total: i64) -> String {
    if total == 0 { "–".to_owned() } else { format!("{:.2}%", 100.0 * part as f64 / total as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_their_unit() {
        for (value, unit, expected) in [
            (1_500_000_000, "nanoseconds", "1.50s"),
            (250, "nanoseconds", "250.00ns"),
            (0, "bytes", "0B"),
            (12 << 20, "bytes", "12.00MiB"),
            (-2_048, "bytes", "-2.00KiB"),
            (42, "count", "42"),
        ] {
            assert_eq!(human(value, unit), expected);
        }
        assert_eq!(share(1, 0), "–");
        assert_eq!(share(1, 8), "12.50%");
    }
}
