//! Lookups that wait for the store, and their answers.

use std::{
    collections::{BTreeMap, VecDeque},
    net::UdpSocket,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::{InfoHash, tracker::MAX_DATAGRAM_LEN};
use rand::rngs::StdRng;

use crate::{fleet::side::Question, worker::Shared};

/// A lookup waits no longer than this, so it is answered after 200 ms at the latest, whatever this thread is doing meanwhile.
const MAX_WAIT: Duration = Duration::from_millis(150);

/// Lookups that wait, by share.
#[derive(Default)]
pub(super) struct Waiting {
    shares: BTreeMap<InfoHash, Vec<Question>>,
    /// When the first lookup of each share has to be answered. Some are answered already.
    due: VecDeque<(Instant, InfoHash)>,
}

/// Answers lookups that have waited.
pub(super) struct Answerer {
    socket: UdpSocket,
    replies: BytesMut,
}

impl Waiting {
    /// Adds a lookup. Returns whether it is the first of its share, which has to be read then.
    pub(super) fn push(&mut self, question: Question) -> bool {
        let infohash = question.infohash;
        let due = question.at + MAX_WAIT;
        let questions = self.shares.entry(infohash).or_default();
        questions.push(question);
        let is_first = questions.len() == 1;
        if is_first {
            self.due.push_back((due, infohash));
        }
        is_first
    }

    /// Takes out the lookups of a share.
    pub(super) fn take(&mut self, infohash: &InfoHash) -> Vec<Question> {
        self.shares.remove(infohash).unwrap_or_default()
    }

    /// Takes out the lookups of a share that have to be answered now, if there are any.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Vec<Question>> {
        while let Some(&(due, infohash)) = self.due.front()
            && due <= now
        {
            self.due.pop_front();
            let questions = self.take(&infohash);
            if !questions.is_empty() {
                return Some(questions);
            }
        }
        None
    }

    /// When [`Waiting::take_due`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|&(due, _)| due)
    }

    /// Takes out all lookups.
    pub(super) fn take_all(&mut self) -> Vec<Question> {
        self.due.clear();
        std::mem::take(&mut self.shares).into_values().flatten().collect()
    }
}

impl Answerer {
    pub(super) fn new(socket: UdpSocket) -> Answerer {
        Answerer { socket, replies: BytesMut::with_capacity(MAX_DATAGRAM_LEN) }
    }

    /// Answers with what is known now.
    pub(super) fn answer(&mut self, shared: &Shared, questions: &[Question], rng: &mut StdRng) {
        for Question { source, datagram, .. } in questions {
            self.replies.clear();
            let reply = {
                let mut handler = shared.handler();
                handler.handle_at_last(datagram, source.ip(), Instant::now(), rng, &mut self.replies)
            };
            let Some(reply) = reply else { continue };
            // A lost answer is asked for again, as everywhere.
            if let Err(error) = self.socket.send_to(&self.replies[reply], source) {
                tracing::debug!("cannot answer: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(share: u8, at: Instant) -> Question {
        let source = ([192, 0, 2, 1], 1).into();
        Question { source, datagram: Box::default(), infohash: InfoHash([share; 32]), at }
    }

    #[test]
    fn a_share_is_read_once_for_all_that_wait_for_it_and_none_waits_too_long() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        assert!(waiting.push(question(1, start)));
        assert!(!waiting.push(question(1, start + MAX_WAIT / 2)));
        assert!(waiting.push(question(2, start + MAX_WAIT / 2)));
        assert_eq!(waiting.take(&InfoHash([2; 32])).len(), 1);
        assert!(waiting.push(question(2, start + MAX_WAIT)));
        assert_eq!(waiting.next_due(), Some(start + MAX_WAIT));
        assert!(waiting.take_due(start).is_none());
        assert_eq!(waiting.take_due(start + MAX_WAIT).unwrap().len(), 2);
        assert!(waiting.take_due(start + MAX_WAIT).is_none());
        // Its earlier turn comes again, which is early but not late.
        assert_eq!(waiting.take_due(start + 2 * MAX_WAIT).unwrap().len(), 1);
        assert!(waiting.take_due(start + 9 * MAX_WAIT).is_none());
        waiting.push(question(3, start));
        assert_eq!((waiting.take_all().len(), waiting.next_due()), (1, None));
    }
}
