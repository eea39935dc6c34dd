//! Work that would hold up an async thread: done elsewhere, and given up when nobody waits for it any more.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;

/// Tells the work whether its result is still wanted.
#[derive(Debug)]
pub(crate) struct Caller {
    gone: Arc<AtomicBool>,
}

impl Caller {
    /// Called between pieces of work of well under a millisecond.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once the future that awaited the work has been dropped.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.gone.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

struct MarkGone(Arc<AtomicBool>);

impl Drop for MarkGone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread that may block. A panic in it continues here.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce(&Caller) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let gone = Arc::new(AtomicBool::new(false));
    let caller = Caller { gone: Arc::clone(&gone) };
    let _mark = MarkGone(gone);
    match tokio::task::spawn_blocking(move || work(&caller)).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Cancelled), // the runtime is shutting down
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_ends_when_nobody_waits() {
        let (started_sender, started) = mpsc::channel();
        let (ended_sender, ended) = mpsc::channel();
        let work = offload(move |caller| {
            started_sender.send(()).unwrap();
            while caller.check().is_ok() {
                std::hint::spin_loop();
            }
            ended_sender.send(()).unwrap();
            Ok(())
        });
        let mut work = Box::pin(work);
        assert!(futures::poll!(&mut work).is_pending());
        started.recv().unwrap();
        drop(work);
        ended.recv().unwrap();
    }
}
