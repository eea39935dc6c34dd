//! The encodings of `samples` and `rollup`, decoded a page at a time: this is where a scan spends its time, and a page
//! as a whole decodes several times as fast as value by value.
//!
//! Both are of the Parquet format (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>): differences
//! packed (DELTA_BINARY_PACKED) and positions in a dictionary (RLE_DICTIONARY). Values are packed 32 at a time here
//! whatever the width, because 32 values always end at a byte.

use parquet::errors::{ParquetError, Result};

/// Values unpacked at a time.
const RUN: usize = 32;
/// Values of a page at most; the writer's have 16 Ki.
pub(super) const PAGE_VALUES_MAX: usize = 1 << 20;

/// A value of a column.
pub(crate) trait Value: Copy + Default {
    /// Bytes of a value that is not encoded.
    const BYTES: usize;

    /// From little-endian bytes; `bytes` has as many as a value.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// The lower bits of a sum of differences.
    fn from_wide(wide: u64) -> Self;
}

impl Value for i32 {
    const BYTES: usize = 4;

    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
    }

    fn from_wide(wide: u64) -> Self {
        wide as Self
    }
}

impl Value for i64 {
    const BYTES: usize = 8;

    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
    }

    fn from_wide(wide: u64) -> Self {
        wide as Self
    }
}

/// Values that are not encoded.
pub(super) fn plain<V: Value>(bytes: &[u8], count: usize, values: &mut Vec<V>) -> Result<()> {
    let whole = count.checked_mul(V::BYTES).and_then(|length| bytes.get(..length));
    let whole = whole.ok_or_else(|| short("plain values"))?;
    values.extend(whole.chunks_exact(V::BYTES).map(V::from_bytes));
    Ok(())
}

/// DELTA_BINARY_PACKED: blocks of miniblocks, each with a width of its own.
pub(super) fn deltas<V: Value>(bytes: &[u8], count: usize, values: &mut Vec<V>) -> Result<()> {
    let mut input = Input(bytes);
    let block = input.varint()? as usize;
    let miniblocks = input.varint()? as usize;
    let total = input.varint()? as usize;
    let mut value = input.zigzag()?;
    let miniblock = block.checked_div(miniblocks).unwrap_or(0);
    if total != count || miniblock == 0 || !miniblock.is_multiple_of(RUN) || miniblock > PAGE_VALUES_MAX {
        return Err(bad("sizes of packed differences"));
    }
    if count == 0 {
        return Ok(());
    }
    values.reserve(count);
    values.push(V::from_wide(value));
    let mut left = count - 1;
    while left > 0 {
        let least = input.zigzag()?;
        let widths = input.take(miniblocks)?;
        for width in widths {
            for _ in 0..miniblock / RUN {
                if left == 0 {
                    break;
                }
                let taken = left.min(RUN);
                left -= taken;
                let packed = input.up_to(usize::from(*width) * RUN / 8);
                let mut run = [V::default(); RUN];
                if *width <= 32 {
                    let mut differences = [0; RUN];
                    unpack(*width, packed, &mut differences);
                    for (slot, difference) in run.iter_mut().zip(differences) {
                        value = value.wrapping_add(least).wrapping_add(u64::from(difference));
                        *slot = V::from_wide(value);
                    }
                } else {
                    for (index, slot) in run.iter_mut().enumerate() {
                        value = value.wrapping_add(least).wrapping_add(wide_bits(packed, *width, index));
                        *slot = V::from_wide(value);
                    }
                }
                values.extend_from_slice(&run[..taken]);
            }
        }
    }
    Ok(())
}

