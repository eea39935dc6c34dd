//! Walking protobuf bytes: keys, numbers and ranges, with positions that count from the start of the profile.

use super::error::{Error, Place};
use crate::varint;

pub(super) const VARINT: u32 = 0;
pub(super) const LEN: u32 = 2;
const FIXED64: u32 = 1;
const FIXED32: u32 = 5;

/// Bytes of the profile: start and end. 32 bits, because the bound on a profile's bytes is below 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) fn of(self, raw: &[u8]) -> &[u8] {
        &raw[self.start as usize..self.end as usize]
    }
}

/// A message being read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    /// The profile up to the end of this message.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a [u8]) -> Self {
        Self { bytes: raw, at: 0 }
    }

    /// A reader of a message that lies in `raw`.
    pub(super) fn of(raw: &'a [u8], span: Span) -> Self {
        Self { bytes: &raw[..span.end as usize], at: span.start as usize }
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next field's number and wire type; `None` at the end.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<Option<(u32, u32)>, Error> {
        if self.at_end() {
            return Ok(None);
        }
        let at = self.at;
        let key = self.varint()?;
        match u32::try_from(key >> 3) {
            Ok(field) if field > 0 => Ok(Some((field, (key & 7) as u32))),
            _ => Err(Error::Cut { at }),
        }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Error> {
        // Not `ok_or`, which would build and drop an error for every number; likewise in the other hot places.
        let Some(value) = varint::take(self.bytes, &mut self.at) else {
            return Err(Error::Cut { at: self.at });
        };
        Ok(value)
    }

    #[inline(always)]
    pub(super) fn signed(&mut self) -> Result<i64, Error> {
        self.varint().map(|value| value as i64)
    }

    /// The range of a length-delimited field; the reader moves behind it.
    #[inline(always)]
    pub(super) fn span(&mut self) -> Result<Span, Error> {
        let key_at = self.at;
        let length = self.varint()?;
        let left = self.bytes.len() - self.at;
        if length > left as u64 {
            return Err(Error::Length { at: key_at, length, left });
        }
        let start = self.at;
        self.at += length as usize;
        Ok(Span { start: start as u32, end: self.at as u32 })
    }

    /// A reader of a length-delimited field; this one moves behind it.
    #[inline(always)]
    pub(super) fn message(&mut self) -> Result<Self, Error> {
        let bytes = self.bytes;
        self.span().map(|span| Self::of(bytes, span))
    }

    /// Passes over a field that has no meaning here. A field up to `known` has one, but not in this encoding.
    #[cold]
    pub(super) fn skip(&mut self, place: Place, known: u32, field: u32, wire_type: u32) -> Result<(), Error> {
        let wrong = Error::WireType { place, field, wire_type, at: self.at };
        if field <= known {
            return Err(wrong);
        }
        let width = match wire_type {
            VARINT => return self.varint().map(drop),
            LEN => return self.span().map(drop),
            FIXED64 => 8,
            FIXED32 => 4,
            _ => return Err(wrong),
        };
        if self.bytes.len() - self.at < width {
            return Err(Error::Cut { at: self.at });
        }
        self.at += width;
        Ok(())
    }
}
