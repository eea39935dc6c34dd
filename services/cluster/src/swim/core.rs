//! Membership as a pure machine: what happened and when goes in, what is to be done comes out.
//!
//! ```text
//!   packet, addresses, command, time ──► handle ──► packets to send, names to resolve, a new view, notes
//!                                          │ ▲
//!                                  foca: SWIM with suspicion
//! ```
//!
//! What is ours around [`foca`]: the seal on packets, joining by address, names of which two nodes think they have them, and
//! changes and goodbyes that are told for some rounds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{AccumulatingRuntime, Codec, Foca, Header, Member, Message, NoCustomBroadcast, OwnedNotification};
use foca::{PeriodicParams, State, Timer};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::codec::WireCodec;
use super::identity::Identity;
use super::packet::{Kind, MESSAGE_BYTES_MAX, Refusal, Sealer};
use super::{Config, Note};
use crate::node::{Node, NodeError, NodeState};
use crate::view::View;

/// How many of the join list are asked at a time by a node that knows nobody; one that knows others asks one.
const JOIN_FANOUT: usize = 3;

/// How often a node that knows nobody asks.
const JOIN_ALONE_INTERVAL: Duration = Duration::from_secs(1);

/// For how many rounds of gossip a node tells of its own change or goodbye, besides what others pass on.
const TELL_ROUNDS: u32 = 3;

/// How many members hear of a change in one round, and help with a probe that got no answer.
const FANOUT: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");

/// How often each member passes a change on: so that of 200 that start at once each hears of each.
const TRANSMISSIONS_MAX: NonZeroU8 = NonZeroU8::new(15).expect("15 is not 0");

/// How often a member compares its members with those of another at random.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);

/// How often members that are down are asked whether they are, so that a cut cluster heals.
const DOWN_INTERVAL: Duration = Duration::from_secs(10);

/// What happened.
pub(crate) enum Event<'a> {
    /// A datagram came.
    Packet(&'a [u8]),
    /// The join list's addresses.
    Resolved(Vec<SocketAddr>),
    /// This node's state is to be another.
    SetState(NodeState),
    /// This node is to say goodbye.
    Leave,
    /// Time passed.
    Due,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    Send { to: SocketAddr, packet: Bytes },
    Resolve,
    View(Arc<View>),
    Note(Note),
    Left,
}

/// Whether this node takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Member,
    /// A later node has its name: it asks now and then whether that is still so, and does nothing else.
    Superseded,
    Leaving,
}

type Gossiper = Foca<Identity, WireCodec, StdRng, NoCustomBroadcast>;

pub(crate) struct Core {
    config: Config,
    sealer: Sealer,
    rng: StdRng,
    node: Node,
    standing: Standing,
    foca: Gossiper,
    runtime: AccumulatingRuntime<Identity>,
    /// Foca's timers by due time; the number keeps those of one moment in order.
    timers: BTreeMap<(Duration, u64), Timer<Identity>>,
    timers_set: u64,
    join_due: Duration,
    /// When to tell once more, and how often.
    telling: Option<(Duration, u32)>,
    now: Duration,
    view: Arc<View>,
    view_outdated: bool,
    actions: Vec<Action>,
}

impl Core {
    /// A node that knows nobody, at `now`.
    pub(crate) fn new(
        config: Config,
        sealer: Sealer,
        node: Node,
        mut rng: StdRng,
        now: Duration,
    ) -> Result<Self, NodeError> {
        // So that it stays short enough whatever it will say of itself.
        Node { revision: u32::MAX, state: NodeState::Leaving, ..node.clone() }.encode()?;
        let foca = gossiper(&config, &node, &mut rng)?;
        let view = Arc::new(View::new(node.name.clone(), [Arc::new(node.clone())], []));
        Ok(Self {
            config,
            sealer,
            rng,
            node,
            standing: Standing::Member,
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timers_set: 0,
            join_due: now,
            telling: None,
            now,
            view,
            view_outdated: false,
            actions: Vec::new(),
        })
    }

    /// What this node knows of the cluster.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// What this node passes on of another.
    #[cfg(test)]
    pub(super) fn description(&self, name: &crate::node::NodeName) -> Option<Bytes> {
        let mut members = self.foca.iter_members();
        members.find(|member| member.id().name == *name)?.id().bytes().cloned()
    }

