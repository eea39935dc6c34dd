//! Parameters of a request, from the query string or a POST form alike. Every error names the parameter, what it holds
//! and what is allowed.

use std::str::FromStr;

use axum::extract::{Form, FromRequest, Query, Request};
use cambium_model::limits::TenantLimits;
use cambium_model::selector::SelectorError;
use cambium_model::time::{self, SECOND_NS};
use cambium_runtime::error::{ApiError, HasKind, Kind};
use cambium_runtime::quantity::Span;
use http::{Method, StatusCode};

use super::BODY_BYTES_MAX;

/// Range of a request that gives none: the last hour.
const RANGE_DEFAULT_NS: i64 = 3_600 * SECOND_NS;

/// Characters of a wrong value that a message repeats.
const VALUE_SHOWN_MAX: usize = 200;
/// What a time may look like, for messages.
const TIME_FORMS: &str =
    "a time: RFC 3339 such as 2026-01-02T15:04:05Z, or unix seconds such as 1767366245.5";

/// Names and values in the order given.
pub(super) type Pairs = Vec<(String, String)>;

/// The parameters of one request. An empty value is as good as none, as in Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(Pairs);

/// What is wrong with a parameter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum ParamError {
    #[error("parameter {name} is missing")]
    Missing { name: String },
    #[error("parameter {name}: {value:?} is not {expected}")]
    Malformed { name: String, value: String, expected: String },
    #[error("parameter {name}: {source}")]
    Selector { name: String, source: SelectorError },
    #[error("parameter {end_name}: the range ends before it starts ({start_name})")]
    EndsBeforeStart { start_name: String, end_name: String },
    #[error("the range has {seconds} s, at most {max} s are allowed (query_range_secs_max)")]
    RangeTooLong { seconds: i64, max: u64 },
    #[error("parameter {name} does not go with {other}")]
    Conflict { name: &'static str, other: String },
    #[error("the form has more than {BODY_BYTES_MAX} bytes")]
    FormTooLarge,
    #[error("the request's {part} cannot be read: {message}")]
    Unreadable { part: &'static str, message: String },
}

impl HasKind for ParamError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. }
            | Self::Malformed { .. }
            | Self::Selector { .. }
            | Self::EndsBeforeStart { .. }
            | Self::Conflict { .. }
            | Self::Unreadable { .. } => Kind::Invalid,
            Self::RangeTooLong { .. } => Kind::Unprocessable,
            Self::FormTooLarge => Kind::TooLarge,
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Query(mut pairs) = Query::<Pairs>::try_from_uri(request.uri())
            .map_err(|error| ParamError::Unreadable { part: "query string", message: error.body_text() })?;
        let has_body = request.headers().contains_key(http::header::CONTENT_TYPE);
        if request.method() == Method::POST && has_body {
            let Form(form) =
                Form::<Pairs>::from_request(request, state).await.map_err(|error| match error.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => ParamError::FormTooLarge,
                    _ => ParamError::Unreadable { part: "form", message: error.body_text() },
                })?;
            pairs.extend(form);
        }
        Ok(Self(pairs))
    }
}

impl Params {
    /// Parameters from anywhere else than a form.
    pub(super) fn from_pairs(pairs: Pairs) -> Self {
        Self(pairs)
    }

