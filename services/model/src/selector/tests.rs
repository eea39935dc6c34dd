use proptest::prelude::*;

use super::*;

fn check(text: &str, expected: &str) {
    let parsed = text.parse::<Selector>();
    let shown = match &parsed {
        Ok(selector) => selector.to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn selectors_follow_promql() {
    check("", "{}");
    check("{}", "{}");
    check(r#"{a="b"}"#, r#"{a="b"}"#);
    check(r#" { a = "b" , c!~'d"' , } "#, r#"{a="b",c!~"d\""}"#);
    check(r#"{`k8s.pod`!=`a\b`}"#, r#"{k8s.pod!="a\\b"}"#);
    check(r#"{k8s.pod=~"\u00e9\x41\n"}"#, r#"{k8s.pod=~"éA\n"}"#);
}

#[test]
fn errors_name_the_place() {
    check("{", "selector: expected a label name or '}' at byte 1, found the end");
    check("x", "selector: expected '{' at byte 0, found 'x'");
    check(r#"{a="b"#, "selector: expected a closing quote at byte 5, found the end");
    check(r#"{a~"b"}"#, "selector: expected one of = != =~ !~ at byte 2, found '~'");
    check("{a=b}", "selector: expected a quoted value at byte 3, found 'b'");
    check(r#"{a="b" c="d"}"#, "selector: expected ',' or '}' at byte 7, found 'c'");
    check(r#"{a="b"}x"#, "selector: expected the end at byte 7, found 'x'");
    check(r#"{a="\q"}"#, r"selector: expected an escape such as \n, \\ or \u00e9 at byte 5, found 'q'");
    check(r#"{a=~"("}"#, r#"selector: label "a": bad regular expression: unclosed group"#);
    check(r#"{a=~"b)|(c"}"#, r#"selector: label "a": bad regular expression: unopened group"#);
    check(r#"{""="x"}"#, "selector: expected a label name at byte 1, found '\"'");
}

#[test]
fn absent_labels_have_the_empty_value() {
    let labels = Labels::from_pairs([("a", "x"), ("b", "y")]).unwrap();
    for (text, expected) in [
        (r#"{a="x"}"#, true),
        (r#"{a="x",b!="y"}"#, false),
        (r#"{c=""}"#, true),
        (r#"{c!=""}"#, false),
        (r#"{c=~".*"}"#, true),
        (r#"{c=~".+"}"#, false),
        (r#"{a=~"x|z"}"#, true),
        (r#"{a=~"^x"}"#, true),
        (r#"{a!~"x.+"}"#, true),
        (r#"{a=~"X"}"#, false),
    ] {
        assert_eq!(text.parse::<Selector>().unwrap().matches(&labels), expected, "{text}");
    }
}

#[test]
fn queries_name_a_type_and_series() {
    let query: ProfileQuery = r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{a="b"}"#.parse().unwrap();
    assert!(query.profile_type.delta);
    assert_eq!(query.selector.to_string(), r#"{a="b"}"#);
    assert!("process_cpu{}".parse::<ProfileQuery>().is_err());
    assert!("memory:alloc_space:bytes:space:bytes".parse::<ProfileQuery>().is_ok());
}

#[test]
fn label_sets_take_only_equality() {
    assert_eq!(parse_labels(r#"{b="1",a="2"}"#).unwrap().to_string(), r#"{a="2",b="1"}"#);
    assert_eq!(
        parse_labels(r#"{a=~"b"}"#).unwrap_err().to_string(),
        "labels: a=~… is a matcher, a label set takes only ="
    );
}

proptest! {
    #[test]
    fn what_is_shown_is_read_back(name in ".{1,5}", value in "(?s:.{0,12})", op in 0..2) {
        let op = [MatchOp::Equal, MatchOp::NotEqual][op as usize];
        let selector = Selector { matchers: vec![Matcher::new(&name, op, &value).unwrap()] };
        prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _ = text.parse::<ProfileQuery>();
    }
}
