//! The string table: ranges of the profile's bytes, checked and hashed when first needed, each at most once.

use xxhash_rust::xxh3::xxh3_64;

use super::error::{Bound, Error, Place};
use super::wire::Span;

/// The strings of the profile being decoded.
#[derive(Clone, Copy)]
pub(super) struct Strings<'a> {
    raw: &'a [u8],
    spans: &'a [Span],
    bytes_max: usize,
}

impl<'a> Strings<'a> {
    /// The table; its first string must be the empty one. No string that is needed may have more than `bytes_max`
    /// bytes.
    pub(super) fn new(raw: &'a [u8], spans: &'a [Span], bytes_max: usize) -> Result<Self, Error> {
        match spans.first() {
            None => Err(Error::StringTableMissing),
            Some(first) if first.start != first.end => Err(Error::StringTableStart),
            Some(_) => Ok(Self { raw, spans, bytes_max }),
        }
    }

    /// The table of a profile that [`Strings::new`] took before.
    pub(super) fn again(raw: &'a [u8], spans: &'a [Span]) -> Self {
        Self { raw, spans, bytes_max: usize::MAX }
    }

    /// A string, which `place` refers to.
    #[inline]
    pub(super) fn text(&self, index: i64, place: impl FnOnce() -> Place) -> Result<&'a str, Error> {
        let span = usize::try_from(index).ok().and_then(|index| self.spans.get(index));
        let Some(span) = span else {
            return Err(Error::StringIndex { place: place(), index, strings: self.spans.len() });
        };
        let bytes = span.of(self.raw);
        if bytes.len() > self.bytes_max {
            return Err(Error::Limit {
                place: place(),
                count: bytes.len(),
                max: self.bytes_max,
                bound: Bound::SymbolBytes,
            });
        }
        std::str::from_utf8(bytes).map_err(|_| Error::Text { place: place(), index: index as usize })
    }

    /// Whether a string is the empty one, or none.
    pub(super) fn is_empty(&self, index: i64) -> bool {
        self.spans.get(index as usize).is_none_or(|span| span.start == span.end)
    }

    /// A string that [`Strings::text`] or [`Hashes::hash`] has returned before.
    pub(super) fn checked(&self, index: i64) -> &'a str {
        self.text(index, || Place::Field("string_table")).expect("the string was checked when it was hashed")
    }
}

/// The strings' hashes; 0 for those not needed yet.
#[derive(Debug, Default)]
pub(super) struct Hashes(Vec<u64>);

impl Hashes {
    /// Forgets the profile before.
    pub(super) fn reset(&mut self, strings: usize) {
        self.0.clear();
        self.0.shrink_to(super::decode::KEPT_ROWS_MAX);
        self.0.resize(strings, 0);
    }

    /// A string's xxh3-64, which is part of location ids and therefore fixed for ever.
    #[inline]
    pub(super) fn hash(
        &mut self,
        strings: &Strings<'_>,
        index: i64,
        place: impl FnOnce() -> Place,
    ) -> Result<u64, Error> {
        // A string that hashes to 0 is hashed again each time; nothing else depends on it.
        if let Some(&hash) = self.0.get(index as usize)
            && hash != 0
        {
            return Ok(hash);
        }
        let hash = xxh3_64(strings.text(index, place)?.as_bytes());
        self.0[index as usize] = hash;
        Ok(hash)
    }
}
