//! What was sent and what became of it: the sums that answers must have.
//!
//! Laws: pushes are entered in order of their time, each once, and settled once. A sum is of a range in which all are
//! settled, so it never changes again; a push whose fate is unknown makes bounds of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cambium_loadtest::fleet::{Kind, TYPES_MAX};

/// Most pushes of one run; each takes about 50 bytes here.
pub const PUSHES_MAX: u64 = 20_000_000;

/// Whose sums, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    pub tenant: u64,
    pub kind: Kind,
    pub service: u64,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server said that it has it.
    Acked,
    /// The server certainly has not taken it.
    Refused,
    /// Nobody said: it may be there or not.
    Unknown,
}

/// A push that is under way.
#[derive(Debug)]
pub struct Ticket {
    group: Group,
    index: usize,
    number: u64,
}

/// What the sum of a range may be, both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub low: i64,
    pub high: i64,
    /// Pushes in it that were acknowledged.
    pub acked: u64,
    /// Pushes in it of unknown fate.
    pub unknown: u64,
}

/// The book.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    groups: BTreeMap<Group, Vec<Entry>>,
    /// Number and time of pushes under way; numbers are in order of time.
    pending: BTreeSet<(u64, i64)>,
    entered: u64,
    last_ns: i64,
}

#[derive(Debug)]
struct Entry {
    time_ns: i64,
    sums: [i64; TYPES_MAX],
    fate: Option<Fate>,
}

impl Ledger {
    /// Enters a push before it is sent. Pushes of equal times are in any order.
    pub fn begin(&self, group: Group, time_ns: i64, sums: [i64; TYPES_MAX]) -> Ticket {
        let mut book = self.book();
        debug_assert!(time_ns >= book.last_ns, "pushes are entered in order");
        let number = book.entered;
        book.entered += 1;
        book.last_ns = time_ns;
        book.pending.insert((number, time_ns));
        let entries = book.groups.entry(group).or_default();
        entries.push(Entry { time_ns, sums, fate: None });
        Ticket { group, index: entries.len() - 1, number }
    }

    /// Says what became of it.
    pub fn settle(&self, ticket: &Ticket, fate: Fate) {
        let mut book = self.book();
        let entries = book.groups.get_mut(&ticket.group).expect("a ticket's group is there");
        let entry = &mut entries[ticket.index];
        debug_assert!(entry.fate.is_none(), "a push is settled once");
        entry.fate = Some(fate);
        let time_ns = entry.time_ns;
        book.pending.remove(&(ticket.number, time_ns));
    }

    /// The end of what is settled: every push before this time is, and none before it will be entered.
    pub fn settled_until_ns(&self) -> i64 {
        let book = self.book();
        book.pending.first().map_or(book.last_ns, |(_, time_ns)| *time_ns)
    }

    /// What the sum of `[start_ns, end_ns)` must be, of one service or of all. The range must end no later than
    /// [`Ledger::settled_until_ns`], or after everything.
    pub fn bounds(
        &self,
        tenant: u64,
        kind: Kind,
        service: Option<u64>,
        sample_type: usize,
        range: (i64, i64),
    ) -> Bounds {
        let book = self.book();
        let [first, last] = [service.unwrap_or(0), service.unwrap_or(u64::MAX)].map(|service| Group {
            tenant,
            kind,
            service,
        });
        let mut bounds = Bounds::default();
        for entries in book.groups.range(first..=last).map(|(_, entries)| entries) {
            let from = entries.partition_point(|entry| entry.time_ns < range.0);
            for entry in entries[from..].iter().take_while(|entry| entry.time_ns < range.1) {
                let value = entry.sums[sample_type];
                match entry.fate {
                    Some(Fate::Acked) => {
                        bounds.low += value;
                        bounds.high += value;
                        bounds.acked += 1;
                    }
                    Some(Fate::Unknown) | None => {
                        bounds.high += value;
                        bounds.unknown += 1;
                    }
                    Some(Fate::Refused) => (),
                }
            }
        }
        bounds
    }

    /// Groups that have anything.
    pub fn groups(&self) -> Vec<Group> {
        self.book().groups.keys().copied().collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_what_was_acknowledged_and_bounded_by_what_nobody_knows() {
        let ledger = Ledger::default();
        let group = |service| Group { tenant: 0, kind: Kind::Cpu, service };
        let enter = |service, time_ns, value| ledger.begin(group(service), time_ns, [1, value, 0, 0]);
        let tickets = [enter(0, 10, 1), enter(1, 20, 2), enter(0, 30, 4), enter(0, 40, 8), enter(0, 50, 16)];
        assert_eq!(ledger.settled_until_ns(), 10);
        for (ticket, fate) in tickets.iter().zip([Fate::Acked, Fate::Acked, Fate::Unknown, Fate::Refused]) {
            ledger.settle(ticket, fate);
        }
        assert_eq!(ledger.settled_until_ns(), 50);
        let check = |service, range, expected| {
            let bounds = ledger.bounds(0, Kind::Cpu, service, 1, range);
            assert_eq!((bounds.low, bounds.high, bounds.acked, bounds.unknown), expected, "{range:?}");
        };
        check(Some(0), (10, 50), (1, 5, 1, 1));
        check(Some(1), (10, 50), (2, 2, 1, 0));
        check(None, (10, 50), (3, 7, 2, 1));
        check(None, (10, 20), (1, 1, 1, 0));
        check(None, (11, 21), (2, 2, 1, 0));
        check(None, (31, 50), (0, 0, 0, 0));
        assert_eq!(ledger.bounds(1, Kind::Cpu, None, 1, (0, 99)), Bounds::default());
        assert_eq!(ledger.bounds(0, Kind::Heap, None, 1, (0, 99)), Bounds::default());
        ledger.settle(&tickets[4], Fate::Acked);
        check(None, (0, 99), (19, 23, 3, 1));
    }
}
