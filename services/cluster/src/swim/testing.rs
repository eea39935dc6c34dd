//! Members in memory, for the fuzz target: one that takes whatever comes, and what members do send each other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Config;
use super::core::{Action, Core, Event};
use super::packet::{HEAD_BYTES, PACKET_BYTES_MAX, Sealer};
use crate::node::{Node, NodeName, NodeState, Roles, WIRE_VERSION_MAX};

/// When the members start.
const START: Duration = Duration::from_secs(1);

/// A member takes `bytes` as a packet, and as a message in a packet that it opens, and lives on for a while.
///
/// # Panics
/// It does, or sends what another would not open.
pub fn take(bytes: &[u8]) {
    let mut member = member(0);
    let (sealer, mut other) = (sealer(), self::member(1));
    let greeting = packets_of(&other.handle(START, Event::Resolved(vec![address(0)])));
    let head = greeting.first().expect("who has an address asks").1.slice(..HEAD_BYTES);
    let forged = [&head, bytes].concat();
    for packet in greeting.iter().map(|(_, packet)| packet.as_ref()).chain([bytes, &forged]) {
        let mut actions = member.handle(START, Event::Packet(packet));
        for second in 1..10 {
            actions.extend(member.handle(START + Duration::from_secs(second), Event::Due));
        }
        for (_, packet) in packets_of(&actions) {
            assert!(packet.len() <= PACKET_BYTES_MAX);
            assert!(sealer.open(&packet).is_ok(), "a member sends what others open");
        }
    }
}

/// What three members send each other in some seconds in which one changes and one dies: messages, without their packets'
/// heads.
pub fn messages() -> Vec<Bytes> {
    let mut members: Vec<_> = (0..3).map(member).collect();
    let mut sent = Vec::new();
    for tick in 0..100 {
        let now = START + Duration::from_millis(100) * tick;
        let mut to_send = VecDeque::new();
        for (index, member) in members.iter_mut().enumerate() {
            match (index, tick) {
                (1 | 2, 0) => {
                    to_send.extend(packets_of(&member.handle(now, Event::Resolved(vec![address(0)]))))
                }
                (0, 20) => {
                    to_send.extend(packets_of(&member.handle(now, Event::SetState(NodeState::ReadOnly))))
                }
                _ => to_send.extend(packets_of(&member.handle(now, Event::Due))),
            }
        }
        while let Some((to, packet)) = to_send.pop_front() {
            let receiver = (0..3).find(|index| address(*index) == to).expect("nobody else is known");
            // The third is dead after half of the time.
            if receiver < 2 || tick < 50 {
                let actions = members[receiver].handle(now, Event::Packet(&packet));
                to_send.extend(packets_of(&actions));
            }
            sent.push(packet.slice(HEAD_BYTES..));
        }
    }
    sent
}

fn packets_of(actions: &[Action]) -> Vec<(SocketAddr, Bytes)> {
    let packet = |action: &Action| match action {
        Action::Send { to, packet } => Some((*to, packet.clone())),
        _ => None,
    };
    actions.iter().filter_map(packet).collect()
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7_000 + index as u16))
}

fn sealer() -> Sealer {
    Sealer::new("c", None)
}

fn member(index: usize) -> Core {
    let node = Node {
        name: NodeName::new(&format!("n{index}")).expect("a letter and a digit"),
        generation: 1,
        revision: 0,
        zone: "z".to_owned(),
        roles: Roles::all(),
        version: "0.1.0".to_owned(),
        wire_version: WIRE_VERSION_MAX,
        gossip: address(index),
        internal: "127.0.0.1:4041".to_owned(),
        state: NodeState::Active,
    };
    let rng = StdRng::seed_from_u64(index as u64);
    Core::new(Config::default(), sealer(), node, rng, START).expect("a short node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_members_send_is_taken() {
        let messages = messages();
        assert!(messages.len() > 50, "{}", messages.len());
        messages.iter().for_each(|message| take(message));
        for junk in [&b""[..], b"\x01", b"\x01\xff\xff\xff\xff\x0f", b"\x02\x00", b"\x03junk"] {
            take(junk);
        }
    }
}
