//! The description of a share: its metainfo and chunk hashes, both proved against the infohash.

use std::sync::Arc;

use proto::Metainfo;
use store::ChunkHashes;

/// A proved description.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) metainfo: Arc<Metainfo>,
    pub(crate) hashes: ChunkHashes,
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
