//! The description of a share: its metainfo and chunk hashes, both proved against the infohash.

use std::sync::Arc;

use proto::Metainfo;
use store::ChunkHashes;

/// A share's description, proved against its infohash.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Description {
    /// Names, lengths and tree roots of its files.
    pub metainfo: Arc<Metainfo>,
    /// The hashes of its chunks.
    pub hashes: ChunkHashes,
}

/// How much of the description is known, from any peer.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// Nothing but the infohash.
    Nothing,
    /// The metainfo.
    Metainfo(Arc<Metainfo>),
    /// Everything.
    All,
}
