//! The seam to where a node's logs are: folders on its own disk, or a cluster's log that every node can open.
//!
//! Laws: a log is open once at a time on a node; what [`Logs::held`] names may have records that are in no block; a log is
//! removed only when all its records are in blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cambium_model::block::LogId;

use crate::local::{self, LocalLog, Recovery};
use crate::log::{Error, Log};
use crate::memory::MemoryLog;

/// Where logs are.
#[async_trait]
pub trait Logs: fmt::Debug + Send + Sync {
    /// Whether every node can open every log, so that each partition has one for ever. Otherwise a log is on this node's
    /// disk alone, and each tenure of a partition has its own.
    fn are_shared(&self) -> bool;

    /// Opens a log, or creates it.
    async fn open(&self, id: LogId) -> Result<Arc<dyn Log>, Error>;

    /// The logs that are here, open ones included. None where they are shared.
    async fn held(&self) -> Result<Vec<LogId>, Error>;

    /// Removes a closed log.
    async fn remove(&self, id: LogId) -> Result<(), Error>;

    /// Puts a closed log where it is not found again, for a human: it holds records that were given up.
    async fn set_aside(&self, id: LogId) -> Result<(), Error>;
}

/// Write-ahead logs in the folders of one disk.
#[derive(Clone, Debug)]
pub struct LocalLogs {
    config: local::Config,
    deps: local::Deps,
}

/// After the name of a log that was set aside.
const ASIDE: &str = "aside";

impl LocalLogs {
    /// Logs under [`local::Config::root`].
    pub fn new(config: local::Config, deps: local::Deps) -> Self {
        Self { config, deps }
    }

    fn folder(&self, id: LogId) -> PathBuf {
        self.config.root.join(id.to_string())
    }

    /// Does something to the disk where waiting for it harms nobody.
    async fn on_disk<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&dyn local::disk::Disk, &std::path::Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let disk = Arc::clone(&self.deps.disk);
        local::blocking(move || work(&*disk, &path).map_err(|source| Error::io(&path, source))).await
    }
}

#[async_trait]
impl Logs for LocalLogs {
    fn are_shared(&self) -> bool {
        false
    }

    async fn open(&self, id: LogId) -> Result<Arc<dyn Log>, Error> {
        let (log, recovery) = LocalLog::open(id, self.config.clone(), self.deps.clone()).await?;
        report(id, &recovery);
        Ok(Arc::new(log))
    }

    async fn held(&self) -> Result<Vec<LogId>, Error> {
        let names = self.on_disk(self.config.root.clone(), |disk, root| {
            disk.create_folder(root)?;
            disk.folders(root)
        });
        let mut held: Vec<LogId> = names.await?.iter().filter_map(|name| name.parse().ok()).collect();
        held.sort_unstable();
        Ok(held)
    }

    async fn remove(&self, id: LogId) -> Result<(), Error> {
        self.on_disk(self.folder(id), |disk, folder| disk.remove_folder(folder)).await
    }

    async fn set_aside(&self, id: LogId) -> Result<(), Error> {
        self.on_disk(self.folder(id), |disk, folder| {
            disk.rename_folder(folder, &folder.with_extension(ASIDE))
        })
        .await
    }
}

/// Says what the log found on the disk: torn appends are of no one, damage is for a human.
fn report(log: LogId, recovery: &Recovery) {
    if recovery.void_bytes > 0 {
        tracing::info!(%log, bytes = recovery.void_bytes, "cut appends that a crash had interrupted");
    }
    for gap in &recovery.gaps {
        tracing::error!(%log, first = gap.first.0, next = gap.next.0, "durable records are lost");
    }
    for path in &recovery.quarantined {
        tracing::error!(%log, path = %path.display(), "damaged segment quarantined");
    }
}

/// Logs that live as long as this: for tests, whose nodes die and come back around them.
#[derive(Debug, Default)]
pub struct MemoryLogs {
    given: Vec<Arc<dyn Log>>,
    made: Mutex<BTreeMap<LogId, Arc<MemoryLog>>>,
}

impl MemoryLogs {
    /// These logs; others are created when they are first opened.
    pub fn of(logs: impl IntoIterator<Item = Arc<dyn Log>>) -> Self {
        Self { given: logs.into_iter().collect(), made: Mutex::default() }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<LogId, Arc<MemoryLog>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Logs for MemoryLogs {
    fn are_shared(&self) -> bool {
        false
    }

    async fn open(&self, id: LogId) -> Result<Arc<dyn Log>, Error> {
        if let Some(given) = self.given.iter().find(|log| log.id() == id) {
            return Ok(Arc::clone(given));
        }
        let mut made = self.locked();
        let log = made.entry(id).or_insert_with(|| Arc::new(MemoryLog::new(id)));
        log.reopen();
        Ok(Arc::clone(log) as Arc<dyn Log>)
    }

    async fn held(&self) -> Result<Vec<LogId>, Error> {
        let given = self.given.iter().map(|log| log.id());
        Ok(given.chain(self.locked().keys().copied()).collect())
    }

    async fn remove(&self, id: LogId) -> Result<(), Error> {
        self.locked().remove(&id);
        Ok(())
    }

    async fn set_aside(&self, id: LogId) -> Result<(), Error> {
        self.remove(id).await
    }
}

#[cfg(test)]
mod tests {
    use cambium_model::block::{Offset, Partition};
    use cambium_runtime::clock::SystemClock;

    use super::*;
    use crate::local::disk::{Disk, SystemDisk};
    use crate::testing::FaultyDisk;

    async fn logs_are_found_until_they_are_removed(disk: Arc<dyn Disk>, root: PathBuf) {
        let deps = local::Deps { clock: Arc::new(SystemClock::new()), disk };
        let logs = LocalLogs::new(local::Config::new(root), deps);
        assert_eq!(logs.held().await.unwrap(), []);
        let ids =
            [(0, 1), (3, 2), (3, 17)].map(|(partition, log)| LogId { partition: Partition(partition), log });
        for id in ids {
            let log = logs.open(id).await.unwrap();
            log.append(vec![1].into()).await.unwrap();
            log.close().await;
        }
        assert_eq!(logs.held().await.unwrap(), ids);
        assert_eq!(logs.open(ids[1]).await.unwrap().next(), Offset(1));
        logs.remove(ids[0]).await.unwrap();
        logs.set_aside(ids[2]).await.unwrap();
        assert_eq!(logs.held().await.unwrap(), [ids[1]]);
        assert_eq!(logs.open(ids[2]).await.unwrap().next(), Offset(0), "what was set aside is not found");
    }

    #[tokio::test]
    async fn logs_are_found_on_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        logs_are_found_until_they_are_removed(Arc::new(SystemDisk), folder.path().join("log")).await;
    }

    #[tokio::test]
    async fn logs_are_found_on_the_disk_of_tests() {
        logs_are_found_until_they_are_removed(Arc::new(FaultyDisk::new(1)), "/log".into()).await;
    }
}
