//! `cambium admin import`: files to blocks, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cambium_model::labels::Labels;
use cambium_model::selector::parse_labels;
use cambium_model::tenant::TenantId;
use cambium_model::time;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::super::print;
use super::Output;
use crate::Config;
use crate::import::{Import, Mode, Outcome, push};
use crate::offline::{Absent, Offline};

/// Failures that are listed; further ones are counted.
const FAILURES_LISTED_MAX: usize = 10_000;

#[derive(Args, Debug)]
pub(in crate::cli) struct ImportArgs {
    /// Whose they are.
    #[arg(long, env = "CAMBIUM_TENANT", default_value = "anonymous")]
    tenant: String,
    /// Labels of the series, such as {service_name="api",pod="a"}, of files that no manifest names.
    #[arg(long, default_value = "{service_name=\"unknown\"}")]
    labels: String,
    /// The profiles' name, such as process_cpu; by default it follows from what they measure.
    #[arg(long)]
    name: Option<String>,
    /// JSON lines: {"file": …, "labels": {…}, "name": …, "time": …}, all but the first optional; the time is RFC 3339 or unix
    /// seconds, files are relative to the manifest's folder.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Read and check everything, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to say what was done.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// pprof files, gzip, zstd or neither, and folders of such.
    #[arg(required_unless_present = "manifest")]
    files: Vec<PathBuf>,
}

/// A line of a manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    file: PathBuf,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    time: Option<serde_json::Value>,
}

/// A file that was not imported.
#[derive(Debug, Serialize)]
struct Failure {
    file: String,
    reason: String,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    /// Files in blocks now.
    imported: u64,
    /// Files that were imported before.
    known: u64,
    failed: u64,
    samples: u64,
    blocks: u64,
    failures: Vec<Failure>,
}

pub(super) async fn run(config: &Config, args: &ImportArgs) -> anyhow::Result<()> {
    let tenant = TenantId::new(&args.tenant).context("--tenant")?;
    let labels = parse_labels(&args.labels).context("--labels")?;
    let (mode, absent) = match args.dry_run {
        true => (Mode::Check, Absent::Pretend),
        false => (Mode::Write, Absent::Create),
    };
    let offline = Offline::open(config, absent).await?;
    // As a start of the server would: an import may come before it.
    if mode == Mode::Write {
        offline.catalogue.fix_partition_count(config.partitions).await?;
    }
    let mut importing = Importing {
        import: Import::begin(&offline, &tenant, mode).await?,
        report: Report { dry_run: args.dry_run, ..Report::default() },
        progress: std::io::stderr().is_terminal(),
    };
    if let Some(manifest) = &args.manifest {
        importing.manifest(manifest, args, &labels).await?;
    }
    for path in &args.files {
        importing.tree(path, args, &labels).await?;
    }
    let Importing { import, mut report, progress } = importing;
    report.blocks = import.end().await.context("the last blocks; the same import again goes on from here")?;
    if progress {
        show("\r\x1b[K");
    }
    say(&report, args.output)?;
    anyhow::ensure!(report.failed == 0, "{} files were not imported", report.failed);
    Ok(())
}

struct Importing<'a> {
    import: Import<'a>,
    report: Report,
    progress: bool,
}

impl Importing<'_> {
    async fn manifest(&mut self, path: &Path, args: &ImportArgs, labels: &Labels) -> anyhow::Result<()> {
        use std::io::BufRead;

        let context = || path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new("."));
        let lines = std::io::BufReader::new(fs::File::open(path).with_context(context)?).lines();
        for (number, line) in lines.enumerate() {
            let line = line.with_context(context)?;
            if line.trim().is_empty() {
                continue;
            }
            let named = match read_line(&line, labels) {
                Ok((line, labels, time_ns)) => {
                    let name = line.name.or_else(|| args.name.clone());
                    self.file(&folder.join(line.file), labels, name, time_ns).await?;
                    continue;
                }
                Err(error) => format!("{error:#}"),
            };
            self.fail(&format!("{}:{}", path.display(), number + 1), named);
        }
        Ok(())
    }

    /// A file, or all below a folder, in the order of their names.
    async fn tree(&mut self, path: &Path, args: &ImportArgs, labels: &Labels) -> anyhow::Result<()> {
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            if !path.is_dir() {
                self.file(&path, labels.clone(), args.name.clone(), None).await?;
                continue;
            }
            let entries = fs::read_dir(&path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            match entries {
                Ok(entries) => {
                    let mut below: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
                    below.sort_unstable_by(|a, b| b.cmp(a));
                    waiting.append(&mut below);
                }
                Err(error) => self.fail(&path.display().to_string(), error.to_string()),
            }
        }
        Ok(())
    }

    async fn file(
        &mut self,
        path: &Path,
        labels: Labels,
        name: Option<String>,
        time_ns: Option<i64>,
    ) -> anyhow::Result<()> {
        let file = path.display().to_string();
        let body = match fs::read(path) {
            Ok(body) => body,
            Err(error) => {
                self.fail(&file, error.to_string());
                return Ok(());
            }
        };
        match self.import.take(&push(body, labels, name, time_ns)).await.with_context(|| file.clone())? {
            Ok(Outcome::Taken { samples }) => {
                self.report.imported += 1;
                self.report.samples += samples;
            }
            Ok(Outcome::Known) => self.report.known += 1,
            Err(refused) => self.fail(&file, format!("{:#}", anyhow::Error::from(refused))),
        }
        if self.progress {
            let Report { imported, known, failed, .. } = &self.report;
            show(&format!("\r\x1b[K{imported} imported, {known} known, {failed} failed: {file}"));
        }
        Ok(())
    }

    fn fail(&mut self, file: &str, reason: String) {
        self.report.failed += 1;
        if self.report.failures.len() < FAILURES_LISTED_MAX {
            self.report.failures.push(Failure { file: file.to_owned(), reason });
        }
    }
}

fn read_line(text: &str, labels: &Labels) -> anyhow::Result<(Line, Labels, Option<i64>)> {
    let line: Line = serde_json::from_str(text)?;
    let labels = match &line.labels {
        Some(own) => Labels::from_pairs(own.iter().map(|(name, value)| (name.as_str(), value.as_str())))?,
        None => labels.clone(),
    };
    let time_ns = match &line.time {
        None => None,
        Some(serde_json::Value::String(text)) => Some(time::parse(text).context("time")?),
        Some(number) => Some(time::parse(&number.to_string()).context("time")?),
    };
    Ok((line, labels, time_ns))
}

fn say(report: &Report, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        print(&serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    report.failures.iter().for_each(|failure| print(&format!("{}: {}", failure.file, failure.reason)));
    let would = if report.dry_run { "would be " } else { "" };
    let Report { imported, known, failed, samples, blocks, .. } = report;
    print(&format!(
        "{imported} files {would}imported in {blocks} blocks, {samples} samples; {known} known, {failed} failed"
    ));
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress, on a terminal only")]
fn show(text: &str) {
    eprint!("{text}");
    // Progress that cannot be shown is none.
    let _ = std::io::stderr().flush();
}
