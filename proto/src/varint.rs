//! Variable-length integers: seven bits a byte, the lowest first, the top bit set while more follow.

/// Most bytes that a 64-bit integer takes.
pub(crate) const BYTES_MAX: usize = 10;

/// Appends an unsigned integer.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer, small for small magnitudes.
#[inline]
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Reads an unsigned integer at `at` and moves `at` behind it; `None` where the bytes end within it or it does not
/// fit 64 bits, and then `at` stays.
#[inline(always)]
pub(crate) fn take(bytes: &[u8], at: &mut usize) -> Option<u64> {
    // Nearly every number of a profile has one byte or two.
    match *bytes.get(*at..)? {
        [first, ..] if first < 0x80 => {
            *at += 1;
            Some(u64::from(first))
        }
        [first, second, ..] if second < 0x80 => {
            *at += 2;
            Some(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => take_long(bytes, at),
    }
}

fn take_long(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for (i, &byte) in bytes[*at..].iter().take(BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            // The tenth byte holds the 64th bit and nothing else.
            if i == BYTES_MAX - 1 && byte > 1 {
                return None;
            }
            *at += i + 1;
            return Some(value);
        }
    }
    None
}

/// Maps small magnitudes to small numbers: 0, -1, 1, -2, …
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_comes_back(value: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value as u64);
            put_signed(&mut bytes, value);
            let mut at = 0;
            prop_assert_eq!(take(&bytes, &mut at), Some(value as u64));
            prop_assert_eq!(take(&bytes, &mut at).map(unzigzag), Some(value));
            prop_assert_eq!(at, bytes.len());
        }
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        for bad in [
            &[][..],
            &[0x80],
            &[0xff; 10],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            let mut at = 0;
            assert_eq!(take(bad, &mut at), None, "{bad:?}");
            assert_eq!(at, 0);
        }
    }
}
