//! The two hot decoders with vectors of eight numbers, for processors that have AVX2.
//!
//! All safe code: the compiler makes one load of the bytes of a vector, and one store of its numbers.

use std::arch::x86_64::*;

use parquet::errors::Result;

use super::{DeltaPage, Input, RUN, Run, position_runs, unpack, wide_bits};

/// Numbers of a vector.
const LANES: usize = 8;
/// Widest numbers of which eight lie in 16 bytes.
const WIDTH_MAX: u8 = 16;
/// Bytes that unpacking a run of those looks at, whatever their width.
const RUN_BYTES: usize = 64;

/// As [`super::plain_deltas`].
#[target_feature(enable = "avx2")]
pub(super) fn deltas(bytes: &[u8], count: usize, values: &mut Vec<i32>) -> Result<()> {
    let page = DeltaPage::open(bytes, count)?;
    let mut sum = _mm256_set1_epi32(page.first as i32);
    page.add_runs(values, |run, values| {
        let least = _mm256_set1_epi32(run.least as i32);
        let vectors =
            if run.width <= WIDTH_MAX { unpack_narrow(run.width, run.rest) } else { unpack_wide(&run) };
        for differences in vectors {
            let sums = prefix_sums(_mm256_add_epi32(differences, least));
            values.extend_from_slice(&to_numbers(_mm256_add_epi32(sum, sums)));
            // Not taken from the result: so each vector waits for one addition of the one before.
            sum = _mm256_add_epi32(sum, _mm256_permutevar8x32_epi32(sums, _mm256_set1_epi32(7)));
        }
    })
}

/// As [`super::plain_positions`].
#[target_feature(enable = "avx2")]
pub(super) fn positions(input: Input<'_>, width: u8, count: usize) -> Result<Vec<u8>> {
    position_runs(input, width, count, |rest| {
        let [a, b, c, d] = unpack_narrow(width, rest);
        // Halves are packed with halves: a0 b0 c0 d0 a1 b1 c1 d1, four positions each.
        let halves = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        to_bytes(_mm256_permutevar8x32_epi32(halves, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)))
    })
}

/// Unpacks a run of numbers of at most [`WIDTH_MAX`] bits, with which `rest` begins; what is missing of it is 0.
/// Without a branch by width: it changes from run to run, and cannot be predicted.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack_narrow(width: u8, rest: &[u8]) -> [__m256i; RUN / LANES] {
    let mut padded = [0; RUN_BYTES];
    let bytes: &[u8; RUN_BYTES] = rest.first_chunk().unwrap_or_else(|| {
        padded[..rest.len()].copy_from_slice(rest);
        &padded
    });
    // The bit at which each number of a vector begins; its four bytes from there on; and what of them is not its own.
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let starts = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(i32::from(width)));
    let first_bytes = _mm256_mullo_epi32(_mm256_srli_epi32::<3>(starts), _mm256_set1_epi32(0x0101_0101));
    let order = _mm256_add_epi32(first_bytes, _mm256_set1_epi32(0x0302_0100));
    let shifts = _mm256_and_si256(starts, _mm256_set1_epi32(7));
    let mask = _mm256_set1_epi32((1 << width) - 1);
    let mut vectors = [_mm256_setzero_si256(); RUN / LANES];
    for (index, vector) in vectors.iter_mut().enumerate() {
        // Eight numbers take as many bytes as one takes bits.
        let start = index * usize::from(width.min(WIDTH_MAX));
        let packed = u128::from_le_bytes(*bytes[start..].first_chunk().expect("48 + 16 bytes are 64"));
        let packed = _mm_set_epi64x((packed >> 64) as i64, packed as i64);
        let spread = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(packed), order);
        *vector = _mm256_and_si256(_mm256_srlv_epi32(spread, shifts), mask);
    }
    vectors
}

/// The lower bits of a run of wider numbers.
#[cold]
#[target_feature(enable = "avx2")]
fn unpack_wide(run: &Run<'_>) -> [__m256i; RUN / LANES] {
    let mut numbers = [0; RUN];
    if run.width <= 32 {
        unpack(run.width, run.packed(), &mut numbers);
    } else {
        numbers = std::array::from_fn(|index| wide_bits(run.packed(), run.width, index) as u32);
    }
    let mut vectors = [_mm256_setzero_si256(); RUN / LANES];
    for (vector, eight) in vectors.iter_mut().zip(numbers.as_chunks::<LANES>().0) {
        let [a, b, c, d, e, f, g, h] = eight.map(u32::cast_signed);
        *vector = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
    }
    vectors
}

/// Each number and those before it, added up.
#[inline]
#[target_feature(enable = "avx2")]
fn prefix_sums(numbers: __m256i) -> __m256i {
    let of_two = _mm256_add_epi32(numbers, _mm256_slli_si256::<4>(numbers));
    let of_four = _mm256_add_epi32(of_two, _mm256_slli_si256::<8>(of_two));
    // These were shifts within halves: all of the upper one lack the last sum of the lower one.
    let lacking = _mm256_shuffle_epi32::<0xff>(_mm256_permute2x128_si256::<0x08>(of_four, of_four));
    _mm256_add_epi32(of_four, lacking)
}

#[inline]
#[target_feature(enable = "avx2")]
fn to_numbers(vector: __m256i) -> [i32; LANES] {
    [
        _mm256_extract_epi32::<0>(vector),
        _mm256_extract_epi32::<1>(vector),
        _mm256_extract_epi32::<2>(vector),
        _mm256_extract_epi32::<3>(vector),
        _mm256_extract_epi32::<4>(vector),
        _mm256_extract_epi32::<5>(vector),
        _mm256_extract_epi32::<6>(vector),
        _mm256_extract_epi32::<7>(vector),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn to_bytes(vector: __m256i) -> [u8; RUN] {
    let mut bytes = [0; RUN];
    for (four, number) in bytes.as_chunks_mut().0.iter_mut().zip(to_numbers(vector)) {
        *four = number.to_le_bytes();
    }
    bytes
}
