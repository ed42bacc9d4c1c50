//! Learning from a peer what a share is: its metainfo and chunk hashes, both proved against the infohash.

use proto::{
    ChunkIndex, Digest, InfoHash, Metainfo,
    peer::{FrameError, GoodbyeReason, MAX_HASHES, PeerMessage, PeerReader},
};
use seeder::outbox::{Outbox, OutboxFull};
use store::ChunkHashes;
use tokio::{
    net::tcp::OwnedReadHalf,
    time::{Duration, timeout},
};

use crate::joined;

/// How long a peer may take for each part.
const PART_TIMEOUT: Duration = Duration::from_secs(5);

/// Chunks that a peer may tell of before its description is complete.
const MAX_EARLY_HAVES: usize = 10_000;

/// What a share is, proved.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) metainfo: Metainfo,
    pub(crate) hashes: ChunkHashes,
}

/// What a peer said of its chunks before it could be understood.
#[derive(Debug, Default)]
pub(crate) struct EarlyHaves {
    pub(crate) bitfield: Option<Vec<u8>>,
    pub(crate) haves: Vec<ChunkIndex>,
}

/// Why a peer's description is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptionError {
    /// The peer lied.
    #[error("its description of the share is wrong: {0}")]
    Lied(String),
    /// The peer left.
    #[error("{0}")]
    Goodbye(GoodbyeReason),
    /// The peer closed the connection.
    #[error("disconnected")]
    Disconnected,
    /// The peer does not answer.
    #[error("it did not describe the share within {} seconds", PART_TIMEOUT.as_secs())]
    Timeout,
    /// The peer answers something else.
    #[error("it sent something else: {0:?}")]
    Unexpected(PeerMessage),
    /// The connection failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Outbox(#[from] OutboxFull),
}

/// Asks for the description of a share.
pub(crate) async fn fetch(
    infohash: InfoHash,
    reader: &mut PeerReader<OwnedReadHalf>,
    outbox: &Outbox,
    early: &mut EarlyHaves,
) -> Result<Description, DescriptionError> {
    let bytes = fetch_metainfo(reader, outbox, early).await?;
    let metainfo = off_reactor(move || Metainfo::decode_proved(&bytes, infohash)).await;
    let metainfo = metainfo.map_err(|error| DescriptionError::Lied(error.to_string()))?;
    let hashes = fetch_hashes(&metainfo, reader, outbox, early).await?;
    off_reactor(move || {
        let hashes = ChunkHashes::prove(&metainfo, hashes)?;
        Ok(Description { metainfo, hashes })
    })
    .await
    .map_err(|error: store::HashesError| DescriptionError::Lied(error.to_string()))
}

/// Proving a large share's hashes takes a while.
async fn off_reactor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work).await)
}

async fn fetch_metainfo(
    reader: &mut PeerReader<OwnedReadHalf>,
    outbox: &Outbox,
    early: &mut EarlyHaves,
) -> Result<Vec<u8>, DescriptionError> {
    let mut bytes = Vec::new();
    let mut total = None;
    while total != Some(bytes.len()) {
        // The codec refuses a total that does not fit a u32.
        let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        outbox.message(PeerMessage::MetainfoRequest { offset })?;
        match next(reader, early).await? {
            PeerMessage::Metainfo { total_len, offset: sent, len }
                if sent == offset && total.is_none_or(|total| total == total_len as usize) =>
            {
                total = Some(total_len as usize);
                let start = bytes.len();
                bytes.resize(start + len as usize, 0);
                payload(reader, &mut bytes[start..]).await?;
            }
            other => return Err(DescriptionError::Unexpected(other)),
        }
    }
    Ok(bytes)
}

/// The hashes of all chunks. A file of one chunk has its hash in the metainfo; only others are asked for.
async fn fetch_hashes(
    metainfo: &Metainfo,
    reader: &mut PeerReader<OwnedReadHalf>,
    outbox: &Outbox,
    early: &mut EarlyHaves,
) -> Result<Vec<Digest>, DescriptionError> {
    let space = metainfo.chunk_space();
    let mut hashes = Vec::with_capacity(space.chunk_count() as usize);
    for (file, entry) in metainfo.files().iter().enumerate() {
        let mut chunks = space.chunks_of(file);
        if chunks.len() == 1 {
            hashes.extend(entry.node.pieces_root);
            continue;
        }
        while !chunks.is_empty() {
            let (first, count) = (ChunkIndex(chunks.start), chunks.end - chunks.start);
            let count = count.min(MAX_HASHES);
            outbox.message(PeerMessage::HashesRequest { first, count })?;
            match next(reader, early).await? {
                PeerMessage::Hashes { first: sent, count: number } if (sent, number) == (first, count) => {
                    let mut bytes = vec![0; count as usize * 32];
                    payload(reader, &mut bytes).await?;
                    hashes.extend(bytes.as_chunks::<32>().0.iter().map(|&hash| Digest(hash)));
                }
                other => return Err(DescriptionError::Unexpected(other)),
            }
            chunks.start += count;
        }
    }
    Ok(hashes)
}

/// The next message that is not about what the peer has.
async fn next(
    reader: &mut PeerReader<OwnedReadHalf>,
    early: &mut EarlyHaves,
) -> Result<PeerMessage, DescriptionError> {
    loop {
        let message = timeout(PART_TIMEOUT, reader.next()).await.map_err(|_| DescriptionError::Timeout)??;
        match message {
            None => return Err(DescriptionError::Disconnected),
            Some(PeerMessage::KeepAlive | PeerMessage::Idle) => {}
            Some(PeerMessage::Goodbye(reason)) => return Err(DescriptionError::Goodbye(reason)),
            Some(PeerMessage::Bitfield { len }) if early.bitfield.is_none() => {
                let mut bytes = vec![0; len as usize];
                payload(reader, &mut bytes).await?;
                early.bitfield = Some(bytes);
            }
            Some(PeerMessage::Have { chunk }) if early.haves.len() < MAX_EARLY_HAVES => {
                early.haves.push(chunk);
            }
            Some(message) => return Ok(message),
        }
    }
}

async fn payload(reader: &mut PeerReader<OwnedReadHalf>, bytes: &mut [u8]) -> Result<(), DescriptionError> {
    timeout(PART_TIMEOUT, reader.read_payload(bytes)).await.map_err(|_| DescriptionError::Timeout)??;
    Ok(())
}
