//! Runs the core: the socket, the clock, the resolver. No decision is made here.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use futures::future::join_all;
use prometheus_client::metrics::counter::Counter;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::core::{Action, Core, Event};
use super::packet::{PACKET_BYTES_MAX, Sealer};
use super::{Config, Note};
use crate::error::Error;
use crate::key::ClusterKey;
use crate::membership::Membership;
use crate::metrics::ClusterMetrics;
use crate::node::{Node, NodeState};
use crate::view::View;

/// How long the join list may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many packets are read before the timers get their turn: after a standstill the answers that lie there come first.
const PACKETS_AT_ONCE: usize = 256;

/// Commands that wait for the core.
const COMMANDS_MAX: usize = 16;

/// What gossip needs from its process.
#[derive(Debug)]
pub struct Deps {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// Whose task it runs as.
    pub tasks: Tasks,
    /// Whom to probe, and the nonces of packets: seeded by the operating system but in tests.
    pub rng: StdRng,
}

/// A member of a cluster that gossips, until it leaves, is dropped, or its tasks are shut down.
#[derive(Debug)]
pub struct Swim {
    view: watch::Receiver<Arc<View>>,
    commands: mpsc::Sender<Command>,
    left: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Command {
    SetState(NodeState, oneshot::Sender<()>),
    Leave(oneshot::Sender<()>),
}

impl Swim {
    /// Starts gossip as `node`, in a task of its own; port 0 of its gossip address stands for the port listened at.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::KeyNeeded`], [`Error::Unspecified`], [`Error::Node`]: the settings do not allow it.
    /// [`Error::Bind`].
    pub async fn start(
        config: Config,
        key: Option<ClusterKey>,
        mut node: Node,
        deps: Deps,
    ) -> Result<Self, Error> {
        config.check()?;
        for address in [config.listen, node.gossip] {
            if key.is_none() && !address.ip().is_loopback() {
                return Err(Error::KeyNeeded { address });
            }
        }
        if node.gossip.ip().is_unspecified() {
            return Err(Error::Unspecified { address: node.gossip });
        }
        let bind_error = |source| Error::Bind { address: config.listen, source };
        let socket = UdpSocket::bind(config.listen).await.map_err(bind_error)?;
        if node.gossip.port() == 0 {
            node.gossip.set_port(socket.local_addr().map_err(bind_error)?.port());
        }
        let sealer = Sealer::new(&config.cluster, key);
        let join = config.join.clone();
        let core = Core::new(config, sealer, node, deps.rng, deps.clock.monotonic())?;
        let metrics = ClusterMetrics::new(&deps.metrics);
        metrics.show(core.view());
        let view = watch::Sender::new(Arc::clone(core.view()));
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let left = Arc::new(AtomicBool::new(false));
        let swim = Self { view: view.subscribe(), commands, left: Arc::clone(&left) };
        let clock = deps.clock;
        let (resolving, leaving) = (None, Vec::new());
        let driver = Driver { core, socket, clock, join, metrics, view, resolving, leaving, left };
        deps.tasks.spawn("gossip", driver.run(received, deps.tasks.shutdown_signal()));
        Ok(swim)
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }
}

#[async_trait]
impl Membership for Swim {
    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    async fn set_state(&self, state: NodeState) -> Result<(), Error> {
        if self.left.load(Ordering::Acquire) {
            return Err(Error::Left);
        }
        self.command(|done| Command::SetState(state, done)).await
    }

