//! Load with known answers: streams of profiles that are the same on every machine, and their control sums.
//!
//! ```text
//!   base profiles (real) + seed ──► (series, round) ──► pprof.gz and labels ──► whoever measures
//!                                        └──► control sums
//! ```
//!
//! Laws: everything follows from the seed; a stream never needs to be held as a whole.

pub mod random;

pub mod w;

pub mod w1;

pub mod synthetic;
