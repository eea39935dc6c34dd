//! From a request's body to the bytes of a pprof message, whatever they are wrapped in.
//!
//! The bound holds for what comes out, so that a few kilobytes cannot become gigabytes: output grows by doubling up
//! to the bound and stops there.

use std::io::Read;
use std::ptr::NonNull;

use libdeflate_sys as ffi;

use super::error::Error;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The most that one byte of deflate can become, and so the most that a gzip trailer's claim is believed.
const DEFLATE_RATIO_MAX: usize = 1_032;

/// The largest window, 2^23 bytes, that a zstd frame may ask for: what RFC 8878 tells every decoder to support, and
/// all that the levels up to 19 need.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The largest buffer kept for the next profile.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Unwraps bodies, one after the other, into a buffer that it keeps.
#[derive(Debug, Default)]
pub struct Decompressor {
    gunzip: Gunzip,
    out: Vec<u8>,
}

impl Decompressor {
    /// A decompressor with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The uncompressed bytes of a body: of all its gzip members or zstd frames, or the body itself where it is
    /// neither. At most `bytes_max` bytes, else [`Error::TooLarge`].
    pub fn decompress<'a>(&'a mut self, body: &'a [u8], bytes_max: usize) -> Result<&'a [u8], Error> {
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES_MAX);
        if body.starts_with(&GZIP_MAGIC) {
            self.gunzip_all(body, bytes_max)?;
        } else if body.starts_with(&ZSTD_MAGIC) {
            unzstd(body, bytes_max, &mut self.out)?;
        } else if body.len() > bytes_max {
            return Err(Error::TooLarge { bytes_max });
        } else {
            return if body.is_empty() { Err(Error::Empty) } else { Ok(body) };
        }
        if self.out.is_empty() { Err(Error::Empty) } else { Ok(&self.out) }
    }

    fn gunzip_all(&mut self, body: &[u8], bytes_max: usize) -> Result<(), Error> {
        let mut rest = body;
        let mut member = 0;
        while !rest.is_empty() {
            if !rest.starts_with(&GZIP_MAGIC) {
                return Err(Error::Trailing { bytes: rest.len() });
            }
            rest = &rest[self.gunzip_member(rest, member, bytes_max)?..];
            member += 1;
        }
        Ok(())
    }

    /// Appends one member's output; returns the bytes it took from `rest`.
    fn gunzip_member(&mut self, rest: &[u8], member: usize, bytes_max: usize) -> Result<usize, Error> {
        let left = bytes_max - self.out.len();
        let mut room = claimed_size(rest).min(rest.len().saturating_mul(DEFLATE_RATIO_MAX)).max(64).min(left);
        loop {
            self.out.reserve(room);
            match self.gunzip.append(rest, &mut self.out, room) {
                Gunzipped::Done { taken } => return Ok(taken),
                Gunzipped::Damaged => return Err(Error::Gzip { member }),
                Gunzipped::NoRoom if room == left => return Err(Error::TooLarge { bytes_max }),
                Gunzipped::NoRoom => room = room.saturating_mul(2).min(left),
            }
        }
    }
}

