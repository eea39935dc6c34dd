//! Files that rot, vanish or belong elsewhere.

use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::local::segment::{Header, RECORD_HEADER_BYTES, RecordHeader, parse_file_name};

/// A closed log of groups of these sizes, each record 100 bytes on disk: four fill a segment.
fn log_of(groups: &[usize]) -> FaultyDisk {
    let disk = FaultyDisk::new(5);
    let (mut writer, _) = open_writer(&disk).unwrap();
    let mut next = 0;
    for size in groups {
        let group: Vec<_> = (next..next + size).map(record).collect();
        writer.append(&group).unwrap();
        next += size;
    }
    disk
}

fn record(number: usize) -> Bytes {
    payload(number, 100 - RECORD_HEADER_BYTES - 6)
}

/// Changes the bytes of a segment.
fn damage(disk: &FaultyDisk, segment: u64, bytes: Range<u64>) {
    let file = disk.open(&segment_path(segment)).unwrap();
    for position in bytes {
        let mut byte = [0];
        file.read_exact_at(&mut byte, position).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], position).unwrap();
    }
    file.sync().unwrap();
}

fn segment_path(first: u64) -> std::path::PathBuf {
    Path::new(FOLDER).join(format!("{first:016x}.seg"))
}

/// What a log holds, as a picture: `.` for a good record, `x` for a lost one; then what was cut and quarantined.
fn picture(writer: &Writer, recovery: &Recovery) -> String {
    let mut picture = String::new();
    for entry in read_all(writer) {
        match entry {
            Entry::Record { offset, payload } => {
                assert_eq!(payload, record(usize::try_from(offset.0).unwrap()));
                picture.push('.');
            }
            Entry::Gap { first, next } => {
                for lost in (first.0..next.0).map(Offset) {
                    assert!(recovery.gaps.iter().any(|gap| (gap.first..gap.next).contains(&lost)));
                    picture.push('x');
                }
            }
            poison @ Entry::Poison { .. } => panic!("{poison:?}"),
        }
    }
    if recovery.void_bytes > 0 {
        picture += &format!(" void {}", recovery.void_bytes);
    }
    for path in &recovery.quarantined {
        picture += &format!(" kept {}", path.strip_prefix(FOLDER).unwrap().display());
    }
    picture
}

/// Opens the log, compares it with the picture, appends two records, and opens it again: what was lost is still
/// named and the new ones are there.
#[track_caller]
fn check(disk: &FaultyDisk, expected: &str) {
    let (mut writer, recovery) = open_writer(disk).unwrap();
    assert_eq!(picture(&writer, &recovery), expected);
    for _ in 0..2 {
        let next = writer.index.state().next;
        assert_eq!(writer.append(&[record(usize::try_from(next).unwrap())]).unwrap(), Offset(next));
    }
    drop(writer);
    disk.power_loss();
    let (writer, mut again) = open_writer(disk).unwrap();
    again.void_bytes = recovery.void_bytes;
    let (records, found) = expected.split_once(' ').unwrap_or((expected, ""));
    assert_eq!(picture(&writer, &again).trim(), format!("{records}.. {found}").trim());
}

#[test]
fn a_torn_end_is_cut() {
    let disk = log_of(&[1, 1, 1, 1, 1]);
    let file = disk.open(&segment_path(4)).unwrap();
    file.set_size(36 + 99).unwrap();
    check(&disk, ".... void 99");
}

#[test]
fn damage_in_the_last_group_is_a_torn_end() {
    // Nobody can tell this from a power loss in the middle of the group, whose pages reach the disk in any order.
    let disk = log_of(&[3, 1, 3]);
    damage(&disk, 4, 36 + 150..36 + 151);
    check(&disk, "..... void 200");
}

#[test]
fn nothing_of_a_torn_group_comes_back_behind_new_records() {
    let disk = log_of(&[3, 1, 3]);
    damage(&disk, 4, 36 + 50..36 + 51);
    // Two new records take the place of the first two; the third is sound and has just the next offset.
    check(&disk, ".... void 300");
}

#[test]
fn damage_in_the_last_segment_is_a_gap() {
    let disk = log_of(&[1, 1, 1]);
    damage(&disk, 0, 36 + 50..36 + 51);
    check(&disk, "x.. kept quarantine/0000000000000000.seg");
}

#[test]
fn a_later_header_is_proof_even_if_its_payload_is_gone() {
    let disk = log_of(&[1, 1, 1]);
    damage(&disk, 0, 36 + 150..36 + 151);
    damage(&disk, 0, 36 + 250..36 + 251);
    check(&disk, ".x void 200 kept quarantine/0000000000000000.seg");
}

#[test]
fn damage_before_the_last_group_is_a_gap() {
    let disk = log_of(&[1, 2, 1, 1]);
    damage(&disk, 0, 36 + 150..36 + 151);
    check(&disk, ".x... kept quarantine/0000000000000000.seg");
}

#[test]
fn a_damaged_length_costs_one_record() {
    let disk = log_of(&[1, 1, 1, 1, 1]);
    damage(&disk, 0, 36 + 100 + 8..36 + 100 + 12);
    check(&disk, ".x... kept quarantine/0000000000000000.seg");
}