    /// A parameter's first value that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(given, value)| given == name && !value.is_empty())
            .map(|(_, v)| v.as_str())
    }

    /// A parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ParamError> {
        self.get(name).ok_or_else(|| ParamError::Missing { name: name.to_owned() })
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ParamError> {
        self.parsed(
            name,
            |text| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value),
            || {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("one of {}", words.join(", "))
            },
        )
    }

    /// A yes or no; no where it is not given.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ParamError> {
        let words = [("true", true), ("1", true), ("false", false), ("0", false)];
        Ok(self.choice(name, &words)?.unwrap_or_default())
    }

    /// A whole number, 0 or more.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, ParamError> {
        self.parsed(name, |text| text.parse().ok(), || "a whole number, 0 or more".to_owned())
    }

    /// A part of a whole.
    pub(super) fn fraction(&self, name: &str) -> Result<Option<f64>, ParamError> {
        let read = |text: &str| text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        self.parsed(name, read, || "a number from 0 to 1".to_owned())
    }

    /// An instant, nanoseconds since the epoch.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, ParamError> {
        self.parsed(name, |text| time::parse(text).ok(), || TIME_FORMS.to_owned())
    }

    /// A duration in nanoseconds, more than 0: seconds, or with a unit.
    pub(super) fn step(&self, name: &str) -> Result<Option<i64>, ParamError> {
        let read = |text: &str| {
            let nanos = match text.parse::<Span>() {
                Ok(span) => i64::try_from(span.0.as_nanos()).ok(),
                Err(_) => text.parse::<f64>().ok().map(|seconds| (seconds * SECOND_NS as f64) as i64),
            };
            nanos.filter(|nanos| *nanos > 0)
        };
        self.parsed(name, read, || {
            "a duration above 0: seconds such as 15, or with a unit such as 1m".to_owned()
        })
    }

    /// Label names, separated by commas, in one value or several.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let names = self.all(name).flat_map(|value| value.split(',')).map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// A selector of some kind that must be there.
    pub(super) fn selector<T: FromStr<Err = SelectorError>>(&self, name: &str) -> Result<T, ParamError> {
        selector(name, self.required(name)?)
    }

    /// Selectors of some kind, any number.
    pub(super) fn selectors<T: FromStr<Err = SelectorError>>(
        &self,
        name: &str,
    ) -> Result<Vec<T>, ParamError> {
        self.all(name).map(|text| selector(name, text)).collect()
    }

    /// Start and end in nanoseconds, both inclusive, from the parameters `{prefix}start` and `{prefix}end`.
    pub(super) fn range(
        &self,
        prefix: &str,
        now_ns: i64,
        limits: &TenantLimits,
    ) -> Result<(i64, i64), ParamError> {
        let (start_name, end_name) = (format!("{prefix}start"), format!("{prefix}end"));
        let end = self.time(&end_name)?.unwrap_or(now_ns);
        let start = self.time(&start_name)?.unwrap_or_else(|| end.saturating_sub(RANGE_DEFAULT_NS));
        if end < start {
            return Err(ParamError::EndsBeforeStart { start_name, end_name });
        }
        let max = limits.query_range_secs_max;
        // Whole seconds, rounded up.
        let seconds =
            (i128::from(end) - i128::from(start) + i128::from(SECOND_NS) - 1) / i128::from(SECOND_NS);
        if max > 0 && seconds > i128::from(max) {
            return Err(ParamError::RangeTooLong {
                seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
                max,
            });
        }
        Ok((start, end))
    }

    fn parsed<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
        expected: impl FnOnce() -> String,
    ) -> Result<Option<T>, ParamError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let malformed = || ParamError::Malformed {
            name: name.to_owned(),
            value: text.chars().take(VALUE_SHOWN_MAX).collect(),
            expected: expected(),
        };
        read(text).map(Some).ok_or_else(malformed)
    }
}

fn selector<T: FromStr<Err = SelectorError>>(name: &str, text: &str) -> Result<T, ParamError> {
    text.parse().map_err(|source| ParamError::Selector { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn errors_name_the_parameter_and_what_is_allowed() {
        let given = params(&[("n", "-1"), ("f", "1.5"), ("t", "now"), ("s", "0"), ("b", "yes"), ("c", "x")]);
        let message = |result: Result<(), ParamError>| result.unwrap_err().to_string();
        let cases = [
            (message(given.required("query").map(drop)), "parameter query is missing"),
            (message(given.count("n").map(drop)), "parameter n: \"-1\" is not a whole number, 0 or more"),
            (message(given.fraction("f").map(drop)), "parameter f: \"1.5\" is not a number from 0 to 1"),
            (
                message(given.time("t").map(drop)),
                "parameter t: \"now\" is not a time: RFC 3339 such as 2026-01-02T15:04:05Z, or unix seconds such \
                 as 1767366245.5",
            ),
            (
                message(given.step("s").map(drop)),
                "parameter s: \"0\" is not a duration above 0: seconds such as 15, or with a unit such as 1m",
            ),
            (message(given.flag("b").map(drop)), "parameter b: \"yes\" is not one of true, 1, false, 0"),
            (
                message(given.choice("c", &[("p", 1), ("q", 2)]).map(drop)),
                "parameter c: \"x\" is not one of p, q",
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_empty_value_is_none_and_the_first_one_counts() {
        let given = params(&[("n", ""), ("n", "3"), ("n", "4"), ("by", "pod, zone"), ("by", "node")]);
        assert_eq!(given.count("n"), Ok(Some(3)));
        assert_eq!(given.names("by"), ["pod", "zone", "node"]);
        assert_eq!(given.count("missing"), Ok(None));
    }

    #[test]
    fn steps_are_seconds_or_have_a_unit() {
        for (text, expected) in [("15", 15 * SECOND_NS), ("0.5", SECOND_NS / 2), ("1m", 60 * SECOND_NS)] {
            assert_eq!(params(&[("step", text)]).step("step"), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn a_range_defaults_to_the_last_hour_and_is_bounded() {
        let limits = |max| TenantLimits { query_range_secs_max: max, ..TenantLimits::default() };
        let range = |pairs: &[(&str, &str)], max| params(pairs).range("", 7_200 * SECOND_NS, &limits(max));
        assert_eq!(range(&[], 0), Ok((3_600 * SECOND_NS, 7_200 * SECOND_NS)));
        assert_eq!(range(&[("end", "4000")], 0), Ok((400 * SECOND_NS, 4_000 * SECOND_NS)));
        assert_eq!(range(&[("start", "10"), ("end", "10")], 1), Ok((10 * SECOND_NS, 10 * SECOND_NS)));
        assert_eq!(
            range(&[("start", "10"), ("end", "9")], 0).unwrap_err().to_string(),
            "parameter end: the range ends before it starts (start)"
        );
        assert_eq!(
            range(&[("start", "0"), ("end", "60.5")], 60),
            Err(ParamError::RangeTooLong { seconds: 61, max: 60 })
        );
    }
}
