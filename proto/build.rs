//! Compiles the .proto files with protox, so that no protoc has to be installed.

use std::error::Error;
use std::path::Path;

use protox::prost::Message as _;

const FILES: [&str; 7] = [
    "cambium/ingest/v1/ingest.proto",
    "cambium/ingester/v1/ingester.proto",
    "cambium/metastore/v1/metastore.proto",
    "compat/parca/profilestore.proto",
    "compat/pprof/profile.proto",
    "compat/pyroscope/push.proto",
    "compat/pyroscope/types.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
