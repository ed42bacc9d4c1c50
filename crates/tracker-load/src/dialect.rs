//! The wire: Shoal's protocol, or BitTorrent's (BEP 15), to measure other trackers in the same way.
//!
//! Shoal's own codec writes requests and reads replies, as in any client. BEP 15 is limited to what a measurement needs.

use std::ops::RangeInclusive;

use anyhow::{Context, ensure};
use bytes::{BufMut, BytesMut};
use clap::ValueEnum;
use proto::{
    PREAMBLE, ShareNameRef, Zone,
    tracker::{
        Announce, ErrorCode, Event, Query, ReplyBody, Request, RequestBody, Token, TransactionId,
        codec::{decode_reply, encode_request},
    },
};

use crate::population::Population;

/// BEP 15's constant that begins every connect.
const BEP15_MAGIC: u64 = 0x0417_2710_1980;

/// Infohashes in one BEP 15 scrape.
const SCRAPED: u32 = 5;

/// Size in bytes that every share claims to have.
const SHARE_LEN: u64 = 1 << 30;

/// One in this many answers is decoded whole. Decoding each list of peers takes as long as writing it, and then the load would
/// limit the rate, not the tracker.
const DECODED_EACH: u32 = 16;

/// Kinds of replies that are no refusal and carry no token: `Announced`, `Peers`, `Shares`.
const YES: RangeInclusive<u8> = 1..=3;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// Shoal's tracker protocol
    Shoal,
    /// Shoal's requests to a program that sends them back (tracker-load echo)
    Echo,
    /// BitTorrent's UDP tracker protocol, BEP 15
    Bep15,
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks for a token.
    Connect,
    /// A heartbeat, which registers or renews. In BEP 15 it also asks for peers.
    Announce,
    /// Asks for the peers of a share. BEP 15 has no such request: a second announce.
    Lookup,
    /// Asks for the shares of a name; in BEP 15, for the counts of some shares.
    Search,
    /// Ends a registration.
    Stop,
}

/// One request to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    /// Number of its source address.
    pub(crate) address: u32,
    /// Number of the peer, or of any peer of the share that is asked for.
    pub(crate) peer: u32,
}

/// The meaning of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Connected(Token),
    Yes,
    /// The share is unknown.
    Unknown,
    /// No room, or the id belongs to somebody else.
    Refused,
    /// Connect again.
    TokenRefused,
    /// Too many requests from this address.
    SlowDown,
}

/// Writes requests.
pub(crate) struct Writer {
    pub(crate) dialect: Dialect,
    pub(crate) population: Population,
    /// Peers to ask for.
    pub(crate) want: u8,
    name: String,
}

impl Writer {
    pub(crate) fn new(dialect: Dialect, population: Population, want: u8) -> Writer {
        Writer { dialect, population, want, name: String::new() }
    }

    /// Appends a request. All of a kind have one size as long as transactions are 65,536 or more.
    pub(crate) fn write(
        &mut self,
        job: Job,
        transaction: u32,
        token: Token,
        dst: &mut BytesMut,
    ) -> anyhow::Result<()> {
        match self.dialect {
            Dialect::Shoal | Dialect::Echo => self.write_shoal(job, transaction, token, dst),
            Dialect::Bep15 => {
                self.write_bep15(job, transaction, token, dst);
                Ok(())
            }
        }
    }

    fn write_shoal(
        &mut self,
        job: Job,
        transaction: u32,
        token: Token,
        dst: &mut BytesMut,
    ) -> anyhow::Result<()> {
        let peer = self.population.peer(job.peer);
        let infohash = self.population.infohash(peer.share);
        Population::name(peer.share, &mut self.name);
        let name = ShareNameRef::new(&self.name).context("a name of our own")?;
        let body = match job.kind {
            Kind::Connect => RequestBody::Connect { padding: [0; 24] },
            Kind::Announce | Kind::Stop => RequestBody::Announce(Announce {
                token,
                infohash,
                peer_id: peer.id,
                secret: peer.secret,
                port: peer.port,
                name,
                size: SHARE_LEN,
                event: if job.kind == Kind::Stop { Event::Stopped } else { Event::Heartbeat },
                progress: peer.progress,
                label: proto::Label::NONE,
                fetched: false,
                zone: Zone::NONE,
            }),
            Kind::Lookup => RequestBody::Lookup {
                token,
                query: Query::Peers { infohash, want: self.want, zone: Zone::NONE },
            },
            Kind::Search => RequestBody::Lookup { token, query: Query::Named { name, after: None } },
        };
        encode_request(&Request { transaction: TransactionId(transaction), body }, dst)?;
        Ok(())
    }

