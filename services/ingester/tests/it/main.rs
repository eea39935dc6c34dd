//! The ingester as its callers see it: writes, heads, flushes, restarts, over in-memory seams.

mod sandbox;

mod flush;

mod restart;

mod retries;
