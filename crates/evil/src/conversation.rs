//! A connection of an evil peer.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::BytesMut;
use proto::{
    Bitfield, CHUNK_LEN, ChunkIndex, InfoHash, PREAMBLE, Zone,
    metainfo::MAX_METAINFO_LEN,
    outline::{Outline, SUM_LEN, SectionSet},
    peer::{
        BlockSet, DescriptionPart, Hello, MAX_PART_LEN, MAX_PUSHED_PARTS, MAX_SUMS, PeerMessage, PeerReader,
        RejectReason, Role, description_parts, encode_message,
    },
    tracker::Completion,
};
use rand::RngExt;
use socket2::SockRef;
use store::merkle::Leaves;
use tokio::{
    io::{AsyncWriteExt, copy, sink},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::sleep,
};

use crate::{Fate, Kind, peer::Peer};

/// Pause between two bytes of a peer that trickles.
const TRICKLE: Duration = Duration::from_secs(1);

/// Pause between two parts of a description at 1 MiB a second.
const SLOW_PART: Duration = Duration::from_millis(250);

/// Right chunks that a peer sends before it sends wrong ones.
const HONEST_CHUNKS: u32 = 3;

/// Messages of a flood that are written at a time.
const FLOOD_BATCH: usize = 1_000;

/// A connection of an evil peer, after both sides said hello.
pub(crate) struct Conversation<'a> {
    peer: &'a Peer,
    reader: PeerReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    sent_chunks: u32,
}

/// Bytes of a message without its payload.
fn frame(message: PeerMessage) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode_message(&message, &mut bytes).expect("a legal message");
    bytes
}

/// A frame whose length is right, around bytes that no encoder would write.
fn raw_frame(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a short frame");
    [&len.to_be_bytes()[..], body].concat()
}

