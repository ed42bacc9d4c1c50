//! Datagrams by the batch: one call to the system receives up to [`BATCH_LEN`] of them, and one more sends the replies.
//!
//! Most of what a datagram costs is its call to the system, so this is worth more than anything that can be done
//! to a request afterwards. Where the system has no such calls, it is one call each; nobody else need know.
//! Nothing here waits, and nothing is allocated after the beginning. Also for programs that measure a tracker.

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

/// Most datagrams in a batch: enough that the calls are a small part of what 64 datagrams cost, and 150 KiB of buffers.
pub const BATCH_LEN: usize = 64;

/// Batches to receive in a row; then timers and whatever else waits should have their turn, after some 5 ms.
pub const MAX_BATCHES: usize = 16;

/// One byte more than a datagram may have, so that a larger one does not pass as a cut one.
const BUFFER_LEN: usize = MAX_DATAGRAM_LEN + 1;

type Buffers = [[u8; BUFFER_LEN]; BATCH_LEN];

/// Where a datagram in the buffers came from, and its length.
type Arrival = (SocketAddr, usize);

/// Receives batches.
pub struct Incoming {
    receiver: system::Receiver,
    buffers: Box<Buffers>,
    arrivals: Vec<Arrival>,
}

/// Replies on their way.
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

    /// Receives what there is, at most a batch, in place of the last one. [`io::ErrorKind::WouldBlock`] when there
    /// is nothing.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.arrivals.clear();
        self.receiver.receive(socket, &mut self.buffers, &mut self.arrivals)
    }

    /// The batch: where each datagram came from, and its bytes.
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

    /// Takes a reply to `target`: the part of [`Outgoing::bytes`] that `write` says it has appended there.
    pub fn push(&mut self, target: SocketAddr, write: impl FnOnce(&mut BytesMut) -> Option<Range<usize>>) {
        if let Some(reply) = write(&mut self.bytes) {
            self.replies.push((target, reply));
        }
    }

    /// Sends all replies and forgets them. Returns how many the system did not take: one without room is lost like
    /// any datagram, and whoever asked asks again. A full send buffer may stay full for seconds (replies to a
    /// neighbour that does not exist), so waiting for it would make everybody wait.
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
