//! The encodings of `samples` and `rollup`, decoded a page at a time: this is where a scan spends its time, and a page
//! as a whole decodes several times as fast as value by value.
//!
//! Both are of the Parquet format (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>): differences
//! packed (DELTA_BINARY_PACKED) and positions in a dictionary (RLE_DICTIONARY). Values are packed 32 at a time here
//! whatever the width, because 32 values always end at a byte.
//!
//! Nearly all there is to decode are stacks and positions in small dictionaries: those have decoders for AVX2 beside
//! the plain ones.

use parquet::basic::Type as Physical;
use parquet::errors::{ParquetError, Result};

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Values unpacked at a time.
const RUN: usize = 32;
/// Values of a page at most; the writer's have 16 Ki.
pub(super) const PAGE_VALUES_MAX: usize = 1 << 20;

/// A value of a column.
pub(crate) trait Value: Copy + Default {
    /// Parquet's type.
    const PHYSICAL: Physical;
    /// Bytes of a value that is not encoded.
    const BYTES: usize;

    /// From little-endian bytes; `bytes` has as many as a value.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// The lower bits of a sum of differences.
    fn from_wide(wide: u64) -> Self;

    /// Differences of these, as [`deltas`].
    fn deltas(bytes: &[u8], count: usize, values: &mut Vec<Self>) -> Result<()> {
        plain_deltas(bytes, count, values)
    }
}

impl Value for i32 {
    const PHYSICAL: Physical = Physical::INT32;
    const BYTES: usize = 4;

    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
    }

    fn from_wide(wide: u64) -> Self {
        wide as Self
    }

    fn deltas(bytes: &[u8], count: usize, values: &mut Vec<Self>) -> Result<()> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2.
            return unsafe { avx2::deltas(bytes, count, values) };
        }
        plain_deltas(bytes, count, values)
    }
}

impl Value for i64 {
    const PHYSICAL: Physical = Physical::INT64;
    const BYTES: usize = 8;

    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
    }

    fn from_wide(wide: u64) -> Self {
        wide as Self
    }
}

/// An id; never packed.
impl Value for [u8; 16] {
    const PHYSICAL: Physical = Physical::FIXED_LEN_BYTE_ARRAY;
    const BYTES: usize = 16;

    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.first_chunk().copied().unwrap_or_default()
    }

    fn from_wide(wide: u64) -> Self {
        u128::from(wide).to_le_bytes()
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
    V::deltas(bytes, count, values)
}

fn plain_deltas<V: Value>(bytes: &[u8], count: usize, values: &mut Vec<V>) -> Result<()> {
    let page = DeltaPage::open(bytes, count)?;
    let mut value = page.first;
    page.add_runs(values, |run, values| {
        let mut add = |difference| {
            // In this order only one addition waits for the one before.
            value = value.wrapping_add(run.least.wrapping_add(difference));
            V::from_wide(value)
        };
        if run.width <= 32 {
            let mut differences = [0; RUN];
            unpack(run.width, run.packed(), &mut differences);
            values.extend(differences.iter().map(|difference| add(u64::from(*difference))));
        } else {
            values.extend((0..RUN).map(|index| add(wide_bits(run.packed(), run.width, index))));
        }
    })
}

/// A page of differences.
struct DeltaPage<'a> {
    count: usize,
    first: u64,
    /// Miniblocks of a block.
    miniblocks: usize,
    /// Runs of a miniblock.
    runs: usize,
    input: Input<'a>,
}

/// Differences of 32 values.
struct Run<'a> {
    width: u8,
    /// What is to be added to each.
    least: u64,
    /// Their bytes and all that follow.
    rest: &'a [u8],
}

impl<'a> DeltaPage<'a> {
    fn open(bytes: &'a [u8], count: usize) -> Result<Self> {
        let mut input = Input(bytes);
        let block = input.varint()? as usize;
        let miniblocks = input.varint()? as usize;
        let total = input.varint()? as usize;
        let first = input.zigzag()?;
        let miniblock = block.checked_div(miniblocks).unwrap_or(0);
        if total != count || miniblock == 0 || !miniblock.is_multiple_of(RUN) || miniblock > PAGE_VALUES_MAX {
            return Err(bad("sizes of packed differences"));
        }
        Ok(Self { count, first, miniblocks, runs: miniblock / RUN, input })
    }

    /// Appends all values. `add` appends those of a run, which of the last one may be more than there are.
    #[inline(always)] // into a function that may use vectors
    fn add_runs<V: Value>(
        mut self,
        values: &mut Vec<V>,
        mut add: impl FnMut(Run<'_>, &mut Vec<V>),
    ) -> Result<()> {
        let end = values.len() + self.count;
        values.reserve(self.count + RUN);
        values.push(V::from_wide(self.first));
        while values.len() < end {
            let least = self.input.zigzag()?;
            let widths = self.input.take(self.miniblocks)?;
            for width in widths.iter().flat_map(|width| std::iter::repeat_n(*width, self.runs)) {
                if values.len() >= end {
                    break;
                }
                let rest = self.input.0;
                self.input.up_to(usize::from(width) * RUN / 8);
                add(Run { width, least, rest }, values);
            }
        }
        values.truncate(end);
        Ok(())
    }
}

impl<'a> Run<'a> {
    fn packed(&self) -> &'a [u8] {
        &self.rest[..self.rest.len().min(usize::from(self.width) * RUN / 8)]
    }
}