impl Conversation<'_> {
    /// Runs a connection until it is over.
    pub(crate) async fn run(peer: &Peer, mut stream: TcpStream) -> Result<()> {
        let hello = [&PREAMBLE[..], &frame(PeerMessage::Hello(hello(peer)))].concat();
        match peer.kind {
            Kind::Silent => drain(stream).await,
            Kind::Closes => Ok(()),
            Kind::Resets => reset(&stream),
            Kind::TrickledHello => trickle(&mut stream, &hello).await,
            Kind::CutHello => Ok(stream.write_all(&hello[..hello.len() / 2]).await?),
            Kind::OtherProtocol => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await?;
                drain(stream).await
            }
            Kind::HugeFrameFirst => {
                stream.write_all(&[&PREAMBLE[..], &[0xff; 64]].concat()).await?;
                drain(stream).await
            }
            Kind::NoHello => {
                stream.write_all(&[&PREAMBLE[..], &frame(PeerMessage::KeepAlive)].concat()).await?;
                drain(stream).await
            }
            Kind::Echo => {
                let (mut reader, mut writer) = stream.into_split();
                copy(&mut reader, &mut writer).await?;
                Ok(())
            }
            _ => {
                stream.write_all(&hello).await?;
                let (reader, writer) = stream.into_split();
                let reader = PeerReader::new(reader);
                Conversation { peer, reader, writer, sent_chunks: 0 }.talk().await
            }
        }
    }

    /// Reads the `Hello` of a peer that connected, and returns the port where it listens, if it does.
    pub(crate) async fn listen_port(stream: TcpStream) -> Result<Option<u16>> {
        let mut reader = PeerReader::new(stream);
        reader.read_preamble().await?;
        match reader.next().await? {
            Some(PeerMessage::Hello(hello)) => Ok((hello.listen_port != 0).then_some(hello.listen_port)),
            _ => Ok(None),
        }
    }

    fn kind(&self) -> Kind {
        self.peer.kind
    }

    async fn talk(&mut self) -> Result<()> {
        self.reader.read_preamble().await?;
        self.begin().await?;
        let flood = self.flood_frame();
        if self.kind() == Kind::FloodsEarly {
            return self.flood(&flood).await;
        }
        while let Some(message) = self.next().await? {
            let is_active = message.wish().is_some() || matches!(message, PeerMessage::Bitfield { .. });
            if is_active && !flood.is_empty() {
                return self.flood(&flood).await;
            }
            match message {
                PeerMessage::DescriptionRequest { chunk } => {
                    let chosen = if chunk { self.choice() } else { None };
                    if let Some(chunk) = chosen {
                        self.send(PeerMessage::Chosen { chunk }, &[]).await?;
                    }
                    for part in self.pushed_parts() {
                        match part {
                            DescriptionPart::Metainfo { offset } => self.send_metainfo(offset).await?,
                            DescriptionPart::Hashes { first, count } => {
                                self.send_hashes(first, count).await?;
                            }
                        }
                    }
                    if let Some(chunk) = chosen {
                        self.answer(chunk).await?;
                    }
                }
                PeerMessage::MetainfoRequest { offset } => self.send_metainfo(offset).await?,
                PeerMessage::OutlineRequest { first } => self.send_outline(first).await?,
                PeerMessage::SectionsRequest(set) => self.send_sections(set).await?,
                PeerMessage::HashesRequest { first, count } => self.send_hashes(first, count).await?,
                PeerMessage::Request { chunk, .. } => self.answer(chunk).await?,
                PeerMessage::LeavesRequest { chunk, .. } => self.answer_leaves(chunk).await?,
                PeerMessage::BlocksRequest { chunk, blocks, .. } => self.answer_blocks(chunk, blocks).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The parts of the description that it sends without a request for each. A metainfo without an end has no others.
    fn pushed_parts(&self) -> Vec<DescriptionPart> {
        match self.kind() {
            Kind::EndlessMetainfo | Kind::SlowEndlessMetainfo | Kind::StuckMetainfo => (0..MAX_PUSHED_PARTS)
                .map(|part| DescriptionPart::Metainfo { offset: part * MAX_PART_LEN })
                .collect(),
            _ => description_parts(self.peer.share.metainfo()).take(MAX_PUSHED_PARTS as usize).collect(),
        }
    }

    /// What it sends to a leecher that asks for any chunk. Those whose description is wrong choose nothing: it is wrong already.
    fn choice(&self) -> Option<ChunkIndex> {
        match self.kind() {
            Kind::NoSuchChoice => None,
            Kind::Honest => Some(ChunkIndex(0)),
            kind => (kind >= Kind::WrongBytes).then_some(ChunkIndex(0)),
        }
    }

    /// The next message, without its payload. It is entered in the record.
    async fn next(&mut self) -> Result<Option<PeerMessage>> {
        let Some(message) = self.reader.next().await? else { return Ok(None) };
        self.reader.skip_payload().await?;
        note(self.peer, &message);
        Ok(Some(message))
    }

    async fn send(&mut self, message: PeerMessage, payload: &[u8]) -> Result<()> {
        let mut bytes = frame(message);
        bytes.extend_from_slice(payload);
        Ok(self.writer.write_all(&bytes).await?)
    }

    async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.writer.write_all(bytes).await?)
    }

    /// Sends what nothing asked for.
    async fn begin(&mut self) -> Result<()> {
        let count = self.peer.share.chunk_count();
        let field = Bitfield::full(count);
        let bitfield = async |conversation: &mut Self, bytes: &[u8]| {
            let len = u32::try_from(bytes.len())?;
            conversation.send(PeerMessage::Bitfield { len }, bytes).await
        };
        match self.kind() {
            Kind::Unasked => {
                for chunk in (0..count).map(ChunkIndex) {
                    self.right_chunk(chunk).await?;
                }
            }
            Kind::ShortBitfield => bitfield(self, &field.as_bytes()[1..]).await?,
            Kind::LongBitfield => bitfield(self, &[field.as_bytes(), &[0]].concat()).await?,
            Kind::SpareBits => bitfield(self, &vec![0xff; field.as_bytes().len()]).await?,
            Kind::TwoBitfields => {
                bitfield(self, field.as_bytes()).await?;
                bitfield(self, field.as_bytes()).await?;
            }
            Kind::HaveOutOfRange => {
                bitfield(self, Bitfield::empty(count).as_bytes()).await?;
                self.send(PeerMessage::Have { chunk: ChunkIndex(count) }, &[]).await?;
            }
            Kind::NoSuchChoice => {
                self.send(PeerMessage::Chosen { chunk: ChunkIndex(count) }, &[]).await?;
            }
            Kind::TwoChoices => {
                for chunk in [0, 1].map(ChunkIndex) {
                    self.send(PeerMessage::Chosen { chunk }, &[]).await?;
                }
            }
            Kind::SecondHello => self.send(PeerMessage::Hello(hello(self.peer)), &[]).await?,
            kind if role(kind) == Role::Leecher => bitfield(self, field.as_bytes()).await?,
            _ => {}
        }
        Ok(())
    }

    async fn send_metainfo(&mut self, offset: u32) -> Result<()> {
        let bytes = match self.kind() {
            Kind::OtherMetainfo => self.peer.share.other_metainfo().as_bytes().to_vec(),
            Kind::OtherOutline => self.peer.share.altered_metainfo(),
            Kind::EndlessOutline => return self.send_outline(offset / SUM_LEN).await,
            _ => self.peer.share.metainfo().as_bytes().to_vec(),
        };
        let total_len = u32::try_from(bytes.len())?;
        let end = total_len.min(offset.saturating_add(MAX_PART_LEN));
        let mut part = bytes.get(offset as usize..end as usize).unwrap_or_default().to_vec();
        let message = PeerMessage::Metainfo { total_len, offset, len: end - offset.min(end) };
        match self.kind() {
            Kind::Mute => Ok(()),
            Kind::WrongMetainfo => {
                if let Some(last) = part.last_mut() {
                    *last ^= 1;
                }
                self.send(message, &part).await
            }
            Kind::EndlessMetainfo | Kind::SlowEndlessMetainfo | Kind::StuckMetainfo => {
                if self.kind() == Kind::SlowEndlessMetainfo {
                    sleep(SLOW_PART).await;
                }
                let len = (MAX_METAINFO_LEN - offset).min(MAX_PART_LEN);
                let mut part = vec![0; len as usize];
                rand::rng().fill(&mut part[..]);
                if self.kind() == Kind::StuckMetainfo && offset + len == MAX_METAINFO_LEN {
                    part.pop();
                }
                self.send(PeerMessage::Metainfo { total_len: MAX_METAINFO_LEN, offset, len }, &part).await?;
                self.peer.record.send_modify(|record| record.metainfo_parts += 1);
                Ok(())
            }
            // The variant, then the three fields. The first is a length of eight bytes, and of four.
            Kind::HugeMetainfo => {
                self.send_raw(&raw_frame(&[3, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 10])).await
            }
            Kind::LongMetainfo => self.send_raw(&raw_frame(&[3, 0xfc, 0xff, 0xff, 0xff, 0xff, 0, 10])).await,
            Kind::TrickledMetainfo => {
                self.send(message, &[]).await?;
                trickle(&mut self.writer, &part).await
            }
            Kind::CutMetainfo => {
                self.send(message, &part[..part.len() / 2]).await?;
                bail!("cut")
            }
            Kind::ShiftedMetainfo => {
                let message =
                    PeerMessage::Metainfo { total_len, offset: offset + 1, len: total_len - offset - 1 };
                self.send(message, &part[1..]).await
            }
            _ => self.send(message, &part).await,
        }
    }

    /// The outline of what it sends as its metainfo.
    async fn send_outline(&mut self, first: u32) -> Result<()> {
        let outline = Outline::of(&self.peer.share.altered_metainfo());
        let sums = outline.sums().get(first as usize..).unwrap_or_default();
        let mut sums = sums[..sums.len().min(MAX_SUMS as usize)].to_vec();
        let mut sections = u32::try_from(outline.sums().len())?;
        if self.kind() == Kind::EndlessOutline {
            self.peer.record.send_modify(|record| record.metainfo_parts += 1);
            sums.resize(MAX_SUMS as usize, [7; SUM_LEN as usize]);
            sections = first + 2 * MAX_SUMS;
        }
        let count = u32::try_from(sums.len())?;
        self.send(PeerMessage::Outline { sections, first, count }, sums.as_flattened()).await
    }

    async fn send_sections(&mut self, set: SectionSet) -> Result<()> {
        let bytes = self.peer.share.altered_metainfo();
        let outline = Outline::of(&bytes);
        let sections = set.sections().filter_map(|section| outline.range(section));
        let payload = sections.map(|range| &bytes[range]).collect::<Vec<_>>().concat();
        let len = u32::try_from(payload.len())?;
        self.send(PeerMessage::Sections { set, len }, &payload).await
    }

    async fn send_hashes(&mut self, first: ChunkIndex, count: u32) -> Result<()> {
        let mut part = self.peer.share.hashes(first, count);
        let message = PeerMessage::Hashes { first, count };
        match self.kind() {
            Kind::Mute => Ok(()),
            Kind::WrongHashes => {
                if let Some(last) = part.last_mut() {
                    *last ^= 1;
                }
                self.send(message, &part).await
            }
            Kind::OwnHashes => {
                let own = self.peer.share.own_hashes(first, count);
                self.send(message, &own).await
            }
            Kind::ShiftedHashes => {
                let first = ChunkIndex(first.0 + 1);
                self.send(PeerMessage::Hashes { first, count }, &part).await
            }
            Kind::TrickledHashes => {
                self.send(message, &[]).await?;
                trickle(&mut self.writer, &part).await
            }
            Kind::CutHashes => {
                self.send(message, &part[..part.len() / 2]).await?;
                bail!("cut")
            }
            _ => self.send(message, &part).await,
        }
    }

    /// Answers a request for a chunk.
    async fn answer(&mut self, chunk: ChunkIndex) -> Result<()> {
        let share = &self.peer.share;
        let right = share.chunk(chunk).to_vec();
        let len = u32::try_from(right.len())?;
        let header = PeerMessage::Chunk { chunk, len };
        let next = ChunkIndex((chunk.0 + 1) % share.chunk_count());
        match self.kind() {
            Kind::WrongBytes | Kind::WrongAndAway | Kind::OwnHashes | Kind::WrongBlocks => {
                let wrong = share.own_chunk(chunk);
                self.wrong_chunk(chunk, &wrong).await?;
                if self.kind() == Kind::WrongAndAway {
                    bail!("away");
                }
                Ok(())
            }
            Kind::WrongByte => {
                let mut wrong = right;
                if let Some(last) = wrong.last_mut() {
                    *last ^= 1;
                }
                self.wrong_chunk(chunk, &wrong).await
            }
            Kind::Zeros => self.wrong_chunk(chunk, &vec![0; right.len()]).await,
            Kind::OtherChunk => {
                let mut wrong = share.chunk(next).to_vec();
                wrong.resize(right.len(), 0);
                self.wrong_chunk(chunk, &wrong).await
            }
            Kind::HonestThenWrong if self.sent_chunks >= HONEST_CHUNKS => {
                let wrong = share.own_chunk(chunk);
                self.wrong_chunk(chunk, &wrong).await
            }
            Kind::ChildHashes => {
                let nodes = share.child_hashes(chunk);
                self.send(PeerMessage::Chunk { chunk, len: u32::try_from(nodes.len())? }, &nodes).await
            }
            Kind::OtherNumber => self.right_chunk(next).await,
            Kind::Twice => {
                self.right_chunk(chunk).await?;
                self.right_chunk(chunk).await
            }
            Kind::Short => self.send(PeerMessage::Chunk { chunk, len: len - 1 }, &right[1..]).await,
            Kind::Long if len < CHUNK_LEN => {
                self.send(PeerMessage::Chunk { chunk, len: len + 1 }, &[&right[..], &[7]].concat()).await
            }
            // No legal message announces more than a full chunk: the variant, the number, a length of four bytes.
            Kind::Long => self.send_raw(&raw_frame(&[10, 0, 0xfc, 1, 0, 8, 0])).await,
            Kind::HugeChunk => self.send_raw(&raw_frame(&[10, 0, 0xfc, 0xff, 0xff, 0xff, 0xff])).await,
            Kind::Overflowing => {
                self.right_chunk(chunk).await?;
                self.send_raw(&[0xff; 8]).await
            }
            Kind::HugeFrame => self.send_raw(&[0xff; 64]).await,
            Kind::NoSuchChunk => {
                let chunk = ChunkIndex(share.chunk_count());
                self.send(PeerMessage::Chunk { chunk, len }, &right).await
            }
            Kind::CutChunk | Kind::ResetChunk | Kind::StopsInChunk => {
                self.send(header, &right[..right.len() / 2]).await?;
                match self.kind() {
                    Kind::StopsInChunk => return Ok(()),
                    Kind::ResetChunk => reset(self.writer.as_ref())?,
                    _ => {}
                }
                bail!("cut")
            }
            Kind::CutFrame => {
                let bytes = frame(header);
                self.send_raw(&bytes[..bytes.len() - 1]).await?;
                bail!("cut")
            }
            Kind::HeaderAndAway => {
                self.send(header, &[]).await?;
                bail!("away")
            }
            Kind::TrickledChunk => {
                self.send(header, &[]).await?;
                trickle(&mut self.writer, &right).await
            }
            Kind::Mute => Ok(()),
            Kind::KeepsWaiting => {
                self.send(PeerMessage::KeepAlive, &[]).await?;
                loop {
                    tokio::select! {
                        message = self.reader.next() => {
                            let Some(message) = message? else { return Ok(()) };
                            self.reader.skip_payload().await?;
                            note(self.peer, &message);
                        }
                        () = sleep(TRICKLE) => self.send(PeerMessage::KeepAlive, &[]).await?,
                    }
                }
            }
            Kind::AlwaysBusy => self.reject(chunk, RejectReason::Busy { retry_after_ms: 0 }).await,
            Kind::AlwaysBusyLong => self.reject(chunk, RejectReason::Busy { retry_after_ms: u32::MAX }).await,
            Kind::HasNothing => self.reject(chunk, RejectReason::NotHave).await,
            Kind::AllGone => self.reject(chunk, RejectReason::Gone).await,
            Kind::CancelsAll => self.reject(chunk, RejectReason::Cancelled).await,
            _ => self.right_chunk(chunk).await,
        }
    }

    /// Answers a request for the hashes of a chunk's blocks. Those of liars are wrong.
    async fn answer_leaves(&mut self, chunk: ChunkIndex) -> Result<()> {
        let lies = self.kind().fate() == Fate::Lied && self.kind() != Kind::WrongBlocks;
        let bytes = if lies {
            self.peer.record.send_modify(|record| record.wrong_leaves += 1);
            self.peer.share.own_chunk(chunk)
        } else {
            self.peer.share.chunk(chunk).to_vec()
        };
        let leaves = Leaves::of(&bytes);
        let count = u32::try_from(leaves.hashes().len())?;
        self.send(PeerMessage::Leaves { chunk, count }, &leaves.hashes().concat()).await?;
        if self.kind() == Kind::WrongAndAway {
            bail!("away");
        }
        Ok(())
    }

    /// Answers a request for blocks of a chunk. Those of liars are wrong.
    async fn answer_blocks(&mut self, chunk: ChunkIndex, blocks: BlockSet) -> Result<()> {
        let lies = self.kind().fate() == Fate::Lied;
        let bytes = self.bytes_of(chunk, lies);
        let len = u32::try_from(bytes.len())?;
        let ranges = blocks.ranges(len).map(|range| &bytes[range.start as usize..range.end as usize]);
        let payload = ranges.collect::<Vec<_>>().concat();
        self.send(PeerMessage::Blocks { chunk, blocks, len: blocks.len(len) }, &payload).await
    }

    /// The bytes of a chunk, or wrong ones, which are counted.
    fn bytes_of(&self, chunk: ChunkIndex, lies: bool) -> Vec<u8> {
        if lies {
            self.peer.record.send_modify(|record| record.wrong_chunks += 1);
            return self.peer.share.own_chunk(chunk);
        }
        self.peer.share.chunk(chunk).to_vec()
    }

    async fn reject(&mut self, chunk: ChunkIndex, reason: RejectReason) -> Result<()> {
        self.send(PeerMessage::Reject { chunk, reason }, &[]).await
    }

    async fn right_chunk(&mut self, chunk: ChunkIndex) -> Result<()> {
        let bytes = self.peer.share.chunk(chunk).to_vec();
        self.send(PeerMessage::Chunk { chunk, len: u32::try_from(bytes.len())? }, &bytes).await?;
        self.sent_chunks += 1;
        self.peer.record.send_modify(|record| record.right_chunks += 1);
        Ok(())
    }

    async fn wrong_chunk(&mut self, chunk: ChunkIndex, bytes: &[u8]) -> Result<()> {
        self.send(PeerMessage::Chunk { chunk, len: u32::try_from(bytes.len())? }, bytes).await?;
        self.peer.record.send_modify(|record| record.wrong_chunks += 1);
        Ok(())
    }

    /// The message of which a flood consists; empty if the peer does not flood.
    fn flood_frame(&self) -> BytesMut {
        let chunk = ChunkIndex(0);
        match self.kind() {
            Kind::FloodsHave => frame(PeerMessage::Have { chunk }),
            Kind::FloodsIdle => frame(PeerMessage::Idle),
            Kind::FloodsKeepAlive | Kind::FloodsEarly => frame(PeerMessage::KeepAlive),
            Kind::FloodsCancel => frame(PeerMessage::Cancel { chunk }),
            Kind::FloodsReject => frame(PeerMessage::Reject { chunk, reason: RejectReason::NotHave }),
            Kind::FloodsBusy => {
                frame(PeerMessage::Reject { chunk, reason: RejectReason::Busy { retry_after_ms: 0 } })
            }
            Kind::FloodsRequest | Kind::AsksAndReadsNothing => {
                frame(PeerMessage::Request { chunk, progress: Completion::NOTHING })
            }
            Kind::FloodsDescription => frame(PeerMessage::MetainfoRequest { offset: 0 }),
            _ => BytesMut::new(),
        }
    }

    /// Sends a message without end, until the connection is over.
    async fn flood(&mut self, message: &[u8]) -> Result<()> {
        let batch = message.repeat(FLOOD_BATCH);
        let Conversation { peer, reader, writer, .. } = self;
        let flood = async {
            loop {
                writer.write_all(&batch).await?;
            }
        };
        if peer.kind == Kind::AsksAndReadsNothing {
            return flood.await;
        }
        let read = async {
            while let Some(message) = reader.next().await? {
                reader.skip_payload().await?;
                note(peer, &message);
            }
            Ok(())
        };
        tokio::select! {
            flooded = flood => flooded,
            read = read => read,
        }
    }
}

