//! A placement driver behind connections that can go silent.

use std::sync::Arc;

use cambium_peers::{Tikv, free_address};
use cambium_runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A cluster whose placement driver tells clients to come by way of us.
pub(super) struct Proxy {
    _cluster: Tikv,
    address: String,
    _tasks: Tasks,
    /// Connections made at an earlier count forward nothing any more; those made at 0, the cluster's own, always do.
    silences: Arc<watch::Sender<u32>>,
}

impl Proxy {
    pub(super) async fn start() -> Option<Self> {
        let (address, target) = (free_address(), free_address());
        let (tasks, silences) = (Tasks::new(), Arc::new(watch::Sender::new(0)));
        // First of all, for the store comes by way of us too.
        let listener = TcpListener::bind(&address).await.unwrap();
        let (told, connections, driver) = (Arc::clone(&silences), tasks.clone(), target.clone());
        tasks.spawn("proxy", async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn("forward", forward(client, driver.clone(), told.subscribe()));
            }
        });
        let cluster = Tikv::behind(&address, &target)?;
        silences.send_replace(1);
        Some(Self { _cluster: cluster, address, _tasks: tasks, silences })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// From now on nothing comes through the clients' connections that there are, and they stay open.
    pub(super) fn silence(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }
}

async fn forward(mut client: TcpStream, target: String, mut silences: watch::Receiver<u32>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let made_at = *silences.borrow();
    tokio::select! {
        // Either side has closed it.
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        _ = silences.wait_for(|now| made_at > 0 && *now > made_at) => {}
    }
    std::future::pending().await
}
