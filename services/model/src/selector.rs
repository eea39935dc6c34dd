//! Which series a request means: PromQL's label matchers, and Parca's `type{matchers}`.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::labels::{Labels, Name, Quoted};
use crate::profile_type::{ProfileType, ProfileTypeError};

mod parse;

/// Longest selector text, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 64 << 10;
/// Most matchers in one selector.
pub const MATCHERS_MAX: usize = 256;
/// Bound on a compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Regex,
    /// `!~`, anchored at both ends.
    NotRegex,
}

/// A predicate on one label. An absent label has the empty value, as in Prometheus.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How to compare.
    pub op: MatchOp,
    /// What to compare with: a value or a pattern.
    pub value: String,
    regex: Option<Regex>,
}

/// A set of matchers, all of which must hold. The empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    /// The matchers, as written.
    pub matchers: Vec<Matcher>,
}

/// What to query: a profile type and which of its series.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileQuery {
    /// The type whose values are asked for.
    pub profile_type: ProfileType,
    /// Which series.
    pub selector: Selector,
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Something else was needed at this place.
    #[error("selector: expected {expected} at byte {at}, found {found}")]
    Syntax {
        /// Byte position in the text.
        at: usize,
        /// What was needed.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A pattern that does not compile.
    #[error("selector: label {name:?}: {message}")]
    Regex {
        /// The matcher's label.
        name: String,
        /// The regex crate's words, first line.
        message: String,
    },
    /// The text is too long.
    #[error("selector has {0} bytes, at most {SELECTOR_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Too many matchers.
    #[error("selector has more than {MATCHERS_MAX} matchers")]
    TooMany,
    /// Only `label="value"` is allowed here.
    #[error("labels: {name}{op}… is a matcher, a label set takes only =")]
    NotALabel {
        /// The label.
        name: String,
        /// The operator found.
        op: MatchOp,
    },
    /// The text in front of the braces is not a profile type.
    #[error(transparent)]
    ProfileType(#[from] ProfileTypeError),
    /// The pairs are not a label set.
    #[error(transparent)]
    Labels(#[from] crate::labels::LabelsError),
}

impl Matcher {
    /// A matcher; compiles the pattern of a regular expression.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, SelectorError> {
        let compile = |pattern: &str| {
            let built = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
            built.map_err(|error| SelectorError::Regex {
                name: name.to_owned(),
                message: regex_message(&error),
            })
        };
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => {
                // By itself first: `a)|(b` would escape the anchors.
                compile(value)?;
                Some(compile(&format!("^(?s:{value})$"))?)
            }
        };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), regex })
    }

    /// Whether a label of this value satisfies the matcher; the empty value stands for an absent label.
    pub fn matches(&self, value: &str) -> bool {
        let pattern = || self.regex.as_ref().expect("regex matchers hold a compiled pattern");
        match self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex => pattern().is_match(value),
            MatchOp::NotRegex => !pattern().is_match(value),
        }
    }
}

fn regex_message(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("regular expression compiles to more than {limit} bytes")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("bad regular expression: {}", last.trim_start_matches("error: "))
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Selector {
    /// Whether a series with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name).unwrap_or_default()))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    /// Reads `{name="value", other=~"pattern"}`; the empty text selects everything.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text)
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl FromStr for ProfileQuery {
    type Err = SelectorError;

    /// Reads `name:sample_type:sample_unit:period_type:period_unit[:delta]{matchers}`; the braces may be left out.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let braces = text.find('{').unwrap_or(text.len());
        Ok(Self { profile_type: text[..braces].trim().parse()?, selector: text[braces..].parse()? })
    }
}

/// Reads a label set in the selector's form: `{service_name="api",pod="a"}`.
pub fn parse_labels(text: &str) -> Result<Labels, SelectorError> {
    let selector: Selector = text.parse()?;
    if let Some(other) = selector.matchers.iter().find(|m| m.op != MatchOp::Equal) {
        return Err(SelectorError::NotALabel { name: other.name.clone(), op: other.op });
    }
    Ok(Labels::from_pairs(selector.matchers.iter().map(|m| (&m.name, &m.value)))?)
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}{}{}", Name(&matcher.name), matcher.op, Quoted(&matcher.value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for ProfileQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.profile_type, self.selector)
    }
}

#[cfg(test)]
mod tests;