    /// When [`Event::Due`] is due next.
    pub(crate) fn due(&self) -> Duration {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        let telling = self.telling.map(|(due, _)| due);
        [timer, telling].into_iter().flatten().fold(self.join_due, Duration::min)
    }

    /// Takes in what happened at `now`, which never goes back.
    pub(crate) fn handle(&mut self, now: Duration, event: Event<'_>) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Packet(packet) => {
                if let Err(reason) = self.packet(packet) {
                    self.note(Note::Refused(reason));
                }
            }
            Event::Resolved(addresses) => self.ask_to_join(addresses),
            Event::SetState(state) => self.set_state(state),
            Event::Leave => self.leave(),
            Event::Due => self.run_due(),
        }
        self.drain();
        self.renew_view();
        std::mem::take(&mut self.actions)
    }

    fn packet(&mut self, packet: &[u8]) -> Result<(), Refusal> {
        let (kind, message) = self.sealer.open(packet)?;
        if self.standing == Standing::Leaving {
            return Err(Refusal::Deaf);
        }
        match kind {
            Kind::Gossip => self.gossip(&message),
            Kind::Join => self.welcome(member(&message)?),
            Kind::Superseded => self.contested(&member(&message)?),
        }
    }

    fn gossip(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let (header, members) = read(message)?;
        // Who has not heard yet that the name is another's may still talk to us; only an invitation is an answer to us.
        if self.standing == Standing::Superseded && header.message != Message::Feed {
            return Err(Refusal::Deaf);
        }
        self.admit(&header.src, Kind::Gossip)?;
        let mine = |member: &&Member<Identity>| member.id().name == self.node.name;
        if let Some(rival) = members.iter().filter(mine).find(|rival| self.is_later(rival.id())) {
            self.contested(rival)?;
            return Err(Refusal::Superseded);
        }
        if self.standing == Standing::Superseded {
            self.standing = Standing::Member;
            self.view_outdated = true;
        }
        self.foca.handle_data(message, &mut self.runtime).map_err(|error| refusal(&error))
    }

    /// Somebody who knows this node's address asks for members: to foca that is an announcement.
    fn welcome(&mut self, joining: Member<Identity>) -> Result<(), Refusal> {
        if self.standing == Standing::Superseded {
            return Err(Refusal::Deaf);
        }
        self.admit(joining.id(), Kind::Join)?;
        let header = Header {
            src: joining.id().clone(),
            src_incarnation: joining.incarnation(),
            dst: self.foca.identity().clone(),
            message: Message::Announce,
        };
        let mut message = Vec::new();
        WireCodec.encode_header(&header, &mut message).map_err(|_| Refusal::Malformed)?;
        self.foca.handle_data(&message, &mut self.runtime).map_err(|error| refusal(&error))
    }

    /// Refuses a sender whose name is another's, and tells it so.
    fn admit(&mut self, sender: &Identity, kind: Kind) -> Result<(), Refusal> {
        let holder = if sender.name == self.node.name {
            match sender.life.cmp(&self.foca.identity().life) {
                Ordering::Equal => return Err(Refusal::Own),
                Ordering::Greater => {
                    self.contested(&Member::alive(sender.clone()))?;
                    return Err(Refusal::Superseded);
                }
                Ordering::Less => Member::alive(self.foca.identity().clone()),
            }
        } else {
            let same_name = |member: &&Member<Identity>| member.id().name == sender.name;
            match self.foca.iter_membership_state().find(same_name) {
                Some(holder) if holder.id().life > sender.life => holder.clone(),
                _ => return Ok(()),
            }
        };
        // From one address it is the same process, or what the one before had sent; and who only asks knows.
        if kind == Kind::Gossip
            && sender.life.gossip != holder.id().life.gossip
            && holder.state() != State::Down
            && let (Some(later), Some(earlier)) = (holder.id().node(), sender.node())
        {
            self.note(Note::NameDisputed { later: Arc::clone(later), earlier: Arc::clone(earlier) });
        }
        self.send_member(Kind::Superseded, sender.life.gossip, &holder);
        Err(Refusal::Superseded)
    }

    fn is_later(&self, rival: &Identity) -> bool {
        rival.life > self.foca.identity().life
    }

    /// Another node of this one's name is known. If it lives, the name is its own for as long; if not, this one goes on as a
    /// still later one: its clock was behind that of its life before.
    fn contested(&mut self, rival: &Member<Identity>) -> Result<(), Refusal> {
        let (id, me) = (rival.id(), self.foca.identity());
        if id.name != me.name || !self.is_later(id) {
            return Err(Refusal::Protocol);
        }
        // Who has our address is not there any more: we are.
        let is_gone = rival.state() == State::Down || id.life.gossip == me.life.gossip;
        let node = self.node.clone();
        if is_gone {
            let generation = id.life.generation.saturating_add(1);
            self.begin_again(Node { generation, revision: 0, ..node }, Standing::Member);
            self.join_due = self.now;
        } else if self.standing != Standing::Superseded {
            if let Some(later) = id.node() {
                self.note(Note::NameLost { later: Arc::clone(later) });
            }
            self.begin_again(node, Standing::Superseded);
        }
        Ok(())
    }

    /// Forgets everybody.
    fn begin_again(&mut self, node: Node, standing: Standing) {
        let foca = gossiper(&self.config, &node, &mut self.rng);
        self.foca = foca.expect("its longest form was checked at the start");
        (self.node, self.standing) = (node, standing);
        self.runtime = AccumulatingRuntime::new();
        self.timers.clear();
        self.view_outdated = true;
    }

    fn ask_to_join(&mut self, mut addresses: Vec<SocketAddr>) {
        if self.is_alone() {
            // All of the join list may be gone, while somebody who was thought dead is not.
            addresses.extend(self.view.down().iter().map(|node| node.gossip));
        }
        addresses.retain(|address| *address != self.node.gossip);
        addresses.sort_unstable();
        addresses.dedup();
        addresses.shuffle(&mut self.rng);
        addresses.truncate(if self.is_alone() { JOIN_FANOUT } else { 1 });
        let me = Member::alive(self.foca.identity().clone());
        for to in addresses {
            self.send_member(Kind::Join, to, &me);
        }
    }

    fn is_alone(&self) -> bool {
        self.foca.num_members() == 0
    }

    fn set_state(&mut self, state: NodeState) {
        if self.standing == Standing::Leaving || state == self.node.state {
            return;
        }
        let node = Node { state, revision: self.node.revision + 1, ..self.node.clone() };
        if self.standing == Standing::Superseded {
            return self.begin_again(node, Standing::Superseded);
        }
        let identity = Identity::of(node).expect("its longest form was checked at the start");
        let changed = self.foca.change_identity(identity, &mut self.runtime);
        debug_assert!(changed.is_ok(), "{changed:?}");
        self.telling = Some((self.now + self.config.gossip_interval.0, TELL_ROUNDS));
    }

    fn leave(&mut self) {
        if self.standing == Standing::Leaving {
            return;
        }
        let told = self.foca.leave_cluster(&mut self.runtime);
        debug_assert!(told.is_ok(), "{told:?}");
        self.standing = Standing::Leaving;
        self.node.state = NodeState::Leaving;
        self.view_outdated = true;
        self.telling = Some((self.now + self.config.gossip_interval.0, TELL_ROUNDS));
    }

    fn run_due(&mut self) {
        while let Some(first) = self.timers.first_entry()
            && first.key().0 <= self.now
        {
            let timer = first.remove();
            self.view_outdated |= matches!(timer, Timer::RemoveDown(_));
            if let Err(error) = self.foca.handle_timer(timer, &mut self.runtime) {
                // A process that stood still finds its probe unfinished; foca begins the next.
                tracing::debug!(%error, "a timer of membership came out of order");
            }
            self.drain();
        }
        if self.join_due <= self.now {
            let interval = if self.is_alone() { JOIN_ALONE_INTERVAL } else { self.config.join_interval.0 };
            self.join_due = self.now + interval.mul_f64(self.rng.random_range(0.9..1.1));
            if self.standing != Standing::Leaving {
                self.actions.push(Action::Resolve);
            }
        }
        if let Some((due, rounds)) = self.telling
            && due <= self.now
        {
            let told = self.foca.gossip(&mut self.runtime);
            debug_assert!(told.is_ok(), "{told:?}");
            self.telling = (rounds > 1).then(|| (self.now + self.config.gossip_interval.0, rounds - 1));
            if self.telling.is_none() && self.standing == Standing::Leaving {
                self.drain();
                self.actions.push(Action::Left);
            }
        }
    }

    /// Does what foca asked for.
    fn drain(&mut self) {
        while let Some((to, message)) = self.runtime.to_send() {
            self.send(Kind::Gossip, to.life.gossip, &message);
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.insert((self.now + after, self.timers_set), timer);
            self.timers_set += 1;
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.view_outdated = true;
            let node = |id: &Identity| id.node().map(Arc::clone);
            let note = match &notification {
                OwnedNotification::MemberUp(id) => node(id).map(Note::Up),
                OwnedNotification::MemberDown(id) => node(id).map(Note::Down),
                OwnedNotification::Rename(before, after) if before.life != after.life => {
                    node(after).map(Note::Restarted)
                }
                OwnedNotification::Rename(_, after) => node(after).map(Note::Changed),
                OwnedNotification::Rejoin(_) => {
                    // Whoever thought us dead is asked for the members it has.
                    self.join_due = self.now;
                    Some(Note::Rejoined)
                }
                OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => None,
            };
            self.actions.extend(note.map(Action::Note));
        }
        if self.standing != Standing::Leaving
            && let Some(node) = self.foca.identity().node()
            && node.revision != self.node.revision
        {
            self.node = Node::clone(node);
            self.view_outdated = true;
        }
    }

    fn send_member(&mut self, kind: Kind, to: SocketAddr, member: &Member<Identity>) {
        let mut message = Vec::new();
        if WireCodec.encode_member(member, &mut message).is_ok() {
            self.send(kind, to, &message);
        }
    }

    fn send(&mut self, kind: Kind, to: SocketAddr, message: &[u8]) {
        let packet = self.sealer.seal(kind, message, &mut self.rng);
        self.actions.push(Action::Send { to, packet });
    }

    fn note(&mut self, note: Note) {
        self.actions.push(Action::Note(note));
    }

    fn renew_view(&mut self) {
        if !std::mem::take(&mut self.view_outdated) {
            return;
        }
        let mut nodes = Vec::new();
        let mut down = Vec::new();
        if self.standing != Standing::Superseded {
            nodes.push(Arc::new(self.node.clone()));
        }
        for member in self.foca.iter_membership_state().filter(|member| member.id().name != self.node.name) {
            let list = if member.state() == State::Down { &mut down } else { &mut nodes };
            list.extend(member.id().node().map(Arc::clone));
        }
        let view = View::new(self.node.name.clone(), nodes, down);
        if view != *self.view {
            self.view = Arc::new(view);
            self.actions.push(Action::View(Arc::clone(&self.view)));
        }
    }
}

