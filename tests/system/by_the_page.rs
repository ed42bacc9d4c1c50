//! A client that is written from docs/protocol.md alone and shares no line with the crates that implement the protocol. The
//! author of another one has only that page.

use std::{fs::File, net::SocketAddr, os::unix::fs::FileExt};

use sha2::{Digest, Sha256};
use shoal::Stay;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    source::{CHUNK, KIB, MIB, Source, content},
    swarm::test,
};

const PAGE: &str = include_str!("../../docs/protocol.md");
const BLOCK_LEN: usize = 16_384;

/// Numbers of messages, section 5.1.
const HELLO: u8 = 0;
const KEEP_ALIVE: u8 = 1;
const METAINFO_REQUEST: u8 = 2;
const METAINFO: u8 = 3;
const HASHES_REQUEST: u8 = 4;
const HASHES: u8 = 5;
const BITFIELD: u8 = 6;
const HAVE: u8 = 7;
const REQUEST: u8 = 8;
const CANCEL: u8 = 9;
const CHUNK_MESSAGE: u8 = 10;
const REJECT: u8 = 11;
const GOODBYE: u8 = 12;
const IDLE: u8 = 13;

/// Reasons of `Goodbye`.
const PROTOCOL: u8 = 5;
const DONE: u8 = 7;

type Hash = [u8; 32];

/// Section 3.
fn preamble() -> Vec<u8> {
    let version = PAGE.lines().find_map(|line| line.split_once("# version")).expect("the version").0;
    [b"SHOAL", &[u8::from_str_radix(version.trim(), 16).unwrap()][..]].concat()
}

/// An integer of section 3.
fn int(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    match value {
        0..=250 => vec![bytes[0]],
        251..=0xffff => [&[0xfb], &bytes[..2]].concat(),
        0x1_0000..=0xffff_ffff => [&[0xfc], &bytes[..4]].concat(),
        _ => [&[0xfd], &bytes[..]].concat(),
    }
}

fn take_int(bytes: &mut &[u8]) -> u64 {
    let len = match bytes[0] {
        0xfb => 2,
        0xfc => 4,
        0xfd => 8,
        value => {
            *bytes = &bytes[1..];
            return value.into();
        }
    };
    let mut value = [0; 8];
    value[..len].copy_from_slice(&bytes[1..=len]);
    *bytes = &bytes[1 + len..];
    u64::from_le_bytes(value)
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut sha = Sha256::new();
    parts.iter().for_each(|part| sha.update(part));
    sha.finalize().into()
}

/// Section 2.4.
fn root(mut row: Vec<Hash>) -> Hash {
    while row.len() > 1 {
        row = row.chunks(2).map(|pair| hash(&[&pair[0], &pair[1]])).collect();
    }
    row[0]
}

/// Bytes in a chunk of a share of this length, section 2.3.
fn chunk_len(share_len: usize) -> usize {
    if share_len < 268_435_456 { 131_072 } else { 524_288 }
}

/// The hash of a chunk of a file that has several, of this length.
fn chunk_hash(bytes: &[u8], chunk_len: usize) -> Hash {
    let mut leaves: Vec<Hash> = bytes.chunks(BLOCK_LEN).map(|block| hash(&[block])).collect();
    leaves.resize(chunk_len / BLOCK_LEN, [0; 32]);
    root(leaves)
}

/// What follows `key` in bencoded metainfo: enough for a share of one file.
fn after<'a>(metainfo: &'a [u8], key: &str) -> &'a [u8] {
    let at = metainfo.windows(key.len()).position(|window| window == key.as_bytes()).expect(key);
    &metainfo[at + key.len()..]
}

struct Message {
    number: u8,
    /// What follows the number in the frame.
    fields: Vec<u8>,
    payload: Vec<u8>,
}

struct Client {
    stream: TcpStream,
}

impl Client {
    /// Opens a connection as a leecher that does not listen, and gives the role of the other side.
    async fn connect(address: SocketAddr, infohash: Hash) -> (Client, u8) {
        let mut client = Client { stream: TcpStream::connect(address).await.unwrap() };
        client.stream.write_all(&preamble()).await.unwrap();
        client.send(HELLO, &[&infohash[..], &[0x77; 16], &[1], &int(0), &[0; 32]].concat()).await;
        let mut answered = [0; 6];
        client.stream.read_exact(&mut answered).await.unwrap();
        assert_eq!(answered[..], preamble());
        let hello = client.receive().await.unwrap();
        assert_eq!((hello.number, &hello.fields[..32]), (HELLO, &infohash[..]));
        (client, hello.fields[48])
    }

