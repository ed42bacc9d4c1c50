//! The chunks that a leecher stored, in their order, for all of its connections to report.
//!
//! Each connection remembers its position. So a peer that reads slowly costs a number, not a queue.

use std::sync::{Arc, PoisonError};

use proto::ChunkIndex;

use crate::sync::{Mutex, MutexGuard};

/// The log. It grows to one entry for each chunk of the share.
#[derive(Debug, Clone, Default)]
pub struct HaveLog {
    chunks: Arc<Mutex<Vec<ChunkIndex>>>,
}

/// A connection's position in the log.
#[derive(Debug, Clone)]
pub struct HaveFeed {
    log: HaveLog,
    told: usize,
}

impl HaveLog {
    /// Adds a chunk that was stored. The caller has to wake the connections.
    pub fn push(&self, chunk: ChunkIndex) {
        self.lock().push(chunk);
    }

    /// A position at the end of the log, for a peer that receives all earlier chunks in a bitfield.
    pub fn feed(&self) -> HaveFeed {
        HaveFeed { log: self.clone(), told: self.lock().len() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ChunkIndex>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HaveFeed {
    /// The next chunks to report, at most `most`; none if all are reported.
    pub fn next(&mut self, most: usize) -> Vec<ChunkIndex> {
        let log = self.log.lock();
        let news: Vec<_> = log[self.told..].iter().take(most).copied().collect();
        self.told += news.len();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feed_reports_everything_once_from_where_it_began() {
        let log = HaveLog::default();
        let mut early = log.feed();
        log.push(ChunkIndex(5));
        let mut late = log.feed();
        log.push(ChunkIndex(7));
        log.push(ChunkIndex(6));
        assert_eq!(early.next(2), [5, 7].map(ChunkIndex));
        assert_eq!(early.next(2), [ChunkIndex(6)]);
        assert_eq!(early.next(2), []);
        assert_eq!(late.next(9), [7, 6].map(ChunkIndex));
    }
}
