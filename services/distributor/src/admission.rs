//! Whether a push may come in at all: memory for it, the tenant's rate, the tenant's number of series.
//!
//! Read first thing by every door. Nothing here waits: what has no room is refused at once with a hint when to retry,
//! because a queue of pushes would only move the waiting from the sender's memory to ours.

mod rate;

mod series;

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::Error;

pub(crate) use rate::TokenBucket;
pub(crate) use series::RecentSeries;

/// What the semaphore counts in, so that its 32-bit numbers reach far enough.
const UNIT_BYTES: u64 = 1 << 10;

/// The bytes in flight, bounded, and the pushes they belong to.
#[derive(Debug)]
pub(crate) struct Admission {
    free: Arc<Semaphore>,
    bytes_max: u64,
    /// Bytes in flight, rounded up for each push.
    in_flight: Gauge,
    pushes: TaskTracker,
}

/// One push's share of the bytes in flight, given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    held: OwnedSemaphorePermit,
    bytes_max: u64,
    in_flight: Gauge,
    _push: TaskTrackerToken,
}

impl Admission {
    /// Room for `bytes_max`, whose use the gauge shows.
    pub(crate) fn new(bytes_max: u64, in_flight: Gauge) -> Self {
        let units = (bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS as u64) as usize;
        Self {
            free: Arc::new(Semaphore::new(units)),
            bytes_max: units as u64 * UNIT_BYTES,
            in_flight,
            pushes: TaskTracker::new(),
        }
    }

    /// Room for a push of yet unknown size.
    pub(crate) fn admit(&self) -> Result<Ticket, Error> {
        // The token comes before the look, so that `close` waits for every push that saw it open.
        let push = self.pushes.token();
        if self.pushes.is_closed() {
            return Err(Error::Closing);
        }
        let held = Arc::clone(&self.free)
            .try_acquire_owned()
            .map_err(|_| Error::Saturated { bytes_max: self.bytes_max })?;
        let ticket =
            Ticket { held, bytes_max: self.bytes_max, in_flight: self.in_flight.clone(), _push: push };
        ticket.in_flight.inc_by(ticket.bytes());
        Ok(ticket)
    }

    /// Refuses pushes from now on and returns when those under way have ended.
    pub(crate) async fn close(&self) {
        self.pushes.close();
        self.pushes.wait().await;
    }
}

impl Ticket {
    /// Holds room for this many bytes in all. Keeps what it held where there is no room for more.
    pub(crate) fn cover(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes > self.bytes_max {
            return Err(Error::BodyTooLarge { limit: self.bytes_max, name: "bytes_in_flight_max" });
        }
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(self.held.num_permits() as u64);
        if missing == 0 {
            return Ok(());
        }
        let saturated = Error::Saturated { bytes_max: self.bytes_max };
        let Ok(missing) = u32::try_from(missing) else {
            return Err(saturated);
        };
        let more =
            Arc::clone(self.held.semaphore()).try_acquire_many_owned(missing).map_err(|_| saturated)?;
        self.in_flight.inc_by(i64::from(missing) * UNIT_BYTES as i64);
        self.held.merge(more);
        Ok(())
    }

    fn bytes(&self) -> i64 {
        (self.held.num_permits() as u64 * UNIT_BYTES) as i64
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.in_flight.dec_by(self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use cambium_runtime::error::{HasKind, Kind};

    use super::*;

    #[test]
    fn bytes_in_flight_are_bounded_and_given_back() {
        let in_flight = Gauge::default();
        let admission = Admission::new(10 * UNIT_BYTES, in_flight.clone());
        let mut first = admission.admit().unwrap();
        first.cover(4 * UNIT_BYTES).unwrap();
        first.cover(100).unwrap();
        let mut second = admission.admit().unwrap();
        assert_eq!(second.cover(7 * UNIT_BYTES).unwrap_err().kind(), Kind::Unavailable);
        second.cover(6 * UNIT_BYTES).unwrap();
        assert_eq!(in_flight.get(), 10 * UNIT_BYTES as i64);
        assert_eq!(admission.admit().unwrap_err().kind(), Kind::Unavailable);
        drop(first);
        assert_eq!(in_flight.get(), 6 * UNIT_BYTES as i64);
        admission.admit().unwrap();
    }

    #[test]
    fn what_can_never_fit_is_too_large_rather_than_too_early() {
        let admission = Admission::new(10 * UNIT_BYTES, Gauge::default());
        let error = admission.admit().unwrap().cover(10 * UNIT_BYTES + 1).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(error.to_string(), "the body has more than 10240 bytes (bytes_in_flight_max)");
    }

    #[tokio::test]
    async fn closing_refuses_and_waits() {
        let admission = Arc::new(Admission::new(10 * UNIT_BYTES, Gauge::default()));
        let under_way = admission.admit().unwrap();
        let closing = async {
            admission.close().await;
            "closed"
        };
        tokio::pin!(closing);
        assert!(futures::poll!(&mut closing).is_pending());
        assert_eq!(admission.admit().unwrap_err().to_string(), "shutting down");
        drop(under_way);
        assert_eq!(closing.await, "closed");
    }
}
