//! Requests decoded by hand, field by field, for the tracker.
//!
//! The result is what `#[derive(Deserialize)]` would read, and tests compare the two. Serde reads arrays byte by byte, and a
//! request consists mostly of ids. That was 9 % of the processor time of a busy tracker.

use std::num::NonZeroU16;

use super::DatagramError;
use crate::{
    InfoHash, Label, PREAMBLE, PeerId, Secret, ShareNameRef, Zone,
    chunk::MAX_SHARE_LEN,
    tracker::message::{
        Announce, Completion, Event, PeerAddress, PeerEntry, Query, Request, RequestBody, ShareCursor,
        Standing, Token, TransactionId,
    },
    wire::{Fields, WireError},
};

/// Decodes the datagram of one request. Names stay in the datagram, so nothing is allocated.
pub fn borrow_request(datagram: &[u8]) -> Result<Request<ShareNameRef<'_>>, DatagramError> {
    let message = datagram.strip_prefix(&PREAMBLE).ok_or(DatagramError::Preamble)?;
    let mut fields = Fields::of(message)?;
    let request = Request { transaction: TransactionId(fields.u32()?), body: body(&mut fields)? };
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
    let _transaction = fields.u32().ok()?;
    let request = fields.u32().ok()?;
    match request {
        1 | 2 => _ = fields.bytes::<{ size_of::<Token>() }>().ok()?,
        3 => {}
        _ => return None,
    }
    if request == 1 {
        return Some(Subject::Announce(InfoHash(fields.bytes().ok()?), PeerId(fields.bytes().ok()?)));
    }
    match fields.u32().ok()? {
        0 => fields.bytes().ok().map(|infohash| Subject::Lookup(InfoHash(infohash))),
        _ => None,
    }
}

fn body<'a>(fields: &mut Fields<'a>) -> Result<RequestBody<ShareNameRef<'a>>, WireError> {
    match fields.u32()? {
        0 => Ok(RequestBody::Connect { padding: fields.bytes()? }),
        1 => Ok(RequestBody::Announce(announce(fields)?)),
        2 => Ok(RequestBody::Lookup { token: Token(fields.bytes()?), query: query(fields)? }),
        3 => Ok(RequestBody::FirstLookup { query: query(fields)? }),
        _ => Err(WireError::illegal("no such request")),
    }
}

fn announce<'a>(fields: &mut Fields<'a>) -> Result<Announce<ShareNameRef<'a>>, WireError> {
    Ok(Announce {
        token: Token(fields.bytes()?),
        infohash: InfoHash(fields.bytes()?),
        peer_id: PeerId(fields.bytes()?),
        secret: Secret(fields.bytes()?),
        port: port(fields)?,
        name: name(fields)?,
        size: share_len(fields)?,
        event: match fields.u32()? {
            0 => Event::Started,
            1 => Event::Heartbeat,
            2 => Event::Completed,
            3 => Event::Stopped,
            _ => return Err(WireError::illegal("no such event")),
        },
        progress: progress(fields)?,
        label: label(fields)?,
        fetched: fields.flag()?,
        zone: zone(fields)?,
    })
}

fn query<'a>(fields: &mut Fields<'a>) -> Result<Query<ShareNameRef<'a>>, WireError> {
    match fields.u32()? {
        0 => {
            Ok(Query::Peers { infohash: InfoHash(fields.bytes()?), want: fields.u8()?, zone: zone(fields)? })
        }
        1 => {
            let name = name(fields)?;
            let after = if fields.is_some()? { Some(standing(fields)?) } else { None };
            Ok(Query::Named { name, after })
        }
        2 => {
            let after = if fields.is_some()? {
                Some(ShareCursor { name: name(fields)?, standing: standing(fields)? })
            } else {
                None
            };
            Ok(Query::List { after })
        }
        3 => {
            let infohash = InfoHash(fields.bytes()?);
            let after = if fields.is_some()? { Some(peer_entry(fields)?) } else { None };
            Ok(Query::Late { infohash, after })
        }
        4 => Ok(Query::Finished { infohash: InfoHash(fields.bytes()?), after: fields.u32()? }),
        _ => Err(WireError::illegal("no such query")),
    }
}

fn peer_entry(fields: &mut Fields<'_>) -> Result<PeerEntry, WireError> {
    let address = match fields.u32()? {
        0 => PeerAddress::V4(fields.bytes()?),
        1 => PeerAddress::V6(fields.bytes()?),
        2 => PeerAddress::TrackerHost,
        _ => return Err(WireError::illegal("no such address")),
    };
    Ok(PeerEntry { address, port: port(fields)?, progress: progress(fields)? })
}

fn port(fields: &mut Fields<'_>) -> Result<NonZeroU16, WireError> {
    NonZeroU16::new(fields.u16()?).ok_or(WireError::illegal("port 0"))
}

fn progress(fields: &mut Fields<'_>) -> Result<Completion, WireError> {
    Completion::try_from(fields.u8()?).map_err(|_| WireError::illegal("more than 100 percent"))
}

fn zone(fields: &mut Fields<'_>) -> Result<Zone, WireError> {
    label(fields).map(Zone::from)
}

fn label(fields: &mut Fields<'_>) -> Result<Label, WireError> {
    Label::try_from(fields.bytes()?).map_err(|_| WireError::illegal("no label"))
}

fn standing(fields: &mut Fields<'_>) -> Result<Standing, WireError> {
    Ok(Standing { votes: fields.u32()?, seeders: fields.u32()?, infohash: InfoHash(fields.bytes()?) })
}

fn share_len(fields: &mut Fields<'_>) -> Result<u64, WireError> {
    let len = fields.u64()?;
    if len <= MAX_SHARE_LEN { Ok(len) } else { Err(WireError::illegal("a share larger than any can be")) }
}

fn name<'a>(fields: &mut Fields<'a>) -> Result<ShareNameRef<'a>, WireError> {
    ShareNameRef::new(fields.text()?).map_err(|_| WireError::illegal("no name of a share"))
}
