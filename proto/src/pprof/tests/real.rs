//! Profiles recorded from real programs: those committed with the golden tests, and those in the folder that
//! `CAMBIUM_REAL_PROFILES` names.

use std::path::{Path, PathBuf};

use super::super::{Decoder, Decompressor};
use super::oracle::{decoded_sums, naive_sums};
use super::roundtrip::encode_again;
use super::{LIMITS, push};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/simulation/golden/profiles");

fn files() -> Vec<PathBuf> {
    let folders = [Some(COMMITTED.into()), std::env::var_os("CAMBIUM_REAL_PROFILES")];
    let mut files: Vec<PathBuf> = (folders.iter().flatten())
        .filter_map(|folder| std::fs::read_dir(Path::new(folder)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| ["gz", "pprof", "pb"].iter().any(|e| end == *e)))
        .collect();
    files.sort();
    files
}

#[test]
fn real_profiles_decode_to_what_prost_reads() {
    let files = files();
    if files.is_empty() {
        eprintln!("skipped: no profiles in {COMMITTED} or $CAMBIUM_REAL_PROFILES");
    }
    let (mut decompressor, mut decoder, mut second) = (Decompressor::new(), Decoder::new(), Decoder::new());
    for file in files {
        let body = std::fs::read(&file).unwrap();
        let raw = decompressor.decompress(&body, LIMITS.bytes_max).unwrap();
        let decoded = decoder.decode(raw, &LIMITS, push()).unwrap();
        let sums = decoded_sums(&decoded);
        assert_eq!(sums, naive_sums(raw), "{}", file.display());
        let encoded = encode_again(&decoded);
        let again = second.decode(&encoded, &LIMITS, push()).unwrap();
        assert_eq!(decoded_sums(&again), sums, "{}", file.display());
        let p = &decoded.profile;
        eprintln!(
            "{}: {} messages, {} samples, {} locations, {} nodes, {}",
            file.file_name().unwrap().display(),
            decoded.samples,
            p.sample_count(),
            p.locations.len(),
            p.nodes.len(),
            p.types[0]
        );
    }
}
