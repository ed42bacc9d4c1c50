use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;
use crate::{
    BLOCK_LEN, CHUNK_LEN, ChunkIndex, InfoHash, PeerId, Zone,
    chunk::MAX_CHUNKS,
    golden::{assert_documented, bytes},
    metainfo::MAX_METAINFO_LEN,
    outline::{MAX_SECTION_LEN, MAX_SECTIONS, SUM_LEN, SectionSet},
    peer::{
        BLOCKS_PER_CHUNK, BlockSet, MAX_HASHES, MAX_PART_LEN, MAX_SUMS,
        message::{GoodbyeReason, Hello, RejectReason, Role},
    },
    tracker::Completion,
};

/// A bitfield of the largest share.
const MAX_BITFIELD_LEN: u32 = MAX_CHUNKS / 8;

fn hello(role: Role, listen_port: u16) -> PeerMessage {
    PeerMessage::Hello(Hello {
        infohash: InfoHash([0x11; 32]),
        peer_id: PeerId([0x22; 16]),
        role,
        listen_port,
        zone: Zone::cut("rack7").unwrap(),
    })
}

fn reject(reason: RejectReason) -> PeerMessage {
    PeerMessage::Reject { chunk: ChunkIndex(7), reason }
}

fn have(chunk: u32) -> PeerMessage {
    PeerMessage::Have { chunk: ChunkIndex(chunk) }
}

#[rustfmt::skip]
fn golden() -> Vec<(&'static str, PeerMessage, &'static str)> {
    let chunk = ChunkIndex(7);
    let sections = SectionSet { first: 64, bits: 5 };
    let goodbye = PeerMessage::Goodbye;
    vec![
        ("Frame Hello, Seeder", hello(Role::Seeder, 7000), "00000055 00 11*32 22*16 00 fb581b 7261636b37 00*27"),
        ("Frame Hello, Leecher that does not listen", hello(Role::Leecher, 0), "00000053 00 11*32 22*16 01 00 7261636b37 00*27"),
        ("Frame KeepAlive", PeerMessage::KeepAlive, "00000001 01"),
        ("Frame MetainfoRequest", PeerMessage::MetainfoRequest { offset: 262_144 }, "00000006 02 fc00000400"),
        ("Frame Metainfo", PeerMessage::Metainfo { total_len: 140, offset: 100, len: 40 }, "00000004 03 8c 64 28"),
        ("Frame HashesRequest", PeerMessage::HashesRequest { first: ChunkIndex(0), count: 8192 },
            "00000005 04 00 fb0020"),
        ("Frame Hashes", PeerMessage::Hashes { first: ChunkIndex(3), count: 2 }, "00000003 05 03 02"),
        ("Frame Bitfield", PeerMessage::Bitfield { len: 2 }, "00000002 06 02"),
        ("Frame Have, chunk 250", have(250), "00000002 07 fa"),
        ("Frame Have, chunk 251", have(251), "00000004 07 fbfb00"),
        ("Frame Have, chunk 65535", have(65_535), "00000004 07 fbffff"),
        ("Frame Have, chunk 65536", have(65_536), "00000006 07 fc00000100"),
        ("Frame Have, chunk 4194303", have(MAX_CHUNKS - 1), "00000006 07 fcffff3f00"),
        ("Frame Request", PeerMessage::Request { chunk, progress: Completion::of(1, 2) }, "00000003 08 07 32"),
        ("Frame Cancel", PeerMessage::Cancel { chunk }, "00000002 09 07"),
        ("Frame Chunk", PeerMessage::Chunk { chunk, len: CHUNK_LEN }, "00000007 0a 07 fc00000800"),
        ("Frame Reject, NotHave", reject(RejectReason::NotHave), "00000003 0b 07 00"),
        ("Frame Reject, Busy", reject(RejectReason::Busy { retry_after_ms: 1_000 }), "00000006 0b 07 01 fbe803"),
        ("Frame Reject, Gone", reject(RejectReason::Gone), "00000003 0b 07 02"),
        ("Frame Reject, Cancelled", reject(RejectReason::Cancelled), "00000003 0b 07 03"),
        ("Frame Goodbye, UnknownShare", goodbye(GoodbyeReason::UnknownShare), "00000002 0c 00"),
        ("Frame Goodbye, TooManyPeers", goodbye(GoodbyeReason::TooManyPeers { retry_after_ms: 5_000 }),
            "00000005 0c 01 fb8813"),
        ("Frame Goodbye, SelfConnection", goodbye(GoodbyeReason::SelfConnection), "00000002 0c 02"),
        ("Frame Goodbye, Duplicate", goodbye(GoodbyeReason::Duplicate), "00000002 0c 03"),
        ("Frame Goodbye, ShuttingDown", goodbye(GoodbyeReason::ShuttingDown), "00000002 0c 04"),
        ("Frame Goodbye, Protocol", goodbye(GoodbyeReason::Protocol), "00000002 0c 05"),
        ("Frame Goodbye, Banned", goodbye(GoodbyeReason::Banned), "00000002 0c 06"),
        ("Frame Goodbye, Done", goodbye(GoodbyeReason::Done), "00000002 0c 07"),
        ("Frame Idle", PeerMessage::Idle, "00000001 0d"),
        ("Frame DescriptionRequest", PeerMessage::DescriptionRequest { chunk: true }, "00000002 0e 01"),
        ("Frame LeavesRequest", PeerMessage::LeavesRequest { chunk, progress: Completion::of(1, 2) }, "00000003 0f 07 32"),
        ("Frame Leaves", PeerMessage::Leaves { chunk, count: 32 }, "00000003 10 07 20"),
        ("Frame BlocksRequest",
            PeerMessage::BlocksRequest { chunk, blocks: BlockSet(5), progress: Completion::of(1, 2) },
            "00000004 11 07 05 32"),
        ("Frame Blocks", PeerMessage::Blocks { chunk, blocks: BlockSet(5), len: 32_768 }, "00000006 12 07 05 fb0080"),
        ("Frame OutlineRequest", PeerMessage::OutlineRequest { first: 0 }, "00000002 13 00"),
        ("Frame Outline", PeerMessage::Outline { sections: 2_700, first: 0, count: 2_700 },
            "00000008 14 fb8c0a 00 fb8c0a"),
        ("Frame SectionsRequest", PeerMessage::SectionsRequest(sections), "00000003 15 40 05"),
        ("Frame Sections", PeerMessage::Sections { set: sections, len: 600 }, "00000006 16 40 05 fb5802"),
        ("Frame Chosen", PeerMessage::Chosen { chunk }, "00000002 17 07"),
    ]
}

