//! The answer to a lookup, encoded by hand.
//!
//! The result is what `#[derive(Serialize)]` would write, and tests compare the two. Serde writes an address byte by byte,
//! and this answer consists mostly of addresses.

use bytes::BytesMut;

use crate::{
    tracker::message::{PeerAddress, PeerEntry, Peers, TransactionId},
    wire::{self, MAX_ONE_BYTE, Message, TWO_BYTES, WireError},
};

/// The number of [`ReplyBody::Peers`](super::ReplyBody::Peers).
const VARIANT: u32 = 2;

/// Appends the reply with `peers`, without the preamble. On error `dst` does not change.
pub(super) fn encode(
    transaction: TransactionId,
    peers: &Peers,
    limit: usize,
    dst: &mut BytesMut,
) -> Result<(), WireError> {
    wire::append(|message| reply(transaction, peers, message), limit, dst)
}

fn reply(transaction: TransactionId, peers: &Peers, message: &mut Message) -> Option<()> {
    let Peers { interval_s, settles_in_s, seeders, leechers, completed, peers } = peers;
    message.u32(transaction.0)?;
    message.u32(VARIANT)?;
    message.u32((*interval_s).into())?;
    message.u32((*settles_in_s).into())?;
    message.u32(*seeders)?;
    message.u32(*leechers)?;
    message.u32(*completed)?;
    message.u32(u32::try_from(peers.len()).ok()?)?;
    peers.iter().try_for_each(|peer| entry(peer, message))
}

fn entry(peer: &PeerEntry, message: &mut Message) -> Option<()> {
    let (port, percent) = (peer.port.get(), peer.progress.percent());
    match peer.address {
        // Nearly all, in one piece.
        PeerAddress::V4([a, b, c, d]) if port > MAX_ONE_BYTE.into() => {
            let [low, high] = port.to_le_bytes();
            return message.bytes(&[0, a, b, c, d, TWO_BYTES, low, high, percent]);
        }
        PeerAddress::V4([a, b, c, d]) => message.bytes(&[0, a, b, c, d])?,
        PeerAddress::V6(octets) => {
            message.bytes(&[1])?;
            message.bytes(&octets)?;
        }
        PeerAddress::TrackerHost => message.bytes(&[2])?,
    }
    message.u32(port.into())?;
    message.bytes(&[percent])
}
