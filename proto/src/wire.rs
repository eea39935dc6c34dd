//! The generated messages and services, one module per package of the `.proto` files.

/// Every file of this crate, encoded as a `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `cambium.ingest.v1`: how our own agents push.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
pub mod ingest {
    tonic::include_proto!("cambium.ingest.v1");
}

/// Packages of ours that refer to each other, nested as their names are.
mod cambium {
    pub mod ingester {
        #[allow(
            missing_docs,
            unused_qualifications,
            clippy::all,
            clippy::clone_on_ref_ptr,
            clippy::too_many_lines
        )]
        pub mod v1 {
            tonic::include_proto!("cambium.ingester.v1");
        }
    }
    pub mod metastore {
        #[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
        pub mod v1 {
            tonic::include_proto!("cambium.metastore.v1");
        }
    }
}

/// `cambium.ingester.v1`: writes and heads, from role to role.
pub use cambium::ingester::v1 as ingester;

/// Metadata of a write that is refused because the partition is somewhere else.
pub const OWNER_METADATA: &str = "x-cambium-owner";

/// `cambium.metastore.v1`: values of the metadata store, and the table of contents of a block.
pub use cambium::metastore::v1 as metastore;

/// `parca.profilestore.v1alpha1`: Parca's write API.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
pub mod parca {
    tonic::include_proto!("parca.profilestore.v1alpha1");
}

/// `perftools.profiles`: pprof as prost reads it. The product decodes with [`crate::pprof`]; this is for tests.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
pub mod perftools {
    tonic::include_proto!("perftools.profiles");
}

/// Pyroscope's packages, nested as their names are because one refers to the other.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
pub mod pyroscope {
    /// `push`.
    pub mod push {
        /// `push.v1`: what Pyroscope's push API is sent.
        pub mod v1 {
            tonic::include_proto!("push.v1");
        }
    }
    /// `types`.
    pub mod types {
        /// `types.v1`: labels.
        pub mod v1 {
            tonic::include_proto!("types.v1");
        }
    }
}
