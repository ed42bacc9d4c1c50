//! How many unsent bytes a socket may hold.
//!
//! Bytes in the kernel can no longer be cancelled or overtaken: a chunk counts as sent before it is, and every message waits
//! behind it. So a socket holds at most what it will send within [`UNSENT_TIME`], at the rate of the last bytes
//! (`TCP_NOTSENT_LOWAT`, Linux). On a slow link that is little. On a fast one it is more, because there each wait for the
//! socket costs more than it saves.
//!
//! On a long and fast link much more is on its way in any case, so there a socket may hold a part of that. It must: BBR, which sends
//! almost three times as fast as the link at first, stops that only if it has measured the link while the socket always had something
//! to send. Without this, a connection of 1 Gbit/s and 200 ms lost a fifth of all packets until its end.

use std::{io, time::Duration};

use proto::CHUNK_LEN;
use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes should be sent this long after the socket takes them in. It is a small part of the time of a chunk on links where
/// the order of sending matters. With 5 ms, sixteen leechers with 100 Mbit/s needed 2 % longer.
const UNSENT_TIME: Duration = Duration::from_millis(2);

/// Minimum: a few packets, so that the link is not idle before this process runs again.
const MIN_UNSENT_LEN: u32 = 32 * 1024;

/// Maximum. With 1 MiB a seeder that serves one leecher saves a fifth of its processor time, but the leecher needs as much
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

/// The limit of one socket.
#[derive(Debug)]
pub(crate) struct UnsentLimit {
    len: u32,
    /// Bytes that were taken in since the rate was last measured, and how long that took.
    unmeasured: (u32, Duration),
}

impl UnsentLimit {
    /// Sets the limit of a socket whose rate is unknown.
    pub(crate) fn new(stream: &TcpStream) -> io::Result<UnsentLimit> {
        set(stream, MIN_UNSENT_LEN)?;
        Ok(UnsentLimit { len: MIN_UNSENT_LEN, unmeasured: (0, Duration::ZERO) })
    }

    /// Sets the limit for a socket that took in `len` bytes of chunks within `took`.
    pub(crate) fn adapt(&mut self, stream: &TcpStream, len: u32, took: Duration) -> io::Result<()> {
        let (len, took) = (self.unmeasured.0 + len, self.unmeasured.1 + took);
        if len < MEASURED_LEN {
            self.unmeasured = (len, took);
            return Ok(());
        }
        self.unmeasured = (0, Duration::ZERO);
        let far = far_len(SockRef::from(stream).send_buffer_size()?);
        let suitable = suitable_len(len, took).max(far).min(MAX_GROWTH * self.len);
        if suitable != self.len {
            set(stream, suitable)?;
            self.len = suitable;
        }
        Ok(())
    }
}

/// A power of two, so that it rarely changes.
fn suitable_len(len: u32, took: Duration) -> u32 {
    let len = u128::from(len) * UNSENT_TIME.as_nanos() / took.as_nanos().max(1);
    let len = u32::try_from(len).unwrap_or(MAX_UNSENT_LEN);
    len.clamp(MIN_UNSENT_LEN, MAX_UNSENT_LEN).next_power_of_two()
}

/// The part of a send buffer that a long and fast link makes useful, as a power of two; 0 on others.
fn far_len(buffer: usize) -> u32 {
    match buffer.saturating_sub(NEAR_BUFFER) / FAR_SHARE {
        0 => 0,
        len => u32::try_from(len).unwrap_or(MAX_FAR_LEN).min(MAX_FAR_LEN).next_power_of_two(),
    }
}

#[cfg(target_os = "linux")]
fn set(stream: &TcpStream, len: u32) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(len)
}

#[cfg(not(target_os = "linux"))]
fn set(_stream: &TcpStream, _len: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// An empty queue takes in small chunks at once, so a few of them prove nothing.
    #[tokio::test]
    async fn the_limit_grows_only_after_half_a_megabyte() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut limit = UnsentLimit::new(&stream).unwrap();
        for _ in 0..3 {
            limit.adapt(&stream, CHUNK_LEN / 4, Duration::ZERO).unwrap();
            assert_eq!(limit.len, MIN_UNSENT_LEN);
        }
        limit.adapt(&stream, CHUNK_LEN / 4, Duration::ZERO).unwrap();
        assert_eq!(limit.len, 2 * MIN_UNSENT_LEN);
        limit.adapt(&stream, CHUNK_LEN / 4, Duration::ZERO).unwrap();
        assert_eq!(limit.len, 2 * MIN_UNSENT_LEN, "it is measured anew");
    }

    #[test]
    fn a_socket_takes_in_what_it_sends_within_two_milliseconds() {
        let after = |ms| suitable_len(CHUNK_LEN, Duration::from_millis(ms));
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
        assert_eq!(suitable_len(CHUNK_LEN, Duration::from_secs(100)), MIN_UNSENT_LEN);
        assert_eq!(suitable_len(CHUNK_LEN, Duration::ZERO), MAX_UNSENT_LEN);
        assert_eq!(suitable_len(0, Duration::from_millis(1)), MIN_UNSENT_LEN);
    }
}
