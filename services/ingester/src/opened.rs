//! Heads that queries have opened: snapshots that stay as they are until they are closed or their time is over.
//!
//! A snapshot holds on to memory that the ingester would give back after a flush, so there is a bound of time and one
//! of number. An id cannot be guessed and is good for one tenant only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cambium_blocks::Dataset;
use cambium_model::tenant::TenantNumber;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};
use hashbrown::HashMap;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::metrics::IngesterMetrics;

/// How long a head stays open at most, whatever its query says: the time of a query is a setting far below it.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(600);

/// Heads that are open at one time, at most.
pub const OPEN_HEADS_MAX: usize = 4_096;

/// How often heads whose time is over are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a caller names a head by.
pub type HeadId = [u8; 16];

/// Why a head cannot be opened or asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many are open: queries are not answered as fast as they come, or their processes died without closing them.
    #[error("{OPEN_HEADS_MAX} heads are open, no more are opened: wait for queries to end")]
    TooMany,
    /// It is not open, or no longer.
    #[error("no such head is open: its query took longer than it said, or this process has started anew")]
    NotOpen,
    /// It was opened for another tenant.
    #[error("the head was opened for another tenant")]
    OtherTenant,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::TooMany => Kind::Unavailable,
            Self::NotOpen => Kind::NotFound,
            Self::OtherTenant => Kind::Forbidden,
        }
    }
}

/// The open heads of a process.
#[derive(Debug)]
pub struct OpenedHeads {
    clock: Arc<dyn Clock>,
    metrics: IngesterMetrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ids: StdRng,
    heads: HashMap<HeadId, Opened>,
}

#[derive(Debug)]
struct Opened {
    tenant: TenantNumber,
    head: Arc<Dataset>,
    /// On the monotonic clock.
    until: Duration,
}

