//! A log that lives as long as the process: for tests, and for whoever does not mind losing the head.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use cambium_model::block::{LogId, Offset};

use crate::log::{Entry, Error, Log, RECORD_BYTES_MAX, Stats};

/// The log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    id: LogId,
    state: Mutex<State>,
    /// Woken by appends and by the end.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    first: u64,
    records: VecDeque<Bytes>,
    stats: Stats,
    closed: bool,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(id: LogId) -> Self {
        Self { id, state: Mutex::default(), changed: Notify::new() }
    }

    /// Opens it again after it was closed, as it was.
    pub(crate) fn reopen(&self) {
        self.state().closed = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// The state of a log that is still open.
    fn open_state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state();
        if state.closed { Err(Error::Closed) } else { Ok(state) }
    }
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn id(&self) -> LogId {
        self.id
    }

    async fn append(&self, record: Bytes) -> Result<Offset, Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLarge { bytes: record.len(), bytes_max: RECORD_BYTES_MAX });
        }
        let mut state = self.open_state()?;
        let offset = Offset(state.next());
        state.stats.bytes += record.len() as u64;
        state.stats.appended_bytes += record.len() as u64;
        state.stats.appended_records += 1;
        state.records.push_back(record);
        drop(state);
        self.changed.notify_waiters();
        Ok(offset)
    }

    async fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let state = self.open_state()?;
        if from.0 < state.first || from.0 > state.next() {
            return Err(Error::OutOfRange { from, first: Offset(state.first), next: Offset(state.next()) });
        }
        let skipped = usize::try_from(from.0 - state.first).expect("no more than there are records");
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (offset, payload) in (from.0..).zip(state.records.range(skipped..)) {
            bytes += payload.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(Entry::Record { offset: Offset(offset), payload: payload.clone() });
        }
        Ok(entries)
    }

    async fn wait(&self, from: Offset) -> Result<(), Error> {
        loop {
            let changed = self.changed.notified();
            if self.open_state()?.next() > from.0 {
                return Ok(());
            }
            changed.await;
        }
    }

    async fn truncate(&self, upto: Offset) -> Result<(), Error> {
        let mut state = self.open_state()?;
        while state.first < upto.0
            && let Some(record) = state.records.pop_front()
        {
            state.first += 1;
            state.stats.bytes -= record.len() as u64;
        }
        Ok(())
    }

    fn first(&self) -> Offset {
        Offset(self.state().first)
    }

    fn next(&self) -> Offset {
        Offset(self.state().next())
    }

    fn stats(&self) -> Stats {
        self.state().stats
    }

    async fn close(&self) {
        self.state().closed = true;
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cambium_model::block::Partition;

    use super::*;
    use crate::contract;

    #[tokio::test]
    async fn upholds_the_contract() {
        contract::upholds(async |log| {
            let log: Arc<dyn Log> = Arc::new(MemoryLog::new(LogId { partition: Partition(0), log }));
            log
        })
        .await;
    }
}