    async fn send(&mut self, number: u8, fields: &[u8]) {
        self.say_with(number, fields, &[]).await;
    }

    async fn say_with(&mut self, number: u8, fields: &[u8], payload: &[u8]) {
        let len = u32::try_from(1 + fields.len()).unwrap();
        let bytes = [&len.to_be_bytes()[..], &[number], fields, payload].concat();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message, or `None` at the end of the connection.
    async fn receive(&mut self) -> Option<Message> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).await.ok()?;
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut frame).await.unwrap();
        let (number, fields) = (frame[0], frame[1..].to_vec());
        let mut left = &fields[..];
        let payload_len = match number {
            METAINFO => [take_int(&mut left), take_int(&mut left), take_int(&mut left)][2],
            HASHES => [take_int(&mut left), take_int(&mut left)][1] * 32,
            BITFIELD => take_int(&mut left),
            CHUNK_MESSAGE => [take_int(&mut left), take_int(&mut left)][1],
            _ => 0,
        };
        let mut payload = vec![0; usize::try_from(payload_len).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        Some(Message { number, fields, payload })
    }

    /// The next message that is not `KeepAlive` or `Idle`.
    async fn answer(&mut self) -> Option<Message> {
        loop {
            match self.receive().await {
                Some(Message { number: KEEP_ALIVE | IDLE, .. }) => {}
                message => return message,
            }
        }
    }

    /// Metainfo, proved.
    async fn metainfo(&mut self, infohash: Hash) -> Vec<u8> {
        let mut metainfo = Vec::new();
        loop {
            self.send(METAINFO_REQUEST, &int(metainfo.len() as u64)).await;
            let part = self.answer().await.unwrap();
            assert_eq!(part.number, METAINFO);
            metainfo.extend(part.payload);
            if metainfo.len() as u64 == take_int(&mut &part.fields[..]) {
                assert_eq!(hash(&[&metainfo]), infohash);
                return metainfo;
            }
        }
    }

    /// The chunks that `wanted` chooses of a share that is one file of several chunks, with their offsets.
    async fn fetch(&mut self, infohash: Hash, wanted: impl Fn(u64) -> Vec<u64>) -> Vec<(usize, Vec<u8>)> {
        let metainfo = self.metainfo(infohash).await;
        let len = after(&metainfo, "6:lengthi").split(|&byte| byte == b'e').next().unwrap();
        let len: usize = std::str::from_utf8(len).unwrap().parse().unwrap();
        let chunk_len = chunk_len(len);
        let chunk_count = len.div_ceil(chunk_len);

        self.send(HASHES_REQUEST, &[int(0), int(chunk_count as u64)].concat()).await;
        let hashes = self.answer().await.unwrap();
        assert_eq!(hashes.number, HASHES);
        let hashes: Vec<Hash> =
            hashes.payload.chunks(32).map(|chunk_hash| chunk_hash.try_into().unwrap()).collect();
        let mut row = hashes.clone();
        row.resize(chunk_count.next_power_of_two(), root(vec![[0; 32]; chunk_len / BLOCK_LEN]));
        assert_eq!(root(row), after(&metainfo, "11:pieces root32:")[..32]);

        // A leecher may report what it has to any peer.
        let field = vec![0; chunk_count.div_ceil(8)];
        self.say_with(BITFIELD, &int(field.len() as u64), &field).await;
        self.send(IDLE, &[]).await;
        let wanted = wanted(chunk_count as u64);
        for &chunk in &wanted {
            // The number, and how much the client has, in percent.
            self.send(REQUEST, &[int(chunk), vec![0]].concat()).await;
        }
        let mut chunks = Vec::new();
        for _ in wanted {
            let chunk = self.answer().await.unwrap();
            assert_eq!(chunk.number, CHUNK_MESSAGE);
            let index = usize::try_from(take_int(&mut &chunk.fields[..])).unwrap();
            let start = index * chunk_len;
            assert_eq!(chunk.payload.len(), chunk_len.min(len - start));
            assert_eq!(chunk_hash(&chunk.payload, chunk_len), hashes[index]);
            chunks.push((start, chunk.payload));
            self.send(HAVE, &int(index as u64)).await;
        }
        self.send(GOODBYE, &[DONE]).await;
        chunks
    }
}