impl OpenedHeads {
    /// None yet. Ids follow from the seed, which nobody else may know.
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: IngesterMetrics, seed: [u8; 32]) -> Self {
        let state = State { ids: StdRng::from_seed(seed), heads: HashMap::new() };
        Self { clock, metrics, state: Mutex::new(state) }
    }

    /// Keeps heads, of whichever tenants they are, for so long; all of them or none.
    pub fn open(&self, heads: Vec<Dataset>, keep: Duration) -> Result<Vec<(HeadId, Arc<Dataset>)>, Error> {
        let until = self.clock.monotonic() + keep.min(OPEN_TIME_MAX);
        let mut state = self.locked();
        if state.heads.len() + heads.len() > OPEN_HEADS_MAX {
            return Err(Error::TooMany);
        }
        let mut opened = Vec::with_capacity(heads.len());
        for head in heads.into_iter().map(Arc::new) {
            let mut id = HeadId::default();
            state.ids.fill_bytes(&mut id);
            let tenant = head.tenant.number;
            state.heads.insert(id, Opened { tenant, head: Arc::clone(&head), until });
            opened.push((id, head));
        }
        self.count(&state);
        Ok(opened)
    }

    /// An open head.
    pub fn get(&self, id: &[u8], tenant: TenantNumber) -> Result<Arc<Dataset>, Error> {
        let state = self.locked();
        let opened = state.heads.get(id).filter(|opened| opened.until > self.clock.monotonic());
        let opened = opened.ok_or(Error::NotOpen)?;
        if opened.tenant == tenant { Ok(Arc::clone(&opened.head)) } else { Err(Error::OtherTenant) }
    }

    /// Lets go of a head, if it is open.
    pub fn close(&self, id: &[u8], tenant: TenantNumber) -> Result<(), Error> {
        let mut state = self.locked();
        match state.heads.get(id) {
            Some(opened) if opened.tenant != tenant => return Err(Error::OtherTenant),
            _ => state.heads.remove(id),
        };
        self.count(&state);
        Ok(())
    }

    /// Lets go of heads whose time is over; called every [`SWEEP_INTERVAL`].
    pub(crate) fn sweep(&self) {
        let now = self.clock.monotonic();
        let mut state = self.locked();
        let before = state.heads.len();
        state.heads.retain(|_, opened| opened.until > now);
        let expired = before - state.heads.len();
        if expired > 0 {
            tracing::warn!(expired, "heads were not closed in time");
            self.metrics.heads_expired.inc_by(expired as u64);
        }
        self.count(&state);
    }

    fn count(&self, state: &State) {
        self.metrics.heads_open.set(state.heads.len() as i64);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing is half done between two statements under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cambium_model::tenant::{Tenant, TenantId};
    use cambium_runtime::clock::MockClock;
    use cambium_runtime::metrics::Metrics;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn heads(tenant: u32, count: usize) -> Vec<Dataset> {
        let id = TenantId::new("t").unwrap();
        vec![Dataset::new(Tenant { id, number: TenantNumber(tenant) }); count]
    }

    fn opened() -> (OpenedHeads, MockClock, Metrics) {
        let (clock, metrics) = (MockClock::at(0), Metrics::new());
        let opened = OpenedHeads::new(Arc::new(clock.clone()), IngesterMetrics::new(&metrics), [7; 32]);
        (opened, clock, metrics)
    }

    fn ids(opened: Vec<(HeadId, Arc<Dataset>)>) -> Vec<HeadId> {
        opened.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_head_is_its_tenants() {
        let (opened, ..) = opened();
        let id = ids(opened.open(heads(1, 1), MINUTE).unwrap())[0];
        let (own, other) = (TenantNumber(1), TenantNumber(2));
        assert_eq!(opened.get(&id, other).err(), Some(Error::OtherTenant));
        assert_eq!(opened.close(&id, other), Err(Error::OtherTenant));
        assert_eq!(opened.get(&id, own).unwrap().tenant.number, own);
        assert_eq!(opened.get(&[0; 16], own).err(), Some(Error::NotOpen));
        assert_eq!(opened.get(&[], own).err(), Some(Error::NotOpen));
        assert_eq!(opened.close(&id, own), Ok(()));
        assert_eq!(opened.get(&id, own).err(), Some(Error::NotOpen));
        assert_eq!(opened.close(&id, own), Ok(()), "it is not open, as wished");
    }

    #[test]
    fn heads_are_let_go_when_their_time_is_over() {
        let (opened, clock, metrics) = opened();
        let tenant = TenantNumber(1);
        let short = ids(opened.open(heads(1, 2), MINUTE).unwrap());
        let long = ids(opened.open(heads(1, 1), Duration::MAX).unwrap());
        let held = Arc::downgrade(&opened.get(&short[0], tenant).unwrap());
        clock.advance(MINUTE - Duration::from_nanos(1));
        opened.sweep();
        assert!(opened.get(&short[0], tenant).is_ok());
        clock.advance(Duration::from_nanos(1));
        assert_eq!(opened.get(&short[0], tenant).err(), Some(Error::NotOpen), "swept or not");
        opened.sweep();
        assert!(held.upgrade().is_none(), "its memory is free");
        assert!(opened.get(&long[0], tenant).is_ok());
        clock.advance(OPEN_TIME_MAX - MINUTE);
        opened.sweep();
        assert_eq!(opened.get(&long[0], tenant).err(), Some(Error::NotOpen));
        let text = metrics.encode();
        assert!(text.contains("cambium_ingester_heads_open 0\n"), "{text}");
        assert!(text.contains("cambium_ingester_heads_expired_total 3\n"), "{text}");
    }

    #[test]
    fn no_more_are_opened_than_the_bound_says() {
        let (opened, clock, _) = opened();
        let full = ids(opened.open(heads(1, OPEN_HEADS_MAX - 1), MINUTE).unwrap());
        assert_eq!(opened.open(heads(2, 2), MINUTE).err(), Some(Error::TooMany));
        assert!(opened.open(heads(2, 1), MINUTE).is_ok(), "nothing of the two was kept");
        assert_eq!(opened.open(heads(2, 1), MINUTE).err(), Some(Error::TooMany));
        opened.close(&full[0], TenantNumber(1)).unwrap();
        assert!(opened.open(heads(2, 1), MINUTE).is_ok());
        clock.advance(MINUTE);
        opened.sweep();
        assert!(opened.open(heads(3, OPEN_HEADS_MAX), MINUTE).is_ok());
    }
}
