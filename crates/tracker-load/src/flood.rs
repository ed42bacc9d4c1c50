//! `tracker-load flood`: what one client gets for its bandwidth when it asks without pause, and what others lose by that.
//!
//! The client has a token and asks for the first page of the list, which it has filled with the longest names before.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::BytesMut;
use proto::{
    InfoHash, Label, PeerId, Secret, ShareName, Zone,
    name::MAX_NAME_LEN,
    tracker::{
        Announce, Completion, Event, Query, ReplyBody, Request, RequestBody, Token, TransactionId,
        codec::{decode_reply, encode_request},
        message::MAX_SHARES,
    },
};
use startup::eprint_line;
use tokio_util::sync::CancellationToken;
use tracker::datagrams::Incoming;

use crate::{
    drive::{self, Mix, Pace},
    load::{Load, TIMEOUT},
    register,
    report::Report,
    sender::{self, MAX_SEGMENTS},
};

/// The client's address. It is none of those that the others come from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 0, 1));

/// Bytes of an IPv4 and a UDP header, which each datagram has on the wire.
const HEADERS_LEN: u64 = 28;

/// What the others ask.
const QUESTIONS: Mix = Mix { connect: 10, announce: 45, lookup: 44, search: 1 };

/// How to flood.
pub(crate) struct Plan {
    /// Requests of the client a second, at most.
    pub(crate) flood: u32,
    /// Requests of the others a second.
    pub(crate) questions: u32,
    pub(crate) time: Duration,
}

/// What the client sent and received.
#[derive(Debug, Default, Clone, Copy)]
struct Flooded {
    sent: u64,
    sent_bytes: u64,
    answers: u64,
    answer_bytes: u64,
}

/// Measures the others without the flood, and with it.
pub(crate) fn run(
    target: SocketAddr,
    mut load: Load,
    plan: &Plan,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let mut rng = rand::rng();
    register::fill(&mut load, None, stop)?;
    let client = Client::connect(target)?;
    let mut report = Report::default();
    let mut others = |name, report: &mut Report| {
        eprint_line(format_args!("Asking for {} s", plan.time.as_secs()));
        load.reset()?;
        let (mut pace, began) = (Pace::new(Some(plan.questions)), Instant::now());
        drive::mix(&mut load, QUESTIONS, &mut pace, began + plan.time, &mut rng, stop)?;
        report.add_tally(name, &load.reset()?, began.elapsed().as_secs_f64());
        anyhow::Ok(())
    };
    others("alone_", &mut report)?;
    let end = Instant::now() + plan.time;
    let flooding = {
        let (flood, stop) = (plan.flood, stop.clone());
        thread::spawn(move || client.flood(flood, end, &stop))
    };
    others("flooded_", &mut report)?;
    let flooded = flooding.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
    report.add("flood_requests", flooded.sent);
    report.add("flood_answers", flooded.answers);
    let on_wire = |bytes: u64, datagrams: u64| bytes + datagrams * HEADERS_LEN;
    let (sent, received) =
        (on_wire(flooded.sent_bytes, flooded.sent), on_wire(flooded.answer_bytes, flooded.answers));
    report.add("flood_sent_bytes", sent);
    report.add("flood_received_bytes", received);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    report.add_rounded("amplification", received as f64 / sent.max(1) as f64);
    Ok(report)
}

/// One client with a token.
struct Client {
    target: SocketAddr,
    socket: UdpSocket,
    token: Token,
}

impl Client {
    /// Gets a token, and registers shares that are first in the list.
    fn connect(target: SocketAddr) -> anyhow::Result<Client> {
        let socket = UdpSocket::bind((CLIENT, 0)).context("cannot use another address of this machine")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut client = Client { target, socket, token: Token([0; 16]) };
        let ReplyBody::Connected { token, .. } = client.ask(RequestBody::CONNECT)? else {
            bail!("no token");
        };
        client.token = token;
        for number in 0..MAX_SHARES {
            let byte = u8::try_from(number)?;
            client.ask(RequestBody::Announce(Announce {
                token,
                infohash: InfoHash([byte; 32]),
                peer_id: PeerId([1; 16]),
                secret: Secret([2; 16]),
                port: 1.try_into()?,
                name: ShareName::new(&"!".repeat(MAX_NAME_LEN))?,
                size: 1 << 40,
                event: Event::Started,
                progress: Completion::COMPLETE,
                label: Label::NONE,
                fetched: false,
                zone: Zone::NONE,
            }))?;
        }
        Ok(client)
    }

    fn ask(&self, body: RequestBody) -> anyhow::Result<ReplyBody> {
        let mut datagram = BytesMut::new();
        encode_request(&Request { transaction: TransactionId(1), body }, &mut datagram)?;
        self.socket.send_to(&datagram, self.target)?;
        let mut reply = [0; 1_500];
        let len = self.socket.recv(&mut reply).context("no answer")?;
        Ok(decode_reply(&reply[..len])?.body)
    }

    /// Asks until `end`.
    fn flood(self, per_second: u32, end: Instant, stop: &CancellationToken) -> anyhow::Result<Flooded> {
        let body: RequestBody = RequestBody::Lookup { token: self.token, query: Query::List { after: None } };
        let mut datagrams = BytesMut::new();
        for _ in 0..MAX_SEGMENTS {
            encode_request(&Request { transaction: TransactionId(1), body: body.clone() }, &mut datagrams)?;
        }
        let len = u16::try_from(datagrams.len() / MAX_SEGMENTS)?;
        self.socket.set_nonblocking(true)?;
        let (mut incoming, mut flooded, began) = (Incoming::new(), Flooded::default(), Instant::now());
        while Instant::now() < end && !stop.is_cancelled() {
            let due = began.elapsed().as_secs_f64() * f64::from(per_second);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let sent = flooded.sent as f64;
            if sent <= due {
                match sender::send(&self.socket, self.target, None, &datagrams, len) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                    Err(_) => {}
                    Ok(()) => {
                        flooded.sent += MAX_SEGMENTS as u64;
                        flooded.sent_bytes += datagrams.len() as u64;
                    }
                }
            }
            match incoming.receive(&self.socket) {
                Ok(()) => {
                    for (_, datagram) in incoming.datagrams() {
                        flooded.answers += 1;
                        flooded.answer_bytes += datagram.len() as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(flooded)
    }
}