    async fn leave(&self) -> Result<(), Error> {
        if self.left.load(Ordering::Acquire) {
            return Ok(());
        }
        self.command(Command::Leave).await
    }
}

type Resolving = Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>>;

struct Driver {
    core: Core,
    socket: UdpSocket,
    clock: Arc<dyn Clock>,
    join: Vec<String>,
    metrics: ClusterMetrics,
    view: watch::Sender<Arc<View>>,
    resolving: Option<Resolving>,
    /// Who waits for the goodbye to be told.
    leaving: Vec<oneshot::Sender<()>>,
    left: Arc<AtomicBool>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        let mut buffer = vec![0; PACKET_BYTES_MAX + 1];
        loop {
            let until_due = self.core.due().saturating_sub(self.clock.monotonic());
            let mut resolved = None;
            let mut command = None;
            tokio::select! {
                () = shutdown.cancelled() => return,
                received = commands.recv() => match received {
                    Some(received) => command = Some(received),
                    // Nobody holds this member any more.
                    None => return,
                },
                addresses = async {
                    match &mut self.resolving {
                        Some(resolving) => resolving.await,
                        None => std::future::pending().await,
                    }
                } => resolved = Some(addresses),
                _ = self.socket.readable() => {}
                () = self.clock.sleep(until_due) => {}
            }
            if let Some(addresses) = resolved {
                self.resolving = None;
                self.handle(Event::Resolved(addresses)).await;
            }
            match command {
                Some(Command::SetState(state, done)) => {
                    self.handle(Event::SetState(state)).await;
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Some(Command::Leave(done)) => {
                    self.leaving.push(done);
                    self.handle(Event::Leave).await;
                }
                None => {}
            }
            self.read_packets(&mut buffer).await;
            if self.core.due() <= self.clock.monotonic() && self.handle(Event::Due).await {
                self.left.store(true, Ordering::Release);
                self.leaving.drain(..).for_each(|done| {
                    let _ = done.send(());
                });
                return;
            }
        }
    }

    async fn read_packets(&mut self, buffer: &mut [u8]) {
        for _ in 0..PACKETS_AT_ONCE {
            match self.socket.try_recv_from(buffer) {
                Ok((length, _)) => {
                    self.metrics.packets_received.inc();
                    self.handle(Event::Packet(&buffer[..length])).await;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.metrics.receive_failures.inc();
                    tracing::debug!(%error, "a packet could not be received");
                }
            }
        }
    }

    /// Returns whether the goodbye has been told.
    async fn handle(&mut self, event: Event<'_>) -> bool {
        let mut left = false;
        for action in self.core.handle(self.clock.monotonic(), event) {
            match action {
                Action::Send { to, packet } => match self.socket.send_to(&packet, to).await {
                    Ok(_) => drop(self.metrics.packets_sent.inc()),
                    Err(error) => {
                        self.metrics.send_failures.inc();
                        tracing::debug!(%to, %error, "a packet could not be sent");
                    }
                },
                Action::Resolve if self.resolving.is_none() => {
                    let failures = self.metrics.resolve_failures.clone();
                    let resolving = resolve(self.join.clone(), Arc::clone(&self.clock), failures);
                    self.resolving = Some(Box::pin(resolving));
                }
                Action::Resolve => {}
                Action::View(view) => {
                    self.metrics.show(&view);
                    self.view.send_replace(view);
                }
                Action::Note(note) => {
                    self.metrics.count(&note);
                    log(&note);
                }
                Action::Left => left = true,
            }
        }
        left
    }
}

/// The join list's addresses as they are now; what cannot be resolved is left out.
async fn resolve(names: Vec<String>, clock: Arc<dyn Clock>, failures: Counter) -> Vec<SocketAddr> {
    let lookup = async |name: &String| {
        let found = tokio::select! {
            found = tokio::net::lookup_host(name.as_str()) => found,
            () = clock.sleep(RESOLVE_TIMEOUT) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        found.map(Iterator::collect::<Vec<_>>).unwrap_or_else(|error| {
            failures.inc();
            tracing::warn!(name, %error, "a name of the join list cannot be resolved");
            Vec::new()
        })
    };
    join_all(names.iter().map(lookup)).await.concat()
}

fn log(note: &Note) {
    match note {
        Note::Refused(reason) => tracing::debug!(reason = reason.as_str(), "a packet was refused"),
        Note::Up(node) => tracing::info!(node = %node.name, gossip = %node.gossip, "a node is there"),
        Note::Down(node) => {
            tracing::info!(node = %node.name, gossip = %node.gossip, "a node has left or died")
        }
        Note::Restarted(node) => {
            tracing::info!(node = %node.name, gossip = %node.gossip, "a node is there again")
        }
        Note::Changed(node) => {
            tracing::info!(node = %node.name, state = node.state.as_str(), "a node has changed")
        }
        Note::Rejoined => tracing::warn!("others had thought this node dead"),
        Note::NameDisputed { later, earlier } => tracing::error!(
            name = %later.name, later = %later.gossip, earlier = %earlier.gossip,
            "two living nodes have one name: the one that started later keeps it"
        ),
        Note::NameLost { later } => tracing::error!(
            name = %later.name, later = %later.gossip,
            "this node's name belongs to another one: it takes no part until that one is gone"
        ),
    }
}
