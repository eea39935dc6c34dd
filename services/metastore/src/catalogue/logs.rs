//! The life of a log: begun or taken over, flushed, sealed.
//!
//! ```text
//!   begin_log ──► open ── commit_flush … ──► seal_log ──► sealed: nothing of it is anywhere but in blocks
//!   open_log  ──►  │                                        ▲
//!                  └── forget_log: an operator gives up what its holder has not flushed
//! ```
//!
//! Where logs are on the disk of one node, each tenure of a partition has a log of its own, so that a new owner need not
//! wait for the disk of the old one; a log that several nodes can open goes on for ever.

use cambium_model::block::{IMPORTS, LogId, Offset, Partition};
use cambium_proto::wire::metastore as stored;
use prost::Message;

use super::{Catalogue, Error, LogState};
use crate::error::{Error as StoreError, decode};
use crate::keys::{self, Kind};
use crate::kv::{self, Snapshot, Step, Txn};

/// A log of which records may be in no block yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenLog {
    /// The log.
    pub log: LogId,
    /// The first offset that is in no block: from there on, its holder answers.
    pub next: Offset,
    /// The node that opened it last; empty where nobody is known to hold it.
    pub holder: String,
}

impl Catalogue {
    /// Takes the log over: fences every earlier holder, and says where to replay from. `holder` names the node; it may be
    /// empty.
    ///
    /// # Errors
    /// [`Error::Sealed`], [`Error::Store`].
    pub async fn open_log(&self, log: LogId, holder: &str) -> Result<LogState, Error> {
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::log_state(log);
            let before = snapshot.get(&key).await?;
            let mut state: stored::LogState = match &before {
                Some(value) => decode(Kind::LogState, value)?,
                None => stored::LogState::default(),
            };
            if state.sealed {
                return Err(Error::Sealed { log });
            }
            // After an undetermined commit this may raise the epoch twice, which fences nobody but ourselves.
            state.epoch += 1;
            state.holder = holder.to_owned();
            let opened = LogState { epoch: state.epoch, committed_next: Offset(state.committed_next) };
            let txn = Txn::new().expect(key.clone(), before).put(key, state.encode_to_vec());
            Ok(Step::Commit(txn, opened))
        })
        .await
    }

    /// Begins a log that the partition has not had before, its first epoch being 1. Numbers rise; 0 is left to logs that
    /// go on for ever.
    pub async fn begin_log(&self, partition: Partition, holder: &str) -> Result<LogId, Error> {
        kv::transact(&*self.store, |snapshot| async move {
            let known = kv::scan_all(&*snapshot, keys::log_states_of(partition)).await?;
            let last = known.last().and_then(|(key, _)| keys::log_of(key)).map_or(0, |log| log.log);
            let log = LogId { partition, log: last + 1 };
            let state = stored::LogState { epoch: 1, holder: holder.to_owned(), ..Default::default() };
            // After an undetermined commit this may leave a number without a log: it is never opened again.
            let txn = Txn::new().expect(keys::log_state(log), None);
            Ok(Step::Commit(txn.put(keys::log_state(log), state.encode_to_vec()), log))
        })
        .await
    }

    /// Ends a log that is in blocks up to `next`, its end. Doing the same again succeeds without effect.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::OutOfOrder`], [`Error::UnknownLog`]; nothing is written then.
    pub async fn seal_log(&self, log: LogId, epoch: u64, next: Offset) -> Result<(), Error> {
        self.end_log(log, |state| {
            if state.epoch != epoch {
                return Err(Error::Fenced { log, ours: epoch, current: state.epoch });
            }
            if state.committed_next != next.0 {
                return Err(Error::OutOfOrder { log, first: next.0, committed_next: state.committed_next });
            }
            Ok(())
        })
        .await
    }

    /// Gives up whatever the log holds that is in no block: an operator's decision, where its disk is lost. Whoever comes
    /// back with that disk can neither flush it nor answer from it.
    pub async fn forget_log(&self, log: LogId) -> Result<(), Error> {
        self.end_log(log, |_| Ok(())).await
    }

    async fn end_log(
        &self,
        log: LogId,
        check: impl Fn(&stored::LogState) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        let check = &check;
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::log_state(log);
            let before = snapshot.get(&key).await?;
            let Some(value) = &before else { return Err(Error::UnknownLog { log }) };
            let state: stored::LogState = decode(Kind::LogState, value)?;
            if state.sealed {
                return Ok(Step::Done(()));
            }
            check(&state)?;
            let state = stored::LogState { sealed: true, epoch: state.epoch + 1, ..state };
            let txn = Txn::new().expect(key.clone(), before).put(key, state.encode_to_vec());
            Ok(Step::Commit(txn, ()))
        })
        .await
    }

    /// The first offset of the log that is in no block; 0 of one that was never opened.
    pub async fn committed(&self, log: LogId) -> Result<Offset, Error> {
        let value = self.store.snapshot().await?.get(&keys::log_state(log)).await?;
        let state: Option<stored::LogState> =
            value.as_ref().map(|value| decode(Kind::LogState, value)).transpose()?;
        Ok(Offset(state.map_or(0, |state| state.committed_next)))
    }

    /// Every log that is not sealed.
    pub async fn open_logs(&self) -> Result<Vec<OpenLog>, Error> {
        let snapshot = self.store.snapshot().await?;
        let states = states(&*snapshot).await?;
        Ok(states.iter().filter_map(|(log, state)| open(*log, state)).collect())
    }
}

/// The log as those see it who look for its records; none where there can be none outside blocks.
pub(super) fn open(log: LogId, state: &stored::LogState) -> Option<OpenLog> {
    let is_open = !state.sealed && log.partition != IMPORTS;
    is_open.then(|| OpenLog { log, next: Offset(state.committed_next), holder: state.holder.clone() })
}

/// Every log's state.
pub(super) async fn states(snapshot: &dyn Snapshot) -> Result<Vec<(LogId, stored::LogState)>, Error> {
    let read = |(key, value): &(kv::Key, bytes::Bytes)| {
        let log =
            keys::log_of(key).ok_or_else(|| StoreError::corrupt(Kind::LogState, "the key names no log"))?;
        Ok((log, decode(Kind::LogState, value)?))
    };
    kv::scan_all(snapshot, keys::log_states()).await?.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
