//! Values of many profiles, each profile's in the fewest bytes that all of its values fit: 1, 2, 4 or 8.
//!
//! Samples of a CPU profile are a few periods each, of an allocation profile seldom 4 GiB, so 64 bits per value would be
//! mostly zeros. One width per profile, not per chunk: the types of a push lie next to each other and differ by
//! orders of magnitude. Nothing is shifted or scaled, so a profile is unpacked by widening alone.

use super::chunk::reserve;

/// Widths in bytes, by the code that a place keeps.
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// Values one after the other, little endian.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedValues {
    bytes: Vec<u8>,
}

/// Where a profile's values are: the first byte in the upper 30 bits, the width's code in the lower 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValuePlace(u32);

impl ValuePlace {
    fn new(first: usize, code: usize) -> Self {
        let first = u32::try_from(first).ok().filter(|first| first >> 30 == 0);
        let first = first.expect("a chunk takes no more profiles after 64 Ki samples of at most 8 bytes");
        Self(first << 2 | code as u32)
    }

    fn first(self) -> usize {
        (self.0 >> 2) as usize
    }

    fn code(self) -> usize {
        (self.0 & 3) as usize
    }
}

impl PackedValues {
    /// Appends the values of a profile.
    pub(super) fn push(&mut self, values: &[i64]) -> ValuePlace {
        let code = code_for(values);
        let place = ValuePlace::new(self.bytes.len(), code);
        reserve(&mut self.bytes, values.len() * WIDTHS[code]);
        match code {
            0 => self.put(values, |value| [value as u8]),
            1 => self.put(values, |value| (value as u16).to_le_bytes()),
            2 => self.put(values, |value| (value as u32).to_le_bytes()),
            _ => self.put(values, i64::to_le_bytes),
        }
        place
    }

    fn put<const WIDTH: usize>(&mut self, values: &[i64], narrowed: impl Fn(i64) -> [u8; WIDTH]) {
        let first = self.bytes.len();
        self.bytes.resize(first + values.len() * WIDTH, 0);
        for (bytes, value) in self.bytes[first..].as_chunks_mut().0.iter_mut().zip(values) {
            *bytes = narrowed(*value);
        }
    }

    /// Appends the values at a place to `into`.
    pub(super) fn read(&self, place: ValuePlace, count: usize, into: &mut Vec<i64>) {
        let first = place.first();
        let bytes = &self.bytes[first..first + count * WIDTHS[place.code()]];
        match place.code() {
            0 => into.extend(bytes.iter().map(|byte| i64::from(*byte))),
            1 => into.extend(bytes.as_chunks().0.iter().map(|value| i64::from(u16::from_le_bytes(*value)))),
            2 => into.extend(bytes.as_chunks().0.iter().map(|value| i64::from(u32::from_le_bytes(*value)))),
            _ => into.extend(bytes.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value))),
        }
    }

    /// Bytes allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back what is reserved for more.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

/// The code of the least width; negative values need all 8 bytes.
fn code_for(values: &[i64]) -> usize {
    // The OR has the highest bit of the largest, and the sign where any is negative.
    let bits = values.iter().fold(0, |bits, value| bits | *value as u64);
    match bits {
        0..=0xFF => 0,
        0x100..=0xFFFF => 1,
        0x1_0000..=0xFFFF_FFFF => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_has_the_least_width() {
        let mut packed = PackedValues::default();
        let profiles: [(&[i64], usize); 9] = [
            (&[1, 255], 2),
            (&[1, 256], 4),
            (&[65_535], 2),
            (&[65_536, 2], 8),
            (&[u32::MAX as i64], 4),
            (&[1 << 32], 8),
            (&[-1, 1], 16),
            (&[i64::MIN, i64::MAX], 16),
            (&[], 0),
        ];
        let mut places = Vec::new();
        for (values, bytes) in profiles {
            let before = packed.bytes.len();
            places.push(packed.push(values));
            assert_eq!(packed.bytes.len() - before, bytes, "{values:?}");
        }
        for ((values, _), place) in profiles.iter().zip(places) {
            let mut read = Vec::new();
            packed.read(place, values.len(), &mut read);
            assert_eq!(read, *values);
        }
    }
}
