//! The storage format from outside: what a source answers, what a block's bytes are, what damage does.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::single_range_in_vec_init, reason = "a row set may be one run")]

mod contract;

mod damage;

mod downsampled;

mod format;

mod merge;

mod minio;

mod oracle;

mod owner;

mod pyarrow;

mod remote;

mod requests;

mod store;
