//! Who owns which partition, as a distributor knows it: read from the leases every second, and at once when a write was
//! refused.

use std::sync::Arc;
use std::time::Duration;

use cambium_metastore::Owners;
use cambium_metastore::owners::Owner;
use cambium_model::block::Partition;
use cambium_runtime::clock::Clock;
use cambium_runtime::tasks::Tasks;
use hashbrown::HashMap;
use tokio::sync::{Notify, watch};

/// How often the leases are read without anybody asking.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How often they are read at most.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Owners by partition.
pub type OwnerTable = HashMap<Partition, Owner>;

/// What is known of owners, kept up to date.
#[derive(Clone, Debug)]
pub struct OwnersKnown {
    table: watch::Receiver<Arc<OwnerTable>>,
    wanted: Arc<Notify>,
}

impl OwnersKnown {
    /// Reads the leases until the tasks are shut down.
    pub fn follow(owners: Arc<Owners>, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let (sender, table) = watch::channel(Arc::default());
        let wanted = Arc::new(Notify::new());
        let (asked, stop) = (Arc::clone(&wanted), tasks.shutdown_signal());
        tasks.spawn("owners", async move {
            loop {
                match owners.all().await {
                    Ok(all) => {
                        let table: OwnerTable =
                            all.into_iter().map(|owner| (owner.partition, owner)).collect();
                        sender.send_if_modified(|held| {
                            let is_new = **held != table;
                            *held = Arc::new(table);
                            is_new
                        });
                    }
                    // What was known stays: an owner that is none any more refuses.
                    Err(error) => tracing::warn!(%error, "owners of partitions not read"),
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep(READ_INTERVAL) => continue,
                    () = asked.notified() => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep(READ_INTERVAL_MIN) => {}
                }
            }
        });
        Self { table, wanted }
    }

    /// The owner of a partition, as far as is known.
    pub fn of(&self, partition: Partition) -> Option<Owner> {
        self.table.borrow().get(&partition).cloned()
    }

    /// Waits until another tenure of the partition is known than this one.
    pub async fn other_than(&self, partition: Partition, fence: Option<u64>) -> Owner {
        let mut table = self.table.clone();
        self.wanted.notify_one();
        let is_other =
            |table: &Arc<OwnerTable>| table.get(&partition).is_some_and(|owner| Some(owner.fence) != fence);
        let found = table.wait_for(is_other).await.map(|table| table[&partition].clone());
        match found {
            Ok(owner) => owner,
            // The process stops: nobody waits for long.
            Err(_) => std::future::pending().await,
        }
    }
}