#[test]
fn a_client_written_from_the_page_fetches_from_a_seeder() {
    test(async |swarm| {
        let source = swarm.share("page.bin", 6 * CHUNK + 70 * KIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let (mut client, role) = Client::connect(seeder.address, source.infohash().0).await;
        assert_eq!(role, 0, "a seeder");
        let mut chunks = client.fetch(source.infohash().0, |count| (0..count).collect()).await;
        chunks.sort_unstable();
        let file: Vec<u8> = chunks.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(file == std::fs::read(&source.path).unwrap());
    });
}

#[test]
fn the_chunks_of_a_share_that_is_not_small_are_longer() {
    test(async |swarm| {
        let path = swarm.new_dir().join("large.bin");
        let file = File::create_new(&path).unwrap();
        // Most of it is a hole, which is hashed without reading.
        for offset in [256 * MIB, 0, 100 * MIB + 5] {
            file.write_all_at(&content(70 * KIB, offset), offset).unwrap();
        }
        let source = Source::of(path.clone());
        let seeder = swarm.seed_unannounced(&source).await;
        let (mut client, _) = Client::connect(seeder.address, source.infohash().0).await;
        let chunks = client.fetch(source.infohash().0, |count| vec![0, 1, 200, count - 1]).await;
        assert_eq!(chunks.len(), 4);
        let file = File::open(path).unwrap();
        for (offset, bytes) in chunks {
            let mut expected = vec![0; bytes.len()];
            file.read_exact_at(&mut expected, offset as u64).unwrap();
            assert!(bytes == expected, "at {offset}");
        }
    });
}

/// Section 5.4.
#[test]
fn a_seeder_answers_what_breaks_a_rule_by_protocol() {
    test(async |swarm| {
        let source = swarm.share("rules.bin", 3 * CHUNK);
        let seeder = swarm.seed_unannounced(&source).await;
        let infohash = source.infohash().0;
        let (mut client, _) = Client::connect(seeder.address, infohash).await;
        let metainfo_len = client.metainfo(infohash).await.len() as u64;
        let field: &[u8] = &[0];
        let broken: &[(u8, Vec<u8>, &[u8])] = &[
            (HELLO, [&infohash[..], &[0x77; 16], &[1], &int(0), &[0; 32]].concat(), &[]),
            (METAINFO_REQUEST, int(metainfo_len), &[]),
            (METAINFO, [int(5), int(0), int(5)].concat(), b"bytes"),
            (HASHES_REQUEST, [int(1), int(3)].concat(), &[]),
            (HASHES_REQUEST, [int(0xffff_ffff), int(2)].concat(), &[]),
            (HASHES, [int(0), int(1)].concat(), &[7; 32]),
            (BITFIELD, int(2), &[0, 0]),
            (HAVE, int(3), &[]),
            (REQUEST, [int(3), vec![0]].concat(), &[]),
            (CANCEL, int(3), &[]),
            (CHUNK_MESSAGE, [int(0), int(5)].concat(), b"bytes"),
            (REJECT, [int(0), int(0)].concat(), &[]),
            // Not a message.
            (99, Vec::new(), &[]),
        ];
        for (number, fields, payload) in broken {
            let (mut client, _) = Client::connect(seeder.address, infohash).await;
            client.say_with(*number, fields, payload).await;
            let answer = client.answer().await.expect("a goodbye");
            assert_eq!((answer.number, &answer.fields[..]), (GOODBYE, &[PROTOCOL][..]), "to {number}");
            assert!(client.answer().await.is_none(), "to {number}");
        }
        let (mut client, _) = Client::connect(seeder.address, infohash).await;
        client.say_with(BITFIELD, &int(1), field).await;
        client.say_with(BITFIELD, &int(1), field).await;
        assert_eq!(client.answer().await.unwrap().fields, [PROTOCOL], "one bitfield is enough");
    });
}

/// Its role is `Seeder`, which is enough.
#[test]
fn a_finished_leecher_sends_no_bitfield() {
    test(async |swarm| {
        let source = swarm.share("whole.bin", 2 * MIB);
        let seeder = swarm.seed(&source).await;
        let plan = swarm.plan_for(source.infohash()).with(|fetch| fetch.stay(Stay::Forever));
        let mut fetch = swarm.fetch(plan);
        fetch.finished().await;
        let leecher = loop {
            // It registers while it fetches, and the fetch takes no time here.
            let peers = swarm.peers(&source).await;
            if let Some(leecher) = peers.into_iter().find(|&peer| peer != seeder.address) {
                break leecher;
            }
        };
        let (mut client, role) = Client::connect(leecher, source.infohash().0).await;
        assert_eq!(role, 0, "a seeder");
        client.send(REQUEST, &[int(1), vec![0]].concat()).await;
        assert_eq!(client.answer().await.unwrap().number, CHUNK_MESSAGE);
    });
}
