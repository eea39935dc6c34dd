//! Golden equality: what Cambium says about real profiles is what Go's pprof says, value by value.
//!
//! ```text
//!  profiles ──► Go's pprof ──► answers ─────────────────────────┐
//!      │                                                        ├── compare: top, flame graph, folded
//!      ├── push whole ──► heads ──► blocks ──► Cambium's answers┤
//!      │                                          ‖             ├── compare: pprof download
//!      ├── push halves: block + head ──► the same answers       │
//!      └── read by prost, normalised naively ───────────────────┘
//! ```
//!
//! Go's answers come from the tool itself; `services/simulation/golden/README.md` says what they mean. Every merge of
//! `merges.txt` is asked like a profile. Each test drives one process, in which a tenant stands for a way of storing:
//! everything is pushed, then asked, so that profiles also lie in each other's way.

mod case;

mod corpus;

mod difference;

mod go;

mod original;

mod question;

use std::collections::BTreeMap;

use cambium_simulation::{Client, Sandbox};

use self::case::Case;
use self::corpus::Corpus;
use self::difference::Differences;
use self::question::{Answers, Form};
use crate::BINARY;

#[test]
fn committed_profiles_are_answered_as_by_go_pprof_from_heads_blocks_and_both() {
    check(&Corpus::committed());
}

#[test]
fn shared_profiles_are_answered_as_by_go_pprof_from_heads_blocks_and_both() {
    match Corpus::shared() {
        Ok(corpus) => check(&corpus),
        Err(reason) => eprintln!("SKIPPED: shared profiles: {reason}"),
    }
}

/// Asks everything about a corpus, from every place that can hold it.
fn check(corpus: &Corpus) {
    let sandbox = Sandbox::running(BINARY, &["--auth", "header"]);
    let [whole, halves] = ["whole", "halves"].map(|tenant| sandbox.client().as_tenant(tenant));
    let cases = corpus.cases();
    cases.iter().for_each(|case| case.push_first_half(&halves));
    sandbox.flush().unwrap();
    cases.iter().for_each(|case| case.push_second_half(&halves));
    cases.iter().for_each(|case| case.push(&whole));

    let mut differences = Differences::default();
    let from_heads: Vec<Answers> = cases.iter().map(|case| case.ask(&whole, &case.questions())).collect();
    for (case, answers) in cases.iter().zip(&from_heads) {
        check_case(case, answers, &mut differences);
    }
    compare_place("half in a block, half in a head", &halves, &cases, &from_heads, &mut differences);
    sandbox.flush().unwrap();
    compare_place("in a block", &whole, &cases, &from_heads, &mut differences);
    differences.panic_if_any();
}

/// One case's answers against Go's and against the profiles themselves.
fn check_case(case: &Case, answers: &Answers, differences: &mut Differences) {
    for (question, answer) in answers {
        let what = format!("{} {question}", case.name);
        let type_name = case.type_name(question.sample_type);
        match question.form {
            Form::Top(granularity) => {
                let top = question::Top::parse(answer);
                differences.compare(&what, go::top(&case.answers, type_name, granularity), top.rows);
                differences.compare_values(&what, "total", case.total(question.sample_type), top.total);
            }
            Form::FlameGraph => {
                let graph = question::FlameGraph::parse(answer, &what, differences);
                differences.compare(&what, go::stacks(&case.answers, type_name), graph.stacks);
                differences.compare_values(&what, "total", case.total(question.sample_type), graph.total);
            }
            Form::Folded => {
                differences.compare(&what, go::stacks(&case.answers, type_name), question::folded(answer));
            }
            Form::Pprof => case.check_download(question.sample_type, answer, &what, differences),
        }
    }
}

/// The same profiles lying somewhere else: byte-equal answers to the questions that decide.
fn compare_place(
    place: &str,
    client: &Client,
    cases: &[Case],
    from_heads: &[Answers],
    differences: &mut Differences,
) {
    for (case, from_heads) in cases.iter().zip(from_heads) {
        for (question, found) in case.ask(client, &case.deciding_questions()) {
            let expected = &from_heads[&question];
            if found != *expected {
                let what = format!("{} {question}, {place}", case.name);
                differences.note(format!("{what}: not the bytes answered from heads"));
                if question.form != Form::Pprof {
                    differences.compare(&what, pieces(expected), pieces(&found));
                }
            }
        }
    }
}

/// How often each line of a text occurs; JSON has none, so each value in brackets counts as one.
fn pieces(answer: &[u8]) -> BTreeMap<String, usize> {
    let mut pieces = BTreeMap::new();
    for piece in String::from_utf8_lossy(answer).split(['\n', '{', '[']) {
        *pieces.entry(piece.to_owned()).or_default() += 1;
    }
    pieces
}
