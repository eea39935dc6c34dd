//! Messages of any size in pieces that a call may carry.

use bytes::{Bytes, BytesMut};
use cambium_proto::wire::ingester::Piece;
use prost::Message;

use super::Malformed;

/// Bytes of a piece, at most: a few make a transport busy, none holds it up.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// Bytes of all pieces of an answer, at most: a head of a few hundred MiB answers with less.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Bytes of any message of an answer, at most.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The message in pieces; at least one.
pub fn cut(message: &impl Message) -> Vec<Piece> {
    let mut rest = Bytes::from(message.encode_to_vec());
    let mut pieces = Vec::with_capacity(rest.len() / PIECE_BYTES_MAX + 1);
    while rest.len() > PIECE_BYTES_MAX {
        pieces.push(Piece { bytes: rest.split_to(PIECE_BYTES_MAX) });
    }
    pieces.push(Piece { bytes: rest });
    pieces
}

/// Takes pieces as they come.
#[derive(Debug, Default)]
pub struct Joined(BytesMut);

impl Joined {
    /// Adds the next piece.
    ///
    /// # Errors
    /// [`Malformed::TooLarge`]
    pub fn push(&mut self, piece: &Piece) -> Result<(), Malformed> {
        if self.0.len() + piece.bytes.len() > ANSWER_BYTES_MAX {
            return Err(Malformed::TooLarge { max: ANSWER_BYTES_MAX });
        }
        self.0.extend_from_slice(&piece.bytes);
        Ok(())
    }

    /// The message.
    ///
    /// # Errors
    /// [`Malformed::Message`]
    pub fn message<M: Message + Default>(self) -> Result<M, Malformed> {
        Ok(M::decode(self.0.freeze())?)
    }
}