/// Enters a message in the record.
fn note(peer: &Peer, message: &PeerMessage) {
    peer.record.send_if_modified(|record| {
        match message {
            PeerMessage::Request { .. } => record.requests += 1,
            PeerMessage::Goodbye(reason) => record.goodbyes.push(*reason),
            PeerMessage::Hello(hello) => record.leecher_port = hello.listen_port,
            _ => return false,
        }
        true
    });
}

fn hello(peer: &Peer) -> Hello {
    let own = peer.share.infohash();
    let infohash = if peer.kind == Kind::OtherShare { InfoHash([7; 32]) } else { own };
    Hello {
        infohash,
        peer_id: peer.id,
        role: role(peer.kind),
        listen_port: peer.address.port(),
        zone: Zone::NONE,
    }
}

/// The role that it names. Seeders send no bitfield and no `Have`, and make no requests.
fn role(kind: Kind) -> Role {
    match kind {
        Kind::ShortBitfield
        | Kind::LongBitfield
        | Kind::SpareBits
        | Kind::TwoBitfields
        | Kind::HaveOutOfRange
        | Kind::FloodsHave
        | Kind::FloodsRequest
        | Kind::FloodsDescription
        | Kind::AsksAndReadsNothing => Role::Leecher,
        _ => Role::Seeder,
    }
}

/// Reads until the other side closes the connection.
async fn drain(mut stream: TcpStream) -> Result<()> {
    copy(&mut stream, &mut sink()).await?;
    Ok(())
}

/// Makes the connection end with a reset when it is dropped.
fn reset(stream: &TcpStream) -> Result<()> {
    Ok(SockRef::from(stream).set_linger(Some(Duration::ZERO))?)
}

/// Sends a byte a second.
async fn trickle(writer: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> Result<()> {
    for byte in bytes {
        writer.write_all(&[*byte]).await?;
        sleep(TRICKLE).await;
    }
    Ok(())
}