    fn write_bep15(&self, job: Job, transaction: u32, token: Token, dst: &mut BytesMut) {
        let (action, event) = match job.kind {
            Kind::Connect => (0, 0),
            Kind::Announce | Kind::Lookup => (1, 0),
            Kind::Search => (2, 0),
            Kind::Stop => (1, 3),
        };
        if job.kind == Kind::Connect {
            dst.put_u64(BEP15_MAGIC);
        } else {
            dst.put_slice(&token.0[..8]);
        }
        dst.put_u32(action);
        dst.put_u32(transaction);
        let peer = self.population.peer(job.peer);
        match action {
            1 => {
                dst.put_slice(&self.population.infohash(peer.share).0[..20]);
                dst.put_slice(b"-SH-");
                dst.put_slice(&peer.id.0);
                let left = if peer.progress.is_complete() { 0 } else { SHARE_LEN / 2 };
                for bytes in [SHARE_LEN, left, 0] {
                    dst.put_u64(bytes);
                }
                dst.put_u32(event);
                // The address is the datagram's; no key.
                dst.put_u64(0);
                dst.put_u32(self.want.into());
                dst.put_u16(peer.port.get());
            }
            2 => {
                for other in 0..SCRAPED {
                    let share = (peer.share + other) % self.population.shares;
                    dst.put_slice(&self.population.infohash(share).0[..20]);
                }
            }
            _ => {}
        }
    }
}

impl Dialect {
    /// Reads a reply: its transaction and its meaning.
    pub(crate) fn read(self, datagram: &[u8]) -> anyhow::Result<(u32, Said)> {
        match self {
            Dialect::Shoal => read_shoal(datagram),
            Dialect::Echo => read_echo(datagram),
            Dialect::Bep15 => read_bep15(datagram),
        }
    }
}

fn read_shoal(datagram: &[u8]) -> anyhow::Result<(u32, Said)> {
    if let Some((transaction, kind)) = transaction_and_kind(datagram)
        && !transaction.is_multiple_of(DECODED_EACH)
        && YES.contains(&kind)
    {
        return Ok((transaction, Said::Yes));
    }
    let reply = decode_reply(datagram)?;
    let said = match reply.body {
        ReplyBody::Connected { token, .. } => Said::Connected(token),
        ReplyBody::Announced(_)
        | ReplyBody::Peers(_)
        | ReplyBody::Shares(_)
        | ReplyBody::Late(_)
        | ReplyBody::Finished(_) => Said::Yes,
        ReplyBody::Error(ErrorCode::TokenRefused) => Said::TokenRefused,
        ReplyBody::Error(ErrorCode::UnknownShare { .. }) => Said::Unknown,
        ReplyBody::Error(ErrorCode::Full(_) | ErrorCode::NotYours | ErrorCode::NotAllowed) => Said::Refused,
        ReplyBody::Error(ErrorCode::SlowDown { .. }) => Said::SlowDown,
    };
    Ok((reply.transaction.0, said))
}

fn read_echo(datagram: &[u8]) -> anyhow::Result<(u32, Said)> {
    let (transaction, kind) = transaction_and_kind(datagram).context("not what was sent")?;
    let said = if kind == 0 { Said::Connected(Token([0; 16])) } else { Said::Yes };
    Ok((transaction, said))
}

/// How a Shoal message begins: the preamble, a byte that announces a four-byte transaction, the transaction, and the number of its kind.
fn transaction_and_kind(datagram: &[u8]) -> Option<(u32, u8)> {
    let &[_, a, b, c, d, kind] = datagram.strip_prefix(&PREAMBLE)?.first_chunk()?;
    Some((u32::from_le_bytes([a, b, c, d]), kind))
}

