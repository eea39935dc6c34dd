//! Tasks with names and owners, and a shutdown that waits for them.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of one owner: spawned under a name, told to stop together, waited for together.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The signal on which tasks stop taking new work.
    pub fn shutdown_signal(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs `future` until it ends; `name` appears in its logs.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(future.instrument(tracing::info_span!("task", name)))
    }

    /// Tells every task to stop and waits until all have.
    pub async fn shut_down(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_the_tasks() {
        let tasks = Tasks::new();
        let signal = tasks.shutdown_signal();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("drain", async move {
            signal.cancelled().await;
            sender.send("drained").unwrap();
        });
        tasks.shut_down().await;
        assert_eq!(receiver.await.unwrap(), "drained");
    }
}
