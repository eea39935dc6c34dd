//! Asking twice where the first answer is slow.
//!
//! ```text
//!   read ──────────────────────────────┬─► first answer
//!     └─ slower than 95 % of reads ─► a second one
//! ```
//!
//! Second reads are the hedge of Dean and Barroso, The Tail at Scale (2013): one in twenty at most, so that who is slow
//! for all is not asked twice as much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};

use crate::clock::Clock;

/// Reads by whose times the slow ones are told.
const TIMES_HELD: usize = 256;
/// Reads before any is called slow.
pub const TIMES_MIN: usize = 64;
/// No read is called slow before this.
pub const SLOW_MIN: Duration = Duration::from_millis(5);
/// Reads for each second one, at least.
const READS_PER_HEDGE: u64 = 20;

/// What is known of reads of one kind.
#[derive(Debug)]
pub struct Hedge {
    clock: Arc<dyn Clock>,
    times: Mutex<Times>,
    /// Reads so far, and second ones.
    asked: AtomicU64,
    hedged: AtomicU64,
}

/// How long the last reads took.
#[derive(Debug, Default)]
struct Times {
    held: Vec<Duration>,
    next: usize,
    slow: Option<Duration>,
}

impl Times {
    fn add(&mut self, time: Duration) {
        if self.held.len() < TIMES_HELD {
            self.held.push(time);
        } else {
            self.held[self.next % TIMES_HELD] = time;
        }
        self.next += 1;
        if self.held.len() >= TIMES_MIN && self.next.is_multiple_of(TIMES_MIN) {
            let mut sorted = self.held.clone();
            let at = sorted.len() * 95 / 100;
            self.slow = Some((*sorted.select_nth_unstable(at).1).max(SLOW_MIN));
        }
    }
}

impl Hedge {
    /// Nothing is known yet, so nothing is slow.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, times: Mutex::default(), asked: AtomicU64::new(0), hedged: AtomicU64::new(0) }
    }

    /// Reads, and a second time where that is slow. The first success counts, or the last error; tells `hedged` of each
    /// second read whether it was that one's answer.
    pub async fn read<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        read: impl Fn() -> F,
        hedged: impl FnOnce(bool),
    ) -> Result<T, E> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let start = self.clock.monotonic();
        let slow = self.times.lock().unwrap_or_else(PoisonError::into_inner).slow;
        let first = std::pin::pin!(read());
        let answer = match slow {
            None => first.await,
            Some(slow) => match select(first, self.clock.sleep(slow)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), first)) if self.may_hedge() => {
                    let (answer, won) = either(first, std::pin::pin!(read())).await;
                    hedged(won);
                    answer
                }
                Either::Right(((), first)) => first.await,
            },
        };
        if answer.is_ok() {
            let spent = self.clock.monotonic().saturating_sub(start);
            self.times.lock().unwrap_or_else(PoisonError::into_inner).add(spent);
        }
        answer
    }

    fn may_hedge(&self) -> bool {
        let most = self.asked.load(Ordering::Relaxed) / READS_PER_HEDGE;
        let take = |hedged: u64| (hedged < most).then_some(hedged + 1);
        self.hedged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// The first that succeeds, or the last error; and whether it was the second.
async fn either<T, E>(
    first: impl Future<Output = Result<T, E>> + Unpin,
    second: impl Future<Output = Result<T, E>> + Unpin,
) -> (Result<T, E>, bool) {
    match select(first, second).await {
        Either::Left((Ok(answer), _)) => (Ok(answer), false),
        Either::Right((Ok(answer), _)) => (Ok(answer), true),
        Either::Left((Err(_), second)) => (second.await, true),
        Either::Right((Err(_), first)) => (first.await, false),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::poll;

    use super::*;
    use crate::clock::MockClock;

    #[tokio::test]
    async fn a_slow_read_is_asked_for_again_and_seldom() {
        let clock = MockClock::at(0);
        let hedge = Hedge::new(Arc::new(clock.clone()));
        for _ in 0..TIMES_MIN {
            hedge.read(|| ready(Ok::<_, ()>(0)), |_| panic!("none is slow")).await.unwrap();
        }
        let asked = AtomicU64::new(0);
        let read = || {
            let nth = asked.fetch_add(1, Ordering::Relaxed);
            // The first never answers; the second does.
            async move { if nth == 0 { pending().await } else { Ok::<_, ()>(nth) } }
        };
        let mut told = None;
        let mut reading = Box::pin(hedge.read(read, |won| told = Some(won)));
        assert!(poll!(&mut reading).is_pending());
        clock.advance(SLOW_MIN);
        assert_eq!(reading.await, Ok(1));
        assert_eq!(told, Some(true));
        // One in twenty of 65 reads are three, and one is spent.
        assert!(hedge.may_hedge() && hedge.may_hedge() && !hedge.may_hedge());
    }

    #[tokio::test]
    async fn the_first_answer_that_is_one_counts() {
        assert_eq!(either(ready(Err(1)), ready(Ok(2))).await, (Ok(2), true));
        assert_eq!(either(ready(Ok(1)), ready(Err(2))).await, (Ok(1), false));
        assert!(either(ready(Err::<u8, _>(1)), ready(Err(2))).await.0.is_err());
    }
}
