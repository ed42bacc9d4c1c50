//! The events of a share or a transfer, as a stream.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::broadcast;
use tokio_stream::{
    Stream,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};

/// Maximum events that wait for their reader: all peers of a leecher may join and leave at the same moment. Otherwise a transfer
/// reports about ten a second. The largest event, a progress report with 80 peers, takes about 5 KiB.
const MAX_WAITING: usize = 256;

/// The events of a share or a transfer, in order. The stream ends when the share or the transfer has ended.
///
/// At most 256 events wait to be read. Beyond that the oldest are dropped, and [`Events::missed`] counts them.
pub struct Events<T> {
    stream: BroadcastStream<T>,
    missed: u64,
}

impl<T: Clone + Send + 'static> Events<T> {
    pub(crate) fn new() -> (broadcast::Sender<T>, Events<T>) {
        let (sender, receiver) = broadcast::channel(MAX_WAITING);
        (sender, Events { stream: BroadcastStream::new(receiver), missed: 0 })
    }

    /// Events that were dropped so far because they were not read in time.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl<T: Clone + Send + 'static> Stream for Events<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(event)) => return Poll::Ready(Some(event)),
                Some(Err(BroadcastStreamRecvError::Lagged(count))) => self.missed += count,
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_and_learns_how_many() {
        let (sender, mut events) = Events::new();
        for number in 0..MAX_WAITING + 3 {
            sender.send(number).unwrap();
        }
        drop(sender);
        assert_eq!(events.next().await, Some(3));
        assert_eq!(events.missed(), 3);
        let rest: Vec<_> = events.collect().await;
        assert_eq!(rest.last(), Some(&(MAX_WAITING + 2)));
    }
}
