//! Where other peers connect to this one.

use std::{io, net::SocketAddr, num::NonZeroU16, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

/// Wait after accepting failed, most likely for want of file descriptors: it would fail again at once.
const BACK_OFF: Duration = Duration::from_millis(200);

/// The socket that listens, if there is one.
#[derive(Debug)]
pub(super) struct Door {
    listener: Option<TcpListener>,
    /// Nothing is accepted before this time.
    closed_until: Option<Instant>,
}

impl Door {
    pub(super) fn new(listener: Option<TcpListener>) -> Door {
        Door { listener, closed_until: None }
    }

    /// The port that others connect to, if they can.
    pub(super) fn port(&self) -> Option<NonZeroU16> {
        self.listener.as_ref()?.local_addr().ok()?.port().try_into().ok()
    }

    /// Accepts a connection; never if there is nothing to listen on. Cancel safe.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        if let Some(until) = self.closed_until {
            sleep_until(until).await;
        }
        let accepted = listener.accept().await;
        self.closed_until = accepted.is_err().then(|| Instant::now() + BACK_OFF);
        accepted
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{Shutdown, shutdown};

    use super::*;

    /// A socket that was shut down cannot accept, like one whose process has no file descriptor left.
    #[tokio::test(start_paused = true)]
    async fn a_door_that_fails_is_not_tried_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        shutdown(&listener, Shutdown::Both).unwrap();
        let mut door = Door::new(Some(listener));
        let begun = Instant::now();
        door.accept().await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // Whoever waits for other things too begins again and again.
        for _ in 0..3 {
            let waiting = tokio::time::timeout(BACK_OFF / 10, door.accept()).await;
            assert!(waiting.is_err(), "{waiting:?}");
        }
        door.accept().await.unwrap_err();
        assert_eq!(begun.elapsed(), BACK_OFF);
    }
}
