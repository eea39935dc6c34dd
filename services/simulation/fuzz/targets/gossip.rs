//! A gossip packet, and a message in one that opens: refused or taken, and what a member answers can be opened by others.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| cambium_cluster::swim::testing::take(data));
