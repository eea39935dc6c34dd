//! What Go's pprof printed, read as `services/simulation/golden/README.md` describes it.

use std::collections::BTreeMap;
use std::path::Path;

use super::corpus::unzipped;
use super::question::{Granularity, Rows, without_suffix};

/// The rows of `-top`, by printed name: two nodes may print alike.
pub fn top(answers: &Path, type_name: &str, granularity: Granularity) -> Rows {
    let file = match granularity {
        Granularity::Function => "functions",
        Granularity::Line => "lines",
        // Addresses as Cambium keeps them: those of the object's file.
        Granularity::Address => "file-addresses",
    };
    let text = answer(answers, &format!("{type_name}.{file}.top.txt"));
    let heading = ["flat", "flat%", "sum%", "cum", "cum%"];
    let mut lines = text.lines().skip_while(|line| !line.split_whitespace().eq(heading));
    lines.next().unwrap_or_else(|| panic!("{}: no rows in\n{text}", answers.display()));
    let mut rows = Rows::new();
    for line in lines {
        let (numbers, name) = split_row(line);
        let [flat, _, _, cum, _] = numbers[..] else { panic!("not a row: {line:?}") };
        rows.entry(without_suffix(name)).or_default().push((number(flat), number(cum)));
    }
    rows.values_mut().for_each(|values| values.sort_unstable());
    rows
}

/// The five numbers of a row, and after two spaces the name to the end of the line.
fn split_row(line: &str) -> (Vec<&str>, &str) {
    let mut numbers = Vec::new();
    let mut rest = line;
    for _ in 0..5 {
        rest = rest.trim_start();
        let (number, after) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        numbers.push(number);
        rest = after;
    }
    (numbers, rest.strip_prefix("  ").unwrap_or_else(|| panic!("no name: {line:?}")))
}

/// The integer before the unit.
fn number(text: &str) -> i64 {
    let end = text.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The stacks of `-traces` with their values summed, outermost frame first, frames joined by `;`, as folded stacks
/// are written; without those of value 0.
pub fn stacks(answers: &Path, type_name: &str) -> BTreeMap<String, i64> {
    let text = answer(answers, &format!("{type_name}.functions.traces.txt"));
    let mut sums = BTreeMap::new();
    // Before the first line of dashes stands the header.
    let mut samples = text.split("-----------+-------------------------------------------------------\n");
    samples.next();
    for sample in samples.filter(|sample| !sample.is_empty()) {
        let mut lines = sample.lines().skip_while(|line| leaf(line).is_none());
        let (value, leaf) = lines.next().and_then(leaf).unwrap_or_else(|| panic!("no frame in {sample:?}"));
        let mut frames = vec![frame(leaf)];
        frames.extend(lines.map(|line| frame(line.trim_start())));
        frames.reverse();
        *sums.entry(frames.join(";")).or_default() += value;
    }
    sums.retain(|_, value| *value != 0);
    sums
}

/// The value and the name on the line of the innermost frame; `None` for a line with a label, whose key ends in a
/// colon.
fn leaf(line: &str) -> Option<(i64, &str)> {
    let (value, name) = line.trim_start().split_once("   ")?;
    let is_value = value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && !value.contains([':', ' ']);
    is_value.then(|| (number(value), name))
}

/// A frame's name as folded stacks have it.
pub fn frame(name: &str) -> String {
    without_suffix(name).replace(';', ":")
}

fn answer(answers: &Path, file: &str) -> String {
    let plain = answers.join(file);
    if plain.exists() {
        return std::fs::read_to_string(&plain).unwrap();
    }
    let zipped = std::fs::read(answers.join(format!("{file}.gz")))
        .unwrap_or_else(|error| panic!("{}: {error}", plain.display()));
    String::from_utf8(unzipped(&zipped)).unwrap()
}
