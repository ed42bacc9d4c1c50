//! Fetching the description from a peer: metainfo and chunk hashes, both proved against the infohash.
//!
//! Both come in parts. Several parts are requested at a time, so that they do not take a round trip each. Of a large metainfo the
//! first part is requested, and the others when the swarm asks for them. The fetch is given up
//! as soon as another peer's description is proved ([`DescriptionError::Overtaken`]). What was requested with the hello comes anyway, so
//! there another peer's metainfo alone is no reason: the hashes would have to be requested again.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use peer::{
    connection::{ConnectionError, Inbox},
    handshake::Ask,
    outbox::OutboxFull,
};
use proto::{
    ChunkIndex, Digest, InfoHash, Metainfo,
    metainfo::MetainfoError,
    outline::{Draft, MEAN_SECTION_LEN, SUM_LEN, SectionSet, Sum},
    peer::{
        GoodbyeReason, MAX_PART_LEN, MAX_PUSHED_PARTS, MAX_SUMS, PeerMessage, description_parts,
        unknown_hashes,
    },
};
use store::{ChunkHashes, HashesError, Local};
use swarm::{DescriptionStage, PeerEvent, SMALL_METAINFO, scheduler::PeerKey};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Duration, Instant, timeout_at},
};

use crate::{context::SessionEvent, description::Known, task_output};

/// A peer that sends nothing of the description for this long is given up.
const SILENCE: Duration = Duration::from_secs(20);

/// Maximum time that a peer waits to be asked for the rest. By then the swarm has another description, or has given up.
const MAX_HOLD: Duration = Duration::from_secs(3_600);

/// Maximum number of parts on their way: 8 MiB, the hashes of a share of 128 GiB, cover 80 ms at 100 MB/s.
const MAX_PARTS: usize = 32;

/// One in this many sections may be missing: if more are, fetching the metainfo whole takes one round trip less and few more bytes.
const MAX_MISSING_SHARE: usize = 2;

/// Bytes between two progress reports. The end of each part is reported too.
const PROGRESS_STEP: usize = 16 * 1024;

/// Maximum number of chunks that a peer may announce before its description is complete.
pub(crate) const MAX_EARLY_HAVES: usize = 10_000;

/// What a peer sent about chunks before the share was known.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) bitfield: Option<Vec<u8>>,
    pub(crate) haves: Vec<ChunkIndex>,
    pub(crate) choice: Choice,
}

/// The chunk that a peer sends after the description.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None was asked for, or the peer has chosen before.
    #[default]
    NotDue,
    /// One was asked for. The peer need not send it.
    Due,
    Made(ChunkIndex),
}

/// Why a peer gave no description.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptionError {
    /// The peer sent a wrong description.
    #[error("its description of the share is wrong: {0}")]
    Lied(String),
    /// The metainfo has the right infohash and is malformed. So no peer can have a better one.
    #[error("the share is malformed: {0}")]
    BadShare(MetainfoError),
    /// Another peer was faster.
    #[error("another peer was faster")]
    Overtaken,
    /// The peer left.
    #[error("{0}")]
    Goodbye(GoodbyeReason),
    /// The peer closed the connection.
    #[error("disconnected")]
    Disconnected,
    /// The peer does not answer.
    #[error("it sent nothing of the share's description for {} seconds", SILENCE.as_secs())]
    Silent,
    /// The connection cannot go on.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The swarm is gone.
    #[error("the transfer is over")]
    Finished,
}

impl From<OutboxFull> for DescriptionError {
    fn from(full: OutboxFull) -> DescriptionError {
        ConnectionError::from(full).into()
    }
}

fn unexpected(message: PeerMessage) -> DescriptionError {
    ConnectionError::Unexpected(message).into()
}

/// The parts of a description that a peer still has to send. If another peer is faster, they arrive later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Owed {
    /// Parts that were requested and have not started to arrive.
    requested: u32,
    /// Parts that come without a request of their own and are not counted yet, if the description has that many.
    pushed: u32,
    /// Parts that were counted so far.
    counted: u32,
}

