//! The tenure of a partition: the lease is acquired, a log is opened, flushed, handed over or lost.
//!
//! ```text
//!   the ring wants us ─► look ─► acquire ─► begin a log ─► serve, renew ─► the ring wants another, or we stop
//!                          ▲                                  │                 └─► flush ─► no writes ─► flush ─► seal ─► release
//!                          └──────────── lost: step down ◄────┘
//!                                          └─► what is left in the log: leftover
//! ```
//!
//! Laws: a tenure takes no writes once its lease may have run out by its own clock; whatever it flushes expects its lease, so
//! that one who was paused can commit nothing; a log that could not be flushed is left to [`crate::leftover`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cambium_metastore::leases::Lease;
use cambium_metastore::owners::{LOOK_INTERVAL, OWNER_RENEW_INTERVAL, OWNER_TIMEOUT, Owner, Owners};
use cambium_model::block::{LogId, Partition as PartitionId};
use hashbrown::HashSet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::flush::Owned;
use crate::follow::follow;
use crate::leftover;
use crate::open::{self, Opened};
use crate::partition::{Claimed, Pushed};
use crate::service::Shared;

/// Before the lease runs out for others an owner takes no more writes: clocks run at slightly different speeds.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// Wait after a log could not be opened: doubled from the first to the second bound.
const OPEN_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Who decides which partitions are this process'.
#[derive(Debug)]
pub enum Tenures {
    /// There is no other process: these are, for ever, and each has the one log 0.
    Alone {
        /// How many there are.
        partitions: u32,
    },
    /// Leases do.
    Leased(Leased),
}

/// What it takes to share partitions with other processes.
#[derive(Debug)]
pub struct Leased {
    /// How many partitions there are.
    pub partitions: u32,
    /// The leases.
    pub owners: Arc<Owners>,
    /// The partitions that the ring gives to this process, as of now.
    pub wanted: watch::Receiver<Arc<BTreeSet<PartitionId>>>,
    /// Asks owners in other processes.
    pub claims: Arc<dyn Claims>,
}

/// Asks the owner of a partition which pushes it has.
#[async_trait]
pub trait Claims: fmt::Debug + Send + Sync {
    /// Lets `owner`, another process, decide which of the pushes in `log` count: see [`crate::Handle::claim`].
    async fn claim(&self, owner: &Owner, log: LogId, pushes: &[Pushed]) -> Result<Claimed, Error>;
}

