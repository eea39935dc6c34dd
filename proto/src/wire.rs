//! The generated messages and services, one module per package of the `.proto` files.

/// Every file of this crate, encoded as a `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `cambium.ingest.v1`: how our own agents push.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
pub mod ingest {
    tonic::include_proto!("cambium.ingest.v1");
}

/// `cambium.metastore.v1`: values of the metadata store, and the table of contents of a block.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr)]
pub mod metastore {
    tonic::include_proto!("cambium.metastore.v1");
}

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
