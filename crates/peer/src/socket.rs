//! Sending bytes to a socket, and giving up on a receiver that takes none.
//!
//! Only waiting for the socket counts against the receiver. Waiting for this side's own rate limit, disk or peers does not:
//! with a low limit a chunk may take an hour.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};

/// Sending fails if the receiver takes nothing at all for this long. Between two connected hosts the kernel reports progress
/// in steps of some 16 KiB, so this is a rate of less than 150 B/s.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Waits until the socket takes more.
pub(crate) async fn writable(stream: &TcpStream) -> io::Result<()> {
    timeout(STALL_TIMEOUT, stream.writable()).await.unwrap_or_else(|_| {
        let seconds = STALL_TIMEOUT.as_secs();
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the peer received nothing for {seconds} seconds"),
        ))
    })
}

/// What is sent after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Perhaps nothing.
    Unknown,
    /// More, at once. So the system may wait until a packet is full.
    More,
}

/// Sends all of `bytes`.
pub(crate) async fn send_bytes(stream: &TcpStream, mut bytes: &[u8], next: Next) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = match next {
            Next::Unknown => stream.try_write(bytes),
            Next::More => try_write_before_more(stream, bytes),
        };
        match sent {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(stream).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn try_write_before_more(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::{SendFlags, send};

    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    stream.try_io(tokio::io::Interest::WRITABLE, || Ok(send(stream, bytes, flags)?))
}

#[cfg(not(target_os = "linux"))]
fn try_write_before_more(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    stream.try_write(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, copy, sink},
        net::TcpListener,
        task::yield_now,
        time::{Instant, advance, pause},
    };

    use super::*;

    /// A connection that accepts no more bytes until the other end reads.
    async fn full() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        near.writable().await.unwrap();
        while near.try_write(&[7; 64 * 1024]).is_ok() {}
        (near, far)
    }

    #[tokio::test]
    async fn a_receiver_that_takes_nothing_is_given_up_on() {
        let (near, _far) = full().await;
        pause();
        let begun = Instant::now();
        let error = send_bytes(&near, &[7; 9], Next::Unknown).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= STALL_TIMEOUT);
    }

    /// The total time does not matter.
    #[tokio::test]
    async fn a_receiver_that_takes_something_now_and_then_is_not() {
        /// More than the system buffers between the two.
        const TAKEN: u64 = 16 * 1024 * 1024;
        let (near, mut far) = full().await;
        let sending =
            tokio::spawn(async move { send_bytes(&near, &vec![7; 5 * TAKEN as usize], Next::Unknown).await });
        // Paused time does not advance by itself while a task runs.
        let work = tokio::spawn(async {
            loop {
                yield_now().await;
            }
        });
        pause();
        for _ in 0..5 {
            advance(STALL_TIMEOUT / 2).await;
            let taken = copy(&mut (&mut far).take(TAKEN), &mut sink()).await.unwrap();
            assert_eq!(taken, TAKEN);
        }
        copy(&mut far, &mut sink()).await.unwrap();
        sending.await.unwrap().unwrap();
        work.abort();
    }
}
