//! A [`Source`](crate::Source) in another process: how a head is asked over gRPC (`cambium.ingester.v1`).
//!
//! ```text
//!   querier                                                       owner of the partition
//!   RemoteSource ── request (scans) ──────────────────────────►  answer ──► a head's Dataset
//!        ▲                                                           │
//!        └── columns, checked ◄── pieces joined ◄── pieces cut ◄─────┘
//! ```
//!
//! Laws: what comes back is what the head would have answered here, bit by bit; only what was asked for travels: sums
//! are made by the owner, and of its stack traces those with values come along. What was sent is believed to come from
//! our own kind, but not that it holds together: lengths and positions are checked, and what does not fit is
//! [`Malformed`], never a panic.

pub mod scans;

pub mod series;

pub mod profiles;

pub mod stacks;

pub mod labels;

pub mod pieces;

pub mod answer;

pub mod open;

mod source;

pub use open::{Asker, OpenError, Opened, Transport};

/// A message that does not hold together.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not a message at all.
    #[error("not the message that it should be")]
    Message(#[from] prost::DecodeError),
    /// A field that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A column of the wrong length.
    #[error("{column} has {found} values, not {expected}")]
    Length {
        /// The column.
        column: &'static str,
        /// How many values it has.
        found: u64,
        /// How many it must have.
        expected: u64,
    },
    /// A number that must be smaller.
    #[error("{column} holds {value}, which is not below {end}")]
    Range {
        /// The column.
        column: &'static str,
        /// The number.
        value: u64,
        /// What it must be below of.
        end: u64,
    },
    /// Rows that are empty, touch or go back.
    #[error("the rows asked for are not runs that ascend")]
    Runs,
    /// An answer with a row that was not asked for, or out of order.
    #[error("row {0} was not asked for, or not there")]
    Row(u32),
    /// A label name that is empty or there twice.
    #[error("label name {0:?} is empty or there twice")]
    LabelName(String),
    /// A list whose first entry must be the empty one.
    #[error("{0} does not begin with the empty one")]
    NoEmpty(&'static str),
    /// More than one answer may have.
    #[error("the answer has more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

/// Checks the length of a column.
fn has_length(column: &'static str, found: usize, expected: usize) -> Result<(), Malformed> {
    if found == expected {
        return Ok(());
    }
    Err(Malformed::Length { column, found: found as u64, expected: expected as u64 })
}

/// Checks that all numbers of a column are positions in something of this length.
fn all_below(column: &'static str, values: &[u32], end: usize) -> Result<(), Malformed> {
    match values.iter().max() {
        Some(&value) if value as usize >= end => {
            Err(Malformed::Range { column, value: u64::from(value), end: end as u64 })
        }
        _ => Ok(()),
    }
}

/// The ids of 16 bytes that stand one after the other.
fn ids<'a>(column: &'static str, bytes: &'a [u8]) -> Result<&'a [[u8; 16]], Malformed> {
    let (ids, rest) = bytes.as_chunks();
    has_length(column, bytes.len(), bytes.len() - rest.len()).map(|()| ids)
}

#[cfg(test)]
mod tests;
