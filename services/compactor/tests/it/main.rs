//! The compactor on real blocks: whatever it does, and wherever it fails, every profile is there once.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::single_range_in_vec_init, reason = "a row set may be one run")]

mod life;

mod retention;

mod world;