/// Acquires the partition whenever the ring wants it here, until the process stops.
pub(crate) async fn hold(shared: Arc<Shared>, partition: PartitionId) {
    let Tenures::Leased(leased) = &shared.deps.tenures else { return };
    let stop = shared.tasks.shutdown_signal();
    let mut failures = 0;
    loop {
        let Some((lease, asked)) = acquire(&shared, leased, partition, &stop).await else { return };
        let tenure = Tenure { shared: &shared, leased, partition, lease, asked, log: OnceLock::new() };
        match tenure.run(&stop).await {
            Ok(()) => failures = 0,
            Err(error) => {
                tracing::error!(partition = partition.0, failures, %error, "partition not served");
                failures += 1;
                let doubled = OPEN_BACKOFF.0 * 2_u32.pow(failures.min(10));
                tokio::select! {
                    () = shared.deps.clock.sleep(doubled.min(OPEN_BACKOFF.1)) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

/// The lease, as soon as it is wanted and free, and when it was asked for; none when the process stops.
async fn acquire(
    shared: &Shared,
    leased: &Leased,
    partition: PartitionId,
    stop: &CancellationToken,
) -> Option<(Lease, Duration)> {
    let mut wanted = leased.wanted.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            found = wanted.wait_for(|wanted| wanted.contains(&partition)) => found.map(drop).ok()?,
        }
        let asked = shared.deps.clock.monotonic();
        match leased.owners.acquire(partition).await {
            Ok(Some(lease)) => return Some((lease, asked)),
            Ok(None) => {}
            Err(error) => tracing::warn!(partition = partition.0, %error, "lease not acquired"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = shared.deps.clock.sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// A lease in force.
struct Tenure<'a> {
    shared: &'a Arc<Shared>,
    leased: &'a Leased,
    partition: PartitionId,
    lease: Lease,
    /// When it was asked for, on the monotonic clock: others count from later.
    asked: Duration,
    /// Its log, as soon as it has one.
    log: OnceLock<LogId>,
}

impl Tenure<'_> {
    /// Serves until the partition is handed over or the lease is lost.
    async fn run(&self, stop: &CancellationToken) -> Result<(), Error> {
        let (valid, _) = watch::channel(self.valid_until(self.asked));
        let served = tokio::select! {
            () = self.renew(&valid) => {
                tracing::error!(partition = self.partition.0, fence = self.lease.fence, "the lease is lost");
                self.shared.metrics.tenures_lost.inc();
                None
            }
            served = self.serve(stop, valid.subscribe()) => Some(served),
        };
        match served {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                self.step_down().await;
                self.release().await;
                Err(error)
            }
            None => {
                self.step_down().await;
                Ok(())
            }
        }
    }

    fn valid_until(&self, renewed: Duration) -> Duration {
        renewed + OWNER_TIMEOUT - LEASE_MARGIN
    }

    /// Renews the lease; returns when it is lost or may be.
    async fn renew(&self, valid: &watch::Sender<Duration>) {
        let clock = &self.shared.deps.clock;
        loop {
            clock.sleep(OWNER_RENEW_INTERVAL).await;
            let began = clock.monotonic();
            let left = valid.borrow().saturating_sub(began);
            let renewed = tokio::select! {
                renewed = self.leased.owners.renew(&self.lease) => renewed,
                () = clock.sleep(left) => return,
            };
            match renewed {
                Ok(true) => drop(valid.send_replace(self.valid_until(began))),
                Ok(false) => return,
                Err(error) if clock.monotonic() >= *valid.borrow() => {
                    tracing::warn!(partition = self.partition.0, %error, "lease not renewed in time");
                    return;
                }
                Err(error) => tracing::warn!(partition = self.partition.0, %error, "lease not renewed"),
            }
        }
    }

    async fn serve(&self, stop: &CancellationToken, valid: watch::Receiver<Duration>) -> Result<(), Error> {
        let Self { shared, leased, partition, lease, .. } = self;
        let owned = shared.hold(self.open().await?.accepting_until(valid));
        if shared.deps.logs.are_shared() {
            owned.tasks().spawn("follow", follow(Arc::clone(shared), Arc::clone(&owned)));
        }
        tracing::info!(partition = partition.0, fence = lease.fence, "partition owned");
        let mut wanted = leased.wanted.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            // A view that is gone wants nothing any more.
            _ = wanted.wait_for(|wanted| !wanted.contains(partition)) => {}
        }
        self.hand_over(&owned).await
    }

    /// Opens the partition's log: the one that it has for ever, or a new one.
    async fn open(&self) -> Result<Owned, Error> {
        let Self { shared, partition, lease, .. } = self;
        let id = match shared.deps.logs.are_shared() {
            true => LogId { partition: *partition, log: 0 },
            // Held by nobody, so asked of nobody, until this process knows of it.
            false => shared.deps.catalogue.begin_log(*partition, "").await?,
        };
        let _ = self.log.set(id);
        if !shared.deps.logs.are_shared() {
            shared.beginning().insert(id);
        }
        let opened = Opened::open(shared, id).await?;
        opened.replay(shared, Some(lease.clone()), open::retried_since(shared), HashSet::new()).await
    }

    /// Gives the partition to whoever is next: all but the last records are flushed while writes go on.
    async fn hand_over(&self, owned: &Arc<Owned>) -> Result<(), Error> {
        let shared = self.shared;
        owned.flush(shared).await?;
        owned.stop().await;
        owned.flush(shared).await?;
        if !shared.deps.logs.are_shared() {
            leftover::seal(shared, owned).await?;
        }
        self.release().await;
        if shared.deps.logs.are_shared() {
            owned.partition.log().close().await;
        }
        shared.retire(owned);
        tracing::info!(partition = self.partition.0, fence = self.lease.fence, "partition handed over");
        Ok(())
    }

    async fn release(&self) {
        if let Err(error) = self.leased.owners.release(&self.lease).await {
            tracing::warn!(partition = self.partition.0, %error, "lease not released: it will time out");
        }
    }

    /// Ends what a lost lease or a failure has left behind.
    async fn step_down(&self) {
        let Some(id) = self.log.get() else { return };
        self.shared.put_down(*id).await;
        if !self.shared.deps.logs.are_shared() {
            leftover::spawn(self.shared, *id);
        }
    }
}
