//! Logs of earlier tenures on this node's disk: what they hold that is in no block is flushed, whoever owns the partition
//! now, and the log is sealed.
//!
//! ```text
//!   open, read ─► claim at the owner: which of these pushes have you got since? ─► replay the others ─► flush ─► seal
//!                    ▲                                                                                   │
//!                    └──────────────── the owner has changed since ◄─────────────────────────────────────┘
//! ```
//!
//! A client whose push was durable here but not acknowledged has sent it again to the next owner, or will. Whoever claims it
//! first counts it, and the flush expects the tenure of the owner that was asked: so it counts once.

use std::sync::Arc;
use std::time::Duration;

use cambium_metastore::catalogue;
use cambium_metastore::leases::Lease;
use cambium_model::block::LogId;
use hashbrown::HashSet;

use crate::Error;
use crate::dedup;
use crate::flush::Owned;
use crate::open::{self, Opened};
use crate::partition::{Claimed, Pushed};
use crate::service::Shared;
use crate::tenure::Tenures;

/// Wait after a failure: doubled from the first to the second bound.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Pushes that are claimed at once: some MiB of a message.
const CLAIMED_AT_ONCE: usize = 1 << 16;

/// Brings what is left of a log into blocks, in the background, until that is done or the process stops.
pub(crate) fn spawn(shared: &Arc<Shared>, id: LogId) {
    let (shared_in, stop) = (Arc::clone(shared), shared.tasks.shutdown_signal());
    shared.tasks.spawn("leftover", async move {
        let shared = shared_in;
        let mut failures = 0;
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => break,
                done = recover(&shared, id) => match done {
                    Ok(()) => return,
                    Err(error) => error,
                },
            };
            tracing::warn!(log = %id, failures, %error, "what is left of the log is not in blocks yet");
            shared.put_down(id).await;
            failures += 1;
            let doubled = BACKOFF.0 * 2_u32.pow(failures.min(10));
            tokio::select! {
                () = stop.cancelled() => break,
                () = shared.deps.clock.sleep(doubled.min(BACKOFF.1)) => {}
            }
        }
        shared.put_down(id).await;
    });
}

async fn recover(shared: &Arc<Shared>, id: LogId) -> Result<(), Error> {
    let opened = match Opened::open(shared, id).await {
        Ok(opened) => opened,
        Err(Error::Catalogue(catalogue::Error::Sealed { .. })) => return clear(shared, id).await,
        Err(error) => return Err(error),
    };
    let pushes = opened.pushes().await?;
    let since_ns = pushes.iter().map(|push| push.time_ns).min();
    let since_ns = since_ns.map_or(i64::MAX, |oldest| oldest.min(open::retried_since(shared)));
    let (tenure, taken) = claim(shared, id, &pushes).await?;
    let owned = opened.replay(shared, tenure, since_ns, taken).await?;
    let owned = shared.hold(owned);
    owned.flush(shared).await?;
    owned.stop().await;
    seal(shared, &owned).await?;
    shared.retire(&owned);
    tracing::info!(log = %id, pushes = pushes.len(), "what was left of the log is in blocks");
    Ok(())
}

/// Ends a log that is flushed to its end, and removes its files.
pub(crate) async fn seal(shared: &Shared, owned: &Owned) -> Result<(), Error> {
    let (id, log) = (owned.log_id(), owned.partition.log());
    shared.deps.catalogue.seal_log(id, owned.epoch, owned.partition.next()).await?;
    log.close().await;
    remove(shared, id).await;
    Ok(())
}

async fn remove(shared: &Shared, id: LogId) {
    // Found again at the next start, and sealed still.
    if let Err(error) = shared.deps.logs.remove(id).await {
        tracing::warn!(log = %id, %error, "files of a sealed log not removed");
    }
}

/// Removes the files of a log that was sealed before, unless it was given up while it held records.
async fn clear(shared: &Shared, id: LogId) -> Result<(), Error> {
    let log = shared.deps.logs.open(id).await.map_err(Error::Log)?;
    log.close().await;
    let committed = shared.deps.catalogue.committed(id).await?;
    if log.next() <= committed {
        remove(shared, id).await;
        return Ok(());
    }
    let (next, committed) = (log.next().0, committed.0);
    tracing::error!(log = %id, committed, next, "the log was given up and holds records: it is set aside");
    shared.deps.logs.set_aside(id).await.map_err(Error::Log)
}

/// Which of the pushes count elsewhere, and the tenure of the owner who says so.
async fn claim(
    shared: &Shared,
    id: LogId,
    pushes: &[Pushed],
) -> Result<(Option<Lease>, HashSet<dedup::Key>), Error> {
    let (mut taken, mut tenure) = (HashSet::new(), None);
    for (index, some) in pushes.chunks(CLAIMED_AT_ONCE).enumerate() {
        let claimed = claim_some(shared, id, some).await?;
        // What one owner said does not hold under the next.
        let is_first = index == 0 || tenure == claimed.tenure;
        if !is_first || claimed.taken.len() != some.len() {
            return Err(Error::NoOwner(id.partition));
        }
        let of_others = some.iter().zip(&claimed.taken).filter(|(_, taken)| **taken);
        taken.extend(of_others.map(|(push, _)| push.key));
        tenure = claimed.tenure;
    }
    Ok((tenure, taken))
}

async fn claim_some(shared: &Shared, id: LogId, pushes: &[Pushed]) -> Result<Claimed, Error> {
    let Tenures::Leased(leased) = &shared.deps.tenures else { return shared.claim(id, pushes) };
    let owner = leased.owners.of(id.partition).await?.ok_or(Error::NoOwner(id.partition))?;
    match owner.holder == shared.deps.node {
        true => shared.claim(id, pushes),
        false => leased.claims.claim(&owner, id, pushes).await,
    }
}
