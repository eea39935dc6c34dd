//! A tenant's ingestion rate: a bucket of bytes that fills steadily and holds one burst.
//!
//! Law: over any span, what was taken is at most burst + rate × span, except that a push larger than the whole burst
//! is let in when the bucket is full and paid for afterwards. Refusals take nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cambium_model::limits::TenantLimits;

use crate::error::Error;

/// Longest wait that a refusal names, where the rate is next to nothing.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// One tenant's bucket.
#[derive(Debug)]
pub(crate) struct TokenBucket(Mutex<Level>);

#[derive(Debug)]
struct Level {
    /// Bytes that may be taken now; below zero after a push larger than the burst.
    bytes: f64,
    /// When it was so, on the monotonic clock.
    at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(now: Duration, limits: &TenantLimits) -> Self {
        Self(Mutex::new(Level { bytes: limits.ingestion_burst_bytes as f64, at: now }))
    }

    /// Takes the bytes or says when they could be taken.
    pub(crate) fn take(&self, bytes: u64, now: Duration, limits: &TenantLimits) -> Result<(), Error> {
        self.with_level(bytes, now, limits, |level| level.bytes -= bytes as f64)
    }

    /// Whether the bytes could be taken.
    pub(crate) fn check(&self, bytes: u64, now: Duration, limits: &TenantLimits) -> Result<(), Error> {
        self.with_level(bytes, now, limits, |_| ())
    }

    fn with_level(
        &self,
        bytes: u64,
        now: Duration,
        limits: &TenantLimits,
        admitted: impl FnOnce(&mut Level),
    ) -> Result<(), Error> {
        let (rate, burst) = (limits.ingestion_rate_bytes, limits.ingestion_burst_bytes);
        // At least one byte, so that a tenant with no rate and no burst gets nothing in.
        let needed = bytes.clamp(1, burst.max(1)) as f64;
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = now.saturating_sub(level.at).as_secs_f64() * rate as f64;
        level.bytes = (level.bytes + filled).min(burst as f64);
        level.at = now.max(level.at);
        if level.bytes >= needed {
            admitted(&mut level);
            return Ok(());
        }
        let seconds = (needed - level.bytes) / rate as f64;
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX).min(WAIT_MAX);
        Err(Error::RateLimited { bytes, rate, burst, wait })
    }
}

#[cfg(test)]
mod tests {
    use cambium_runtime::error::HasKind;
    use proptest::prelude::*;

    use super::*;

    fn limits(rate: u64, burst: u64) -> TenantLimits {
        TenantLimits { ingestion_rate_bytes: rate, ingestion_burst_bytes: burst, ..TenantLimits::default() }
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let limits = limits(100, 1_000);
        let bucket = TokenBucket::new(millis(0), &limits);
        bucket.take(1_000, millis(0), &limits).unwrap();
        let refused = bucket.take(50, millis(100), &limits).unwrap_err();
        assert_eq!(refused.retry_after(), Some(millis(400)));
        assert_eq!(
            refused.to_string(),
            "over the ingestion rate of 100 bytes/s, burst 1000 (ingestion_rate_bytes, \
             ingestion_burst_bytes): 50 bytes refused"
        );
        bucket.check(50, millis(500), &limits).unwrap();
        bucket.take(50, millis(500), &limits).unwrap();
        assert!(bucket.take(1, millis(500), &limits).is_err());
    }

    #[test]
    fn a_push_larger_than_the_burst_is_paid_for_afterwards() {
        let limits = limits(100, 1_000);
        let bucket = TokenBucket::new(millis(0), &limits);
        bucket.take(1_500, millis(0), &limits).unwrap();
        assert_eq!(bucket.take(1, millis(0), &limits).unwrap_err().retry_after(), Some(millis(5_010)));
        bucket.take(1, millis(5_010), &limits).unwrap();
    }

    #[test]
    fn no_rate_at_all_lets_nothing_in_and_names_a_long_wait() {
        let limits = limits(0, 0);
        let bucket = TokenBucket::new(millis(0), &limits);
        assert_eq!(bucket.take(10, millis(9), &limits).unwrap_err().retry_after(), Some(WAIT_MAX));
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_under_burst_plus_rate(
            pushes in prop::collection::vec((1u64..2_000, 0u64..500), 1..100),
        ) {
            let limits = limits(1_000, 2_000);
            let bucket = TokenBucket::new(millis(0), &limits);
            let (mut taken, mut now) = (0.0, millis(0));
            for (bytes, pause) in pushes {
                now += millis(pause);
                let checked = bucket.check(bytes, now, &limits).is_ok();
                let got = bucket.take(bytes, now, &limits).is_ok();
                prop_assert_eq!(checked, got);
                taken += if got { bytes as f64 } else { 0.0 };
                prop_assert!(taken <= 2_000.0 + 1_000.0 * now.as_secs_f64() + 1e-6);
            }
        }
    }
}