impl Owed {
    /// What was requested with the hello comes without further requests: the first parts of the description, or of the outline.
    pub(crate) fn after_hello(asked: Ask) -> Owed {
        let pushed = match asked {
            Ask::Nothing => 0,
            Ask::Outline => 1,
            Ask::Description | Ask::DescriptionAndChunk => MAX_PUSHED_PARTS,
        };
        Owed { pushed, ..Owed::default() }
    }

    /// Counts the next part. Returns whether it must be requested.
    fn count(&mut self) -> bool {
        self.requested += 1;
        self.counted += 1;
        let is_pushed = self.pushed > 0;
        self.pushed = self.pushed.saturating_sub(1);
        !is_pushed
    }

    /// Number of parts that still arrive, if none is requested any more.
    pub(crate) fn left(self, metainfo: &Metainfo) -> u32 {
        let others = description_parts(metainfo).skip(self.counted as usize).take(self.pushed as usize);
        self.requested + others.map(|_| 1).sum::<u32>()
    }
}

/// A peer that is asked for the description.
pub(crate) struct Describer<'a> {
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) early: &'a mut Early,
    /// Changes when another peer has sent more of the description.
    pub(crate) known: watch::Receiver<Known>,
    pub(crate) owed: Owed,
    /// Notified when the rest of a large metainfo may be requested.
    pub(crate) rest: &'a Notify,
    pub(crate) key: PeerKey,
    /// Receives the progress.
    pub(crate) events: &'a mpsc::Sender<(PeerKey, SessionEvent)>,
}