#[test]
fn damage_over_several_records_is_one_gap() {
    let disk = log_of(&[1; 9]);
    damage(&disk, 4, 36 + 50..36 + 250);
    check(&disk, "....xxx.. kept quarantine/0000000000000004.seg");
}

#[test]
fn a_missing_segment_is_a_gap() {
    let disk = log_of(&[1; 10]);
    disk.remove(&segment_path(4)).unwrap();
    check(&disk, "....xxxx..");
}

#[test]
fn without_its_header_a_segment_is_a_gap() {
    let disk = log_of(&[1; 10]);
    damage(&disk, 0, 3..4);
    check(&disk, "xxxx...... kept quarantine/0000000000000000.seg");
}

#[test]
fn without_the_last_header_the_gap_is_as_long_as_it_may_have_been() {
    let disk = log_of(&[1; 6]);
    damage(&disk, 4, 30..31);
    // Two records of 100 bytes: at most nine of 24.
    check(&disk, "....xxxxxxxxx kept quarantine/0000000000000004.seg");
}

#[test]
fn a_truncated_gap_is_forgotten_and_its_copy_stays() {
    let disk = log_of(&[1; 10]);
    damage(&disk, 0, 36 + 50..36 + 51);
    let (mut writer, recovery) = open_writer(&disk).unwrap();
    writer.truncate(Offset(4)).unwrap();
    drop(writer);
    let (writer, again) = open_writer(&disk).unwrap();
    assert_eq!(again, Recovery::default());
    assert_eq!(picture(&writer, &again), "......");
    assert_eq!(disk.open(&recovery.quarantined[0]).unwrap().size().unwrap(), 436);
}

#[test]
fn a_payload_cannot_pass_for_a_record() {
    // A payload that holds a record of the next offset, with a salt that its sender had to guess.
    let fake = RecordHeader { payload_crc: crc32c::crc32c(b"fake"), length: 4, group: 0, offset: 1 };
    let payload = Bytes::from([&fake.encode(0), &b"fake"[..], &[0; 50]].concat());
    let disk = FaultyDisk::new(6);
    let (mut writer, _) = open_writer(&disk).unwrap();
    writer.append(&[record(0)]).unwrap();
    writer.append(&[payload]).unwrap();
    drop(writer);
    let file = disk.open(&segment_path(0)).unwrap();
    let size = file.size().unwrap();
    file.set_size(size - 1).unwrap();
    check(&disk, ". void 101");
}

#[test]
fn segments_of_elsewhere_and_of_the_future_are_refused() {
    let write_header = |bytes: &[u8]| {
        let disk = log_of(&[1]);
        disk.open(&segment_path(0)).unwrap().write_all_at(bytes, 0).unwrap();
        open_writer(&disk).unwrap_err()
    };
    let other = LogId { partition: Partition(7), log: 4 };
    let error = write_header(&Header { id: other, first: 0, salt: 1 }.encode());
    assert!(matches!(error, Error::Misplaced { log, .. } if log == other), "{error:?}");
    let error = write_header(&Header { id: ID, first: 9, salt: 1 }.encode());
    assert!(matches!(error, Error::Misplaced { first: Offset(9), .. }), "{error:?}");

    let mut future = Header { id: ID, first: 0, salt: 1 }.encode();
    future[8] = 2;
    let crc = crc32c::crc32c(&future[..32]);
    future[32..].copy_from_slice(&crc.to_le_bytes());
    let error = write_header(&future);
    assert!(matches!(error, Error::UnknownVersion { version: 2, .. }), "{error:?}");
}

#[test]
fn damage_after_opening_is_an_error_of_that_read() {
    let disk = log_of(&[1; 4]);
    let (writer, _) = open_writer(&disk).unwrap();
    damage(&disk, 0, 36 + 250..36 + 251);
    let error = writer.index.read(&disk, 0, usize::MAX).unwrap_err();
    assert!(matches!(error, Error::Damaged { position: 236, .. }), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// One wound in each of some segments. Several in one could take every proof that a record was there.
    #[test]
    fn no_damage_goes_unnamed(
        groups in prop::collection::vec(1..4_usize, 2..10),
        wounds in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 10),
    ) {
        let disk = log_of(&groups);
        for (segment, wound) in disk.list(Path::new(FOLDER)).unwrap().iter().zip(wounds) {
            let Some(wound) = wound else { continue };
            let first = parse_file_name(segment).unwrap();
            let size = disk.open(&segment_path(first)).unwrap().size().unwrap();
            let position = wound.index(usize::try_from(size).unwrap()) as u64;
            damage(&disk, first, position..position + 1);
        }
        let (writer, recovery) = open_writer(&disk).unwrap();
        // Checks the bytes of what is read and that every gap was reported.
        let picture = picture(&writer, &recovery);
        let records = picture.chars().take_while(|c| ".x".contains(*c)).count();
        let appended = groups.iter().sum::<usize>();
        // Only the last group may be taken for a torn end, and then it is said how much was void.
        let promised = if recovery.void_bytes > 0 { appended - groups.last().unwrap() } else { appended };
        prop_assert!(records >= promised, "{picture}");
    }
}
