//! Random lives of a log on a disk that crashes, against what a caller remembers of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::testing::Fault;

#[derive(Clone, Debug)]
enum Step {
    /// One group, by the sizes of its records.
    Append(Vec<usize>),
    /// Up to this share of what is held, in tenths.
    Truncate(u64),
    /// After so many operations.
    Fail(u64, Fault),
    /// Room for so many more bytes.
    Full(u64),
    /// Room for all.
    Room,
    /// The process dies; with it the machine or not.
    Die { machine: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::Full), Just(Fault::Broken), Just(Fault::Crash)];
    prop_oneof![
        8 => prop::collection::vec(0..150_usize, 1..5).prop_map(Step::Append),
        2 => (0..11_u64).prop_map(Step::Truncate),
        4 => (0..12_u64, fault).prop_map(|(operations, fault)| Step::Fail(operations, fault)),
        1 => (0..500_u64).prop_map(Step::Full),
        1 => Just(Step::Room),
        2 => any::<bool>().prop_map(|machine| Step::Die { machine }),
    ]
}

/// A log and what its caller knows.
struct Life {
    disk: FaultyDisk,
    writer: Writer,
    /// Acknowledged, or read after a restart.
    kept: BTreeMap<u64, Bytes>,
    /// Never answered, or answered with `Undetermined`, since the last restart.
    doubtful: BTreeSet<Bytes>,
    /// How far the caller has allowed the log to forget.
    truncated: u64,
    appended: usize,
}

impl Life {
    fn begin(seed: u64) -> Self {
        let disk = FaultyDisk::new(seed);
        let (writer, _) = open_writer(&disk).unwrap();
        let (kept, doubtful) = Default::default();
        Self { disk, writer, kept, doubtful, truncated: 0, appended: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append(sizes) => self.append(&sizes),
            Step::Truncate(tenths) => {
                let (first, next) = self.held();
                let upto = first + (next - first) * tenths / 10;
                self.truncated = self.truncated.max(upto);
                let truncated = self.writer.truncate(Offset(upto));
                if truncated.is_ok() && tenths == 10 {
                    assert_eq!(self.held().0, next, "all of it");
                }
            }
            Step::Fail(operations, fault) => self.disk.fail_after(operations, fault),
            Step::Full(bytes) => self.disk.set_capacity(self.disk.used_bytes() + bytes),
            Step::Room => self.disk.set_capacity(u64::MAX),
            Step::Die { machine } => return self.restart(machine),
        }
        if self.disk.crashed() { self.restart(self.appended.is_multiple_of(2)) } else { self.check() }
    }

    fn append(&mut self, sizes: &[usize]) {
        let numbers = self.appended..;
        let group: Vec<_> = numbers.zip(sizes).map(|(number, size)| payload(number, *size)).collect();
        self.appended += group.len();
        let next = self.held().1;
        match self.writer.append(&group) {
            Ok(first) => {
                assert_eq!(first.0, next);
                self.kept.extend((next..).zip(group));
            }
            Err(Error::Undetermined { .. }) => self.doubtful.extend(group),
            // The dead answer nobody.
            Err(_) if self.disk.crashed() => self.doubtful.extend(group),
            Err(_) => {}
        }
    }

    /// Opens the log again, as often as that needs.
    fn restart(&mut self, machine: bool) {
        loop {
            if machine {
                self.disk.power_loss()
            } else {
                self.disk.kill()
            }
            match open_writer(&self.disk) {
                Ok((writer, recovery)) => {
                    assert_eq!((recovery.gaps, recovery.quarantined), (vec![], vec![]), "no crash is damage");
                    self.writer = writer;
                    break;
                }
                // What a fault or a full disk spoiled is tried once more; faults happen once.
                Err(_) => self.disk.set_capacity(u64::MAX),
            }
        }
        // What was doubtful is now either kept for ever or gone for ever.
        let doubtful = std::mem::take(&mut self.doubtful);
        for entry in read_all(&self.writer) {
            let Entry::Record { offset, payload } = entry else { panic!("{entry:?}") };
            match self.kept.get(&offset.0) {
                Some(kept) => assert_eq!(*kept, payload),
                None => {
                    assert!(doubtful.contains(&payload), "{offset:?} appeared from nowhere: {payload:?}");
                    self.kept.insert(offset.0, payload);
                }
            }
        }
        self.check();
    }

    fn held(&self) -> (u64, u64) {
        let state = self.writer.index.state();
        (state.first(), state.next)
    }

    /// Every record that is kept is read once and with its bytes, and nothing else.
    fn check(&self) {
        let (first, next) = self.held();
        assert!(first <= self.truncated, "{first} was not to be forgotten");
        let expected: Vec<_> = self
            .kept
            .range(first..)
            .map(|(offset, payload)| Entry::Record { offset: Offset(*offset), payload: payload.clone() })
            .collect();
        assert_eq!(read_all(&self.writer), expected);
        assert_eq!(next - first, expected.len() as u64, "offsets are dense");
        let end = self.kept.last_key_value().map_or(0, |(offset, _)| offset + 1);
        assert_eq!(next, end, "no offset is given twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_was_acknowledged_is_read_back_once(seed: u64, steps in prop::collection::vec(step(), 1..40)) {
        let mut life = Life::begin(seed);
        for step in steps {
            life.take(step);
        }
        life.restart(true);
    }
}
