//! Sorted, unique label pairs in one shared allocation: cheap to clone, to hash and to compare.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// The label that every profiling client sets and that routing and scopes look at first.
pub const SERVICE_NAME: &str = "service_name";

/// A label set: names sorted and unique, values not empty (an empty value means that the label is absent, as in
/// Prometheus).
///
/// Kept as one string of all names and values and the end of each piece, because a head holds one per series and a
/// vector of string pairs would cost more than the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    text: Arc<str>,
    /// End offsets in `text`: name, value, name, value, …
    ends: Arc<[u32]>,
}

/// Why pairs are not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A label with no name.
    #[error("label {index} has an empty name")]
    EmptyName {
        /// Position in the input.
        index: usize,
    },
    /// The same name twice.
    #[error("label {name:?} is given twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// All text together passes what offsets can hold.
    #[error("labels have {bytes} bytes in all, more than a label set can hold")]
    TooLarge {
        /// Bytes of all names and values.
        bytes: usize,
    },
}

impl Labels {
    /// No labels.
    pub fn empty() -> Self {
        Self { text: "".into(), ends: Arc::new([]) }
    }

    /// Sorts the pairs, drops those with an empty value and refuses duplicates and empty names.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelsError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut kept = Vec::new();
        for (index, (name, value)) in pairs.into_iter().enumerate() {
            if name.as_ref().is_empty() {
                return Err(LabelsError::EmptyName { index });
            }
            kept.push((name, value));
        }
        kept.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        for pair in kept.windows(2) {
            if pair[0].0.as_ref() == pair[1].0.as_ref() {
                return Err(LabelsError::Duplicate { name: pair[0].0.as_ref().to_owned() });
            }
        }
        // Only now: a name that is given twice is refused even where one of the values is empty.
        kept.retain(|(_, value)| !value.as_ref().is_empty());
        let bytes: usize = kept.iter().map(|(n, v)| n.as_ref().len() + v.as_ref().len()).sum();
        if u32::try_from(bytes).is_err() {
            return Err(LabelsError::TooLarge { bytes });
        }
        let mut text = String::with_capacity(bytes);
        let mut ends = Vec::with_capacity(kept.len() * 2);
        for (name, value) in &kept {
            for piece in [name.as_ref(), value.as_ref()] {
                text.push_str(piece);
                ends.push(text.len() as u32);
            }
        }
        Ok(Self { text: text.into(), ends: ends.into() })
    }

    /// Name and value pairs, in name order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        (0..self.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[2 * i - 1] } as usize;
            let middle = self.ends[2 * i] as usize;
            let end = self.ends[2 * i + 1] as usize;
            (&self.text[start..middle], &self.text[middle..end])
        })
    }

    /// How many labels.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A label's value, or `None` where the label is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The series' identity for routing: xxh3-64 of the sorted pairs.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::with_capacity(self.text.len() + self.ends.len() * 4);
        bytes.extend_from_slice(self.text.as_bytes());
        for end in self.ends.iter() {
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        xxh3_64(&bytes)
    }

    /// The scope: the first of `scope_labels` that is present, and its value. A series without any of them is in the
    /// scope [`UNKNOWN_SCOPE`] of no label.
    pub fn scope<'a>(&'a self, scope_labels: &'a [String]) -> Scope<'a> {
        for name in scope_labels {
            if let Some(value) = self.get(name) {
                return Scope { label: name, value };
            }
        }
        Scope { label: "", value: UNKNOWN_SCOPE }
    }
}

/// The scope of a series that has none of the tenant's scope labels.
pub const UNKNOWN_SCOPE: &str = "unknown";

/// One service's part of a dataset: which label named it, and the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope<'a> {
    /// The label the value came from; empty for [`UNKNOWN_SCOPE`].
    pub label: &'a str,
    /// The label's value.
    pub value: &'a str,
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.iter().cmp(other.iter())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}={}", Name(name), Quoted(value))?;
        }
        f.write_str("}")
    }
}

/// A label's name as a selector takes it: bare where it can be, else quoted.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
        let bare =
            self.0.starts_with(starts) && self.0.chars().all(|c| starts(c) || c.is_ascii_digit() || c == '.');
        if bare { f.write_str(self.0) } else { fmt::Display::fmt(&Quoted(self.0), f) }
    }
}

/// A text in double quotes, with the escapes that a selector reads back.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_empty_values_dropped() {
        let labels = Labels::from_pairs([("pod", "a"), ("app", "x"), ("gone", "")]).unwrap();
        assert_eq!(labels.to_string(), r#"{app="x",pod="a"}"#);
        assert_eq!(labels.get("pod"), Some("a"));
        assert_eq!(labels.get("gone"), None);
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn duplicates_and_empty_names_are_refused() {
        assert_eq!(
            Labels::from_pairs([("a", "1"), ("a", "2")]),
            Err(LabelsError::Duplicate { name: "a".into() })
        );
        assert_eq!(
            Labels::from_pairs([("a", "1"), ("b", "2"), ("a", "")]),
            Err(LabelsError::Duplicate { name: "a".into() }),
            "also where one is empty: as a selector it would select nothing"
        );
        assert_eq!(Labels::from_pairs([("b", "1"), ("", "2")]), Err(LabelsError::EmptyName { index: 1 }));
    }

    #[test]
    fn the_fingerprint_tells_where_a_name_ends() {
        let a = Labels::from_pairs([("ab", "c")]).unwrap();
        let b = Labels::from_pairs([("a", "bc")]).unwrap();
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_ne!(a, b);
    }

    #[test]
    fn scope_is_the_first_label_present() {
        let wanted = [SERVICE_NAME.to_owned(), "comm".to_owned()];
        let both = Labels::from_pairs([("comm", "x"), (SERVICE_NAME, "api")]).unwrap();
        let one = Labels::from_pairs([("comm", "x")]).unwrap();
        assert_eq!(both.scope(&wanted).value, "api");
        assert_eq!(one.scope(&wanted).label, "comm");
        assert_eq!(Labels::empty().scope(&wanted).value, UNKNOWN_SCOPE);
    }
}
