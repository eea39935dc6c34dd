//! Names for places, as far as they are known, and a child process for those that are not.
//!
//! ```text
//!   places ──► Known ── new ones ──► Resolver: a child for the batch ──► Known ──► lines by place
//! ```
//!
//! A child that fails or takes too long costs names, never a profile: it goes out with addresses, and the next profile
//! asks again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cambium_model::symbols::{Function, Line};
use cambium_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::objects::{Objects, Place};
use super::resolver::{Answer, Frame, Question, SUBCOMMAND};

/// Places whose names are kept, and the most of one batch. The process sees some thousands; with their lines they take
/// a few megabytes. Past the bound all are forgotten, and what is needed is asked for again.
const PLACES_MAX: usize = 16_384;
/// Longest life of a child. It needs a fraction of a second; the rest is for a machine with other things to do.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer to a batch: 4 KiB for each place.
const ANSWER_BYTES_MAX: u64 = (PLACES_MAX as u64) << 12;

/// Why a batch has no names.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the child cannot be started or talked to")]
    Pipe(#[from] io::Error),
    #[error("the child gave an answer that cannot be read")]
    Answer(#[from] serde_json::Error),
    #[error("the child gave {answers} answers to {places} questions")]
    Short { answers: usize, places: usize },
    #[error("the child ended with {0}")]
    Failed(ExitStatus),
    #[error("the child has not answered after {0:?}")]
    TimedOut(Duration),
}

/// What is known of places: innermost function first, empty where there is no name.
pub type Named = HashMap<Place, Arc<[Line]>>;

/// Names of this process' places.
#[derive(Debug)]
pub struct Names {
    resolver: Resolver,
    /// Held while a child runs, so that there is one at a time and none for what another one is resolving.
    known: Mutex<Known>,
    batches: Counter,
    failures: Counter,
}

#[derive(Debug, Default)]
struct Known {
    lines: Named,
    /// Every text once: many places share a function, many functions a file.
    texts: HashSet<Arc<str>>,
}

/// How to start a child.
#[derive(Debug)]
struct Resolver {
    program: PathBuf,
    arguments: Vec<&'static str>,
    timeout: Duration,
}

impl Names {
    /// Knows nothing yet.
    pub fn new(metrics: &Metrics) -> Self {
        // This very executable, even where another one has its path by now.
        let program = "/proc/self/exe".into();
        Self::with(Resolver { program, arguments: vec![SUBCOMMAND], timeout: TIMEOUT }, metrics)
    }

    fn with(resolver: Resolver, metrics: &Metrics) -> Self {
        let names = Self {
            resolver,
            known: Mutex::default(),
            batches: Counter::default(),
            failures: Counter::default(),
        };
        metrics.register(|registry| {
            for (name, help, counter) in [
                ("batches", "Batches of own addresses that a child was started for", &names.batches),
                ("failures", "Batches of own addresses that stayed without names", &names.failures),
            ] {
                registry.register(format!("self_profiling_resolver_{name}"), help, counter.clone());
            }
        });
        names
    }

    /// What is known of `places`, asking a child for what is not.
    pub async fn of(&self, objects: &Objects, places: &BTreeSet<Place>) -> Named {
        let mut known = self.known.lock().await;
        let mut new: Vec<Place> =
            places.iter().filter(|place| !known.lines.contains_key(place)).copied().collect();
        if known.lines.len() + new.len() > PLACES_MAX {
            *known = Known::default();
            new = places.iter().take(PLACES_MAX).copied().collect();
        }
        if !new.is_empty() {
            self.batches.inc();
            match self.resolver.resolve(objects, &new).await {
                Ok(answers) => new.iter().zip(answers).for_each(|(place, answer)| known.add(*place, answer)),
                Err(error) => {
                    self.failures.inc();
                    let error = anyhow::Error::from(error);
                    tracing::warn!(
                        error = format!("{error:#}"),
                        addresses = new.len(),
                        "own addresses stay without names"
                    );
                }
            }
        }
        places.iter().filter_map(|place| Some((*place, Arc::clone(known.lines.get(place)?)))).collect()
    }
}

impl Known {
    fn add(&mut self, place: Place, answer: Answer) {
        let lines = answer.frames.into_iter().map(|frame| self.line(frame)).collect();
        self.lines.insert(place, lines);
    }

    fn line(&mut self, frame: Frame) -> Line {
        let function = Function {
            name: self.text(frame.name),
            system_name: self.text(frame.system_name),
            file: self.text(frame.file),
            start_line: 0,
        };
        Line { function, line: frame.line.into(), column: frame.column.into() }
    }

    fn text(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }
}

impl Resolver {
    /// One answer for each place.
    async fn resolve(&self, objects: &Objects, places: &[Place]) -> Result<Vec<Answer>, Error> {
        let asking = self.ask(questions(objects, places));
        let answers =
            tokio::time::timeout(self.timeout, asking).await.map_err(|_| Error::TimedOut(self.timeout))??;
        if answers.len() != places.len() {
            return Err(Error::Short { answers: answers.len(), places: places.len() });
        }
        Ok(answers)
    }

    async fn ask(&self, questions: Vec<u8>) -> Result<Vec<Answer>, Error> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            // It lives shorter than any of these would pay.
            .env("MALLOC_CONF", "prof:false,prof_active:false,background_thread:false,narenas:1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut stdin = stdin.expect("piped above");
        stdin.write_all(&questions).await?;
        drop(stdin);
        let stdout = stdout.expect("piped above").take(ANSWER_BYTES_MAX);
        let mut lines = BufReader::new(stdout).lines();
        let mut answers = Vec::new();
        while let Some(line) = lines.next_line().await? {
            answers.push(serde_json::from_str(&line)?);
        }
        let status = child.wait().await?;
        if status.success() { Ok(answers) } else { Err(Error::Failed(status)) }
    }
}

/// The places, which come in order, object by object.
fn questions(objects: &Objects, places: &[Place]) -> Vec<u8> {
    let mut lines = Vec::new();
    for of_object in places.chunk_by(|a, b| a.object == b.object) {
        let question = Question {
            object: objects.name(of_object[0].object).map(str::to_owned),
            addresses: of_object.iter().map(|place| place.address).collect(),
        };
        serde_json::to_writer(&mut lines, &question).expect("plain data into memory");
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests;