/// What the trailer of the last member says of its size: right for a single member under 4 GiB, a guess for others.
fn claimed_size(gzip: &[u8]) -> usize {
    gzip.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

fn unzstd(body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let reason = |error: std::io::Error| Error::Zstd { reason: error.to_string() };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(reason)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(reason)?;
    decoder.take(bytes_max as u64 + 1).read_to_end(out).map_err(reason)?;
    if out.len() > bytes_max { Err(Error::TooLarge { bytes_max }) } else { Ok(()) }
}

/// libdeflate's decompressor. The safe binding does not say how much input a member took, which is needed to find
/// the next one and to notice garbage behind the last.
#[derive(Debug)]
struct Gunzip(NonNull<ffi::libdeflate_decompressor>);

// SAFETY: the decompressor is plain memory owned by this value alone, and every use of it takes `&mut self`.
unsafe impl Send for Gunzip {}

enum Gunzipped {
    Done { taken: usize },
    Damaged,
    NoRoom,
}

impl Default for Gunzip {
    fn default() -> Self {
        // SAFETY: takes no arguments and may be called at any time.
        let decompressor = unsafe { ffi::libdeflate_alloc_decompressor() };
        Self(NonNull::new(decompressor).expect("out of memory while allocating 32 KiB"))
    }
}

impl Drop for Gunzip {
    fn drop(&mut self) {
        // SAFETY: allocated by libdeflate in `default` and freed nowhere else.
        unsafe { ffi::libdeflate_free_decompressor(self.0.as_ptr()) }
    }
}

impl Gunzip {
    /// Decompresses the first gzip member of `input` to the end of `out`, into at most `room` bytes. `out` is as
    /// before unless it is done.
    fn append(&mut self, input: &[u8], out: &mut Vec<u8>, room: usize) -> Gunzipped {
        let spare = out.spare_capacity_mut();
        let room = room.min(spare.len());
        let (mut taken, mut made) = (0, 0);
        // SAFETY: both buffers are valid for the lengths given, the output's for writing; they cannot overlap,
        // because one is borrowed shared and the other mutably.
        let result = unsafe {
            ffi::libdeflate_gzip_decompress_ex(
                self.0.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                spare.as_mut_ptr().cast(),
                room,
                &mut taken,
                &mut made,
            )
        };
        match result {
            ffi::libdeflate_result_LIBDEFLATE_SUCCESS => {
                assert!(made <= room && taken <= input.len(), "libdeflate stays within its buffers");
                // SAFETY: libdeflate has written `made` bytes behind the vector's length.
                unsafe { out.set_len(out.len() + made) };
                Gunzipped::Done { taken }
            }
            ffi::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Gunzipped::NoRoom,
            _ => Gunzipped::Damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::gzip;
    use super::*;

    #[track_caller]
    fn check(body: &[u8], bytes_max: usize, expected: Result<&[u8], Error>) {
        let mut decompressor = Decompressor::new();
        // Twice: what one body leaves behind must not show in the next.
        for _ in 0..2 {
            assert_eq!(decompressor.decompress(body, bytes_max), expected);
        }
    }

    #[test]
    fn every_wrapping_is_taken_off() {
        let text: Vec<u8> = (0..10_000u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        let zipped = gzip(&text);
        let double = [text.as_slice(), &text].concat();
        check(&text, 1 << 20, Ok(&text));
        check(&zipped, 1 << 20, Ok(&text));
        check(&zipped, text.len(), Ok(&text));
        check(&[zipped.as_slice(), &zipped].concat(), 1 << 20, Ok(&double));
        let frame = zstd::encode_all(&text[..], 3).unwrap();
        check(&frame, text.len(), Ok(&text));
        check(&[frame.as_slice(), &frame].concat(), 1 << 20, Ok(&double));
    }

    #[test]
    fn bombs_stop_at_the_bound() {
        let too_large = |bytes_max| Err(Error::TooLarge { bytes_max });
        let bomb = vec![0; 5_000_000];
        check(&gzip(&bomb), 100_000, too_large(100_000));
        check(&gzip(&bomb), bomb.len() - 1, too_large(bomb.len() - 1));
        check(&zstd::encode_all(&bomb[..], 1).unwrap(), 100_000, too_large(100_000));
        check(&[8; 11], 10, too_large(10));
        // Each member fits, both together do not.
        let small = gzip(&[7; 60]);
        check(&[small.as_slice(), &small].concat(), 100, too_large(100));
        // A trailer that lies about the size is not believed.
        let mut liar = gzip(&[7; 60]);
        let end = liar.len();
        liar[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        check(&liar, usize::MAX >> 1, Err(Error::Gzip { member: 0 }));
    }

    #[test]
    fn damage_is_named() {
        let zipped = gzip(b"some text, long enough to be worth it");
        let damaged = |at: usize| {
            let mut bytes = zipped.clone();
            bytes[at] ^= 0xff;
            bytes
        };
        check(b"", 10, Err(Error::Empty));
        check(&gzip(b""), 10, Err(Error::Empty));
        check(&zipped[..zipped.len() - 1], 100, Err(Error::Gzip { member: 0 }));
        check(&damaged(zipped.len() - 6), 100, Err(Error::Gzip { member: 0 }));
        check(&[zipped.as_slice(), &damaged(20)].concat(), 100, Err(Error::Gzip { member: 1 }));
        check(&[zipped.as_slice(), b"xyz"].concat(), 100, Err(Error::Trailing { bytes: 3 }));
        let frame = zstd::encode_all(&b"text"[..], 3).unwrap();
        let cut = Decompressor::new().decompress(&frame[..frame.len() - 1], 100).map(<[u8]>::to_vec);
        assert!(matches!(cut, Err(Error::Zstd { .. })), "{cut:?}");
    }
}
