//! One UDP datagram: who may read it, and what is in it.
//!
//! ```text
//!   version 1 | mode 1 | cluster 8 | salt 16 | nonce 12 | sealed: kind 1, message | tag 16      with a key
//!   version 1 | mode 1 | cluster 8 | kind 1, message                                            without one
//! ```
//!
//! `cluster` is a hash of the cluster's name. A packet has a key of its own, expanded from the cluster's key, its name and a
//! random salt: so much randomness is never drawn twice, however long the cluster's key is in use. All that is not sealed
//! is authenticated with it.

use bytes::{Bytes, BytesMut};
use rand::Rng;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use xxhash_rust::xxh3::xxh3_64;

use crate::key::ClusterKey;

/// Longest datagram, bytes: it fits any Ethernet without fragments.
pub(crate) const PACKET_BYTES_MAX: usize = 1_400;

/// Longest message in one, bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize =
    PACKET_BYTES_MAX - HEAD_BYTES - SALT_BYTES - NONCE_LEN - KIND_BYTES - TAG_BYTES;

const VERSION: u8 = 1;
const OPEN: u8 = 0;
const SEALED: u8 = 1;
pub(crate) const HEAD_BYTES: usize = 10;
const SALT_BYTES: usize = 16;
const KIND_BYTES: usize = 1;
const TAG_BYTES: usize = 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The gossip protocol's.
    Gossip = 1,
    /// Somebody wants to join: a member.
    Join = 2,
    /// Another life of the receiver's name is known: a member.
    Superseded = 3,
}

/// Why a packet was dropped; the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Longer or shorter than any packet.
    Length,
    /// Of a version of packets that this build does not read.
    Version,
    /// Of a cluster of another name.
    Cluster,
    /// Sealed where packets are not, or the other way round.
    Mode,
    /// It does not open: sent with another key, or changed on its way.
    Key,
    /// It opens, but is no message.
    Malformed,
    /// Sent by this node itself.
    Own,
    /// By or about a node whose name belongs to another by now.
    Superseded,
    /// A message at a moment when it makes no sense.
    Protocol,
    /// The node is leaving or has lost its name, and does not listen.
    Deaf,
}

impl Refusal {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Mode => "mode",
            Self::Key => "key",
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::Superseded => "superseded",
            Self::Protocol => "protocol",
            Self::Deaf => "deaf",
        }
    }
}

/// Makes packets of messages and messages of packets.
pub(crate) struct Sealer {
    name: String,
    cluster: [u8; 8],
    key: Option<ClusterKey>,
}

impl Sealer {
    pub(crate) fn new(cluster: &str, key: Option<ClusterKey>) -> Self {
        Self { name: cluster.to_owned(), cluster: xxh3_64(cluster.as_bytes()).to_be_bytes(), key }
    }

    /// A packet with `message`, which is at most [`MESSAGE_BYTES_MAX`] long.
    pub(crate) fn seal(&self, kind: Kind, message: &[u8], rng: &mut impl Rng) -> Bytes {
        debug_assert!(message.len() <= MESSAGE_BYTES_MAX);
        let mut packet = BytesMut::with_capacity(PACKET_BYTES_MAX);
        packet.extend_from_slice(&[VERSION, if self.key.is_some() { SEALED } else { OPEN }]);
        packet.extend_from_slice(&self.cluster);
        let Some(key) = &self.key else {
            packet.extend_from_slice(&[kind as u8]);
            packet.extend_from_slice(message);
            return packet.freeze();
        };
        let mut random = [0; SALT_BYTES + NONCE_LEN];
        rng.fill_bytes(&mut random);
        packet.extend_from_slice(&random);
        let (cipher, nonce) = self.cipher(key, &random);
        let mut body = BytesMut::with_capacity(KIND_BYTES + message.len());
        body.extend_from_slice(&[kind as u8]);
        body.extend_from_slice(message);
        let aad = Aad::from(&packet[..HEAD_BYTES]);
        let tag = cipher.seal_in_place_separate_tag(nonce, aad, &mut body).expect("a packet is short enough");
        packet.extend_from_slice(&body);
        packet.extend_from_slice(tag.as_ref());
        packet.freeze()
    }

