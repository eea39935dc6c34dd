//! One partition of the log and its recent data: appends, applies in order, cuts.
//!
//! ```text
//!   generations   [ flushed ][ flushed ][ frozen, being flushed ][ active ……… next to apply
//!   offsets       a          b          c                        d                        log's end
//! ```
//!
//! A reader that knows the blocks to end at `b`, `c` or `d` gets exactly the generations from there on. Two flushed
//! generations stay, because a query's catalogue snapshot may be that much older than its question here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cambium_blocks::Dataset;
use cambium_ingestlog::Log;
use cambium_metastore::leases::Lease;
use cambium_model::block::{LogId, LogRange, Offset};
use cambium_model::limits::Overrides;
use cambium_model::profile::Profile;
use cambium_model::tenant::{Tenant, TenantNumber};
use cambium_model::time::SECOND_NS;
use cambium_proto::record;
use cambium_runtime::clock::Clock;
use hashbrown::HashMap;
use tokio::sync::{Notify, watch};

use crate::Error;
use crate::dedup::{Dedup, Key};
use crate::head::Head;

/// Flushed generations that stay for readers with an older catalogue snapshot.
const FLUSHED_GENERATIONS_KEPT: usize = 2;

/// How far wall clocks of distributors may run apart before a retry could be missed: the window in which pushes are
/// remembered is longer than the one in which they are accepted by this much.
const WINDOW_SLACK_NS: i64 = 600 * SECOND_NS;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Profiles counted because of this record.
    pub applied: usize,
    /// Profiles that had been counted before: retries.
    pub duplicates: usize,
}

/// A push that is durable in some log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Whose, and its id.
    pub key: Key,
    /// When it was collected, nanoseconds since the Unix epoch.
    pub time_ns: i64,
}

/// What the owner of a partition says of pushes in another log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The owner's tenure; none where there is no other process. What it says holds no longer than that.
    pub tenure: Option<Lease>,
    /// Whether each push counts elsewhere, in the order asked.
    pub taken: Vec<bool>,
}

/// Pushes that one owner lets other logs count. It says the same of them until its tenure ends.
const CLAIMS_MAX: usize = 1 << 22;

/// A log of a partition, and what of it is not in blocks.
#[derive(Debug)]
pub struct Partition {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    limits: watch::Receiver<Arc<Overrides>>,
    state: Mutex<State>,
    /// The next offset to apply, for those who wait for theirs.
    applied: watch::Sender<Offset>,
    /// Woken when a cut may be due.
    grown: Notify,
}

#[derive(Debug)]
struct State {
    generations: VecDeque<Arc<Frozen>>,
    active: Active,
    /// Durable records whose predecessors are not all here yet.
    ready: BTreeMap<Offset, Decoded>,
    outcomes: BTreeMap<Offset, Ack>,
    dedup: Dedup,
    /// Pushes that count in another log, whose holder has asked first.
    claimed: HashMap<Key, LogId>,
}

#[derive(Debug)]
struct Active {
    first: Offset,
    next: Offset,
    /// When the first record was applied, on the monotonic clock.
    since: Option<Duration>,
    /// Sum over the heads.
    bytes: usize,
    heads: HashMap<TenantNumber, Head>,
}

/// A record in the form that heads take.
#[derive(Debug)]
struct Decoded {
    tenant: Tenant,
    profiles: Vec<Profile>,
    /// Whether a writer waits for the outcome.
    awaited: bool,
}

/// A cut: never changes again, whatever happens to its flush.
#[derive(Debug)]
pub struct Frozen {
    /// The records it holds.
    pub range: LogRange,
    /// One per tenant, by number.
    pub datasets: Vec<Dataset>,
    /// Estimate of the bytes held.
    pub bytes: usize,
    flushed: std::sync::atomic::AtomicBool,
}

