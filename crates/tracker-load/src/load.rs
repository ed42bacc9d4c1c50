//! Requests in flight to a tracker, and their outcomes.
//!
//! It runs on one thread and never waits. Its caller gives it requests as long as there is room, and lets it receive. A
//! request that is not answered within [`TIMEOUT`] is lost, and is not repeated here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::BytesMut;
use hdrhistogram::Histogram;
use proto::tracker::Token;
use socket2::{Domain, Socket, Type};
use tracker::datagrams::Incoming;

use crate::{
    dialect::{Job, Kind, Said, Writer},
    sender::{self, MAX_SEGMENTS},
};

/// A request without an answer is lost after this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look for lost requests.
const LOSS_CHECK: Duration = Duration::from_millis(100);

/// Size in bytes of each socket's receive buffer to request: room for the replies to all requests in flight.
const RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// Minimum transaction, so all take the same number of bytes on the wire.
const TRANSACTION_BASE: u32 = 0x8000_0000;

/// Longest time that can be recorded, in microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// One request in flight, or room for one.
#[derive(Clone, Copy)]
struct Slot {
    job: Option<Job>,
    asked_at: Instant,
    /// Distinguishes a late reply to an earlier request from the reply to the current one.
    generation: u16,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Unknown,
    Refused,
    /// Not answered, or answered with `TokenRefused` or `SlowDown`.
    Again,
}

/// The counts since the last [`Load::reset`].
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Answered requests by kind: connect, announce, lookup, search, stop.
    pub(crate) answered: [u64; 5],
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) token_refused: u64,
    /// Answered with `SlowDown`.
    pub(crate) slowed: u64,
    pub(crate) lost: u64,
    /// Datagrams that are no reply to a request in flight.
    pub(crate) strange: u64,
    /// Microseconds from the time when a request was due until its answer.
    pub(crate) latency: Histogram<u64>,
}

/// The load on one tracker.
pub(crate) struct Load {
    target: SocketAddr,
    sockets: Vec<UdpSocket>,
    next_socket: usize,
    writer: Writer,
    /// The token of each address, once it has one.
    tokens: Vec<Option<Token>>,
    slots: Vec<Slot>,
    free: Vec<u16>,
    incoming: Incoming,
    outgoing: BytesMut,
    checked_at: Instant,
    pub(crate) tally: Tally,
    /// Requests that ended since the caller last took them.
    pub(crate) ended: Vec<(Job, End)>,
}

impl Load {
    /// At most `window` requests are in flight at a time.
    pub(crate) fn new(target: SocketAddr, sockets: u8, window: u16, writer: Writer) -> anyhow::Result<Load> {
        let sockets = (0..sockets).map(|_| bound(target)).collect::<io::Result<Vec<_>>>();
        let now = Instant::now();
        Ok(Load {
            target,
            sockets: sockets.context("cannot make a socket")?,
            next_socket: 0,
            tokens: vec![None; writer.population.addresses as usize],
            writer,
            slots: vec![Slot { job: None, asked_at: now, generation: 0 }; window.into()],
            free: (0..window).collect(),
            incoming: Incoming::new(),
            outgoing: BytesMut::with_capacity(64 * 1024),
            checked_at: now,
            tally: Tally::new()?,
            ended: Vec::new(),
        })
    }

    /// Requests that may be sent now.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Whether no request is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether this address has a token, so it can send more than connects.
    pub(crate) fn has_token(&self, address: u32) -> bool {
        self.tokens[address as usize].is_some()
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Sets all counts to zero. Requests in flight will be counted.
    pub(crate) fn reset(&mut self) -> anyhow::Result<Tally> {
        Ok(std::mem::replace(&mut self.tally, Tally::new()?))
    }

    /// Sends the requests of `jobs`, which have one kind and one address. Each counts from the time when it was due. If
    /// there are more than there is room for, or than one call takes, sends the first ones. Returns how many.
    pub(crate) fn ask(&mut self, jobs: impl Iterator<Item = (Job, Instant)>) -> anyhow::Result<usize> {
        self.outgoing.clear();
        let mut asked = 0;
        let mut address = 0;
        for (job, due) in jobs.take(MAX_SEGMENTS.min(self.free.len())) {
            let Some(place) = self.free.pop() else { break };
            let slot = &mut self.slots[usize::from(place)];
            *slot = Slot { job: Some(job), asked_at: due, generation: (slot.generation + 1) & 0x7fff };
            let transaction = TRANSACTION_BASE | u32::from(slot.generation) << 16 | u32::from(place);
            let token = self.tokens[job.address as usize].unwrap_or(Token([0; 16]));
            self.writer.write(job, transaction, token, &mut self.outgoing)?;
            address = job.address;
            asked += 1;
        }
        if asked > 0 {
            self.send(address, asked)?;
        }
        Ok(asked)
    }

    fn send(&mut self, address: u32, count: usize) -> anyhow::Result<()> {
        let source = (self.tokens.len() > 1).then(|| sender::loopback_source(address));
        let len = u16::try_from(self.outgoing.len() / count).context("datagrams are small")?;
        let socket = &self.sockets[self.next_socket];
        self.next_socket = (self.next_socket + 1) % self.sockets.len();
        match sender::send(socket, self.target, source, &self.outgoing, len) {
            // Without room in the socket they are lost and time out, as they do where nobody listens (yet).
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(())
            }
            result => result.with_context(|| format!("cannot send to {}", self.target)),
        }
    }

