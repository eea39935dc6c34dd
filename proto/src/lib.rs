//! Wire formats, and the way from them to the model and back. The only crate that knows both.
//!
//! ```text
//!  pushed bytes ──► pprof::Decompressor ──► pprof::Decoder ──► model::Profile ──► record::encode ──► the log
//!                                               │                                  record::decode ──► the head
//!                                               └─► Location, Mapping ─► convert ─► metastore::Location ──► KV
//!  flushed block ─► model::BlockMeta ─► convert ─► metastore::BlockEntry ──► catalogue, table of contents
//!  an answer     ─► pprof::Encoder ──► pprof bytes
//! ```
//!
//! Laws: nothing here does I/O or waits. Bytes from outside are hostile: whatever decodes them returns an error that
//! says what and where, never panics, and allocates no more than a small multiple of what it was given. What it
//! returns keeps the laws of the model's types.

pub mod wire;

pub mod convert;

pub mod record;

pub mod pprof;

mod varint;
