//! Time as a dependency: the system's clock, one that runs faster, and one that a test moves by hand.

use std::fmt;
use std::str::FromStr;
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

/// A clock that runs faster than the machine's, for tests that live through days. Its wall time follows from the machine's
/// alone, so all processes of a test agree. As text `origin:shown:speed`.
#[derive(Debug)]
pub struct FastClock {
    system: SystemClock,
    /// A moment of the machine's clock, and what this one shows then.
    origin_ns: i64,
    shown_ns: i64,
    speed: u32,
}

impl FastClock {
    /// A clock that shows `shown_ns` now and runs `speed` times as fast as the machine's; `speed` is not 0.
    pub fn at(shown_ns: i64, speed: u32) -> Self {
        let system = SystemClock::new();
        Self { origin_ns: system.now_ns(), system, shown_ns, speed }
    }
}

impl fmt::Display for FastClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.origin_ns, self.shown_ns, self.speed)
    }
}

impl FromStr for FastClock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not origin:shown:speed");
        let numbers: Vec<i64> =
            text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
        let &[origin_ns, shown_ns, speed] = numbers.as_slice() else { return Err(invalid()) };
        let speed = u32::try_from(speed).ok().filter(|speed| *speed > 0).ok_or_else(invalid)?;
        Ok(Self { system: SystemClock::new(), origin_ns, shown_ns, speed })
    }
}

#[async_trait]
impl Clock for FastClock {
    fn now_ns(&self) -> i64 {
        let passed_ns = self.system.now_ns().saturating_sub(self.origin_ns);
        self.shown_ns.saturating_add(passed_ns.saturating_mul(i64::from(self.speed)))
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() * self.speed
    }

    async fn sleep(&self, duration: Duration) {
        self.system.sleep(duration / self.speed).await;
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

    #[tokio::test]
    async fn a_fast_clock_runs_on_in_another_process() {
        let hour = Duration::from_secs(3_600);
        let clock = FastClock::at(7, 3_600_000);
        clock.sleep(hour).await;
        assert!(clock.monotonic() >= hour);
        let other: FastClock = clock.to_string().parse().unwrap();
        assert!(other.now_ns() >= 7 + hour.as_nanos() as i64, "{other}");
        for text in ["", "1:2", "1:2:0", "1:2:x", "1:2:3:4"] {
            assert!(text.parse::<FastClock>().is_err(), "{text}");
        }
    }
}
