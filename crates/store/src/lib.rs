//! Shoal's bytes on disk.
//!
//! There are two directions. A [`Scan`] turns a path into a [`Shared`] with its metainfo and chunk hashes, to be served. A
//! [`Download`] receives chunks, proves each before it writes it, and gives the share its final name when all of it is
//! proved and durable. Both use [`merkle`], the hashing of BEP 52.
//!
//! Everything here blocks: callers keep it off their reactor. Nothing here knows of peers or the network.
//!
//! Invariants: no byte of a download counts that was not proved against the infohash; a download's final name never
//! holds anything but the proved share, or whole proved files of it; a file that is shared is never written to.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

// The crate's own tests share code with those in `tests`.
#[cfg(test)]
extern crate self as store;

mod attributes;
mod cache;
mod content;
mod cores;
mod disk;
mod download;
mod error;
mod exclusion;
mod existing;
mod file_pool;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hash_run;
mod hashes;
mod holes;
mod identity;
mod leftovers;
mod linked;
mod local;
pub mod merkle;
mod output;
mod part;
mod proofs;
mod resume;
mod reuse;
mod scan;
mod shared;
mod similar;
mod start;
mod survey;
mod tmpfs;
mod wanted;

pub use cache::HashCache;
pub use content::{ChunkSource, Content, OpenChunkError};
pub use download::{Download, Stored};
pub use error::{DownloadError, PathError, StoreChunkError};
pub use exclusion::{Exclusion, ExclusionError};
pub use existing::{Difference, Differences, check};
pub use hash_run::{OnProgress, Stopped};
pub use hashes::{ChunkHashes, HashesError};
pub use holes::is_zero_chunk;
pub use identity::FileChange;
pub use local::Local;
pub use output::Output;
pub use proofs::ProofCache;
pub use scan::{LeftOut, Scan, ScanError, ScanRules, SpecialKind, Symlinks};
pub use shared::{ShareError, Shared};
pub use start::Resumed;
pub use tmpfs::is_tmpfs;
pub use wanted::{FilePattern, FilePatternError, Wanted, path_in_share};
