//! `drop_frames` and `keep_frames`, with the semantics of Go's `profile.RemoveUninteresting`.
//!
//! A function is dropped when its simplified name matches `drop_frames` and not `keep_frames`. In a location the
//! outermost line that is dropped goes, with all lines inlined below it; if it is the outermost line of all, the
//! location as a whole is dropped. In a stack, seen from the root, the first location with a dropped line that comes
//! after one without cuts the stack: what lies below it goes, and the location too if it is dropped as a whole. A
//! stack whose outermost frames are dropped keeps them, so that nothing is pruned away entirely.

use regex::Regex;

use super::error::Error;
use super::go_regex;
use super::tables::Location;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// No line is dropped.
    Keep,
    /// Some lines are gone; stacks end here.
    CutBelow,
    /// The location is dropped; stacks end above it.
    Drop,
}

/// The expressions of one profile, kept for the next, which mostly has the same.
#[derive(Debug)]
struct Patterns {
    drop_text: String,
    keep_text: String,
    drop: Regex,
    keep: Option<Regex>,
}

/// Prunes profiles one after the other.
#[derive(Debug, Default)]
pub(super) struct Pruner {
    patterns: Option<Patterns>,
    /// What becomes of each location; empty where the profile drops nothing.
    verdicts: Vec<Verdict>,
}

impl Pruner {
    /// Cuts the lines of locations and remembers what becomes of their stacks. `line_functions` has the function's
    /// row of each line, `names` the name of each function.
    pub(super) fn prune_locations<'a>(
        &mut self,
        (drop, keep): (&str, &str),
        locations: &mut [Location],
        line_functions: &[u32],
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        self.verdicts.clear();
        if drop.is_empty() {
            return Ok(());
        }
        let patterns = self.patterns(drop, keep)?;
        let dropped: Vec<bool> = names
            .map(|name| {
                let simple = simplify(name);
                !name.is_empty()
                    && patterns.drop.is_match(simple)
                    && !patterns.keep.as_ref().is_some_and(|keep| keep.is_match(simple))
            })
            .collect();
        let verdict = |location: &mut Location| {
            let functions = &line_functions[location.lines()];
            match functions.iter().rposition(|&function| dropped[function as usize]) {
                None => Verdict::Keep,
                Some(outermost) if outermost == functions.len() - 1 => Verdict::Drop,
                Some(inner) => {
                    location.first_line += inner as u32 + 1;
                    Verdict::CutBelow
                }
            }
        };
        self.verdicts.extend(locations.iter_mut().map(verdict));
        Ok(())
    }

    /// Cuts a stack, given as rows of locations, the innermost first.
    #[inline]
    pub(super) fn prune_stack<'a>(&self, stack: &'a [u32]) -> &'a [u32] {
        if self.verdicts.is_empty() { stack } else { self.cut(stack) }
    }

    fn cut<'a>(&self, stack: &'a [u32]) -> &'a [u32] {
        let verdict = |frame: usize| self.verdicts[stack[frame] as usize];
        let Some(user) = (0..stack.len()).rev().find(|&frame| verdict(frame) == Verdict::Keep) else {
            return stack;
        };
        match (0..user).rev().find(|&frame| verdict(frame) != Verdict::Keep) {
            None => stack,
            Some(frame) if verdict(frame) == Verdict::Drop => &stack[frame + 1..],
            Some(frame) => &stack[frame..],
        }
    }

    fn patterns(&mut self, drop: &str, keep: &str) -> Result<&Patterns, Error> {
        let compile = |field, text: &str| {
            go_regex::compile_anchored(text)
                .map_err(|error| Error::Pattern { field, reason: error.to_string() })
        };
        let known = self.patterns.take().filter(|known| known.drop_text == drop && known.keep_text == keep);
        let patterns = match known {
            Some(known) => known,
            None => Patterns {
                drop_text: drop.to_owned(),
                keep_text: keep.to_owned(),
                drop: compile("drop_frames", drop)?,
                keep: if keep.is_empty() { None } else { Some(compile("keep_frames", keep)?) },
            },
        };
        Ok(self.patterns.insert(patterns))
    }
}

/// The function's name without a leading dot (PowerPC's linker sets one) and without its arguments, which begin at
/// the first parenthesis that is not part of a name.
fn simplify(name: &str) -> &str {
    const ANONYMOUS: &str = "(anonymous namespace)";
    const CALL: &str = "operator";
    let name = name.strip_prefix('.').unwrap_or(name);
    let mut from = 0;
    while let Some(found) = name[from..].find('(') {
        let at = from + found;
        if name[at..].starts_with(ANONYMOUS) {
            from = at + ANONYMOUS.len();
        } else if name[at..].starts_with("()") && name[from..at].ends_with(CALL) {
            from = at + 2;
        } else {
            return &name[..at];
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_arguments() {
        for (name, simple) in [
            ("main.main", "main.main"),
            (".foo", "foo"),
            ("f(int)", "f"),
            ("(*T).method", ""),
            ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
            ("a::operator()(int)", "a::operator()"),
            ("a::operator()", "a::operator()"),
            ("operator()()::{lambda(int)#1}::operator()(int)", "operator()"),
            ("x()", "x"),
            ("", ""),
        ] {
            assert_eq!(simplify(name), simple, "{name}");
        }
    }
}
