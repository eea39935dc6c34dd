//! The local log under the contract, under faults, under crashes and with damaged files.

mod crashes;
mod damage;
mod faults;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use cambium_model::block::{LogId, Offset, Partition};
use cambium_runtime::clock::SystemClock;

use crate::contract;
use crate::local::disk::{Disk, SystemDisk};
use crate::local::writer::Writer;
use crate::local::{Config, Deps, LocalLog, Recovery};
use crate::log::{Entry, Error, Log};
use crate::testing::FaultyDisk;

/// Small, so that a few records fill a segment.
const SEGMENT_BYTES: u64 = 400;

const ID: LogId = LogId { partition: Partition(7), log: 3 };

/// Where the log of [`ID`] lies on a disk in memory.
const FOLDER: &str = "/logs/0007-00000003";

fn config(root: impl AsRef<Path>) -> Config {
    Config { segment_bytes: SEGMENT_BYTES, ..Config::new(root.as_ref()) }
}

fn deps(disk: impl Disk + 'static) -> Deps {
    Deps { clock: Arc::new(SystemClock::new()), disk: Arc::new(disk) }
}

/// Opens without a thread, so that groups are what the test says.
fn open_writer(disk: &FaultyDisk) -> Result<(Writer, Recovery), Error> {
    super::open_writer(ID, &config("/logs"), deps(disk.clone()))
}

/// Everything the log holds.
fn read_all(writer: &Writer) -> Vec<Entry> {
    let first = writer.index.state().first();
    writer.index.read(&*writer.disk, first, usize::MAX).unwrap()
}

/// A record that says its number, `size` bytes longer than that needs.
fn payload(number: usize, size: usize) -> Bytes {
    format!("{number:06}{}", "x".repeat(size)).into()
}

#[tokio::test]
async fn upholds_the_contract() {
    let root = tempfile::tempdir().unwrap();
    contract::upholds(async |log| {
        let id = LogId { partition: Partition(0), log };
        let (log, recovery) = LocalLog::open(id, config(&root), deps(SystemDisk)).await.unwrap();
        assert_eq!(recovery, Recovery::default());
        let log: Arc<dyn Log> = Arc::new(log);
        log
    })
    .await;
}

#[tokio::test]
async fn survives_reopening() {
    let root = tempfile::tempdir().unwrap();
    contract::survives(async |log| {
        let id = LogId { partition: Partition(0), log };
        let (log, recovery) = LocalLog::open(id, config(&root), deps(SystemDisk)).await.unwrap();
        assert_eq!(recovery, Recovery::default());
        let log: Arc<dyn Log> = Arc::new(log);
        log
    })
    .await;
}

#[tokio::test]
async fn a_log_is_open_once_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let open = async || LocalLog::open(ID, config(&root), deps(SystemDisk)).await;
    let (log, _) = open().await.unwrap();
    let refused = open().await;
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    log.close().await;
    let (_log, _) = open().await.unwrap();
}

#[test]
fn a_group_is_one_sync() {
    let (mut writer, _) = open_writer(&FaultyDisk::new(0)).unwrap();
    let records: Vec<_> = (0..50).map(|number| payload(number, 10)).collect();
    assert_eq!(writer.append(&records).unwrap(), Offset(0));
    assert_eq!(writer.index.state().stats.syncs, 1);
    assert_eq!(read_all(&writer).len(), 50);
}

#[test]
fn truncation_gives_room_back() {
    let disk = FaultyDisk::new(0);
    let (mut writer, _) = open_writer(&disk).unwrap();
    for number in 0..20 {
        writer.append(&[payload(number, 100)]).unwrap();
    }
    let full = disk.used_bytes();
    writer.truncate(Offset(10)).unwrap();
    let half = disk.used_bytes();
    writer.truncate(Offset(20)).unwrap();
    assert!(half < full * 2 / 3, "{half} of {full}");
    assert_eq!(disk.used_bytes(), 36, "one empty segment");
    assert_eq!(disk.list(Path::new(FOLDER)).unwrap(), ["0000000000000014.seg"]);
}
