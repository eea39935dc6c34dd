//! Committing: an optimistic transaction that also locks what it has only read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tikv_client::transaction::{HeartbeatOption, Mutation};
use tikv_client::{Backoff, CheckLevel, RetryOptions, Transaction, TransactionOptions};

use super::failure::Failure;
use super::metrics::Operation;
use super::read::{TikvSnapshot, region_backoff};
use super::{RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, Shared, stored_value};
use crate::kv::{Key, Outcome, Txn};

/// Longest time that a transaction waits to remove its locks after it has lost; what is left goes by its age.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// One try to commit that did not end in an error.
enum Try {
    Done(Outcome),
    /// Somebody wrote or locked one of the keys in between.
    LostRace,
}

impl Shared {
    /// Commits until `due` on the clock. Whoever loses a race decides anew: the preconditions may still hold.
    pub(super) async fn commit(self: &Arc<Self>, txn: &Txn, due: Duration) -> Result<Outcome, Failure> {
        if txn.is_read_only() && txn.preconditions().next().is_none() {
            return Ok(Outcome::Committed);
        }
        let permit = || async { Ok(self.commits.acquire().await.expect("it is never closed")) };
        let _permit = self.try_until(Operation::commit, due, permit).await?;
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            if let Try::Done(outcome) = self.try_commit(txn, due).await? {
                return Ok(outcome);
            }
            if self.clock.monotonic() >= due {
                return Err(Failure::Late);
            }
            self.clock.sleep(self.jittered(pause)).await;
            pause = RETRY_PAUSE_MAX.min(pause * 2);
        }
    }

    async fn try_commit(self: &Arc<Self>, txn: &Txn, due: Duration) -> Result<Try, Failure> {
        let begin = || async {
            let retries = RetryOptions::new(region_backoff(), Backoff::full_jitter_backoff(2, 50, 5));
            let options = TransactionOptions::new_optimistic()
                .drop_check(CheckLevel::None)
                // A commit ends before its locks are old.
                .heartbeat_option(HeartbeatOption::NoHeartbeat)
                .retry_options(retries);
            Ok(self.link.client().await?.begin_with_options(options).await?)
        };
        let mut begun = self.try_until(Operation::commit, due, begin).await?;
        if let Some(key) = self.failing(txn, &begun, due).await? {
            return Ok(Try::Done(Outcome::Conflict { key }));
        }
        if txn.is_read_only() {
            return Ok(Try::Done(Outcome::Committed));
        }
        self.fill(txn, &mut begun).await?;
        let left = due.saturating_sub(self.clock.monotonic());
        let commit = async { begun.commit().await.map_err(Failure::from) };
        let Err(failure) = self.within(left, commit).await else { return Ok(Try::Done(Outcome::Committed)) };
        self.metrics.failed(Operation::commit, &failure);
        if failure.is_lost_race() {
            self.roll_back(begun).await;
            return Ok(Try::LostRace);
        }
        // The client does not say in which phase it failed, and calls an outcome undetermined only where it could not
        // even send. From here on it is, and the locks must stay: a rollback might undo half of what has committed.
        tracing::debug!(%failure, "undetermined commit");
        if failure.may_pass() {
            self.link.gave_up();
        }
        Ok(Try::Done(Outcome::Undetermined))
    }

    /// The first key whose precondition does not hold when the transaction begins.
    async fn failing(
        self: &Arc<Self>,
        txn: &Txn,
        begun: &Transaction,
        due: Duration,
    ) -> Result<Option<Key>, Failure> {
        let keys: Vec<Vec<u8>> = txn.preconditions().map(|(key, _)| self.stored(key)).collect();
        let snapshot = TikvSnapshot::new(Arc::clone(self), begun.start_timestamp());
        let values = snapshot.values(&keys, due).await?;
        let mut pairs = txn.preconditions().zip(values);
        Ok(pairs.find(|((_, expected), value)| *expected != value.as_ref()).map(|((key, _), _)| key.clone()))
    }

    /// Hands the writes to the client, and locks for the preconditions that are not written. No I/O.
    async fn fill(&self, txn: &Txn, begun: &mut Transaction) -> Result<(), Failure> {
        let mutation = |(key, value): (&Key, Option<&Bytes>)| match value {
            Some(value) => Mutation::Put(self.stored(key).into(), stored_value(value)),
            None => Mutation::Delete(self.stored(key).into()),
        };
        let writes: Vec<Mutation> = txn.writes().map(mutation).collect();
        begun.batch_mutate(writes).await?;
        // A key that is also written keeps its write.
        let locks: Vec<Vec<u8>> = txn.preconditions().map(|(key, _)| self.stored(key)).collect();
        begun.lock_keys(locks).await?;
        Ok(())
    }

    async fn roll_back(&self, mut begun: Transaction) {
        let rollback = async { begun.rollback().await.map_err(Failure::from) };
        if let Err(failure) = self.within(ROLLBACK_TIMEOUT, rollback).await {
            self.metrics.failed(Operation::rollback, &failure);
        }
    }
}