/// RLE_DICTIONARY: runs of one position, and packed positions in groups of eight.
pub(super) fn indexed<V: Value>(
    bytes: &[u8],
    count: usize,
    dictionary: &[V],
    values: &mut Vec<V>,
) -> Result<()> {
    let mut input = Input(bytes);
    match *input.take(1)?.first().unwrap_or(&0) {
        width @ 0..=8 => indexed_by_byte(&positions(input, width, count)?, dictionary, values),
        width @ 9..=32 => indexed_by_word(input, width, count, dictionary, values),
        _ => Err(bad("width of positions")),
    }
}

/// The values at positions of at most 8 bits.
fn indexed_by_byte<V: Value>(positions: &[u8], dictionary: &[V], values: &mut Vec<V>) -> Result<()> {
    let greatest = positions.iter().fold(0, |greatest, position| greatest.max(*position));
    if !positions.is_empty() && usize::from(greatest) >= dictionary.len() {
        return Err(unknown_position());
    }
    // As many as there are bytes, so that none needs a check of its own.
    let mut all = [V::default(); 256];
    all.iter_mut().zip(dictionary).for_each(|(slot, value)| *slot = *value);
    values.extend(positions.iter().map(|position| all[usize::from(*position)]));
    Ok(())
}

/// Positions of at most 8 bits.
fn positions(input: Input<'_>, width: u8, count: usize) -> Result<Vec<u8>> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2.
        return unsafe { avx2::positions(input, width, count) };
    }
    plain_positions(input, width, count)
}

fn plain_positions(input: Input<'_>, width: u8, count: usize) -> Result<Vec<u8>> {
    position_runs(input, width, count, |rest| {
        let mut positions = [0; RUN];
        unpack(width, &rest[..rest.len().min(RUN / 8 * usize::from(width))], &mut positions);
        positions.map(|position| position as u8)
    })
}

/// Positions of at most 8 bits. `unpack` gives the 32 with which its bytes begin; those after a run's last do not
/// count.
#[inline(always)] // into a function that may use vectors
fn position_runs(
    mut input: Input<'_>,
    width: u8,
    count: usize,
    unpack: impl Fn(&[u8]) -> [u8; RUN],
) -> Result<Vec<u8>> {
    let width = usize::from(width);
    let mut positions = Vec::with_capacity(count + RUN);
    while positions.len() < count {
        let (length, packed) = input.run()?;
        let end = count.min(positions.len().saturating_add(length));
        // 32 at a time whatever the length: most runs are shorter, and where a loop ends is hard to predict.
        if packed {
            let mut rest = input.0;
            input.up_to(length / 8 * width);
            while positions.len() < end {
                positions.extend_from_slice(&unpack(rest));
                rest = rest.get(RUN / 8 * width..).unwrap_or_default();
            }
        } else {
            let position = input.take(width.div_ceil(8))?.first().copied().unwrap_or(0);
            while positions.len() < end {
                positions.extend_from_slice(&[position; RUN]);
            }
        }
        positions.truncate(end);
    }
    Ok(positions)
}

/// The values at positions of any width.
fn indexed_by_word<V: Value>(
    mut input: Input<'_>,
    width: u8,
    count: usize,
    dictionary: &[V],
    values: &mut Vec<V>,
) -> Result<()> {
    let start = values.len();
    values.resize(start + count, V::default());
    let mut left = &mut values[start..];
    while !left.is_empty() {
        let (length, packed) = input.run()?;
        if !packed {
            let bytes = input.take(usize::from(width).div_ceil(8))?;
            let index = bytes.iter().rev().fold(0_usize, |index, byte| index << 8 | usize::from(*byte));
            let (run, rest) = left.split_at_mut(length.min(left.len()));
            run.fill(*dictionary.get(index).ok_or_else(unknown_position)?);
            left = rest;
            continue;
        }
        let mut packed_left = length;
        while packed_left > 0 && !left.is_empty() {
            let packed = packed_left.min(RUN);
            let mut indexes = [0; RUN];
            unpack(width, input.up_to(packed * usize::from(width) / 8), &mut indexes);
            let (run, rest) = left.split_at_mut(packed.min(left.len()));
            let greatest = indexes[..run.len()].iter().fold(0, |greatest, index| greatest.max(*index));
            let known = dictionary.get(..=greatest as usize).ok_or_else(unknown_position)?;
            for (slot, index) in run.iter_mut().zip(indexes) {
                *slot = known[(index as usize).min(known.len() - 1)];
            }
            left = rest;
            packed_left -= packed;
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
    #[inline]
    fn varint(&mut self) -> Result<u64> {
        if let [byte @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
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

    /// How many positions a run has, and whether they are packed.
    #[inline]
    fn run(&mut self) -> Result<(usize, bool)> {
        let header = self.varint()?;
        let packed = header & 1 == 1;
        let length = usize::try_from(header >> 1).ok().filter(|length| *length > 0);
        let length = length.and_then(|length| length.checked_mul(if packed { 8 } else { 1 }));
        Ok((length.ok_or_else(|| bad("length of a run"))?, packed))
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
    // Written out: with a loop the shifts are no constants, and it takes twice as long.
    macro_rules! each {
        ($($index:literal)*) => {$({
            let (word, shift) = ($index * WIDTH / 32, $index * WIDTH % 32);
            let mut bits = u32::from_le_bytes(words[word]) >> shift;
            if shift + WIDTH > 32 {
                bits |= u32::from_le_bytes(words[word + 1]) << (32 - shift);
            }
            values[$index] = bits & mask;
        })*};
    }
    each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
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

fn unknown_position() -> ParquetError {
    bad("a position outside the dictionary")
}

fn bad(what: &str) -> ParquetError {
    ParquetError::General(format!("{what} cannot be"))
}

#[cfg(test)]
mod tests;
