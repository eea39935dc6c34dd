//! The mark that makes a Kafka message a record of ours: a header with a format version and the payload's CRC32C.
//!
//! Kafka's own checksum covers a batch between client and disk. Ours tells records from what anybody else writes to the
//! topic, and covers what tools that copy topics do.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use cambium_model::block::Offset;

use crate::log::{Entry, Flaw};

/// The header's name.
const NAME: &str = "cambium";

/// The payload is a record, as it was appended.
const VERSION: u8 = 1;

/// Version, and checksum in little endian.
const BYTES: usize = 5;

/// The headers of a record's message.
pub(super) fn headers(payload: &[u8]) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key: NAME, value: Some(&mark(payload)) })
}

/// What stands at a message's offset.
pub(super) fn entry(offset: Offset, message: &BorrowedMessage<'_>) -> Entry {
    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    let mark = message.headers().and_then(|headers| headers.iter().find(|header| header.key == NAME));
    match check(mark.and_then(|mark| mark.value), &payload) {
        Ok(()) => Entry::Record { offset, payload },
        Err(why) => Entry::Poison { offset, payload, why },
    }
}

fn mark(payload: &[u8]) -> [u8; BYTES] {
    let mut mark = [VERSION; BYTES];
    mark[1..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    mark
}

fn check(found: Option<&[u8]>, payload: &[u8]) -> Result<(), Flaw> {
    match found {
        Some(mark_found) if mark_found == mark(payload) => Ok(()),
        Some([VERSION, _, _, _, _]) => Err(Flaw::Checksum),
        Some([version, ..]) if *version > VERSION => Err(Flaw::UnknownVersion(*version)),
        _ => Err(Flaw::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_its_payload() {
        let good = mark(b"record");
        for (found, payload, expected) in [
            (Some(&good[..]), &b"record"[..], Ok(())),
            (Some(&good), b"RECORD", Err(Flaw::Checksum)),
            (Some(&good), b"", Err(Flaw::Checksum)),
            (Some(&good[..4]), b"record", Err(Flaw::Foreign)),
            (Some(&[2]), b"record", Err(Flaw::UnknownVersion(2))),
            (Some(&[0, 1, 2, 3, 4]), b"record", Err(Flaw::Foreign)),
            (Some(&[]), b"record", Err(Flaw::Foreign)),
            (None, b"record", Err(Flaw::Foreign)),
        ] {
            assert_eq!(check(found, payload), expected, "{found:?}");
        }
    }
}
