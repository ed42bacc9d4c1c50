//! How many bytes a socket may hold.
//!
//! Bytes in the kernel can no longer be cancelled or overtaken: a chunk counts as sent before it is, and every message waits
//! behind it. So a socket holds at most what it will send within [`SOCKET_TIME`], at the rate of the last bytes. On a slow link that
//! is little. On a fast one it is more, because there each wait for the socket costs more than it saves. Linux only.
//!
//! At a near peer this limit holds for all bytes that are not acknowledged (`SO_SNDBUF`). Otherwise the system sends a whole small chunk at once,
//! and it waits in the queue of this host's uplink, with those of many other peers: twelve leechers on links of 25 to 400 Mbit/s
//! had up to 130 ms of bytes there. All else then waits as long: messages, acknowledgements, and with these those who send to this host.
//!
//! At any other peer it holds for bytes that are not sent yet (`TCP_NOTSENT_LOWAT`), because what is on its way fills the link.
//! On a long and fast link much is on its way in any case, so there a socket may hold a part of that. It must: BBR, which sends
//! almost three times as fast as the link at first, stops that only if it has measured the link while the socket always had something
//! to send. Without this, a connection of 1 Gbit/s and 200 ms lost a fifth of all packets until its end.

use std::{io, time::Duration};

use proto::CHUNK_LEN;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::path::Path;

/// Bytes should be sent this long after the socket takes them in. It is a small part of the time of a chunk on links where
/// the order of sending matters. With 5 ms, sixteen leechers with 100 Mbit/s needed 2 % longer.
const SOCKET_TIME: Duration = Duration::from_millis(2);

/// A peer with at most this round trip is near, as in a local network. There [`MAX_HELD_LEN`] is enough for 3.4 Gbit/s.
const NEAR: Duration = Duration::from_millis(1);

/// Minimum at a near peer. A packet of up to 64 KiB is taken in whenever there is room for a byte, and the next when nearly all of it is
/// acknowledged. With 8 KiB, 32 leechers took 1.22 times the minimum time in place of 1.18. The system doubles it and wakes the sender at two
/// thirds: beyond a segment of 1,448 bytes and a message, as the system counts them (4 KB).
const MIN_HELD_LEN: u32 = 3 * 1024;

/// Minimum there in halves of a segment, for longer ones. A receiver acknowledges two segments at once, but a single one after 40 ms. Within one
/// host a segment has 64 KiB.
const MIN_HELD_HALVES: u32 = 3;

/// Maximum at a near peer: the system's own for processes without privileges.
const MAX_HELD_LEN: u32 = 208 * 1024;

/// Minimum of unsent bytes: a few packets, so that the link is not idle before this process runs again.
const MIN_UNSENT_LEN: u32 = 32 * 1024;

/// Maximum of unsent bytes. With 1 MiB a seeder that serves one leecher saves a fifth of its processor time, but the leecher needs as much
/// more, and the transfer takes the same time.
const MAX_UNSENT_LEN: u32 = CHUNK_LEN / 4;

/// A send buffer that the system has made larger than this belongs to a long and fast link. The system makes it about five times as
/// large as what is on its way.
const NEAR_BUFFER: usize = 8 * 1024 * 1024;

/// On such a link the socket holds this part of the rest of the buffer.
const FAR_SHARE: usize = 8;

/// Maximum there: what 1 Gbit/s sends in 70 ms, or BBR's start in a third of that. A process that waits for a processor leaves it full.
const MAX_FAR_LEN: u32 = 16 * CHUNK_LEN;

/// The rate is measured over this many bytes. An empty queue on the way takes in less at once, whatever the link can send.
const MEASURED_LEN: u32 = CHUNK_LEN;

/// The limit grows at most by this factor with a measured rate. An empty queue on the way may take in more, so one measurement proves
/// little.
const MAX_GROWTH: u32 = 2;

/// The limits of one socket.
#[derive(Debug)]
pub(crate) struct SocketLimit {
    unsent_len: u32,
    /// `None` as long as the peer is not known to be near.
    held: Option<Held>,
    /// Bytes that were taken in since the rate was last measured, and how long that took.
    unmeasured: (u32, Duration),
}

/// The limit of all bytes that are not acknowledged.
#[derive(Debug)]
struct Held {
    len: u32,
    least: u32,
}

impl SocketLimit {
    /// Sets the limits of a socket whose rate is unknown.
    pub(crate) fn new(stream: &TcpStream) -> io::Result<SocketLimit> {
        set_unsent(stream, MIN_UNSENT_LEN)?;
        let mut limit =
            SocketLimit { unsent_len: MIN_UNSENT_LEN, held: None, unmeasured: (0, Duration::ZERO) };
        limit.look_whether_near(stream)?;
        Ok(limit)
    }

    /// Sets the limits for a socket that took in `len` bytes of chunks within `took`.
    pub(crate) fn adapt(&mut self, stream: &TcpStream, len: u32, took: Duration) -> io::Result<()> {
        self.look_whether_near(stream)?;
        let (len, took) = (self.unmeasured.0 + len, self.unmeasured.1 + took);
        if len < MEASURED_LEN {
            self.unmeasured = (len, took);
            return Ok(());
        }
        self.unmeasured = (0, Duration::ZERO);
        let suitable = len_within(SOCKET_TIME, len, took);
        if let Some(held) = &mut self.held {
            let suitable = suitable.clamp(held.least, MAX_HELD_LEN).min(MAX_GROWTH * held.len);
            // Small changes are not worth a system call.
            if suitable.abs_diff(held.len) > held.len / 4 {
                set_held(stream, suitable)?;
                held.len = suitable;
            }
        }
        let far = far_len(SockRef::from(stream).send_buffer_size()?);
        let unsent = unsent_len(suitable).max(far).min(MAX_GROWTH * self.unsent_len);
        if unsent != self.unsent_len {
            set_unsent(stream, unsent)?;
            self.unsent_len = unsent;
        }
        Ok(())
    }

