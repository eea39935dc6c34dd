//! One profile, or several merged: pushed as one series, asked as one query.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cambium_proto::wire::perftools::Profile;
use cambium_simulation::Client;

use super::difference::Differences;
use super::original::{Original, Places, Stack, sums};
use super::question::{Answers, Form, Granularity, Question};
use crate::main_job::now_ns;

/// Distance between the profiles of a case, so that a push and its neighbour are never the same profile.
const STEP_NS: i64 = 1_000_000;

/// How far back profiles are dated: all of a case must lie in the past when they are asked for.
const AGO_NS: i64 = 60_000_000_000;

/// What is asked about at once.
#[derive(Debug)]
pub struct Case {
    /// The profile's file or the merge's name; also the service's.
    pub name: String,
    /// Folder of Go's answers.
    pub answers: PathBuf,
    profiles: Vec<Original>,
    /// Time of the first profile.
    time_ns: i64,
    /// Sums of every sample type, by stack and labels.
    sums: BTreeMap<Stack, Vec<i64>>,
    /// What the stacks' numbers mean.
    places: Places,
}

impl Case {
    /// Takes profiles whose sample types are equal.
    pub fn new(name: &str, mut profiles: Vec<Original>, answers: PathBuf) -> Self {
        // Cambium keeps deltas and instants apart, Go's merge does not: here all are what the first one is.
        let duration_nanos = profiles[0].profile.duration_nanos;
        for profile in &mut profiles[1..] {
            if (profile.profile.duration_nanos > 0) != (duration_nanos > 0) {
                profile.set_duration(duration_nanos);
            }
        }
        let mut places = Places::default();
        let sums = sums(profiles.iter().map(|original| &original.profile), &mut places);
        let time_ns = now_ns() - AGO_NS;
        Self { name: name.to_owned(), answers, profiles, time_ns, sums, places }
    }

    /// The name of a sample type.
    pub fn type_name(&self, sample_type: usize) -> &str {
        self.first().text(self.first().profile.sample_type[sample_type].r#type)
    }

    /// The sum of all values of a sample type, samples without a stack included.
    pub fn total(&self, sample_type: usize) -> i64 {
        self.sums.values().map(|values| values[sample_type]).sum()
    }

    /// Pushes every profile as it is.
    pub fn push(&self, client: &Client) {
        for (at, original) in self.profiles.iter().enumerate() {
            self.push_one(client, at, &original.bytes);
        }
    }

    /// Pushes the first half of every profile's samples.
    pub fn push_first_half(&self, client: &Client) {
        for (at, original) in self.profiles.iter().enumerate() {
            self.push_one(client, at, &original.halves()[0]);
        }
    }

    /// Pushes the other half.
    pub fn push_second_half(&self, client: &Client) {
        for (at, original) in self.profiles.iter().enumerate() {
            self.push_one(client, self.profiles.len() + at, &original.halves()[1]);
        }
    }

    fn push_one(&self, client: &Client, at: usize, body: &[u8]) {
        let time_ns = self.time_ns + at as i64 * STEP_NS;
        let timestamp = format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000);
        let more = [("name", "golden"), ("timestamp", timestamp.as_str())];
        let answer = client.push(&format!("{{service_name={:?}}}", self.name), &more, body).unwrap();
        assert_eq!(answer.status, 200, "{}: {}", self.name, answer.text());
    }

    /// Everything that can be asked.
    pub fn questions(&self) -> Vec<Question> {
        let types = 0..self.first().profile.sample_type.len();
        types.flat_map(|sample_type| Form::ALL.map(|form| Question { sample_type, form })).collect()
    }

    /// The questions whose answers imply the rest: every sample with everything it says, and of one sample type the
    /// sums and the tree.
    pub fn deciding_questions(&self) -> Vec<Question> {
        let mut questions = self.questions();
        let last_type = self.first().profile.sample_type.len() - 1;
        let trees = [Form::Top(Granularity::Function), Form::FlameGraph];
        questions.retain(|Question { sample_type, form }| {
            *form == Form::Pprof || *sample_type == last_type && trees.contains(form)
        });
        questions
    }

    /// Asks, two questions at a time.
    pub fn ask(&self, client: &Client, questions: &[Question]) -> Answers {
        let ask = |question: &Question| (*question, question.ask(client, &self.query(question.sample_type)));
        let (left, right) = questions.split_at(questions.len() / 2);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| -> Answers { left.iter().map(ask).collect() });
            let mut answers: Answers = right.iter().map(ask).collect();
            answers.extend(others.join().unwrap());
            answers
        })
    }

    fn query(&self, sample_type: usize) -> String {
        let first = self.first();
        let (sample, sample_unit) = first.value_type(Some(&first.profile.sample_type[sample_type]));
        let (period, period_unit) = first.value_type(first.profile.period_type.as_ref());
        let delta = if first.profile.duration_nanos > 0 { ":delta" } else { "" };
        let name = &self.name;
        format!("golden:{sample}:{sample_unit}:{period}:{period_unit}{delta}{{service_name={name:?}}}")
    }

    /// Compares a downloaded pprof with the profiles: its samples and its head.
    pub fn check_download(&self, sample_type: usize, body: &[u8], what: &str, differences: &mut Differences) {
        let download = Original::of_bytes(body.to_vec());
        let (profile, first) = (&download.profile, self.first());
        let types: Vec<_> = profile.sample_type.iter().map(|ty| download.value_type(Some(ty))).collect();
        let expected = first.value_type(Some(&first.profile.sample_type[sample_type]));
        differences.compare_values(what, "sample types", vec![expected], types);
        let period_type = |of: &Original| {
            let (ty, unit) = of.value_type(of.profile.period_type.as_ref());
            (ty.to_owned(), unit.to_owned())
        };
        differences.compare_values(what, "period type", period_type(first), period_type(&download));
        let all =
            |field: fn(&Profile) -> i64| self.profiles.iter().map(move |original| field(&original.profile));
        let period = all(|profile| profile.period).max().unwrap_or_default();
        differences.compare_values(what, "period", period, profile.period);
        let duration: i64 = all(|profile| profile.duration_nanos).sum();
        differences.compare_values(what, "duration", duration, profile.duration_nanos);
        differences.compare_values(what, "time", self.time_ns, profile.time_nanos);

        let mut places = self.places.clone();
        let found = sums([profile], &mut places);
        differences.compare_values(what, "samples, each once", found.len(), profile.sample.len());
        let one = |values: &[i64], at: usize| Some(values[at]).filter(|value| *value != 0);
        let expected =
            self.sums.iter().filter_map(|(stack, values)| Some((stack, one(values, sample_type)?)));
        let found = found.iter().filter_map(|(stack, values)| Some((stack, one(values, 0)?)));
        let (expected, found): (BTreeMap<_, _>, BTreeMap<_, _>) = (expected.collect(), found.collect());
        if expected != found {
            let told = |sums: BTreeMap<&Stack, i64>| -> BTreeMap<String, i64> {
                sums.into_iter().map(|(stack, value)| (places.describe(stack), value)).collect()
            };
            differences.compare(what, told(expected), told(found));
        }
    }

    fn first(&self) -> &Original {
        &self.profiles[0]
    }
}
