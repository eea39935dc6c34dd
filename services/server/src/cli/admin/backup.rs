//! `cambium admin backup` and `restore`.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use cambium_metastore::backup::{Counts, Overwrite, check, restore as put_back};
use clap::Args;

use super::super::print;
use super::list::running;
use crate::Config;
use crate::backup;
use crate::offline::{Absent, Offline};

#[derive(Args, Debug)]
pub(in crate::cli) struct BackupArgs {
    /// The file to write; it must not be there.
    file: PathBuf,
    /// Names of locations and objects too: much larger.
    #[arg(long)]
    symbols: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RestoreArgs {
    /// The file that `backup` wrote.
    file: PathBuf,
    /// Overwrite tokens and deletions that differ, and the overrides file.
    #[arg(long)]
    replace: bool,
}

pub(super) async fn write(config: &Config, args: &BackupArgs) -> anyhow::Result<()> {
    match Offline::open(config, Absent::Refuse).await {
        Ok(offline) => {
            let (metastore, now_ns) = (Arc::clone(&offline.metastore), offline.clock.now_ns());
            report(&backup::write_file(config, metastore, now_ns, args.symbols, args.file.clone()).await?);
            Ok(())
        }
        Err(error) if Offline::is_in_use(&error) => {
            let symbols = args.symbols.to_string();
            let answer = running(config).post("/api/v1/admin/backup", &[("symbols", &symbols)], &[])?;
            let mut answer: serde_json::Value = serde_json::from_slice(&answer.good()?)?;
            let written: PathBuf = serde_json::from_value(answer["data"]["file"].take())?;
            backup::move_file(&written, &args.file)?;
            print("written by the server that runs on the folder");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn restore(config: &Config, args: &RestoreArgs) -> anyhow::Result<()> {
    let open = || File::open(&args.file).map(BufReader::new);
    let header = check(&mut open().with_context(|| args.file.display().to_string())?)?;
    let offline = Offline::open(config, Absent::Create).await?;
    let overwrite = if args.replace { Overwrite::Replace } else { Overwrite::Refuse };
    restore_overrides(config, &header.overrides, overwrite)?;
    let (header, counts) = put_back(&*offline.metastore, open, overwrite, offline.clock.now_ns()).await?;
    report(&counts);
    if !header.symbols {
        print(
            "the backup has no names of locations: they are shown as addresses or as unknown until pushed again",
        );
    }
    Ok(())
}

/// Writes the limits' file where one is configured; another one that is there stays unless it may be replaced.
fn restore_overrides(config: &Config, text: &str, overwrite: Overwrite) -> anyhow::Result<()> {
    let path = &config.overrides_file;
    if text.is_empty() {
        return Ok(());
    }
    if path.as_os_str().is_empty() {
        print("the backup has a file of limits, and overrides_file is not set: it is left out");
        return Ok(());
    }
    match fs::read_to_string(path) {
        Ok(held) if held == text => Ok(()),
        Ok(_) if overwrite == Overwrite::Refuse => {
            anyhow::bail!("{} differs from the backup's: say --replace to overwrite it", path.display())
        }
        _ => fs::write(path, text).with_context(|| path.display().to_string()),
    }
}

fn report(counts: &Counts) {
    for (kind, count) in counts.iter().filter(|(_, count)| *count > 0) {
        print(&format!("{count} × {kind}"));
    }
}
