//! Numbers that are a function of their place, so that any profile of a stream can be made alone.

/// The mixing step of splitmix64.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The number at (series, round, index) of a stream.
pub fn at(seed: u64, series: u64, round: u64, index: u64) -> u64 {
    mix(mix(mix(mix(seed) ^ series) ^ round) ^ index)
}

#[cfg(test)]
mod tests {
    #[test]
    fn mixing_is_splitmix64() {
        // The first output of splitmix64 seeded with 0.
        assert_eq!(super::mix(0), 0xE220_A839_7B1D_CDAF);
    }
}
