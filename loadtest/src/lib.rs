//! Load with known answers: streams of profiles that are the same on every machine, and their control sums.
//!
//! ```text
//!   base profiles (real) + seed ──► (series, round) ──► pprof.gz and labels ──► whoever measures
//!                                        └──► control sums
//! ```
//!
//! Laws: everything follows from the seed; a stream never needs to be held as a whole. What drives servers with such
//! streams is the program `cambium-loadtest` beside this library; see loadtest/README.md.

pub mod random;

pub mod w;

pub mod w1;

pub mod fleet;

pub mod synthetic;

pub mod chart;