/// RLE_DICTIONARY: runs of one position, and packed positions in groups of eight.
pub(super) fn indexed<V: Value>(
    bytes: &[u8],
    count: usize,
    dictionary: &[V],
    values: &mut Vec<V>,
) -> Result<()> {
    let unknown = || bad("a position outside the dictionary");
    let mut input = Input(bytes);
    let width = *input.take(1)?.first().unwrap_or(&0);
    if width > 32 {
        return Err(bad("width of positions"));
    }
    values.reserve(count);
    let mut left = count;
    while left > 0 {
        let header = input.varint()?;
        let length = usize::try_from(header >> 1).map_err(|_| bad("length of a run"))?;
        if header & 1 == 0 {
            let taken = length.min(left);
            let bytes = input.take(usize::from(width).div_ceil(8))?;
            let index = bytes.iter().rev().fold(0_usize, |index, byte| index << 8 | usize::from(*byte));
            let value = *dictionary.get(index).ok_or_else(unknown)?;
            values.resize(values.len() + taken, value);
            left -= taken;
            if taken == 0 {
                return Err(bad("an empty run"));
            }
            continue;
        }
        let mut packed_left = length.checked_mul(8).ok_or_else(|| bad("length of a run"))?;
        if packed_left == 0 {
            return Err(bad("an empty run"));
        }
        while packed_left > 0 && left > 0 {
            let (packed_now, taken) = (packed_left.min(RUN), left.min(packed_left).min(RUN));
            let mut indexes = [0; RUN];
            unpack(width, input.up_to(packed_now * usize::from(width) / 8), &mut indexes);
            let mut run = [V::default(); RUN];
            for (slot, index) in run.iter_mut().zip(&indexes[..taken]) {
                *slot = *dictionary.get(*index as usize).ok_or_else(unknown)?;
            }
            values.extend_from_slice(&run[..taken]);
            packed_left -= packed_now;
            left -= taken;
        }
    }
    Ok(())
}

/// What is left of a page.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| short("a page"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// LEB128.
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = *self.take(1)?.first().unwrap_or(&0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("a number of more than 64 bits"))
    }

    fn zigzag(&mut self) -> Result<u64> {
        let value = self.varint()?;
        Ok((value >> 1) ^ (value & 1).wrapping_neg())
    }

    /// The next bytes, or all that are left: padding may be missing at the end of a page.
    #[inline]
    fn up_to(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Unpacks 32 values of `width` bits, at most 32; what is missing of the bytes is 0. One instance per width, so that
/// all shifts are constants.
#[inline]
fn unpack(width: u8, bytes: &[u8], values: &mut [u32; RUN]) {
    macro_rules! by_width {
        ($($width:literal)*) => {
            match width {
                $($width => unpack_width::<$width>(bytes, values),)*
                _ => {}
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
}

#[inline]
fn unpack_width<const WIDTH: usize>(bytes: &[u8], values: &mut [u32; RUN]) {
    // 32 values take as many words as one takes bits.
    let Some(words) = bytes.as_chunks().0.first_chunk::<WIDTH>() else {
        let mut padded = [0; RUN * 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        return unpack_width::<WIDTH>(&padded, values);
    };
    let mask = u32::MAX >> (32 - WIDTH);
    for (index, value) in values.iter_mut().enumerate() {
        let (word, shift) = (index * WIDTH / 32, index * WIDTH % 32);
        let mut bits = u32::from_le_bytes(words[word]) >> shift;
        if shift + WIDTH > 32 {
            bits |= u32::from_le_bytes(words[word + 1]) << (32 - shift);
        }
        *value = bits & mask;
    }
}

/// One value of 33 to 64 bits.
fn wide_bits(bytes: &[u8], width: u8, index: usize) -> u64 {
    let (byte, shift) = (index * usize::from(width) / 8, index * usize::from(width) % 8);
    let taken = (byte..byte + 9).rev().map(|at| bytes.get(at).copied().unwrap_or(0));
    let bits = taken.fold(0_u128, |bits, byte| bits << 8 | u128::from(byte)) >> shift;
    bits as u64 & (u64::MAX >> (64 - u32::from(width).min(64)))
}

fn short(what: &str) -> ParquetError {
    ParquetError::EOF(format!("{what} ended early"))
}

fn bad(what: &str) -> ParquetError {
    ParquetError::General(format!("{what} cannot be"))
}

#[cfg(test)]
mod tests;
