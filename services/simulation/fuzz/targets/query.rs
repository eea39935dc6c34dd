//! Text of a query: a selector or an error, in time that a short text cannot stretch.

#![no_main]

use cambium_model::labels::Labels;
use cambium_model::profile_type::ProfileType;
use cambium_model::selector::{MatchOp, ProfileQuery, Selector, parse_labels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    selector(text);
    labels(text);
    if let Ok(query) = text.parse::<ProfileQuery>() {
        let shown: ProfileType =
            query.profile_type.to_string().parse().expect("what is shown of a type is read back");
        assert_eq!(shown, query.profile_type);
        assert_eq!(query.selector, text[text.find('{').unwrap_or(text.len())..].parse().expect("its part"));
    }
});

/// An absent label has the empty value, and a negated matcher selects what the plain one does not.
fn selector(text: &str) {
    let Ok(selector) = text.parse::<Selector>() else { return };
    let _ = selector.to_string();
    let absent = selector.matchers.iter().all(|matcher| matcher.matches(""));
    assert_eq!(selector.matches(&Labels::empty()), absent);
    for matcher in &selector.matchers {
        for value in ["", "a", &matcher.value] {
            let plain = matcher.matches(value);
            let equal = value == matcher.value;
            match matcher.op {
                MatchOp::Equal => assert_eq!(plain, equal),
                MatchOp::NotEqual => assert_eq!(plain, !equal),
                MatchOp::Regex | MatchOp::NotRegex => {}
            }
        }
    }
}

/// A label set selects itself.
fn labels(text: &str) {
    let Ok(labels) = parse_labels(text) else { return };
    let selector: Selector = text.parse().expect("a label set is a selector");
    assert!(selector.matches(&labels));
    assert_eq!(Labels::from_pairs(labels.iter()).as_ref(), Ok(&labels));
}
