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
    pub(super) fn text(&self, index: i64, place: impl Fn() -> Place) -> Result<&'a str, Error> {
        let bytes = self.bytes(index, &place)?;
        std::str::from_utf8(bytes).map_err(|_| Error::Text { place: place(), index: index as usize })
    }

    /// A string that is known to be UTF-8, as its bytes.
    #[inline]
    fn utf8(&self, index: i64, place: impl Fn() -> Place) -> Result<&'a [u8], Error> {
        let bytes = self.bytes(index, &place)?;
        if is_ascii(bytes) { Ok(bytes) } else { self.text(index, place).map(str::as_bytes) }
    }

    #[inline]
    fn bytes(&self, index: i64, place: impl Fn() -> Place) -> Result<&'a [u8], Error> {
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
        Ok(bytes)
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
        place: impl Fn() -> Place,
    ) -> Result<u64, Error> {
        // A string that hashes to 0 is hashed again each time; nothing else depends on it.
        if let Some(&hash) = self.0.get(index as usize)
            && hash != 0
        {
            return Ok(hash);
        }
        let hash = xxh3_64(strings.utf8(index, place)?);
        self.0[index as usize] = hash;
        Ok(hash)
    }
}

/// Whether all bytes are ASCII, which nearly all names are. Eight bytes at a time, the last eight once more where they
/// overlap: names are too short for the loops of the standard library, which end with single bytes.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const TOP_BITS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let last = match (bytes.last_chunk::<8>(), rest) {
        (Some(last), _) => u64::from_le_bytes(*last),
        (None, rest) => rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    words.iter().fold(last, |all, word| all | u64::from_le_bytes(*word)) & TOP_BITS == 0
}