fn frame(message: &PeerMessage) -> Vec<u8> {
    let mut dst = BytesMut::new();
    encode_message(message, &mut dst).unwrap();
    dst.to_vec()
}

/// A frame whose length is right and whose content is anything.
fn frame_of(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

fn decode_frame(frame: &[u8]) -> Result<Option<PeerMessage>, FrameError> {
    PeerCodec.decode(&mut BytesMut::from(frame))
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (what, message, hex) in golden() {
        assert_eq!(frame(&message), bytes(hex), "{what}");
        assert_eq!(decode_frame(&bytes(hex)).unwrap(), Some(message), "{what}");
    }
    assert_eq!(PREAMBLE, *bytes("53484f414c 0a"));
}

#[test]
fn the_protocol_page_has_the_golden_bytes() {
    let frames = golden().into_iter().map(|(what, _, hex)| (what, bytes(hex)));
    assert_documented(&["Frame", "Preamble"], frames.chain([("Preamble", PREAMBLE.to_vec())]));
}

/// The first unused number of every enum. One more variant needs golden bytes, and a number here.
#[test]
fn unknown_variants_are_refused() {
    for content in ["18", "0e 02", "00 11*32 22*16 02", "0b 07 04", "0c 08"] {
        // Bytes for the fields of a further variant, so that the refusal is not because of a missing field.
        let result = decode_frame(&frame_of(&[bytes(content), vec![0; 64]].concat()));
        assert!(matches!(result, Err(FrameError::Wire(WireError::Malformed(_)))), "{content}: {result:?}");
    }
}

#[test]
fn a_frame_longer_than_any_message_is_refused_before_it_arrives() {
    for len in [MAX_FRAME_LEN + 1, 1 << 20, u32::MAX as usize] {
        let prefix = u32::try_from(len).unwrap().to_be_bytes();
        let result = decode_frame(&prefix);
        assert!(matches!(result, Err(FrameError::TooLarge(refused)) if refused == len), "{result:?}");
    }
    let longest = u32::try_from(MAX_FRAME_LEN).unwrap().to_be_bytes();
    assert!(matches!(decode_frame(&longest), Ok(None)));
}

#[test]
fn a_frame_holds_one_message_and_nothing_else() {
    for (what, message, hex) in golden() {
        let content = &bytes(hex)[PREFIX_LEN..];
        let result = decode_frame(&frame_of(&[content, &[0]].concat()));
        assert!(matches!(result, Err(FrameError::Wire(WireError::TrailingBytes(1)))), "{what}: {result:?}");
        for len in 0..content.len() {
            let result = decode_frame(&frame_of(&content[..len]));
            assert!(matches!(result, Err(FrameError::Wire(WireError::Malformed(_)))), "{what}: {result:?}");
        }
        let mut two = BytesMut::from(&[bytes(hex), frame(&PeerMessage::KeepAlive)].concat()[..]);
        assert_eq!(PeerCodec.decode(&mut two).unwrap(), Some(message));
        assert_eq!(PeerCodec.decode(&mut two).unwrap(), Some(PeerMessage::KeepAlive));
        assert!(two.is_empty());
    }
}

#[test]
fn illegal_lengths_are_refused_both_ways() {
    let (chunk, first) = (ChunkIndex(0), ChunkIndex(0));
    for message in [
        PeerMessage::Metainfo { total_len: MAX_METAINFO_LEN + 1, offset: 0, len: 1 },
        PeerMessage::Metainfo { total_len: MAX_METAINFO_LEN, offset: 0, len: MAX_PART_LEN + 1 },
        PeerMessage::Metainfo { total_len: 10, offset: 5, len: 6 },
        PeerMessage::Metainfo { total_len: 10, offset: 11, len: 0 },
        PeerMessage::Metainfo { total_len: 10, offset: u32::MAX, len: 1 },
        PeerMessage::Metainfo { total_len: 10, offset: 10, len: 0 },
        PeerMessage::HashesRequest { first, count: 0 },
        PeerMessage::HashesRequest { first, count: MAX_HASHES + 1 },
        PeerMessage::HashesRequest { first: ChunkIndex(u32::MAX), count: 1 },
        PeerMessage::HashesRequest { first: ChunkIndex(MAX_CHUNKS), count: 1 },
        PeerMessage::Hashes { first, count: 0 },
        PeerMessage::Hashes { first, count: MAX_HASHES + 1 },
        PeerMessage::Hashes { first, count: u32::MAX },
        PeerMessage::Bitfield { len: MAX_BITFIELD_LEN + 1 },
        PeerMessage::Chunk { chunk, len: 0 },
        PeerMessage::Chunk { chunk, len: CHUNK_LEN + 1 },
        PeerMessage::Chunk { chunk, len: u32::MAX },
        PeerMessage::Leaves { chunk, count: 0 },
        PeerMessage::Leaves { chunk, count: BLOCKS_PER_CHUNK + 1 },
        PeerMessage::Leaves { chunk, count: u32::MAX },
        PeerMessage::BlocksRequest { chunk, blocks: BlockSet(0), progress: Completion::NOTHING },
        PeerMessage::Blocks { chunk, blocks: BlockSet(0), len: 0 },
        PeerMessage::Blocks { chunk, blocks: BlockSet(1), len: 0 },
        PeerMessage::Blocks { chunk, blocks: BlockSet(1), len: BLOCK_LEN + 1 },
        PeerMessage::Blocks { chunk, blocks: BlockSet(6), len: BLOCK_LEN },
        PeerMessage::Blocks { chunk, blocks: BlockSet(u32::MAX), len: u32::MAX },
        PeerMessage::OutlineRequest { first: MAX_SECTIONS },
        PeerMessage::Outline { sections: MAX_SECTIONS + 1, first: 0, count: 1 },
        PeerMessage::Outline { sections: 9, first: 0, count: 0 },
        PeerMessage::Outline { sections: 9, first: 9, count: 1 },
        PeerMessage::Outline { sections: 9, first: u32::MAX, count: 1 },
        PeerMessage::Outline { sections: MAX_SECTIONS, first: 0, count: MAX_SUMS + 1 },
        PeerMessage::SectionsRequest(SectionSet { first: 0, bits: 0 }),
        PeerMessage::SectionsRequest(SectionSet { first: MAX_SECTIONS - 1, bits: 2 }),
        PeerMessage::SectionsRequest(SectionSet { first: u32::MAX, bits: 1 << 63 }),
        PeerMessage::Sections { set: SectionSet { first: 0, bits: 0 }, len: 0 },
        PeerMessage::Sections { set: SectionSet { first: 0, bits: 3 }, len: 1 },
        PeerMessage::Sections { set: SectionSet { first: 0, bits: 3 }, len: 2 * MAX_SECTION_LEN + 1 },
        PeerMessage::Sections { set: SectionSet { first: 0, bits: u64::MAX }, len: u32::MAX },
    ] {
        let mut dst = BytesMut::from(&b"before"[..]);
        let result = encode_message(&message, &mut dst);
        assert!(matches!(result, Err(FrameError::Length(refused)) if refused == message), "{result:?}");
        assert_eq!(dst, b"before"[..]);

        let mut content = BytesMut::new();
        wire::encode(&message, MAX_FRAME_LEN, &mut content).unwrap();
        let result = decode_frame(&frame_of(&content));
        assert!(matches!(result, Err(FrameError::Length(refused)) if refused == message), "{result:?}");
    }
}

#[test]
fn the_largest_legal_lengths_pass() {
    let (chunk, first) = (ChunkIndex(u32::MAX), ChunkIndex(MAX_CHUNKS - MAX_HASHES));
    for message in [
        PeerMessage::Metainfo {
            total_len: MAX_METAINFO_LEN,
            offset: MAX_METAINFO_LEN - MAX_PART_LEN,
            len: MAX_PART_LEN,
        },
        PeerMessage::HashesRequest { first, count: MAX_HASHES },
        PeerMessage::Hashes { first, count: MAX_HASHES },
        PeerMessage::Bitfield { len: MAX_BITFIELD_LEN },
        PeerMessage::Chunk { chunk, len: CHUNK_LEN },
        PeerMessage::Leaves { chunk, count: BLOCKS_PER_CHUNK },
        PeerMessage::BlocksRequest { chunk, blocks: BlockSet(u32::MAX), progress: Completion::NOTHING },
        PeerMessage::Blocks { chunk, blocks: BlockSet(u32::MAX), len: CHUNK_LEN },
        PeerMessage::OutlineRequest { first: MAX_SECTIONS - 1 },
        PeerMessage::Outline { sections: MAX_SECTIONS, first: MAX_SECTIONS - MAX_SUMS, count: MAX_SUMS },
        PeerMessage::SectionsRequest(SectionSet { first: MAX_SECTIONS - 64, bits: u64::MAX }),
        PeerMessage::Sections {
            set: SectionSet { first: MAX_SECTIONS - 64, bits: u64::MAX },
            len: 64 * MAX_SECTION_LEN,
        },
        hello(Role::Leecher, u16::MAX),
    ] {
        let frame = frame(&message);
        assert_eq!(decode_frame(&frame).unwrap(), Some(message));
        // The largest is a Hello.
        assert!(frame.len() <= PREFIX_LEN + 85, "{message:?}");
        assert!(message.payload_len() <= CHUNK_LEN as usize);
    }
}

/// A connection that delivers one slice at a time, with a wait before each, and then ends.
struct Slices(VecDeque<Delivery>);

enum Delivery {
    Wait,
    Bytes(Vec<u8>),
}

impl Slices {
    fn new<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> Slices {
        let slices = slices.into_iter().filter(|slice| !slice.is_empty());
        Slices(slices.flat_map(|slice| [Delivery::Wait, Delivery::Bytes(slice.to_vec())]).collect())
    }
}

impl AsyncRead for Slices {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            None => Poll::Ready(Ok(())),
            Some(Delivery::Wait) => Poll::Pending,
            Some(Delivery::Bytes(mut slice)) => {
                let rest = slice.split_off(slice.len().min(buf.remaining()));
                buf.put_slice(&slice);
                if !rest.is_empty() {
                    self.0.push_front(Delivery::Bytes(rest));
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// Polls the future that `$make` makes until it is ready. It drops the future after each wait and makes a new one, so these
/// tests also prove cancel safety.
macro_rules! until_ready {
    ($make:expr) => {
        loop {
            // A match, because the borrows of `$make` have to live as long as the future.
            match $make {
                future => {
                    if let Poll::Ready(output) = pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                        break output;
                    }
                }
            }
        }
    };
}

/// Messages with their payloads.
type Conversation = Vec<(PeerMessage, Vec<u8>)>;

/// Reads to the end or to the first error.
fn read_all(source: Slices) -> (Conversation, Result<(), FrameError>) {
    let mut reader = PeerReader::new(source);
    let mut read = Vec::new();
    loop {
        let message = match until_ready!(reader.next()) {
            Ok(Some(message)) => message,
            Ok(None) => return (read, Ok(())),
            Err(error) => return (read, Err(error)),
        };
        let mut payload = vec![0; message.payload_len()];
        let mut filled = 0;
        while filled < payload.len() {
            match until_ready!(reader.read_payload_some(&mut payload[filled..])) {
                Ok(count) => filled += count,
                Err(error) => return (read, Err(error)),
            }
        }
        assert_eq!(until_ready!(reader.read_payload_some(&mut [0; 9])).unwrap(), 0);
        read.push((message, payload));
    }
}

/// Each message followed by its payload, and the position of the end of each.
fn stream(conversation: &Conversation) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (message, payload) in conversation {
        bytes.extend(frame(message));
        bytes.extend(payload);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![0..=300_u32, 65_530..=65_540_u32, any::<u32>()]
}

/// Legal messages whose payload has at most `max` bytes, or the largest that the kind of message may have.
fn messages(max: u32) -> impl Strategy<Value = PeerMessage> {
    let chunks = || numbers().prop_map(ChunkIndex);
    let starts = || (0..=MAX_CHUNKS - MAX_HASHES).prop_map(ChunkIndex);
    let roles = prop::sample::select(vec![Role::Seeder, Role::Leecher]);
    let hellos = (any::<[u8; 32]>(), any::<[u8; 16]>(), roles, any::<u16>(), "[a-z]{0,32}").prop_map(
        |(infohash, peer_id, role, listen_port, zone)| {
            let (infohash, peer_id) = (InfoHash(infohash), PeerId(peer_id));
            PeerMessage::Hello(Hello {
                infohash,
                peer_id,
                role,
                listen_port,
                zone: Zone::cut(&zone).unwrap(),
            })
        },
    );
    let metainfos = (1..=max.clamp(1, MAX_PART_LEN), 0..=MAX_METAINFO_LEN - MAX_PART_LEN, 0..1000_u32)
        .prop_map(|(len, offset, more)| PeerMessage::Metainfo {
            total_len: (offset + len + more).min(MAX_METAINFO_LEN),
            offset,
            len,
        });
    let rejects = prop_oneof![
        Just(RejectReason::NotHave),
        numbers().prop_map(|retry_after_ms| RejectReason::Busy { retry_after_ms }),
        Just(RejectReason::Gone),
        Just(RejectReason::Cancelled),
    ];
    let goodbyes = prop_oneof![
        numbers().prop_map(|retry_after_ms| GoodbyeReason::TooManyPeers { retry_after_ms }),
        prop::sample::select(vec![
            GoodbyeReason::UnknownShare,
            GoodbyeReason::SelfConnection,
            GoodbyeReason::Duplicate,
            GoodbyeReason::ShuttingDown,
            GoodbyeReason::Protocol,
            GoodbyeReason::Banned,
            GoodbyeReason::Done,
        ]),
    ];
    prop_oneof![
        hellos,
        Just(PeerMessage::KeepAlive),
        Just(PeerMessage::Idle),
        any::<bool>().prop_map(|chunk| PeerMessage::DescriptionRequest { chunk }),
        chunks().prop_map(|chunk| PeerMessage::Chosen { chunk }),
        numbers().prop_map(|offset| PeerMessage::MetainfoRequest { offset }),
        metainfos,
        (starts(), 1..=MAX_HASHES).prop_map(|(first, count)| PeerMessage::HashesRequest { first, count }),
        (starts(), 1..=(max / 32).clamp(1, MAX_HASHES))
            .prop_map(|(first, count)| PeerMessage::Hashes { first, count }),
        (0..=max.min(MAX_BITFIELD_LEN)).prop_map(|len| PeerMessage::Bitfield { len }),
        chunks().prop_map(|chunk| PeerMessage::Have { chunk }),
        (chunks(), 0..=100u32).prop_map(|(chunk, percent)| PeerMessage::Request {
            chunk,
            progress: Completion::of(percent, 100)
        }),
        chunks().prop_map(|chunk| PeerMessage::Cancel { chunk }),
        (chunks(), 1..=max.min(CHUNK_LEN)).prop_map(|(chunk, len)| PeerMessage::Chunk { chunk, len }),
        (chunks(), 0..=100_u32).prop_map(|(chunk, percent)| PeerMessage::LeavesRequest {
            chunk,
            progress: Completion::of(percent, 100),
        }),
        (chunks(), 1..=(max / 32).clamp(1, BLOCKS_PER_CHUNK))
            .prop_map(|(chunk, count)| PeerMessage::Leaves { chunk, count }),
        (chunks(), 1..=u32::MAX, 0..=100_u32).prop_map(|(chunk, bits, percent)| PeerMessage::BlocksRequest {
            chunk,
            blocks: BlockSet(bits),
            progress: Completion::of(percent, 100),
        }),
        (chunks(), 1..=max.min(BLOCK_LEN), 0..BLOCKS_PER_CHUNK).prop_map(|(chunk, len, block)| {
            PeerMessage::Blocks { chunk, blocks: BlockSet(1 << block), len }
        }),
        (0..MAX_SECTIONS).prop_map(|first| PeerMessage::OutlineRequest { first }),
        (1..=(max / SUM_LEN).clamp(1, MAX_SUMS), 0..MAX_SECTIONS - MAX_SUMS)
            .prop_map(|(count, first)| { PeerMessage::Outline { sections: first + count, first, count } }),
        (0..MAX_SECTIONS - 64, 1..=u64::MAX)
            .prop_map(|(first, bits)| PeerMessage::SectionsRequest(SectionSet { first, bits })),
        (0..MAX_SECTIONS - 64, 0..64_u32, 1..=max.min(MAX_SECTION_LEN)).prop_map(|(first, bit, len)| {
            PeerMessage::Sections { set: SectionSet { first, bits: 1 << bit }, len }
        }),
        (chunks(), rejects).prop_map(|(chunk, reason)| PeerMessage::Reject { chunk, reason }),
        goodbyes.prop_map(PeerMessage::Goodbye),
    ]
}

/// A payload that differs from place to place.
fn payload_of(message: &PeerMessage, seed: u8) -> Vec<u8> {
    (0..=250).cycle().take(message.payload_len()).map(|byte| seed.wrapping_add(byte)).collect()
}

fn conversations(max_payload: u32) -> impl Strategy<Value = Conversation> {
    let said = (messages(max_payload), any::<u8>()).prop_map(|(message, seed)| {
        let payload = payload_of(&message, seed);
        (message, payload)
    });
    prop::collection::vec(said, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_message_decodes_to_itself_and_never_from_a_part(message in messages(u32::MAX)) {
        let frame = frame(&message);
        prop_assert_eq!(decode_frame(&frame).unwrap(), Some(message));
        for len in 0..frame.len() {
            prop_assert!(matches!(decode_frame(&frame[..len]), Ok(None)), "{} bytes", len);
        }
    }

    /// A wrong bit may give another message, but then one that is legal and encodes again.
    #[test]
    fn a_wrong_bit_never_panics(message in messages(u32::MAX)) {
        let good = frame(&message);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some(other)) = decode_frame(&bytes) {
                prop_assert_eq!(decode_frame(&frame(&other)).unwrap(), Some(other));
            }
        }
    }

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_all(Slices::new([&garbage[..]]));
        let _ = read_all(Slices::new([&frame_of(&garbage[..garbage.len().min(MAX_FRAME_LEN)])[..]]));
    }

    #[test]
    fn any_number_of_slices_gives_the_same_conversation(
        conversation in conversations(10_000),
        lens in prop::collection::vec(prop_oneof![1..8_usize, 1..5_000_usize], 0..40),
    ) {
        let (stream, _) = stream(&conversation);
        let (mut slices, mut rest) = (Vec::new(), &stream[..]);
        for len in lens {
            let (slice, after) = rest.split_at(len.min(rest.len()));
            slices.push(slice);
            rest = after;
        }
        slices.push(rest);
        let (read, end) = read_all(Slices::new(slices));
        prop_assert_eq!(read, conversation);
        prop_assert!(end.is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_split_anywhere_gives_the_same_conversation(conversation in conversations(200)) {
        let (stream, _) = stream(&conversation);
        for at in 0..=stream.len() {
            let (read, end) = read_all(Slices::new([&stream[..at], &stream[at..]]));
            prop_assert_eq!(&read, &conversation, "split at {}", at);
            prop_assert!(end.is_ok(), "split at {}: {:?}", at, end);
        }
        let (read, end) = read_all(Slices::new(stream.chunks(1)));
        prop_assert_eq!(&read, &conversation);
        prop_assert!(end.is_ok());
    }

    #[test]
    fn an_end_between_messages_is_no_error_and_any_other_is(conversation in conversations(200)) {
        let (stream, ends) = stream(&conversation);
        for at in 0..=stream.len() {
            let (read, end) = read_all(Slices::new([&stream[..at]]));
            let whole = ends.partition_point(|&end| end <= at);
            prop_assert_eq!(&read[..], &conversation[..whole]);
            if at == 0 || ends.contains(&at) {
                prop_assert!(end.is_ok(), "end at {}: {:?}", at, end);
            } else {
                prop_assert!(matches!(end, Err(FrameError::Io(_))), "end at {}: {:?}", at, end);
            }
        }
    }
}

#[test]
fn the_largest_payloads_arrive_whole_wherever_the_read_ahead_ends() {
    let metainfo = PeerMessage::Metainfo { total_len: MAX_PART_LEN, offset: 0, len: MAX_PART_LEN };
    let hashes = PeerMessage::Hashes { first: ChunkIndex(0), count: MAX_HASHES };
    let bitfield = PeerMessage::Bitfield { len: MAX_BITFIELD_LEN };
    let chunk = PeerMessage::Chunk { chunk: ChunkIndex(0), len: CHUNK_LEN };
    let messages = [have(0), metainfo, hashes, bitfield, chunk, have(1)];
    let conversation: Conversation =
        messages.iter().map(|message| (*message, payload_of(message, 3))).collect();
    let (stream, _) = stream(&conversation);
    for len in [1_448, READ_AHEAD_LEN - 1, READ_AHEAD_LEN, READ_AHEAD_LEN + 1, 65_536, stream.len()] {
        let (read, end) = read_all(Slices::new(stream.chunks(len)));
        assert!(read == conversation, "slices of {len}");
        assert!(end.is_ok(), "slices of {len}: {end:?}");
    }
}

/// Counts how often it is read.
struct Counted<'a> {
    bytes: &'a [u8],
    reads: usize,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        Pin::new(&mut self.bytes).poll_read(context, buf)
    }
}

#[test]
fn small_payloads_are_read_many_at_a_time_and_large_ones_straight_into_place() {
    let chunk = |len| PeerMessage::Chunk { chunk: ChunkIndex(0), len };
    let lens = [[4_096; 100], [CHUNK_LEN; 100], [4_096; 100]].concat();
    let messages = lens.into_iter().map(chunk).map(|message| (message, payload_of(&message, 3))).collect();
    let (stream, _) = stream(&messages);
    let mut reader = PeerReader::new(Counted { bytes: &stream, reads: 0 });
    let mut reads = Vec::new();
    for (number, (message, payload)) in messages.iter().enumerate() {
        // One read asks for all the room.
        reader.make_room();
        let most = if (101..=200).contains(&number) { READ_AHEAD_LEN } else { READ_FAR_AHEAD_LEN };
        let room = reader.framed.read_buffer().capacity();
        assert!(room <= most, "room for {room} bytes ahead of message {number}");
        reads.push(reader.framed.get_ref().reads);
        assert_eq!(until_ready!(reader.next()).unwrap(), Some(*message));
        let mut buf = vec![0; payload.len()];
        until_ready!(reader.read_payload(&mut buf)).unwrap();
        assert!(buf == *payload, "message {number}");
    }
    // For each of the two: one read ahead, and one for the rest of the payload in which that ended.
    assert!(reads[100] <= 2 + 2 * (400 / 64 + 1), "{} reads for 400 KiB in small pieces", reads[100]);
    assert!(reads[200] - reads[101] <= 2 * 99, "{} reads for 99 large ones", reads[200] - reads[101]);
}

/// `read_payload` is `read_payload_some` until the end.
#[test]
fn a_payload_can_be_read_at_once() {
    let chunk = PeerMessage::Chunk { chunk: ChunkIndex(9), len: 5 };
    let stream = [&frame(&chunk)[..], b"12345", &frame(&PeerMessage::KeepAlive)].concat();
    let mut reader = PeerReader::new(&stream[..]);
    assert_eq!(until_ready!(reader.next()).unwrap(), Some(chunk));
    let mut payload = [0; 5];
    until_ready!(reader.read_payload(&mut payload)).unwrap();
    assert_eq!(&payload, b"12345");
    assert_eq!(until_ready!(reader.next()).unwrap(), Some(PeerMessage::KeepAlive));
    assert_eq!(until_ready!(reader.next()).unwrap(), None);
}

#[test]
#[should_panic(expected = "payload not read")]
fn a_payload_cannot_be_taken_for_a_message() {
    let chunk = PeerMessage::Chunk { chunk: ChunkIndex(9), len: 5 };
    let stream = [&frame(&chunk)[..], b"12345"].concat();
    let mut reader = PeerReader::new(&stream[..]);
    assert_eq!(until_ready!(reader.next()).unwrap(), Some(chunk));
    let _ = until_ready!(reader.next());
}

#[test]
fn the_preamble_comes_first_and_is_of_this_version() {
    let good = [&PREAMBLE[..], &frame(&PeerMessage::KeepAlive)].concat();
    let mut reader = PeerReader::new(&good[..]);
    until_ready!(reader.read_preamble()).unwrap();
    assert_eq!(until_ready!(reader.next()).unwrap(), Some(PeerMessage::KeepAlive));

    for bit in 0..PREAMBLE_LEN * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let result = until_ready!(PeerReader::new(&bad[..]).read_preamble());
        assert!(matches!(result, Err(FrameError::Preamble)), "bit {bit}: {result:?}");
    }
    for len in 0..PREAMBLE_LEN {
        let result = until_ready!(PeerReader::new(&good[..len]).read_preamble());
        assert!(matches!(result, Err(FrameError::Io(_))), "{len} bytes: {result:?}");
    }
}
