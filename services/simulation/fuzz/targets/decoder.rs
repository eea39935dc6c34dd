//! Bytes of a push and bytes of the log: refused with an error or taken, and what is taken survives the way through
//! the log unchanged.

#![no_main]

use cambium_model::labels::Labels;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_proto::pprof::{Decoder, Decompressor, Limits, Push};
use cambium_proto::record;
use libfuzzer_sys::fuzz_target;

/// Small enough that a bomb is one, large enough for every seed.
const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    samples_max: 10_000,
    stack_depth_max: 1_024,
    sample_labels_max: 100,
    symbol_bytes_max: 65_535,
};

fuzz_target!(|data: &[u8]| {
    push(data);
    replay(data);
});

fn push(body: &[u8]) {
    let mut decompressor = Decompressor::new();
    let Ok(raw) = decompressor.decompress(body, LIMITS.bytes_max) else { return };
    assert!(raw.len() <= LIMITS.bytes_max);
    let mut decoder = Decoder::new();
    let first = decode(&mut decoder, raw);
    assert_eq!(first, decode(&mut decoder, raw), "a decoder remembers nothing of the profile before");
    if let Some(profile) = first {
        let tenant = Tenant { id: TenantId::anonymous(), number: TenantNumber(1) };
        round_trip(&tenant, &[profile]);
    }
}

fn decode(decoder: &mut Decoder, raw: &[u8]) -> Option<Profile> {
    let push =
        Push { id: ProfileId([7; 16]), labels: Labels::empty(), name: None, addresses_relative: false };
    let decoded = decoder.decode(raw, &LIMITS, push).ok()?;
    for index in 0..decoded.profile.locations.len() {
        let _ = decoded.location(index);
    }
    let _ = decoded.mappings();
    Some(decoded.profile)
}

fn replay(bytes: &[u8]) {
    if let Ok((tenant, profiles)) = record::decode(bytes) {
        round_trip(&tenant, &profiles);
    }
}

fn round_trip(tenant: &Tenant, profiles: &[Profile]) {
    let record = record::encode(tenant, profiles);
    let (read_tenant, read_profiles) = record::decode(&record).expect("what was encoded can be decoded");
    assert_eq!((&read_tenant, &read_profiles[..]), (tenant, profiles));
}