fn read_bep15(datagram: &[u8]) -> anyhow::Result<(u32, Said)> {
    let Some(&[_, _, _, action, a, b, c, d]) = datagram.first_chunk() else { anyhow::bail!("too short") };
    let said = match action {
        0 => {
            ensure!(datagram.len() >= 16, "a connect without an id");
            let mut token = Token([0; 16]);
            token.0[..8].copy_from_slice(&datagram[8..16]);
            Said::Connected(token)
        }
        1 | 2 => Said::Yes,
        // Mostly an id that the tracker does not know.
        _ => Said::TokenRefused,
    };
    Ok((u32::from_be_bytes([a, b, c, d]), said))
}

#[cfg(test)]
mod tests {
    use proto::tracker::{Announced, Reply, codec::encode_reply};

    use super::*;
    use crate::population::Spread;

    const KINDS: [Kind; 5] = [Kind::Connect, Kind::Announce, Kind::Lookup, Kind::Search, Kind::Stop];

    fn writer(dialect: Dialect) -> Writer {
        let population =
            Population { shares: 1_000, peers: 10_000, addresses: 3, spread: Spread::Popular, seed: 1 };
        Writer::new(dialect, population, 30)
    }

    #[test]
    fn requests_of_one_kind_are_of_one_size() {
        for dialect in [Dialect::Shoal, Dialect::Bep15] {
            for kind in KINDS {
                let mut writer = writer(dialect);
                let mut sizes = (0..10_000).step_by(97).map(|peer| {
                    let mut datagram = BytesMut::new();
                    let transaction = 65_536 + peer * 300_000;
                    writer
                        .write(Job { kind, address: 0, peer }, transaction, Token([9; 16]), &mut datagram)
                        .unwrap();
                    datagram.len()
                });
                let first = sizes.next().unwrap();
                assert!(sizes.all(|size| size == first), "{dialect:?} {kind:?}");
            }
        }
    }

    #[test]
    fn an_echo_answers_every_request() {
        for kind in KINDS {
            let mut datagram = BytesMut::new();
            let job = Job { kind, address: 0, peer: 5 };
            writer(Dialect::Echo).write(job, 0x8765_4321, Token([9; 16]), &mut datagram).unwrap();
            let (transaction, said) = Dialect::Echo.read(&datagram).unwrap();
            assert_eq!(transaction, 0x8765_4321);
            assert_eq!(matches!(said, Said::Connected(_)), kind == Kind::Connect);
        }
    }

    #[test]
    fn replies_mean_the_same_whether_they_are_decoded_or_only_looked_at() {
        let announced =
            ReplyBody::Announced(Announced { interval_s: 30, seeders: 1, leechers: 0, completed: 0 });
        let token = Token([7; 16]);
        let replies = [
            (announced, Said::Yes),
            (ReplyBody::Connected { token, lifetime_s: 120 }, Said::Connected(token)),
            (ReplyBody::Error(ErrorCode::TokenRefused), Said::TokenRefused),
            (ReplyBody::Error(ErrorCode::NotYours), Said::Refused),
        ];
        for (body, meaning) in replies {
            for transaction in 0x8765_4320..0x8765_4322 {
                let mut datagram = BytesMut::new();
                let transaction_id = TransactionId(transaction);
                encode_reply(&Reply { transaction: transaction_id, body: body.clone() }, &mut datagram)
                    .unwrap();
                assert_eq!(Dialect::Shoal.read(&datagram).unwrap(), (transaction, meaning));
            }
        }
    }

    #[test]
    fn bep15_is_as_specified() {
        let mut announce = BytesMut::new();
        let job = Job { kind: Kind::Announce, address: 0, peer: 5 };
        writer(Dialect::Bep15).write(job, 0x0102_0304, Token([9; 16]), &mut announce).unwrap();
        assert_eq!(announce.len(), 98);
        assert_eq!(announce[8..16], [0, 0, 0, 1, 1, 2, 3, 4]);
        let connected = [0, 0, 0, 0, 1, 2, 3, 4, 8, 7, 6, 5, 4, 3, 2, 1];
        let mut token = Token([0; 16]);
        token.0[..8].copy_from_slice(&connected[8..]);
        assert_eq!(Dialect::Bep15.read(&connected).unwrap(), (0x0102_0304, Said::Connected(token)));
        assert!(Dialect::Bep15.read(&connected[..7]).is_err());
    }
}
