//! Datagrams in batches: one system call receives up to [`BATCH_LEN`] of them, and another sends the replies.
//!
//! Most of the cost of a datagram is its system call, so batches save more time than anything else could. Where the system
//! has no such calls, each datagram takes one call, behind the same interface. Nothing here waits, and nothing is allocated
//! after the start. Programs that measure a tracker use this too.

#[cfg(target_os = "linux")]
mod batched;
#[cfg(any(test, not(target_os = "linux")))]
mod single;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
};

use bytes::BytesMut;
use proto::tracker::MAX_DATAGRAM_LEN;

#[cfg(target_os = "linux")]
use batched as system;
#[cfg(not(target_os = "linux"))]
use single as system;

/// Maximum datagrams in a batch. With 64 the calls are a small part of the cost, and the buffers take 150 KiB.
pub const BATCH_LEN: usize = 64;

/// Batches to receive in a row, which takes some 5 ms. Then timers must get their turn.
pub const MAX_BATCHES: usize = 16;

/// One byte more than a datagram may have. So a datagram that is too long is not taken for a legal one when it is cut.
const BUFFER_LEN: usize = MAX_DATAGRAM_LEN + 1;

type Buffers = [[u8; BUFFER_LEN]; BATCH_LEN];

/// The source and the length of a datagram in the buffers.
type Arrival = (SocketAddr, usize);

/// Receives batches.
pub struct Incoming {
    receiver: system::Receiver,
    buffers: Box<Buffers>,
    arrivals: Vec<Arrival>,
}

/// Replies to send.
pub struct Outgoing {
    bytes: BytesMut,
    replies: Vec<(SocketAddr, Range<usize>)>,
}

impl Incoming {
    /// Buffers for a batch.
    #[expect(clippy::new_without_default, reason = "there is nothing default about buffers")]
    pub fn new() -> Incoming {
        Incoming {
            receiver: system::Receiver::new(),
            buffers: Box::new([[0; BUFFER_LEN]; BATCH_LEN]),
            arrivals: Vec::with_capacity(BATCH_LEN),
        }
    }

    /// Receives the waiting datagrams, at most a batch, in place of the last batch. [`io::ErrorKind::WouldBlock`] if there
    /// are none.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.arrivals.clear();
        self.receiver.receive(socket, &mut self.buffers, &mut self.arrivals)
    }

    /// The batch: the source of each datagram, and its bytes.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let buffers = self.buffers.iter();
        self.arrivals.iter().zip(buffers).map(|(&(source, len), buffer)| (source, &buffer[..len]))
    }
}

impl Outgoing {
    /// Room for a batch.
    #[expect(clippy::new_without_default, reason = "there is nothing default about buffers")]
    pub fn new() -> Outgoing {
        Outgoing {
            bytes: BytesMut::with_capacity(BATCH_LEN * MAX_DATAGRAM_LEN),
            replies: Vec::with_capacity(BATCH_LEN),
        }
    }

    /// Adds a reply to `target`: the part of [`Outgoing::bytes`] that `write` appends and returns.
    pub fn push(&mut self, target: SocketAddr, write: impl FnOnce(&mut BytesMut) -> Option<Range<usize>>) {
        if let Some(reply) = write(&mut self.bytes) {
            self.replies.push((target, reply));
        }
    }

    /// Sends all replies and forgets them. Returns how many the system did not accept. A reply without room is lost like any
    /// datagram, and its client asks again. A full send buffer may stay full for seconds (replies to a neighbour that does
    /// not exist), and waiting for it would delay all clients.
    pub fn send(&mut self, socket: &UdpSocket) -> u64 {
        let mut unsent = 0;
        let mut left = &self.replies[..];
        while let Some((target, _)) = left.first() {
            match system::send(socket, &self.bytes, left) {
                Ok(sent) => left = &left[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::trace!(%target, "no reply: {error}");
                    unsent += 1;
                    left = &left[1..];
                }
            }
        }
        self.replies.clear();
        self.bytes.clear();
        unsent
    }
}

#[cfg(test)]
mod tests;
