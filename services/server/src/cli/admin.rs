//! What operators do with a data folder, whether a server runs on it or not.

use cambium_blocks::layout::BLOCKS_PREFIX;
use cambium_blocks::verify::verify;
use clap::Subcommand;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::print;
use crate::Config;

/// `cambium admin …`
#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Check every byte, every reference and every sum of every block in the data folder.
    Verify,
}

pub(super) fn run(config: &Config, command: &AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Verify => verify_blocks(config),
    }
}

/// Checks the blocks one after the other; each must fit in memory.
fn verify_blocks(config: &Config) -> anyhow::Result<()> {
    let store = LocalFileSystem::new_with_prefix(config.data_dir.join("blocks"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let objects: Vec<_> = runtime.block_on(store.list(Some(&Path::from(BLOCKS_PREFIX))).try_collect())?;
    let (mut bytes, mut samples, mut damaged) = (0, 0, 0);
    for object in &objects {
        let path = object.location.to_string();
        let content = runtime.block_on(async { store.get(&object.location).await?.bytes().await });
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