    /// A peer that connects while links are full is found to be near later. Once it is, it stays so.
    fn look_whether_near(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.held.is_none()
            && let Some(path) = Path::of(stream).filter(|path| path.round_trip <= NEAR)
        {
            let least =
                (path.segment_len.saturating_mul(MIN_HELD_HALVES) / 2).clamp(MIN_HELD_LEN, MAX_HELD_LEN);
            set_held(stream, least)?;
            self.held = Some(Held { len: least, least });
        }
        Ok(())
    }
}

/// The bytes that are taken in within `time`, if `len` bytes take `took`.
fn len_within(time: Duration, len: u32, took: Duration) -> u32 {
    let len = u128::from(len) * time.as_nanos() / took.as_nanos().max(1);
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A power of two, so that it rarely changes.
fn unsent_len(suitable: u32) -> u32 {
    suitable.clamp(MIN_UNSENT_LEN, MAX_UNSENT_LEN).next_power_of_two()
}

/// The part of a send buffer that a long and fast link makes useful, as a power of two; 0 on others.
fn far_len(buffer: usize) -> u32 {
    match buffer.saturating_sub(NEAR_BUFFER) / FAR_SHARE {
        0 => 0,
        len => u32::try_from(len).unwrap_or(MAX_FAR_LEN).min(MAX_FAR_LEN).next_power_of_two(),
    }
}

#[cfg(target_os = "linux")]
fn set_unsent(stream: &TcpStream, len: u32) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(len)
}

#[cfg(not(target_os = "linux"))]
fn set_unsent(_stream: &TcpStream, _len: u32) -> io::Result<()> {
    Ok(())
}

fn set_held(stream: &TcpStream, len: u32) -> io::Result<()> {
    SockRef::from(stream).set_send_buffer_size(len as usize)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (stream, listener.accept().await.unwrap().0)
    }

    /// An empty queue takes in small chunks at once, so a few of them prove nothing.
    #[tokio::test]
    async fn the_limit_grows_only_after_half_a_megabyte() {
        let (stream, _far) = connection().await;
        let mut limit = SocketLimit::new(&stream).unwrap();
        for _ in 0..3 {
            limit.adapt(&stream, CHUNK_LEN / 4, Duration::ZERO).unwrap();
            assert_eq!(limit.unsent_len, MIN_UNSENT_LEN);
        }
        limit.adapt(&stream, CHUNK_LEN / 4, Duration::ZERO).unwrap();
        assert_eq!(limit.unsent_len, 2 * MIN_UNSENT_LEN);
        limit.adapt(&stream, CHUNK_LEN / 4, Duration::ZERO).unwrap();
        assert_eq!(limit.unsent_len, 2 * MIN_UNSENT_LEN, "it is measured anew");
    }

    /// With room for less than two segments, each would wait for a delayed acknowledgement. Within this host they are long.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_socket_to_a_near_peer_holds_what_it_sends_soon_but_at_least_a_few_segments() {
        let (stream, _far) = connection().await;
        let buffer = || u32::try_from(SockRef::from(&stream).send_buffer_size().unwrap()).unwrap();
        let mut limit = SocketLimit::new(&stream).unwrap();
        let segment_len = Path::of(&stream).unwrap().segment_len;
        assert!(buffer() > 2 * segment_len, "{} for {segment_len}", buffer());
        let held = limit.held.as_mut().unwrap();
        (held.len, held.least) = (MAX_HELD_LEN, MIN_HELD_LEN);
        limit.adapt(&stream, CHUNK_LEN, Duration::from_millis(80)).unwrap();
        assert_eq!(buffer(), 2 * CHUNK_LEN / 40);
        for _ in 0..9 {
            limit.adapt(&stream, CHUNK_LEN, Duration::ZERO).unwrap();
        }
        assert!(buffer() > MAX_HELD_LEN, "{}", buffer());
        limit.adapt(&stream, CHUNK_LEN, Duration::from_secs(9)).unwrap();
        // The system doubles what it is given, and has a minimum.
        assert!(buffer() <= 3 * MIN_HELD_LEN, "{}", buffer());
    }

    #[test]
    fn a_socket_takes_in_what_it_sends_within_two_milliseconds() {
        let after = |ms| unsent_len(len_within(SOCKET_TIME, CHUNK_LEN, Duration::from_millis(ms)));
        assert_eq!(after(8), CHUNK_LEN / 4);
        assert_eq!(after(16), CHUNK_LEN / 8);
        assert_eq!(after(12), CHUNK_LEN / 4, "rounded up to a power of two");
    }

    #[test]
    fn a_socket_of_a_long_and_fast_link_takes_in_a_part_of_its_buffer() {
        assert_eq!(far_len(NEAR_BUFFER), 0);
        assert_eq!(far_len(NEAR_BUFFER + 32 * 1024 * 1024), 4 * 1024 * 1024);
        assert_eq!(far_len(usize::MAX), MAX_FAR_LEN);
    }

    #[test]
    fn it_is_neither_too_little_nor_too_much() {
        let within = |len, took| unsent_len(len_within(SOCKET_TIME, len, took));
        assert_eq!(within(CHUNK_LEN, Duration::from_secs(100)), MIN_UNSENT_LEN);
        assert_eq!(within(CHUNK_LEN, Duration::ZERO), MAX_UNSENT_LEN);
        assert_eq!(within(0, Duration::from_millis(1)), MIN_UNSENT_LEN);
    }
}
