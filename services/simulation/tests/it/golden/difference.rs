//! What differs, collected over a whole corpus: one run shows everything that is wrong.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

/// Entries of one answer that are shown.
const SHOWN_MAX: usize = 5;

/// Longest text shown of an entry, in characters.
const TEXT_SHOWN_MAX: usize = 600;

/// The differences found so far, an entry for each answer.
#[derive(Debug, Default)]
pub struct Differences(Vec<String>);

impl Differences {
    /// Notes what two maps do not have in common.
    pub fn compare<K: Ord + Debug, V: PartialEq + Debug>(
        &mut self,
        what: &str,
        expected: BTreeMap<K, V>,
        found: BTreeMap<K, V>,
    ) {
        let missing = expected.iter().filter(|(key, value)| found.get(key) != Some(value));
        let surplus = found.iter().filter(|(key, _)| !expected.contains_key(key));
        let wrong: Vec<_> = missing
            .map(|(key, value)| (key, Some(value), found.get(key)))
            .chain(surplus.map(|(key, value)| (key, None, Some(value))))
            .collect();
        if wrong.is_empty() {
            return;
        }
        let mut text = format!("{what}: {} of {} entries differ", wrong.len(), expected.len());
        for (key, expected, found) in wrong.iter().take(SHOWN_MAX) {
            let key = shortened(key);
            // Writing to a String cannot fail.
            let _ = write!(text, "\n    {key}\n        expected {}", shortened(expected));
            let _ = write!(text, "\n        found    {}", shortened(found));
        }
        self.note(text);
    }

    /// Notes two values that should be one.
    pub fn compare_values<V: PartialEq + Debug>(&mut self, what: &str, value: &str, expected: V, found: V) {
        if expected != found {
            let (expected, found) = (shortened(expected), shortened(found));
            self.note(format!("{what}: {value}: expected {expected}, found {found}"));
        }
    }

    /// Notes anything else.
    pub fn note(&mut self, difference: String) {
        self.0.push(difference);
    }

    /// Ends the test.
    pub fn panic_if_any(&self) {
        assert!(self.0.is_empty(), "{} answers differ:\n{}", self.0.len(), self.0.join("\n"));
    }
}

fn shortened(value: impl Debug) -> String {
    format!("{value:?}").chars().take(TEXT_SHOWN_MAX).collect()
}
