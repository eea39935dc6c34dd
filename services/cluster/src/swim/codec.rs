//! The protocol's messages as bytes: length-delimited protobuf, so that fields of newer builds can be skipped.
//!
//! Only senders and members are described in full; whom a packet is for, or about, is a reference.

use bytes::{Buf, BufMut, Bytes};
use foca::{Codec, Header, Member, Message as Gossip, State};
use prost::Message;

use super::identity::{Identity, Life};
use crate::node::{NodeError, NodeName};

/// Why bytes are not a message, or a message not bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("not a message")]
    Malformed(#[from] prost::DecodeError),
    #[error("not a node")]
    Node(#[from] NodeError),
    #[error("{what} is {value}")]
    Value { what: &'static str, value: u32 },
    #[error("a reference is missing")]
    NoReference,
    #[error("a node without a description cannot be passed on")]
    NoDescription,
    #[error("no room")]
    NoRoom,
}

/// The codec of [`foca`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireCodec;

#[derive(Clone, PartialEq, Message)]
struct WireHeader {
    /// A `WireNode`.
    #[prost(bytes = "bytes", tag = "1")]
    from: Bytes,
    #[prost(uint32, tag = "2")]
    incarnation: u32,
    #[prost(message, optional, tag = "3")]
    to: Option<WireReference>,
    /// See `number`.
    #[prost(uint32, tag = "4")]
    message: u32,
    #[prost(uint32, tag = "5")]
    probe: u32,
    /// Whom an indirect probe is about.
    #[prost(message, optional, tag = "6")]
    about: Option<WireReference>,
}

#[derive(Clone, PartialEq, Message)]
struct WireReference {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(fixed64, tag = "2")]
    generation: u64,
    #[prost(uint32, tag = "3")]
    revision: u32,
    #[prost(string, tag = "4")]
    gossip: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireMember {
    /// A `WireNode`.
    #[prost(bytes = "bytes", tag = "1")]
    node: Bytes,
    #[prost(uint32, tag = "2")]
    incarnation: u32,
    /// 1 alive, 2 suspect, 3 down.
    #[prost(uint32, tag = "3")]
    state: u32,
}

impl Codec<Identity> for WireCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let (probe, about) = match &header.message {
            Gossip::Ping(probe) | Gossip::Ack(probe) => (*probe, None),
            Gossip::PingReq { target: about, probe_number }
            | Gossip::IndirectPing { origin: about, probe_number }
            | Gossip::IndirectAck { target: about, probe_number }
            | Gossip::ForwardedAck { origin: about, probe_number } => (*probe_number, Some(about)),
            Gossip::Announce | Gossip::Feed | Gossip::Gossip | Gossip::Broadcast | Gossip::TurnUndead => {
                (0, None)
            }
        };
        let wire = WireHeader {
            from: header.src.bytes().ok_or(CodecError::NoDescription)?.clone(),
            incarnation: header.src_incarnation.into(),
            to: Some(reference(&header.dst)),
            message: number(&header.message),
            probe: probe.into(),
            about: about.map(reference),
        };
        put(&wire, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let wire = WireHeader::decode_length_delimited(buf)?;
        let about = wire.about.map(identity).transpose()?;
        let probe = narrow("probe", wire.probe)?;
        Ok(Header {
            src: Identity::decode(wire.from)?,
            src_incarnation: narrow("incarnation", wire.incarnation)?,
            dst: identity(wire.to.ok_or(CodecError::NoReference)?)?,
            message: message(wire.message, probe, about)?,
        })
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let state = match member.state() {
            State::Alive => 1,
            State::Suspect => 2,
            State::Down => 3,
        };
        let node = member.id().bytes().ok_or(CodecError::NoDescription)?.clone();
        put(&WireMember { node, incarnation: member.incarnation().into(), state }, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let wire = WireMember::decode_length_delimited(buf)?;
        let state = match wire.state {
            1 => State::Alive,
            2 => State::Suspect,
            3 => State::Down,
            value => return Err(CodecError::Value { what: "state", value }),
        };
        let incarnation = narrow("incarnation", wire.incarnation)?;
        Ok(Member::new(Identity::decode(wire.node)?, incarnation, state))
    }
}

/// All or nothing: a buffer without room stays as it is.
fn put(wire: &impl Message, mut buf: impl BufMut) -> Result<(), CodecError> {
    let bytes = wire.encode_length_delimited_to_vec();
    if bytes.len() > buf.remaining_mut() {
        return Err(CodecError::NoRoom);
    }
    buf.put_slice(&bytes);
    Ok(())
}

fn number(message: &Gossip<Identity>) -> u32 {
    match message {
        Gossip::Ping(_) => 1,
        Gossip::Ack(_) => 2,
        Gossip::PingReq { .. } => 3,
        Gossip::IndirectPing { .. } => 4,
        Gossip::IndirectAck { .. } => 5,
        Gossip::ForwardedAck { .. } => 6,
        Gossip::Announce => 7,
        Gossip::Feed => 8,
        Gossip::Gossip => 9,
        Gossip::Broadcast => 10,
        Gossip::TurnUndead => 11,
    }
}

fn message(number: u32, probe_number: u8, about: Option<Identity>) -> Result<Gossip<Identity>, CodecError> {
    let about = about.ok_or(CodecError::NoReference);
    Ok(match number {
        1 => Gossip::Ping(probe_number),
        2 => Gossip::Ack(probe_number),
        3 => Gossip::PingReq { target: about?, probe_number },
        4 => Gossip::IndirectPing { origin: about?, probe_number },
        5 => Gossip::IndirectAck { target: about?, probe_number },
        6 => Gossip::ForwardedAck { origin: about?, probe_number },
        7 => Gossip::Announce,
        8 => Gossip::Feed,
        9 => Gossip::Gossip,
        10 => Gossip::Broadcast,
        11 => Gossip::TurnUndead,
        value => return Err(CodecError::Value { what: "message", value }),
    })
}

fn reference(identity: &Identity) -> WireReference {
    WireReference {
        name: identity.name.as_str().to_owned(),
        generation: identity.life.generation,
        revision: identity.revision,
        gossip: identity.life.gossip.to_string(),
    }
}

fn identity(wire: WireReference) -> Result<Identity, CodecError> {
    let gossip = wire.gossip.parse().map_err(|_| NodeError::Address(wire.gossip))?;
    let life = Life { generation: wire.generation, gossip };
    Ok(Identity::reference(NodeName::new(&wire.name)?, life, wire.revision))
}

fn narrow<N: TryFrom<u32>>(what: &'static str, value: u32) -> Result<N, CodecError> {
    N::try_from(value).map_err(|_| CodecError::Value { what, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::WIRE_VERSION_MAX;
    use crate::node::tests::{newer, node};

    fn described(name: &str) -> Identity {
        Identity::of(node(name, "z")).unwrap()
    }

    #[test]
    fn every_message_survives_the_wire() {
        let (me, you, third) = (described("me"), described("you"), described("third"));
        for value in 1..=11 {
            let sent = Header {
                src: me.clone(),
                src_incarnation: 7,
                dst: you.clone(),
                message: message(value, 9, Some(third.clone())).unwrap(),
            };
            let mut bytes = Vec::new();
            WireCodec.encode_header(&sent, &mut bytes).unwrap();
            bytes.push(b'x');
            let mut rest = bytes.as_slice();
            assert_eq!(WireCodec.decode_header(&mut rest).unwrap(), sent, "{value}");
            assert_eq!(rest, b"x", "one item is read");
        }
        assert!(matches!(message(0, 0, None), Err(CodecError::Value { what: "message", value: 0 })));
        assert!(matches!(message(3, 0, None), Err(CodecError::NoReference)));
    }

    #[test]
    fn what_a_newer_build_says_is_passed_on_as_it_came() {
        let bytes = Bytes::from(newer(&node("a", "z"), WIRE_VERSION_MAX + 1));
        let read = Identity::decode(bytes.clone()).unwrap();
        for state in [State::Alive, State::Suspect, State::Down] {
            let mut sent = Vec::new();
            WireCodec.encode_member(&Member::new(read.clone(), 3, state), &mut sent).unwrap();
            let passed_on = WireCodec.decode_member(sent.as_slice()).unwrap();
            assert_eq!((passed_on.incarnation(), passed_on.state()), (3, state));
            assert_eq!(passed_on.id().bytes(), Some(&bytes));
        }
        let reference = Identity::reference(read.name.clone(), read.life, read.revision);
        assert_eq!(reference, read, "a reference is to whom it names");
        let refused = WireCodec.encode_member(&Member::alive(reference), Vec::new());
        assert!(matches!(refused, Err(CodecError::NoDescription)), "nobody is passed on undescribed");
    }

    #[test]
    fn a_buffer_without_room_stays_as_it_is() {
        let mut bytes = Vec::new();
        let refused = WireCodec.encode_member(&Member::alive(described("a")), (&mut bytes).limit(20));
        assert!(matches!(refused, Err(CodecError::NoRoom)));
        assert!(bytes.is_empty());
    }
}
