//! Go's regular expressions, in which `drop_frames` and `keep_frames` are written, for the `regex` crate.
//!
//! Both are RE2's language; they differ in that Go's `\d \s \w \b` know only ASCII, that Go takes `\Q…\E`, and that
//! Go reads a brace that starts no repetition, and `[`, `&&` and `~~` inside a class, as themselves.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// The expression, anchored at both ends as pprof anchors it.
pub(super) fn compile_anchored(pattern: &str) -> Result<Regex, regex::Error> {
    // pprof compiles "^(" + pattern + ")$"; the wrapping is part of what is translated.
    RegexBuilder::new(&translate(&format!("^({pattern})$"))).size_limit(COMPILED_BYTES_MAX).build()
}

fn translate(go: &str) -> String {
    let mut out = String::with_capacity(go.len() + 16);
    let mut chars = go.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut chars, &mut out),
            '[' => class(&mut chars, &mut out),
            '{' if !starts_repetition(chars.clone()) => out.push_str(r"\{"),
            _ => out.push(c),
        }
    }
    out
}

/// What follows a backslash.
fn escape(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    match chars.next() {
        Some('Q') => quoted(chars, out),
        Some('b') => out.push_str(r"(?-u:\b)"),
        // Not in a byte mode, in which the complement would match half a character.
        Some('B') => out.push_str(r"(?-u:\B)"),
        Some(c) => escape_alike(c, out),
        None => out.push('\\'),
    }
}

/// Escapes that mean the same in and outside a class.
fn escape_alike(c: char, out: &mut String) {
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        _ if c.is_ascii_punctuation() => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        _ => out.extend(['\\', c]),
    }
}

/// Everything up to `\E` stands for itself.
fn quoted(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    out.push_str(&regex::escape(&text));
}

/// What follows the bracket that opens a class.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    // A bracket that comes first does not close the class.
    if chars.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => return out.push(']'),
            '\\' => match chars.next() {
                Some(escaped) => escape_alike(escaped, out),
                None => out.push('\\'),
            },
            // A POSIX class such as `[:alpha:]`.
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
}

/// Whether what follows a brace makes it a repetition: `n}`, `n,}` or `n,m}`.
fn starts_repetition(chars: Peekable<Chars<'_>>) -> bool {
    let inside: String = chars.take_while(|&c| c != '}' && (c.is_ascii_digit() || c == ',')).collect();
    let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
    !least.is_empty() && !most.contains(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        #[track_caller]
        fn check(pattern: &str, matching: &[&str], others: &[&str]) {
            let regex = compile_anchored(pattern).unwrap();
            for text in matching {
                assert!(regex.is_match(text), "{pattern} should match {text}");
            }
            for text in others {
                assert!(!regex.is_match(text), "{pattern} should not match {text}");
            }
        }
        check("a|bc", &["a", "bc"], &["ab", "xbc", "a\n", "c"]);
        check(r"runtime\..*", &["runtime.main"], &["runtimexmain", "runtime.\n"]);
        check(r"\d\w\s", &["1a "], &["١a ", "1ä ", "1a\u{a0}", "1a\u{b}"]);
        check(r"[\d]+[^\W]", &["12a"], &["x"]);
        check(r".*\bx", &["äx", "a x"], &["ax"]);
        check(r"\Qa.b(\E+", &["a.b(", "a.b(("], &["axb("]);
        check("{lambda}|a{,2}|b{2}|c{1,}|d{x", &["{lambda}", "a{,2}", "bb", "ccc", "d{x"], &["b", "a", "d"]);
        check("[[]|[]a]|[a&&b]+|[~~]", &["[", "]", "a", "b&", "~"], &["\\", "c"]);
        check("[[:alpha:]_]+", &["a_"], &["1"]);
        check(r"operator\<|\_", &["operator<", "_"], &["operator"]);
        check("(?i)ab", &["AB", "ab"], &["a"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for pattern in ["(", "a)", r"\Qa\", "[a", "*", r"\8", "a{1000}{1000}{1000}"] {
            assert!(compile_anchored(pattern).is_err(), "{pattern}");
        }
    }
}