impl Frozen {
    /// Whether its block is in the catalogue.
    pub fn is_flushed(&self) -> bool {
        self.flushed.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// What a partition holds, for metrics and triggers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of the active generation.
    pub active_bytes: usize,
    /// Bytes of cuts that are not in blocks yet.
    pub frozen_bytes: usize,
    /// Bytes of cuts that are kept for readers only.
    pub flushed_bytes: usize,
    /// When the active generation began, on the monotonic clock.
    pub active_since: Option<Duration>,
    /// Pushes remembered.
    pub dedup_ids: usize,
}

impl Partition {
    /// A partition whose blocks end at `committed`; nothing of the log is applied yet.
    pub fn new(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        limits: watch::Receiver<Arc<Overrides>>,
        committed: Offset,
        dedup: Dedup,
    ) -> Self {
        let state = State {
            generations: VecDeque::new(),
            active: Active::starting_at(committed),
            ready: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            dedup,
            claimed: HashMap::new(),
        };
        Self {
            log,
            clock,
            limits,
            state: Mutex::new(state),
            applied: watch::Sender::new(committed),
            grown: Notify::new(),
        }
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Which log.
    pub fn log_id(&self) -> LogId {
        self.log.id()
    }

    /// Makes a record durable and applies it. Returns when a query that begins now sees it.
    ///
    /// Must run to its end once begun: a durable record that is not handed on would hold up all that follow.
    pub async fn write(&self, bytes: Bytes) -> Result<Ack, Error> {
        let (tenant, profiles) = record::decode(&bytes).map_err(Error::BadRecord)?;
        if let Some(ack) = self.known(&tenant, &profiles) {
            return Ok(ack);
        }
        let offset = self.log.append(bytes).await.map_err(Error::Log)?;
        self.hand_on(offset, Decoded { tenant, profiles, awaited: true });
        self.wait_applied(offset).await?;
        self.locked().outcomes.remove(&offset).ok_or(Error::TaskEnded)
    }

    /// Takes a record that is durable already: replay.
    pub fn replay(&self, offset: Offset, tenant: Tenant, profiles: Vec<Profile>) {
        self.hand_on(offset, Decoded { tenant, profiles, awaited: false });
    }

    /// The next offset to apply.
    pub fn next(&self) -> Offset {
        *self.applied.borrow()
    }

    /// Decides which pushes in the log `of` count there: those that do not count here, now or ever again. Asked again for
    /// the same log it says the same. None where it would have to remember too many.
    pub fn claim(&self, of: LogId, pushes: &[Pushed]) -> Option<Vec<bool>> {
        let mut state = self.locked();
        let state = &mut *state;
        if state.claimed.len() + pushes.len() > CLAIMS_MAX {
            return None;
        }
        let mut taken = Vec::with_capacity(pushes.len());
        for push in pushes {
            let is_new = state.dedup.insert(push.key, push.time_ns);
            if is_new {
                state.claimed.insert(push.key, of);
            }
            taken.push(!is_new && state.claimed.get(&push.key) != Some(&of));
        }
        Some(taken)
    }

    /// Passes over records that the log has lost; the caller has said so.
    pub fn skip(&self, next: Offset) {
        let mut state = self.locked();
        state.active.next = next;
        self.applied.send_replace(next);
    }

    /// The answer for a record all of whose profiles were applied before.
    fn known(&self, tenant: &Tenant, profiles: &[Profile]) -> Option<Ack> {
        let state = self.locked();
        let all = profiles.iter().all(|profile| state.dedup.contains(&(tenant.number, profile.id)));
        all.then_some(Ack { applied: 0, duplicates: profiles.len() })
    }

    /// Applies the record and every one that waited for it.
    fn hand_on(&self, offset: Offset, decoded: Decoded) {
        let limits = Arc::clone(&self.limits.borrow());
        let now = self.clock.monotonic();
        let mut guard = self.locked();
        let state = &mut *guard;
        state.ready.insert(offset, decoded);
        while let Some(entry) = state.ready.first_entry() {
            if *entry.key() != state.active.next {
                break;
            }
            let (offset, decoded) = entry.remove_entry();
            let ack = state.apply(&decoded, &limits, now);
            if decoded.awaited {
                state.outcomes.insert(offset, ack);
            }
        }
        self.applied.send_replace(state.active.next);
        drop(guard);
        self.grown.notify_one();
    }

    async fn wait_applied(&self, offset: Offset) -> Result<(), Error> {
        let mut applied = self.applied.subscribe();
        applied.wait_for(|next| *next > offset).await.map(drop).map_err(|_| Error::TaskEnded)
    }

    /// Returns after an application, which may have made a cut due.
    pub async fn grown(&self) {
        self.grown.notified().await;
    }

    /// Freezes what is applied and begins a new generation; `None` where there is nothing.
    pub fn cut(&self) -> Option<Arc<Frozen>> {
        let mut state = self.locked();
        if state.active.first == state.active.next {
            return None;
        }
        let next = Active::starting_at(state.active.next);
        let active = std::mem::replace(&mut state.active, next);
        let bytes = active.bytes;
        let mut datasets: Vec<Dataset> = active.heads.into_values().map(Head::into_dataset).collect();
        datasets.sort_by_key(|dataset| dataset.tenant.number);
        let range = LogRange { log: self.log_id(), first: active.first, next: active.next };
        let frozen = Arc::new(Frozen { range, datasets, bytes, flushed: false.into() });
        state.generations.push_back(Arc::clone(&frozen));
        Some(frozen)
    }

    /// The oldest cut that is not in a block yet.
    pub fn oldest_unflushed(&self) -> Option<Arc<Frozen>> {
        self.locked().generations.iter().find(|frozen| !frozen.is_flushed()).cloned()
    }

    /// Notes that the cut is in the catalogue, and lets go of flushed ones that no reader needs or that stand in the
    /// way of `bytes_wanted_max`.
    pub fn flushed(&self, frozen: &Frozen, bytes_wanted_max: usize) {
        frozen.flushed.store(true, std::sync::atomic::Ordering::Release);
        let mut state = self.locked();
        loop {
            let flushed = state.generations.iter().filter(|held| held.is_flushed());
            let (count, bytes) = flushed.fold((0, 0), |(n, sum), held| (n + 1, sum + held.bytes));
            let front_is_flushed = state.generations.front().is_some_and(|held| held.is_flushed());
            if !front_is_flushed || (count <= FLUSHED_GENERATIONS_KEPT && bytes <= bytes_wanted_max) {
                return;
            }
            state.generations.pop_front();
        }
    }

    /// The tenant's columns from `committed` on, a consistent snapshot each.
    pub fn heads(&self, tenant: TenantNumber, committed: Offset) -> Result<Vec<Dataset>, Error> {
        let state = self.locked();
        let mut cuts = state.generations.iter().map(|frozen| frozen.range.first);
        if committed != state.active.first && !cuts.any(|first| first == committed) {
            return Err(Error::SnapshotTooOld { log: self.log_id(), offset: committed });
        }
        let frozen = state.generations.iter().filter(|frozen| frozen.range.first >= committed);
        let of_tenant = |frozen: &Arc<Frozen>| {
            frozen.datasets.iter().find(|dataset| dataset.tenant.number == tenant).cloned()
        };
        let mut found: Vec<Dataset> = frozen.filter_map(of_tenant).collect();
        found.extend(state.active.heads.get(&tenant).map(Head::snapshot));
        Ok(found)
    }

    /// Series of each tenant in the active generation.
    pub fn series_by_tenant(&self) -> Vec<(TenantNumber, u64)> {
        let state = self.locked();
        state.active.heads.iter().map(|(tenant, head)| (*tenant, head.series_count() as u64)).collect()
    }

    /// Forgets pushes that the distributor would refuse as too old.
    pub fn forget_old_pushes(&self) {
        let oldest_ns = window_start(&self.limits.borrow(), self.clock.now_ns());
        self.locked().dedup.forget_before(oldest_ns);
    }

    /// What is held now.
    pub fn held(&self) -> Held {
        let state = self.locked();
        let mut held = Held {
            active_bytes: state.active.bytes,
            active_since: state.active.since,
            dedup_ids: state.dedup.len(),
            ..Held::default()
        };
        for frozen in &state.generations {
            match frozen.is_flushed() {
                true => held.flushed_bytes += frozen.bytes,
                false => held.frozen_bytes += frozen.bytes,
            }
        }
        held
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a half-applied profile: better to stop than to serve it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn starting_at(first: Offset) -> Self {
        Self { first, next: first, since: None, bytes: 0, heads: HashMap::new() }
    }
}

impl State {
    fn apply(&mut self, decoded: &Decoded, limits: &Overrides, now: Duration) -> Ack {
        let tenant = &decoded.tenant;
        let mut ack = Ack { applied: 0, duplicates: 0 };
        for profile in &decoded.profiles {
            if !self.dedup.insert((tenant.number, profile.id), profile.time_ns) {
                ack.duplicates += 1;
                continue;
            }
            let head = self.active.heads.entry(tenant.number).or_insert_with(|| Head::new(tenant.clone()));
            let before = head.bytes();
            head.add(profile, &limits.of(&tenant.id).scope_labels);
            // A chunk that is full gives back what it reserved, so a head may also shrink.
            self.active.bytes = self.active.bytes + head.bytes() - before;
            ack.applied += 1;
        }
        self.active.next = Offset(self.active.next.0 + 1);
        self.active.since.get_or_insert(now);
        ack
    }
}

/// Time of the oldest profile that any tenant's distributor would still accept: pushes before it are not retried.
pub fn window_start(limits: &Overrides, now_ns: i64) -> i64 {
    let windows = limits.tenants.values().chain([&limits.defaults]);
    let longest_secs = windows.map(|tenant| tenant.reject_older_than_secs).max().unwrap_or_default();
    let window_ns = i64::try_from(longest_secs).unwrap_or(i64::MAX).saturating_mul(SECOND_NS);
    now_ns.saturating_sub(window_ns).saturating_sub(WINDOW_SLACK_NS)
}
