//! Follows a log that others append to: what is there is applied, as at a replay.

use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::flush::Owned;
use crate::open::{self, READ_BYTES};
use crate::service::Shared;

/// Wait before the log is read again: after a failure, or while heads have no room.
const PAUSE: Duration = Duration::from_millis(500);

/// Applies records as they come, until the log is put down. Heads that are full make it wait: the log keeps what comes.
pub(crate) async fn follow(shared: Arc<Shared>, owned: Arc<Owned>) {
    let stop = owned.tasks().shutdown_signal();
    loop {
        let more = tokio::select! {
            () = stop.cancelled() => return,
            more = read_on(&shared, &owned) => more,
        };
        let Err(error) = more else { continue };
        tracing::warn!(log = %owned.log_id(), %error, "the log is not followed for a moment");
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.deps.clock.sleep(PAUSE) => {}
        }
    }
}

async fn read_on(shared: &Shared, owned: &Owned) -> Result<(), Error> {
    shared.admit()?;
    let (log, from) = (owned.partition.log(), owned.partition.next());
    log.wait(from).await.map_err(Error::Log)?;
    for entry in log.read(from, READ_BYTES).await.map_err(Error::Log)? {
        open::replay(shared, &owned.partition, entry).await?;
    }
    Ok(())
}
