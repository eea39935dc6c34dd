//! What `/memberlist` and `/ring` show: values that serialise to JSON and render themselves as plain HTML.

use std::sync::Arc;

use cambium_model::block::Partition;
use serde::Serialize;

use crate::node::{Node, Role};
use crate::ring::Ring;
use crate::view::View;

/// `/memberlist`: who is there, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberlistPage {
    /// Whose view it is.
    pub this: String,
    /// The living, by name.
    pub nodes: Vec<MemberRow>,
    /// Those that left or died and are not forgotten yet.
    pub down: Vec<MemberRow>,
}

/// A node of [`MemberlistPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberRow {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its state.
    pub state: &'static str,
    /// Its roles.
    pub roles: Vec<&'static str>,
    /// Its build.
    pub version: String,
    /// What it speaks.
    pub wire_version: u32,
    /// Whether this node understands it.
    pub compatible: bool,
    /// When it started, nanoseconds since the Unix epoch.
    pub generation: u64,
    /// Where it receives gossip.
    pub gossip: String,
    /// Where it serves internal gRPC.
    pub internal: String,
}

/// `/ring`: who should own which partition, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingPage {
    /// The ingesters, by name, and how much each is given.
    pub ingesters: Vec<ShareRow>,
    /// The partitions.
    pub partitions: Vec<PartitionRow>,
}

/// An ingester of [`RingPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShareRow {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its state.
    pub state: &'static str,
    /// How many partitions it should own.
    pub partitions: usize,
}

/// A partition of [`RingPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionRow {
    /// Its number.
    pub partition: u32,
    /// Who should own it and who could, in order.
    pub candidates: Vec<String>,
}

impl MemberlistPage {
    /// The page of a view.
    pub fn new(view: &View) -> Self {
        let rows = |nodes: &[Arc<Node>]| nodes.iter().map(|node| MemberRow::new(node)).collect();
        Self { this: view.this().to_string(), nodes: rows(view.nodes()), down: rows(view.down()) }
    }

    /// The page as HTML.
    pub fn html(&self) -> String {
        let heads =
            ["name", "state", "roles", "zone", "version", "wire version", "gossip", "internal", "generation"];
        let living = self.nodes.iter().map(|row| row.cells(row.state));
        let down = self.down.iter().map(|row| row.cells("down"));
        let table = table(&heads, living.chain(down));
        page("Members", &format!("<p>As {} sees them.</p>{table}", escape(&self.this)))
    }
}

impl MemberRow {
    fn new(node: &Node) -> Self {
        Self {
            name: node.name.to_string(),
            zone: node.zone.clone(),
            state: node.state.as_str(),
            roles: node.roles.iter().map(Role::as_str).collect(),
            version: node.version.clone(),
            wire_version: node.wire_version,
            compatible: node.is_compatible(),
            generation: node.generation,
            gossip: node.gossip.to_string(),
            internal: node.internal.clone(),
        }
    }

    fn cells(&self, state: &str) -> Vec<String> {
        let wire_version = match self.compatible {
            true => self.wire_version.to_string(),
            false => format!("{} (not understood)", self.wire_version),
        };
        vec![
            self.name.clone(),
            state.to_owned(),
            self.roles.join(", "),
            self.zone.clone(),
            self.version.clone(),
            wire_version,
            self.gossip.clone(),
            self.internal.clone(),
            self.generation.to_string(),
        ]
    }
}

impl RingPage {
    /// The page of a ring and the view that it is of.
    pub fn new(view: &View, ring: &Ring) -> Self {
        let name = |node: &Node| node.name.to_string();
        let rows = (0..ring.partitions()).map(|partition| PartitionRow {
            partition,
            candidates: ring.candidates(Partition(partition)).into_iter().map(|node| name(node)).collect(),
        });
        let partitions: Vec<_> = rows.collect();
        let owns = |node: &Node, row: &PartitionRow| {
            row.candidates.first().is_some_and(|owner| owner == node.name.as_str())
        };
        let share = |node: &Node| ShareRow {
            name: name(node),
            zone: node.zone.clone(),
            state: node.state.as_str(),
            partitions: partitions.iter().filter(|row| owns(node, row)).count(),
        };
        let ingesters = view.with_role(Role::Ingester).map(|node| share(node)).collect();
        Self { ingesters, partitions }
    }

    /// The page as HTML.
    pub fn html(&self) -> String {
        let shares = self.ingesters.iter().map(|row| {
            vec![row.name.clone(), row.state.to_owned(), row.zone.clone(), row.partitions.to_string()]
        });
        let shares = table(&["ingester", "state", "zone", "partitions"], shares);
        let owners = self.partitions.iter().map(|row| {
            let (owner, others) = row.candidates.split_first().map_or(("nobody", &[][..]), |(a, b)| (a, b));
            vec![row.partition.to_string(), owner.to_owned(), others.join(", ")]
        });
        let owners = table(&["partition", "should be owned by", "then"], owners);
        page("Ring", &format!("{shares}{owners}"))
    }
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>{title} - Cambium</title></head>\
         <body><h1>{title}</h1>{body}</body></html>"
    )
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let row = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>")
    };
    let head = row("th", &mut heads.iter().copied());
    let rows: String = rows.map(|cells| row("td", &mut cells.iter().map(String::as_str))).collect();
    format!("<table border=\"1\">{head}{rows}</table>")
}

/// Other nodes say what they like of themselves.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::node;
    use crate::node::{NodeState, WIRE_VERSION_MAX};

    fn view() -> View {
        let nodes = [
            node("a", "<script>"),
            Node { state: NodeState::ReadOnly, ..node("b", "z") },
            Node { wire_version: WIRE_VERSION_MAX + 1, version: "\"9\" & more".to_owned(), ..node("c", "z") },
        ];
        View::new(nodes[0].name.clone(), nodes.map(Arc::new), [Arc::new(node("d", ""))])
    }

    #[test]
    fn members_are_shown_as_they_are_and_do_no_harm() {
        let page = MemberlistPage::new(&view());
        let json = serde_json::to_value(&page).unwrap();
        assert_eq!(json["this"], "a");
        assert_eq!(json["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(json["nodes"][0]["zone"], "<script>");
        assert_eq!(json["nodes"][0]["roles"], serde_json::json!(["ingester", "querier"]));
        assert_eq!(json["nodes"][1]["state"], "read-only");
        assert_eq!(json["nodes"][2]["compatible"], false);
        assert_eq!(json["down"][0]["name"], "d");
        let html = page.html();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"), "{html}");
        assert!(html.contains("<td>&quot;9&quot; &amp; more</td><td>2 (not understood)</td>"), "{html}");
        assert!(html.contains("<td>d</td><td>down</td>"), "{html}");
    }

    #[test]
    fn a_ring_shows_who_should_own_what() {
        let view = view();
        let page = RingPage::new(&view, &Ring::new(&view, 4));
        let json = serde_json::to_value(&page).unwrap();
        assert_eq!(json["partitions"][3], serde_json::json!({ "partition": 3, "candidates": ["a"] }));
        let shares: Vec<_> = page.ingesters.iter().map(|row| (row.name.as_str(), row.partitions)).collect();
        assert_eq!(shares, [("a", 4), ("b", 0)]);
        assert!(page.html().contains("<td>3</td><td>a</td><td></td>"), "{}", page.html());
        let nobody = View::new(node("a", "").name, [], []);
        let page = RingPage::new(&nobody, &Ring::new(&nobody, 2));
        assert!(page.html().contains("<td>1</td><td>nobody</td>"));
    }
}
