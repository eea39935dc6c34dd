//! Writing a backup's file: of a folder without a server, or by the server on it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cambium_metastore::backup::{Counts, Header, write};
use cambium_metastore::kv::KvStore;

use crate::Config;

/// Where a server puts the backups that it is asked for.
pub(crate) fn folder(config: &Config) -> PathBuf {
    config.data_dir.join("backups")
}

/// Writes a backup to `path`, where nothing may be; the file is there under its name only once it is whole and durable.
pub(crate) async fn write_file(
    config: &Config,
    metastore: Arc<dyn KvStore>,
    created_ns: i64,
    symbols: bool,
    path: PathBuf,
) -> anyhow::Result<Counts> {
    let overrides = match config.overrides_file.as_os_str().is_empty() {
        true => String::new(),
        false => fs::read_to_string(&config.overrides_file)
            .with_context(|| config.overrides_file.display().to_string())?,
    };
    let header = Header { created_ns, symbols, overrides };
    let runtime = tokio::runtime::Handle::current();
    // Reading the store is asynchronous, writing the file blocks.
    let writing = tokio::task::spawn_blocking(move || -> anyhow::Result<Counts> {
        anyhow::ensure!(!path.exists(), "{} is there already", path.display());
        let partial = path.with_added_extension("partial");
        let mut file = BufWriter::new(File::create(&partial).with_context(|| partial.display().to_string())?);
        let counts = runtime.block_on(write(&*metastore, &header, &mut file))?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&partial, &path)?;
        sync_folder(&path)?;
        Ok(counts)
    });
    writing.await?
}

/// Moves a whole backup to where it was asked for.
pub(crate) fn move_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!to.exists(), "{} is there already", to.display());
    if fs::rename(from, to).is_err() {
        // On another disk.
        let partial = to.with_added_extension("partial");
        fs::copy(from, &partial).with_context(|| partial.display().to_string())?;
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, to)?;
        fs::remove_file(from)?;
    }
    sync_folder(to)
}

/// A file's name is durable only once its folder is.
fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())?)
}
