//! Time as a dependency: the system's clock, and one that a test moves by hand.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::watch;

/// Where a role gets its time from.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall time, nanoseconds since the Unix epoch. May jump.
    fn now_ns(&self) -> i64;

    /// Time since some fixed moment. Never goes back: ages and deadlines are differences of this.
    fn monotonic(&self) -> Duration;

    /// Returns when `duration` has passed.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The machine's clock, monotonic from now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_ns(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until a test advances it.
#[derive(Debug, Clone)]
pub struct MockClock {
    start_ns: i64,
    elapsed: Arc<watch::Sender<Duration>>,
}

impl MockClock {
    /// A clock that shows `now_ns`.
    pub fn at(now_ns: i64) -> Self {
        Self { start_ns: now_ns, elapsed: Arc::new(watch::Sender::new(Duration::ZERO)) }
    }

    /// Moves the clock and wakes every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        self.elapsed.send_modify(|elapsed| *elapsed += by);
    }
}

#[async_trait]
impl Clock for MockClock {
    fn now_ns(&self) -> i64 {
        self.start_ns + i64::try_from(self.monotonic().as_nanos()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        *self.elapsed.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let due = self.monotonic() + duration;
        let mut elapsed = self.elapsed.subscribe();
        // The sender lives in `self`, so the channel cannot be closed while we wait.
        let _ = elapsed.wait_for(|elapsed| *elapsed >= due).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_mock_sleeper_wakes_when_advanced() {
        let clock = MockClock::at(1_000);
        let mut sleeping = std::pin::pin!(clock.sleep(Duration::from_secs(5)));
        assert!(poll!(&mut sleeping).is_pending());
        clock.advance(Duration::from_secs(4));
        assert!(poll!(&mut sleeping).is_pending());
        clock.advance(Duration::from_secs(1));
        sleeping.await;
        assert_eq!(clock.now_ns(), 5_000_001_000);
    }
}
