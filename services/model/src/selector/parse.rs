//! The selector's grammar, PromQL's: `{` name op quoted (`,` name op quoted)* `,`? `}`.
//!
//! A name is `[A-Za-z_:][A-Za-z0-9_:.]*` or quoted; a value is quoted with `"`, `'` or `` ` ``, the first two with
//! Go's escapes.

use super::MATCHERS_MAX;
use super::MatchOp;
use super::Matcher;
use super::SELECTOR_BYTES_MAX;
use super::Selector;
use super::SelectorError;

pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(SelectorError::TooLong(text.len()));
    }
    let mut cursor = Cursor { text, at: 0 };
    let mut matchers = Vec::new();
    cursor.skip_space();
    if cursor.rest().is_empty() {
        return Ok(Selector { matchers });
    }
    cursor.expect('{', "'{'")?;
    loop {
        cursor.skip_space();
        if cursor.eat('}') {
            break;
        }
        if matchers.len() == MATCHERS_MAX {
            return Err(SelectorError::TooMany);
        }
        let name = cursor.name()?;
        cursor.skip_space();
        let op = cursor.op()?;
        cursor.skip_space();
        let value = cursor.quoted("a quoted value")?;
        matchers.push(Matcher::new(&name, op, &value)?);
        cursor.skip_space();
        if !cursor.eat(',') {
            cursor.expect('}', "',' or '}'")?;
            break;
        }
    }
    cursor.skip_space();
    if !cursor.rest().is_empty() {
        return Err(cursor.error("the end"));
    }
    Ok(Selector { matchers })
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, expected: &'static str) -> Result<(), SelectorError> {
        if self.eat(wanted) { Ok(()) } else { Err(self.error(expected)) }
    }

    fn error(&self, expected: &'static str) -> SelectorError {
        SelectorError::Syntax {
            at: self.at,
            expected,
            found: self.peek().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}")),
        }
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn name(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), Some('"' | '\'' | '`')) {
            let start = self.at;
            let name = self.quoted("a label name")?;
            if name.is_empty() {
                self.at = start;
                return Err(self.error("a label name"));
            }
            return Ok(name);
        }
        let rest = self.rest();
        let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
        if !rest.starts_with(starts) {
            return Err(self.error("a label name or '}'"));
        }
        let length =
            rest.find(|c: char| !(starts(c) || c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let name = rest[..length].to_owned();
        self.at += length;
        Ok(name)
    }

    fn op(&mut self) -> Result<MatchOp, SelectorError> {
        for (text, op) in [
            ("=~", MatchOp::Regex),
            ("!~", MatchOp::NotRegex),
            ("!=", MatchOp::NotEqual),
            ("=", MatchOp::Equal),
        ] {
            if self.rest().starts_with(text) {
                self.at += text.len();
                return Ok(op);
            }
        }
        Err(self.error("one of = != =~ !~"))
    }

    fn quoted(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let Some(quote @ ('"' | '\'' | '`')) = self.peek() else {
            return Err(self.error(expected));
        };
        self.at += 1;
        let mut value = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            if c == quote {
                return Ok(value);
            }
            if c == '\\' && quote != '`' {
                value.push(self.escape(quote)?);
            } else {
                value.push(c);
            }
        }
        Err(self.error("a closing quote"))
    }

    fn escape(&mut self, quote: char) -> Result<char, SelectorError> {
        let Some(c) = self.peek() else {
            return Err(self.error("an escape"));
        };
        let simple = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '\\' => '\\',
            _ if c == quote => c,
            'x' => return self.hexadecimal(2),
            'u' => return self.hexadecimal(4),
            'U' => return self.hexadecimal(8),
            _ => return Err(self.error("an escape such as \\n, \\\\ or \\u00e9")),
        };
        self.at += c.len_utf8();
        Ok(simple)
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<char, SelectorError> {
        let code = self
            .rest()
            .get(1..=digits)
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .and_then(char::from_u32);
        match code {
            Some(c) => {
                self.at += 1 + digits;
                Ok(c)
            }
            None => Err(self.error("hexadecimal digits of a character")),
        }
    }
}