fn gossiper(config: &Config, node: &Node, rng: &mut StdRng) -> Result<Gossiper, NodeError> {
    let every = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
    let one = NonZeroUsize::MIN;
    let swim = foca::Config {
        probe_period: config.probe_interval.0,
        probe_rtt: config.probe_timeout.0,
        num_indirect_probes: FANOUT,
        max_transmissions: TRANSMISSIONS_MAX,
        suspect_to_down_after: config.suspicion.0,
        remove_down_after: Some(config.forget_after.0),
        max_packet_size: NonZeroUsize::new(MESSAGE_BYTES_MAX).expect("messages have bytes"),
        notify_down_members: true,
        periodic_announce: every(COMPARE_INTERVAL, one),
        periodic_announce_to_down_members: every(DOWN_INTERVAL, one),
        periodic_gossip: every(config.gossip_interval.0, FANOUT),
    };
    let identity = Identity::of(node.clone())?;
    Ok(Foca::new(identity, swim, StdRng::from_rng(rng), WireCodec))
}

/// A message of the gossip protocol as far as it is about members.
fn read(mut message: &[u8]) -> Result<(Header<Identity>, Vec<Member<Identity>>), Refusal> {
    let header = WireCodec.decode_header(&mut message).map_err(|_| Refusal::Malformed)?;
    let mut members = Vec::new();
    if let Some((count, mut rest)) = message.split_first_chunk() {
        for _ in 0..u16::from_be_bytes(*count) {
            members.push(WireCodec.decode_member(&mut rest).map_err(|_| Refusal::Malformed)?);
        }
    }
    Ok((header, members))
}

fn member(mut message: &[u8]) -> Result<Member<Identity>, Refusal> {
    WireCodec.decode_member(&mut message).map_err(|_| Refusal::Malformed)
}

fn refusal(error: &foca::Error) -> Refusal {
    match error {
        foca::Error::Decode(_) | foca::Error::MalformedPacket | foca::Error::DataTooBig => Refusal::Malformed,
        foca::Error::DataFromOurselves => Refusal::Own,
        _ => Refusal::Protocol,
    }
}