    /// The message in a packet.
    pub(crate) fn open(&self, packet: &[u8]) -> Result<(Kind, Bytes), Refusal> {
        if packet.len() > PACKET_BYTES_MAX || packet.len() < HEAD_BYTES + KIND_BYTES {
            return Err(Refusal::Length);
        }
        let (head, rest) = packet.split_at(HEAD_BYTES);
        if head[0] != VERSION {
            return Err(Refusal::Version);
        }
        if head[2..] != self.cluster {
            return Err(Refusal::Cluster);
        }
        let body = match (&self.key, head[1]) {
            (None, OPEN) => Bytes::copy_from_slice(rest),
            (Some(key), SEALED) => self.unseal(key, head, rest)?,
            _ => return Err(Refusal::Mode),
        };
        let kind = match body[0] {
            1 => Kind::Gossip,
            2 => Kind::Join,
            3 => Kind::Superseded,
            _ => return Err(Refusal::Malformed),
        };
        Ok((kind, body.slice(KIND_BYTES..)))
    }

    fn unseal(&self, key: &ClusterKey, head: &[u8], rest: &[u8]) -> Result<Bytes, Refusal> {
        if rest.len() < SALT_BYTES + NONCE_LEN + KIND_BYTES + TAG_BYTES {
            return Err(Refusal::Length);
        }
        let (random, sealed) = rest.split_at(SALT_BYTES + NONCE_LEN);
        let (body, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        let tag = Tag::try_from(tag).map_err(|_| Refusal::Length)?;
        let (cipher, nonce) = self.cipher(key, random);
        let mut body = BytesMut::from(body);
        cipher
            .open_in_place_separate_tag(nonce, Aad::from(head), tag, &mut body, 0..)
            .map_err(|_| Refusal::Key)?;
        Ok(body.freeze())
    }

    fn cipher(&self, key: &ClusterKey, random: &[u8]) -> (LessSafeKey, Nonce) {
        let (salt, nonce) = random.split_at(SALT_BYTES);
        let info: [&[u8]; 3] = [b"gossip", salt, self.name.as_bytes()];
        let okm = key.gossip().expand(&info, &CHACHA20_POLY1305).expect("a key's length can be had");
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("its length is that of a nonce");
        (LessSafeKey::new(UnboundKey::from(okm)), nonce)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn sealer(cluster: &str, key: &str) -> Sealer {
        Sealer::new(cluster, ClusterKey::from_setting(key).unwrap())
    }

    const KEY: &str = "correct horse battery staple";

    #[test]
    fn a_packet_opens_for_its_cluster_alone() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut seal = |sealer: &Sealer| sealer.seal(Kind::Join, b"hello", &mut rng);
        let (ours, plain) = (sealer("a", KEY), sealer("a", ""));
        let (sealed, open) = (seal(&ours), seal(&plain));
        assert_eq!(ours.open(&sealed), Ok((Kind::Join, Bytes::from_static(b"hello"))));
        assert_eq!(plain.open(&open), Ok((Kind::Join, Bytes::from_static(b"hello"))));
        assert!(!sealed.windows(5).any(|bytes| bytes == b"hello"));
        assert_ne!(seal(&ours), sealed, "every packet has its own salt");
        let mut other_version = sealed.to_vec();
        other_version[0] = 2;
        let cases = [
            (seal(&sealer("a", "another secret of 16")).to_vec(), Refusal::Key),
            (seal(&sealer("b", KEY)).to_vec(), Refusal::Cluster),
            (open.to_vec(), Refusal::Mode),
            (other_version, Refusal::Version),
            (sealed[..50].to_vec(), Refusal::Length),
            (sealed[..5].to_vec(), Refusal::Length),
            (vec![VERSION; PACKET_BYTES_MAX + 1], Refusal::Length),
        ];
        for (packet, expected) in cases {
            assert_eq!(ours.open(&packet), Err(expected));
        }
        assert_eq!(plain.open(&sealed), Err(Refusal::Mode));
        for at in HEAD_BYTES..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(ours.open(&changed), Err(Refusal::Key), "byte {at}");
        }
    }

    #[test]
    fn the_longest_message_fits() {
        let mut rng = StdRng::seed_from_u64(1);
        let message = vec![7; MESSAGE_BYTES_MAX];
        for sealer in [sealer("a", KEY), sealer("a", "")] {
            let packet = sealer.seal(Kind::Gossip, &message, &mut rng);
            assert!(packet.len() <= PACKET_BYTES_MAX);
            assert_eq!(sealer.open(&packet), Ok((Kind::Gossip, Bytes::from(message.clone()))));
        }
        assert_eq!(
            sealer("a", "").open(&[&[1, 0], &xxh3_64(b"a").to_be_bytes()[..], b"\x09"].concat()),
            Err(Refusal::Malformed)
        );
    }
}
