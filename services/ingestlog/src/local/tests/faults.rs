//! A disk that is full or fails, while the process lives.

use cambium_runtime::error::{HasKind, Kind};

use super::*;
use crate::testing::Fault;

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room() {
    let disk = FaultyDisk::new(1);
    let (log, _) = LocalLog::open(ID, config("/logs"), deps(disk.clone())).await.unwrap();
    assert_eq!(log.append(payload(0, 50)).await.unwrap(), Offset(0));

    disk.set_capacity(disk.used_bytes() + 40);
    for number in 1..4 {
        let refused = log.append(payload(number, 50)).await.unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
        assert_eq!((refused.kind(), refused.retry_after().is_some()), (Kind::Unavailable, true));
    }
    assert_eq!(log.stats().failed_appends, 3);

    disk.set_capacity(u64::MAX);
    assert_eq!(log.append(payload(4, 50)).await.unwrap(), Offset(1));
    let kept = [(0, payload(0, 50)), (1, payload(4, 50))]
        .map(|(offset, payload)| Entry::Record { offset: Offset(offset), payload });
    assert_eq!(log.read(Offset(0), usize::MAX).await.unwrap(), kept);
}

/// Appends a record, lets the operations after it fail as told, and expects this of the second append; then of a
/// third that it works, and that the second has left no trace before and after a restart.
#[track_caller]
fn check(faults: &[(u64, Fault)], expected: &str) {
    let disk = FaultyDisk::new(3);
    let (mut writer, _) = open_writer(&disk).unwrap();
    writer.append(&[payload(0, 10)]).unwrap();
    for (operations, fault) in faults {
        disk.fail_after(*operations, *fault);
    }
    let error = writer.append(&[payload(1, 10), payload(2, 10)]).unwrap_err();
    let name = format!("{error:?}");
    assert!(name.starts_with(expected), "{name}");

    disk.heal();
    assert_eq!(writer.append(&[payload(3, 10)]).unwrap(), Offset(1));
    let kept = [(0, payload(0, 10)), (1, payload(3, 10))]
        .map(|(offset, payload)| Entry::Record { offset: Offset(offset), payload });
    assert_eq!(read_all(&writer), kept);
    drop(writer);
    disk.power_loss();
    let (writer, recovery) = open_writer(&disk).unwrap();
    assert_eq!(read_all(&writer), kept);
    assert_eq!(recovery, Recovery::default());
}

#[test]
fn a_failed_append_leaves_no_trace() {
    use Fault::{Broken, Full};
    // Operations of an append: 0 write, 1 sync. After a failed write: 1 cut, 2 its sync. A new segment: create,
    // write, sync, rename, sync of the folder.
    check(&[(0, Full)], "DiskFull");
    check(&[(0, Broken)], "Io");
    check(&[(1, Full)], "DiskFull");
    check(&[(1, Broken)], "Io");
    check(&[(0, Full), (1, Broken)], "DiskFull");
    check(&[(0, Full), (2, Broken)], "DiskFull");
    for failing in 3..8 {
        check(&[(0, Full), (2, Broken), (failing, Broken)], "Undetermined");
    }
    for failing in 2..7 {
        check(&[(1, Broken), (failing, Broken)], "Undetermined");
    }
}

#[test]
fn a_segment_that_cannot_be_created_costs_only_that_append() {
    let disk = FaultyDisk::new(4);
    let (mut writer, _) = open_writer(&disk).unwrap();
    writer.append(&[payload(0, 500)]).unwrap();
    for step in 0..5 {
        disk.fail_after(step, Fault::Full);
        let refused = writer.append(&[payload(1, 10)]).unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }), "step {step}: {refused:?}");
    }
    assert_eq!(writer.append(&[payload(1, 10)]).unwrap(), Offset(1));
    assert_eq!(read_all(&writer).len(), 2);
}

#[test]
fn a_truncation_that_failed_can_be_repeated() {
    for failing in 0.. {
        let disk = FaultyDisk::new(failing);
        let (mut writer, _) = open_writer(&disk).unwrap();
        for number in 0..6 {
            writer.append(&[payload(number, 200)]).unwrap();
        }
        disk.fail_after(failing, Fault::Broken);
        if writer.truncate(Offset(6)).is_ok() {
            assert_eq!(
                failing, 11,
                "two segments in two operations each, a new one in five, the third in two"
            );
            break;
        }
        assert_eq!(read_all(&writer).last().unwrap().next(), Offset(6), "what is left can be read");
        writer.truncate(Offset(6)).unwrap();
        assert_eq!(writer.append(&[payload(6, 0)]).unwrap(), Offset(6));
        assert_eq!(read_all(&writer).len(), 1);
    }
}
