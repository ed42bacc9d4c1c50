//! Requests decoded by hand, field by field, for the tracker.
//!
//! The result is what `#[derive(Deserialize)]` would read, and tests compare the two. Serde reads arrays byte by byte, and a
//! request consists mostly of ids. That was 9 % of the processor time of a busy tracker.

use std::num::NonZeroU16;

use super::DatagramError;
use crate::{
    InfoHash, Label, PREAMBLE, PeerId, Secret, ShareNameRef,
    chunk::MAX_SHARE_LEN,
    tracker::message::{
        Announce, Completion, Event, PeerAddress, PeerEntry, Query, Request, RequestBody, ShareCursor,
        Standing, Token, TransactionId,
    },
    wire::{Fields, WireError},
};

/// Decodes the datagram of one request. Names stay in the datagram, so nothing is allocated.
#[inline]
pub fn borrow_request(datagram: &[u8]) -> Result<Request<ShareNameRef<'_>>, DatagramError> {
    let message = datagram.strip_prefix(&PREAMBLE).ok_or(DatagramError::Preamble)?;
    let mut fields = Fields::of(message)?;
    let request = request(&mut fields).ok_or(WireError::illegal("no request"))?;
    if !request.body.is_padded() {
        fields.end()?;
    }
    Ok(request)
}

/// The share that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// This peer announces it.
    Announce(InfoHash, PeerId),
    /// A client looks for its peers.
    Lookup(InfoHash),
}

/// The share that a datagram is about, read from its first bytes without checking the rest. `None` for a request that
/// concerns no single share.
pub fn peek_subject(datagram: &[u8]) -> Option<Subject> {
    let mut fields = Fields::of(datagram.strip_prefix(&PREAMBLE)?).ok()?;
    let _transaction = fields.u32()?;
    let request = fields.u32()?;
    match request {
        1 | 2 => _ = fields.bytes::<{ size_of::<Token>() }>()?,
        3 => {}
        _ => return None,
    }
    if request == 1 {
        return Some(Subject::Announce(InfoHash(fields.bytes()?), PeerId(fields.bytes()?)));
    }
    match fields.u32()? {
        0 => fields.bytes().map(|infohash| Subject::Lookup(InfoHash(infohash))),
        _ => None,
    }
}

#[inline]
fn request<'a>(fields: &mut Fields<'a>) -> Option<Request<ShareNameRef<'a>>> {
    let transaction = TransactionId(fields.u32()?);
    let body = match fields.u32()? {
        0 => RequestBody::Connect { padding: fields.bytes()? },
        1 => RequestBody::Announce(announce(fields)?),
        2 => RequestBody::Lookup { token: Token(fields.bytes()?), query: query(fields)? },
        3 => RequestBody::FirstLookup { query: query(fields)? },
        _ => return None,
    };
    Some(Request { transaction, body })
}

#[inline]
fn announce<'a>(fields: &mut Fields<'a>) -> Option<Announce<ShareNameRef<'a>>> {
    Some(Announce {
        token: Token(fields.bytes()?),
        infohash: InfoHash(fields.bytes()?),
        peer_id: PeerId(fields.bytes()?),
        secret: Secret(fields.bytes()?),
        port: port(fields)?,
        name: name(fields)?,
        size: fields.u64().filter(|&len| len <= MAX_SHARE_LEN)?,
        event: match fields.u32()? {
            0 => Event::Started,
            1 => Event::Heartbeat,
            2 => Event::Completed,
            3 => Event::Stopped,
            _ => return None,
        },
        progress: progress(fields)?,
        label: label(fields)?,
        fetched: fields.flag()?,
        zone: label(fields)?.into(),
    })
}

#[inline]
fn query<'a>(fields: &mut Fields<'a>) -> Option<Query<ShareNameRef<'a>>> {
    Some(match fields.u32()? {
        0 => Query::Peers {
            infohash: InfoHash(fields.bytes()?),
            want: fields.u8()?,
            zone: label(fields)?.into(),
        },
        1 => Query::Named { name: name(fields)?, after: option(fields, standing)? },
        2 => Query::List { after: option(fields, cursor)? },
        3 => Query::Late { infohash: InfoHash(fields.bytes()?), after: option(fields, peer_entry)? },
        4 => Query::Finished { infohash: InfoHash(fields.bytes()?), after: fields.u32()? },
        _ => return None,
    })
}

/// The outer option is whether the bytes are legal.
fn option<'a, T>(fields: &mut Fields<'a>, read: impl Fn(&mut Fields<'a>) -> Option<T>) -> Option<Option<T>> {
    if fields.flag()? { read(fields).map(Some) } else { Some(None) }
}

fn cursor<'a>(fields: &mut Fields<'a>) -> Option<ShareCursor<ShareNameRef<'a>>> {
    Some(ShareCursor { name: name(fields)?, standing: standing(fields)? })
}

fn standing(fields: &mut Fields<'_>) -> Option<Standing> {
    Some(Standing { votes: fields.u32()?, seeders: fields.u32()?, infohash: InfoHash(fields.bytes()?) })
}

fn peer_entry(fields: &mut Fields<'_>) -> Option<PeerEntry> {
    let address = match fields.u32()? {
        0 => PeerAddress::V4(fields.bytes()?),
        1 => PeerAddress::V6(fields.bytes()?),
        2 => PeerAddress::TrackerHost,
        _ => return None,
    };
    Some(PeerEntry { address, port: port(fields)?, progress: progress(fields)? })
}

#[inline]
fn port(fields: &mut Fields<'_>) -> Option<NonZeroU16> {
    NonZeroU16::new(fields.u16()?)
}

#[inline]
fn progress(fields: &mut Fields<'_>) -> Option<Completion> {
    Completion::try_from(fields.u8()?).ok()
}

#[inline]
fn label(fields: &mut Fields<'_>) -> Option<Label> {
    Label::try_from(fields.bytes()?).ok()
}

#[inline]
fn name<'a>(fields: &mut Fields<'a>) -> Option<ShareNameRef<'a>> {
    ShareNameRef::new(fields.text()?).ok()
}
