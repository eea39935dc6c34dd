//! What a test asks Cambium, and its answers brought into the shape of Go's.

use std::collections::BTreeMap;
use std::fmt;

use cambium_simulation::Client;
use serde_json::Value;

use super::difference::Differences;
use super::go;

/// Self and cumulative values by printed name, ascending where several nodes print alike.
pub type Rows = BTreeMap<String, Vec<(i64, i64)>>;

/// The bodies by question, without `stats`.
pub type Answers = BTreeMap<Question, Vec<u8>>;

/// One question about one profile or merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Position in the profile's sample types.
    pub sample_type: usize,
    /// What is asked for.
    pub form: Form,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Top(Granularity),
    FlameGraph,
    Folded,
    Pprof,
}

/// What makes two frames the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Granularity {
    Function,
    Line,
    Address,
}

impl Form {
    pub const ALL: [Self; 6] = [
        Self::Top(Granularity::Function),
        Self::Top(Granularity::Line),
        Self::Top(Granularity::Address),
        Self::FlameGraph,
        Self::Folded,
        Self::Pprof,
    ];

    /// The values of the parameters `format` and `granularity`.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Top(Granularity::Function) => ("top", "function"),
            Self::Top(Granularity::Line) => ("top", "line"),
            Self::Top(Granularity::Address) => ("top", "address"),
            Self::FlameGraph => ("flamegraph", "function"),
            Self::Folded => ("folded", "function"),
            Self::Pprof => ("pprof", "function"),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (format, granularity) = self.form.words();
        write!(f, "[{}] {format} by {granularity}", self.sample_type)
    }
}

impl Question {
    /// Asks for everything that `query` selects.
    ///
    /// # Panics
    /// When the answer is not a good one.
    pub fn ask(self, client: &Client, query: &str) -> Vec<u8> {
        let (format, granularity) = self.form.words();
        let parameters = [
            ("query", query),
            ("start", "0"),
            ("format", format),
            ("granularity", granularity),
            ("exact", "true"),
            // Go's merge adds up whatever it is given, instants too.
            ("agg", "sum"),
        ];
        let answer = client.get("/api/v1/query", &parameters).unwrap();
        assert_eq!(answer.status, 200, "{query} {self}: {}", answer.text());
        let mut body = answer.body;
        // What it cost differs from place to place. It comes last.
        if answer.content_type == "application/json" {
            let stats = br#","stats":"#;
            let at = body.windows(stats.len()).rposition(|window| window == stats).expect("JSON has stats");
            body.truncate(at);
            body.push(b'}');
        }
        body
    }
}

/// `format=top`, each entry printed as Go prints it.
pub struct Top {
    pub rows: Rows,
    pub total: i64,
}

impl Top {
    pub fn parse(body: &[u8]) -> Self {
        let data = data(body);
        let mut rows = Rows::new();
        for entry in list(&data["entries"]) {
            let values = (int(&entry["self"]), int(&entry["cumulative"]));
            rows.entry(without_suffix(&printed(entry))).or_default().push(values);
        }
        rows.values_mut().for_each(|values| values.sort_unstable());
        Self { rows, total: int(&data["total"]) }
    }
}

/// The address as 16 digits, the name, the place in the source: whatever there is of them.
fn printed(entry: &Value) -> String {
    let (name, file) = (text(&entry["name"]), text(&entry["file"]));
    let (line, column) = (int(&entry["line"]), int(&entry["column"]));
    let place = match (line, column) {
        (0, _) => file.to_owned(),
        (_, 0) => format!("{file}:{line}"),
        _ => format!("{file}:{line}:{column}"),
    };
    let address = text(&entry["address"]).trim_start_matches("0x");
    // Code without a name goes by its binary; Go leaves that out where there is a place.
    let unnamed = name.starts_with('[') && name.ends_with(']') || name == "<unknown>";
    let name = if unnamed && !place.is_empty() { "" } else { name };
    let address = if address.is_empty() { String::new() } else { format!("{address:0>16}") };
    let parts = [&*address, name, &*place];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `format=flamegraph`, its nodes as stacks with their own values.
pub struct FlameGraph {
    /// As [`go::stacks`] has them.
    pub stacks: BTreeMap<String, i64>,
    pub total: i64,
}

impl FlameGraph {
    /// Reads the nodes and checks their laws: depth first, and at every node `self + children = cumulative`.
    pub fn parse(body: &[u8], what: &str, differences: &mut Differences) -> Self {
        let data = data(body);
        let names: Vec<String> = list(&data["names"]).iter().map(|name| frame_name(text(name))).collect();
        let total = int(&data["total"]);
        let mut stacks = BTreeMap::new();
        // The nodes from the root to the current one: position and name.
        let mut open: Vec<(i64, &str)> = Vec::new();
        let mut cumulative = Vec::new();
        let mut below = Vec::new();
        for (position, node) in list(&data["nodes"]).iter().enumerate() {
            let [parent, name, own, all, ..] = list(node) else { panic!("{what}: not a node: {node}") };
            let (parent, own, all) = (int(parent), int(own), int(all));
            while open.last().is_some_and(|(above, _)| *above != parent) {
                open.pop();
            }
            assert!(position == 0 || !open.is_empty(), "{what}: node {position} does not come depth first");
            open.push((position as i64, &names[int(name) as usize]));
            if position > 0 {
                below[parent as usize] += all;
            }
            // The root's own value is that of samples without a stack, which Go does not print.
            if own != 0 && position > 0 {
                let path: Vec<&str> = open[1..].iter().map(|(_, name)| *name).collect();
                *stacks.entry(path.join(";")).or_default() += own;
            }
            cumulative.push(all);
            below.push(own);
        }
        differences.compare_values(what, "self + children of every node", &cumulative, &below);
        differences.compare_values(what, "the root's value", total, cumulative[0]);
        differences.compare_values(what, "dropped nodes", 0, int(&data["nodes_dropped"]));
        stacks.retain(|_, value| *value != 0);
        Self { stacks, total }
    }
}

/// A flame graph's title as Go names the frame: it keeps addresses apart that Go folds by binary.
fn frame_name(title: &str) -> String {
    let is_address = |text: &str| {
        text.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match title.rsplit_once(' ') {
        Some((binary, address)) if is_address(address) => go::frame(&format!("[{binary}]")),
        None if is_address(title) => go::frame("<unknown>"),
        _ => go::frame(title),
    }
}

/// `format=folded`, as [`go::stacks`] has it.
pub fn folded(body: &[u8]) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for line in std::str::from_utf8(body).unwrap().lines() {
        let (stack, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line:?}"));
        // Go does not print samples without a stack.
        if stack != "(no stack)" {
            let stack: Vec<String> = stack.split(';').map(without_suffix).collect();
            *sums.entry(stack.join(";")).or_default() += value.parse::<i64>().unwrap();
        }
    }
    sums.retain(|_, value| *value != 0);
    sums
}

/// A printed name without what Go adds to say how its callers reached it.
pub fn without_suffix(name: &str) -> String {
    let name =
        name.strip_suffix(" (inline)").or_else(|| name.strip_suffix(" (partial-inline)")).unwrap_or(name);
    name.to_owned()
}

fn data(body: &[u8]) -> Value {
    let mut answer: Value = serde_json::from_slice(body).unwrap();
    answer["data"].take()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a whole number: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}
