//! What operators do with a data folder. Looking works while a server runs on it; changing what a server believes does
//! not.

use cambium_blocks::layout::BLOCKS_PREFIX;
use cambium_blocks::verify::verify;
use clap::{Subcommand, ValueEnum};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::print;
use crate::Config;
use crate::crash;
use crate::offline::Offline;

mod backup;
mod import;
mod list;
mod logs;
mod rebuild;

/// How a command says what it has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Output {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// `cambium admin …`
#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Make the catalogue from what the blocks in the bucket say. The server must not run.
    RebuildCatalogue(rebuild::RebuildArgs),
    /// Write what the bucket lacks to a file: tokens, tenants, deletions, limits.
    Backup(backup::BackupArgs),
    /// Put a backup back. The server must not run.
    Restore(backup::RestoreArgs),
    /// Put historic pprof files into blocks, however old; again does no harm. The server must not run.
    Import(import::ImportArgs),
    /// List blocks.
    Blocks(list::BlocksArgs),
    /// List, create and delete tenants.
    #[command(subcommand)]
    Tenants(list::TenantsCommand),
    /// List logs, or give one up.
    #[command(subcommand)]
    Logs(logs::LogsCommand),
    /// Check every byte, every reference and every sum of every block in the data folder.
    Verify,
}

pub(super) fn run(config: &Config, command: &AdminCommand) -> anyhow::Result<()> {
    crash::arm().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            AdminCommand::Verify => verify_blocks(config).await,
            AdminCommand::RebuildCatalogue(args) => rebuild::run(config, args).await,
            AdminCommand::Backup(args) => backup::write(config, args).await,
            AdminCommand::Restore(args) => backup::restore(config, args).await,
            AdminCommand::Import(args) => import::run(config, args).await,
            AdminCommand::Blocks(args) => list::blocks(config, args).await,
            AdminCommand::Tenants(command) => list::tenants(config, command).await,
            AdminCommand::Logs(command) => logs::run(config, command),
        }
    });
    match result {
        Err(error) if Offline::is_in_use(&error) => {
            Err(error.context("stop the server on this folder first"))
        }
        result => result,
    }
}

/// Checks the blocks one after the other; each must fit in memory.
async fn verify_blocks(config: &Config) -> anyhow::Result<()> {
    let store = LocalFileSystem::new_with_prefix(config.data_dir.join("blocks"))?;
    let objects: Vec<_> = store.list(Some(&Path::from(BLOCKS_PREFIX))).try_collect().await?;
    let (mut bytes, mut samples, mut damaged) = (0, 0, 0);
    for object in &objects {
        let path = object.location.to_string();
        let content = async { store.get(&object.location).await?.bytes().await }.await;
        // One that has just been swept is no damage.
        let content = match content {
            Err(object_store::Error::NotFound { .. }) => continue,
            content => content?,
        };
        match verify(&path, &content) {
            Ok(block) => {
                bytes += block.size_bytes;
                samples += block.datasets.iter().map(|dataset| dataset.samples).sum::<u64>();
            }
            Err(error) => {
                damaged += 1;
                print(&format!("{:#}", anyhow::Error::from(error)));
            }
        }
    }
    anyhow::ensure!(damaged == 0, "{damaged} of {} blocks are damaged", objects.len());
    print(&format!("{} blocks, {bytes} bytes, {samples} samples: all is as they say", objects.len()));
    Ok(())
}