    /// Receives all replies that have arrived. Returns whether there were any.
    pub(crate) fn receive(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        for socket in 0..self.sockets.len() {
            while self.receive_batch(socket)? {
                any = true;
            }
        }
        let now = Instant::now();
        if now.duration_since(self.checked_at) >= LOSS_CHECK {
            self.checked_at = now;
            self.drop_lost(now);
        }
        Ok(any)
    }

    fn receive_batch(&mut self, socket: usize) -> anyhow::Result<bool> {
        match self.incoming.receive(&self.sockets[socket]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(false),
            Err(error) => return Err(error).context("cannot receive"),
        }
        let now = Instant::now();
        for (_, datagram) in self.incoming.datagrams() {
            let Ok((transaction, said)) = self.writer.dialect.read(datagram) else {
                self.tally.strange += 1;
                continue;
            };
            let [.., high, low] = transaction.to_be_bytes();
            let place = u16::from_be_bytes([high, low]);
            let generation = transaction >> 16 & 0x7fff;
            let slot = self.slots.get_mut(usize::from(place));
            let Some(slot) = slot.filter(|slot| u32::from(slot.generation) == generation) else {
                self.tally.strange += 1;
                continue;
            };
            let Some(job) = slot.job.take() else {
                self.tally.strange += 1;
                continue;
            };
            self.free.push(place);
            let latency = now.saturating_duration_since(slot.asked_at).as_micros();
            self.tally.latency.saturating_record(u64::try_from(latency).unwrap_or(MAX_LATENCY_US));
            let end = self.tally.count(job, said);
            let token = &mut self.tokens[job.address as usize];
            match said {
                Said::Connected(new) => *token = Some(new),
                Said::TokenRefused => *token = None,
                Said::Yes | Said::Unknown | Said::Refused | Said::SlowDown => {}
            }
            self.ended.push((job, end));
        }
        Ok(true)
    }

    fn drop_lost(&mut self, now: Instant) {
        for (place, slot) in (0..).zip(&mut self.slots) {
            if now.saturating_duration_since(slot.asked_at) > TIMEOUT
                && let Some(job) = slot.job.take()
            {
                self.free.push(place);
                self.tally.lost += 1;
                self.ended.push((job, End::Again));
            }
        }
    }
}

impl Tally {
    fn new() -> anyhow::Result<Tally> {
        Ok(Tally {
            answered: [0; 5],
            unknown: 0,
            refused: 0,
            token_refused: 0,
            slowed: 0,
            lost: 0,
            strange: 0,
            latency: Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?,
        })
    }

    /// Replies of every kind.
    pub(crate) fn replies(&self) -> u64 {
        self.answered.iter().sum::<u64>() + self.unknown + self.refused + self.token_refused + self.slowed
    }

    fn count(&mut self, job: Job, said: Said) -> End {
        match said {
            Said::Connected(_) | Said::Yes => {
                let kind = match job.kind {
                    Kind::Connect => 0,
                    Kind::Announce => 1,
                    Kind::Lookup => 2,
                    Kind::Search => 3,
                    Kind::Stop => 4,
                };
                self.answered[kind] += 1;
                End::Answered
            }
            Said::Unknown => {
                self.unknown += 1;
                End::Unknown
            }
            Said::Refused => {
                self.refused += 1;
                End::Refused
            }
            Said::TokenRefused => {
                self.token_refused += 1;
                End::Again
            }
            Said::SlowDown => {
                self.slowed += 1;
                End::Again
            }
        }
    }
}

/// A non-blocking socket of the target's address family.
fn bound(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket.into())
}
