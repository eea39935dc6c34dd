//! Names for addresses of this executable, in a process of its own that ends when it has answered.
//!
//! ```text
//!   Names ── Question per object, JSON lines ──► stdin  │ the same executable, started with SUBCOMMAND
//!         ◄── Answer per address, in their order ─ stdout │ reads debug information, which goes when it ends
//! ```
//!
//! Names come from the debug information of a binary of some hundred megabytes. A process that has read it once keeps
//! it: mapped, parsed and resident, for a few names every ten seconds.

use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::objects::Objects;

/// The first and only argument of a process that resolves. No part of the command line that people use, so `--help`
/// does not have it.
pub const SUBCOMMAND: &str = "resolve-own-addresses";

/// Addresses to resolve.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// The file that the addresses are of, by its path; none for the executable.
    pub object: Option<String>,
    /// Addresses in the file.
    pub addresses: Vec<u64>,
}

/// What is at an address: inlined functions make several frames, the innermost first. Empty where nothing is known.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The frames.
    pub frames: Vec<Frame>,
}

/// One function at an address.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The name people read.
    pub name: String,
    /// The linker's name.
    pub system_name: String,
    /// Source file; may be empty.
    pub file: String,
    /// Source line; 0 where unknown.
    pub line: u32,
    /// Source column; 0 where unknown.
    pub column: u32,
}

/// Answers what stands on standard input and ends. A process that reads nothing else: no settings, no logs, no tasks.
pub fn main() -> ExitCode {
    match answer(io::stdin().lock(), BufWriter::new(io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers all questions; only after the last one is read, so that nobody waits for the other side to read.
fn answer(questions: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let mut asked = Vec::new();
    for line in questions.lines() {
        asked.push(serde_json::from_str::<Question>(&line?)?);
    }
    let objects = Objects::loaded();
    for question in asked {
        let base = objects.base(question.object.as_deref());
        for address in question.addresses {
            let answer = base.map(|base| resolve(base.wrapping_add(address))).unwrap_or_default();
            serde_json::to_writer(&mut answers, &answer)?;
            answers.write_all(b"\n")?;
        }
    }
    answers.flush()
}

/// What is at an address of this process.
fn resolve(address: u64) -> Answer {
    let mut frames = Vec::new();
    // The crate takes what it gets for a return address and looks at the instruction before.
    let returned_to = address.wrapping_add(1) as *mut libc::c_void;
    backtrace::resolve(returned_to, |symbol| {
        let Some(name) = symbol.name() else { return };
        frames.push(Frame {
            // Without the hash at its end.
            name: format!("{name:#}"),
            system_name: String::from_utf8_lossy(name.as_bytes()).into_owned(),
            file: symbol.filename().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default(),
            line: symbol.lineno().unwrap_or_default(),
            column: symbol.colno().unwrap_or_default(),
        });
    });
    Answer { frames }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[inline(always)]
    fn inlined() -> u64 {
        let mut here = 0;
        backtrace::trace(|frame| {
            // The first frame is this function's, or what it is inlined in.
            here = frame.ip() as u64 - 1;
            let mut ours = false;
            backtrace::resolve_frame(frame, |symbol| {
                ours |= format!("{:?}", symbol.name()).contains("outer")
            });
            !ours
        });
        here
    }

    #[inline(never)]
    fn outer() -> u64 {
        black_box(inlined())
    }

    #[test]
    fn answers_have_inlined_frames_lines_and_both_names() {
        let here = outer();
        let objects = Objects::loaded();
        let place = objects.place(here).unwrap();
        let libc_place =
            objects.place(libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64).unwrap();
        // Of a dependency, which has symbols and no debug information.
        let foreign = objects.place(backtrace::clear_symbol_cache as fn() as usize as u64).unwrap();
        let questions = [
            Question { object: None, addresses: vec![place.address, u64::MAX / 2, foreign.address] },
            Question {
                object: objects.name(libc_place.object).map(str::to_owned),
                addresses: vec![libc_place.address],
            },
            Question { object: Some("/no/such/library".to_owned()), addresses: vec![5] },
        ];
        let lines: String =
            questions.iter().map(|question| serde_json::to_string(question).unwrap() + "\n").collect();
        let mut written = Vec::new();
        answer(lines.as_bytes(), &mut written).unwrap();
        let text = String::from_utf8(written).unwrap();
        let answers: Vec<Answer> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

        assert_eq!(answers.len(), 5, "{answers:?}");
        let [inner, around] = &answers[0].frames[..] else { panic!("{answers:?}") };
        // Debug information of lines alone has names without their modules.
        assert!(inner.name.ends_with("inlined"), "{inner:?}");
        assert!(around.name.ends_with("outer"), "{around:?}");
        for frame in [inner, around] {
            assert!(frame.file.ends_with("self_profile/resolver.rs"), "{frame:?}");
            assert!(frame.line > 80, "{frame:?}");
        }
        assert!(inner.line < around.line, "{inner:?} {around:?}");
        assert_eq!(answers[1], Answer::default(), "nothing is there");
        let [foreign] = &answers[2].frames[..] else { panic!("{answers:?}") };
        assert_eq!(foreign.name, "backtrace::symbolize::clear_symbol_cache");
        assert!(foreign.system_name.starts_with('_') && foreign.system_name.contains("clear_symbol_cache"));
        assert!(answers[3].frames[0].name.contains("getpid"), "{:?}", answers[3]);
        assert_eq!(answers[4], Answer::default());
    }

    #[test]
    fn what_is_no_question_is_an_error() {
        answer(&b"{\n"[..], Vec::new()).unwrap_err();
    }
}