impl Describer<'_> {
    /// Asks for the metainfo, and proves it. If `local` is similar, only what differs is asked for.
    pub(crate) async fn metainfo(
        &mut self,
        infohash: InfoHash,
        local: Option<&Arc<Local>>,
    ) -> Result<Metainfo, DescriptionError> {
        if let Some(local) = local
            && let Some(bytes) = self.sections(Arc::clone(local)).await?
        {
            match off_reactor(move || Metainfo::decode_proved(&bytes, infohash)).await {
                // Sums are short. So this proves nothing against the peer, and all of the metainfo will.
                Err(MetainfoError::WrongInfoHash) => tracing::debug!("the metainfo is fetched whole"),
                decoded => return decoded.map_err(DescriptionError::BadShare),
            }
        }
        let bytes = self.metainfo_bytes().await?;
        let metainfo = off_reactor(move || Metainfo::decode_proved(&bytes, infohash)).await;
        metainfo.map_err(|error| match error {
            MetainfoError::WrongInfoHash => DescriptionError::Lied(error.to_string()),
            malformed => DescriptionError::BadShare(malformed),
        })
    }

    /// Asks for the chunk hashes, and proves them.
    pub(crate) async fn hashes(&mut self, metainfo: Arc<Metainfo>) -> Result<ChunkHashes, DescriptionError> {
        let hashes = self.all_hashes(&metainfo).await?;
        let proved = off_reactor(move || ChunkHashes::prove(&metainfo, hashes)).await;
        proved.map_err(|error: HashesError| DescriptionError::Lied(error.to_string()))
    }

    /// Skips the parts that were requested before another peer was faster.
    pub(crate) async fn drain(&mut self, metainfo: &Metainfo) -> Result<(), DescriptionError> {
        self.owed = Owed { requested: self.owed.left(metainfo), ..Owed::default() };
        loop {
            let deadline = Instant::now() + SILENCE;
            timeout_at(deadline, self.inbox.skip_payload()).await.map_err(|_| DescriptionError::Silent)??;
            if self.owed.requested == 0 {
                return Ok(());
            }
            // All parts must be skipped, no matter what other peers send meanwhile.
            self.known.mark_unchanged();
            match self.next().await {
                Ok(_) => {}
                Err(DescriptionError::Overtaken) if matches!(*self.known.borrow(), Known::All) => {
                    return Ok(());
                }
                Err(DescriptionError::Overtaken) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the metainfo together from sections of the local one and of the peer's. `None` if they have little in common, or if more than
    /// [`SMALL_METAINFO`] would be received: such a peer is held when it sends the metainfo whole.
    async fn sections(&mut self, local: Arc<Local>) -> Result<Option<Vec<u8>>, DescriptionError> {
        let Some(sums) = self.outline().await? else { return Ok(None) };
        let mut draft = off_reactor(move || Draft::new(sums, local.metainfo().as_bytes())).await;
        let (sections, missing) = draft.len();
        let total = missing as u64 * MEAN_SECTION_LEN;
        if missing * MAX_MISSING_SHARE > sections || total > SMALL_METAINFO {
            return Ok(None);
        }
        let mut wanted = VecDeque::from(draft.missing());
        let mut asked: VecDeque<SectionSet> = VecDeque::new();
        // How long the sections are is known when they are here.
        let (mut bytes, mut received) = (Vec::new(), 0);
        loop {
            while asked.len() < MAX_PARTS
                && let Some(set) = wanted.pop_front()
            {
                self.ask(PeerMessage::SectionsRequest(set))?;
                asked.push_back(set);
            }
            let Some(expected) = asked.pop_front() else { return Ok(draft.into_bytes()) };
            match self.next().await? {
                PeerMessage::Sections { set, len } if set == expected => {
                    bytes.clear();
                    bytes.resize(len as usize, 0);
                    self.payload(DescriptionStage::Metainfo, &mut bytes, (received, total)).await?;
                    received += u64::from(len);
                    draft.fill(set, &bytes).map_err(|wrong| DescriptionError::Lied(wrong.to_string()))?;
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Asks for the outline of the metainfo. `None` if it is longer than [`SMALL_METAINFO`].
    async fn outline(&mut self) -> Result<Option<Vec<Sum>>, DescriptionError> {
        let (mut sums, mut bytes): (Vec<Sum>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut total = None;
        while total.is_none_or(|total| sums.len() < total as usize) {
            let first = u32::try_from(sums.len()).unwrap_or(u32::MAX);
            self.ask(PeerMessage::OutlineRequest { first })?;
            match self.next().await? {
                PeerMessage::Outline { sections, first: from, count }
                    if from == first
                        && total.is_none_or(|total| total == sections)
                        && count == (sections - first).min(MAX_SUMS) =>
                {
                    let total_len = u64::from(sections) * u64::from(SUM_LEN);
                    if total_len > SMALL_METAINFO {
                        let skipping = timeout_at(Instant::now() + SILENCE, self.inbox.skip_payload());
                        skipping.await.map_err(|_| DescriptionError::Silent)??;
                        return Ok(None);
                    }
                    total = Some(sections);
                    bytes.clear();
                    bytes.resize(count as usize * SUM_LEN as usize, 0);
                    let before = u64::from(first) * u64::from(SUM_LEN);
                    self.payload(DescriptionStage::Metainfo, &mut bytes, (before, total_len)).await?;
                    sums.extend_from_slice(bytes.as_chunks().0);
                }
                other => return Err(unexpected(other)),
            }
        }
        Ok(Some(sums))
    }

    async fn metainfo_bytes(&mut self) -> Result<Vec<u8>, DescriptionError> {
        let (mut bytes, mut total) = (Vec::new(), None);
        let mut asked: VecDeque<u32> = VecDeque::new();
        let (mut next, mut may_go_on) = (0, false);
        loop {
            // The number of parts is known when the first has arrived.
            while asked.len() < MAX_PARTS && if let Some(total) = total { next < total } else { next == 0 } {
                may_go_on |= total.is_some_and(|total| u64::from(total) <= SMALL_METAINFO);
                // Parts that come without a request are on their way.
                if total.is_some() && !may_go_on && self.owed.pushed == 0 {
                    break;
                }
                self.ask(PeerMessage::MetainfoRequest { offset: next })?;
                asked.push_back(next);
                next += MAX_PART_LEN;
            }
            let is_held = !may_go_on && total.is_some_and(|total| next < total);
            let message = match asked.front() {
                Some(_) => self.next_or_rest(SILENCE, is_held).await?,
                None if is_held => self.next_or_rest(MAX_HOLD, true).await?,
                None => return Ok(bytes),
            };
            let Some(message) = message else {
                may_go_on = true;
                continue;
            };
            let Some(expected) = asked.pop_front() else { return Err(unexpected(message)) };
            match message {
                PeerMessage::Metainfo { total_len, offset, len }
                    if offset == expected
                        && total.is_none_or(|total| total == total_len)
                        && len == (total_len - offset).min(MAX_PART_LEN) =>
                {
                    total = Some(total_len);
                    // The system allocates pages when they are written. So a peer that only promises much uses no memory.
                    bytes.reserve_exact(total_len as usize - bytes.len());
                    let start = bytes.len();
                    bytes.resize(start + len as usize, 0);
                    self.payload(
                        DescriptionStage::Metainfo,
                        &mut bytes[start..],
                        (start as u64, total_len.into()),
                    )
                    .await?;
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    /// The hashes of all chunks. The hash of a file with one chunk is in the metainfo; only the others are requested.
    async fn all_hashes(&mut self, metainfo: &Metainfo) -> Result<Vec<Digest>, DescriptionError> {
        let chunk_count = metainfo.chunk_space().chunk_count();
        let mut wanted: VecDeque<_> = unknown_hashes(metainfo).collect();
        let total =
            wanted.iter().map(|range| u64::from(range.end - range.start)).sum::<u64>() * Digest::LEN as u64;
        let mut hashes = Vec::with_capacity(chunk_count as usize);
        let mut asked: VecDeque<Range<u32>> = VecDeque::new();
        let (mut part, mut received, mut at) = (Vec::new(), 0, 0);
        self.report(DescriptionStage::Hashes, 0, total).await?;
        loop {
            while asked.len() < MAX_PARTS
                && let Some(range) = wanted.pop_front()
            {
                let (first, count) = (ChunkIndex(range.start), range.end - range.start);
                self.ask(PeerMessage::HashesRequest { first, count })?;
                asked.push_back(range);
            }
            let until = asked.front().map_or(chunk_count, |range| range.start);
            hashes.extend((at..until).filter_map(|chunk| {
                let file = metainfo.chunk_space().span(ChunkIndex(chunk))?.file;
                metainfo.files()[file].node.pieces_root
            }));
            let Some(expected) = asked.pop_front() else { return Ok(hashes) };
            at = expected.end;
            match self.next().await? {
                PeerMessage::Hashes { first, count } if expected == (first.0..first.0 + count) => {
                    part.clear();
                    part.resize(count as usize * Digest::LEN, 0);
                    self.payload(DescriptionStage::Hashes, &mut part, (received, total)).await?;
                    received += part.len() as u64;
                    hashes.extend(part.as_chunks::<{ Digest::LEN }>().0.iter().map(|&hash| Digest(hash)));
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    async fn report(
        &self,
        stage: DescriptionStage,
        received: u64,
        total: u64,
    ) -> Result<(), DescriptionError> {
        let event = PeerEvent::Describing { stage, received, total }.into();
        self.events.send((self.key, event)).await.map_err(|_| DescriptionError::Finished)
    }

    /// Gives up the fetch from this peer if another peer was faster.
    fn give_way(&mut self) -> Result<(), DescriptionError> {
        let is_overtaken = matches!(*self.known.borrow_and_update(), Known::All) || self.owed.pushed == 0;
        if is_overtaken { Err(DescriptionError::Overtaken) } else { Ok(()) }
    }

    fn ask(&mut self, request: PeerMessage) -> Result<(), DescriptionError> {
        if self.owed.count() {
            self.inbox.outbox().message(request)?;
        }
        Ok(())
    }

    /// Receives the next part. Other messages of the peer report which chunks it has, and are stored.
    async fn next(&mut self) -> Result<PeerMessage, DescriptionError> {
        loop {
            if let Some(message) = self.next_or_rest(SILENCE, false).await? {
                return Ok(message);
            }
        }
    }

    /// As [`Describer::next`]; `None` if a peer that is held may go on. A peer from which nothing arrives within `silence` is given up.
    async fn next_or_rest(
        &mut self,
        silence: Duration,
        is_held: bool,
    ) -> Result<Option<PeerMessage>, DescriptionError> {
        let deadline = Instant::now() + silence;
        loop {
            let message = tokio::select! {
                _ = self.known.changed() => {
                    self.give_way()?;
                    continue;
                }
                () = self.rest.notified(), if is_held => return Ok(None),
                message = timeout_at(deadline, self.inbox.next()) => {
                    message.map_err(|_| DescriptionError::Silent)??
                }
            };
            match message {
                None => return Err(DescriptionError::Disconnected),
                Some(PeerMessage::KeepAlive | PeerMessage::Idle) => {}
                Some(PeerMessage::Goodbye(reason)) => return Err(DescriptionError::Goodbye(reason)),
                // Read to the end even if another peer is faster, because the bitfield comes only once.
                Some(PeerMessage::Bitfield { len }) if self.early.bitfield.is_none() => {
                    let reading = timeout_at(Instant::now() + SILENCE, self.inbox.read_payload(len));
                    self.early.bitfield = Some(reading.await.map_err(|_| DescriptionError::Silent)??);
                }
                Some(PeerMessage::Chosen { chunk }) if self.early.choice == Choice::Due => {
                    self.early.choice = Choice::Made(chunk);
                }
                // Parts of the description that were skipped are requested again, and the chunk comes before those. It is requested
                // again too.
                Some(PeerMessage::Chunk { chunk, .. } | PeerMessage::Reject { chunk, .. })
                    if self.early.choice == Choice::Made(chunk) =>
                {
                    self.early.choice = Choice::NotDue;
                    let skipping = timeout_at(Instant::now() + SILENCE, self.inbox.skip_payload());
                    skipping.await.map_err(|_| DescriptionError::Silent)??;
                }
                Some(PeerMessage::Have { chunk }) if self.early.haves.len() < MAX_EARLY_HAVES => {
                    self.early.haves.push(chunk);
                }
                Some(
                    message @ (PeerMessage::Metainfo { .. }
                    | PeerMessage::Hashes { .. }
                    | PeerMessage::Outline { .. }
                    | PeerMessage::Sections { .. }),
                ) => {
                    self.owed.requested = self.owed.requested.saturating_sub(1);
                    return Ok(Some(message));
                }
                Some(message) => return Err(unexpected(message)),
            }
        }
    }

    /// Reads the payload of a part into `bytes`, and reports the progress. `before` of `total` bytes were received before this part.
    async fn payload(
        &mut self,
        stage: DescriptionStage,
        bytes: &mut [u8],
        (before, total): (u64, u64),
    ) -> Result<(), DescriptionError> {
        let (mut filled, mut reported) = (0, 0);
        while filled < bytes.len() {
            let deadline = Instant::now() + SILENCE;
            filled += tokio::select! {
                _ = self.known.changed() => {
                    self.give_way()?;
                    continue;
                }
                count = timeout_at(deadline, self.inbox.read_some(&mut bytes[filled..])) => {
                    count.map_err(|_| DescriptionError::Silent)??
                }
            };
            if filled - reported >= PROGRESS_STEP || filled == bytes.len() {
                reported = filled;
                self.report(stage, before + filled as u64, total).await?;
            }
        }
        Ok(())
    }
}

/// Runs `work` on a blocking thread: proving the hashes of a large share takes long.
async fn off_reactor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    task_output(tokio::task::spawn_blocking(work).await)
}
