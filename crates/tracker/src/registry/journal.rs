//! Changes of registrations, for the log.
//!
//! The registry does not write to the log, because requests wait for it meanwhile. It collects changes, and the caller
//! writes them when other threads can go on ([`Journal::write`]).

use std::{mem, net::IpAddr, num::NonZeroU16};

use proto::{
    InfoHash, PeerId,
    tracker::{Completion, Limit},
};

use super::peer::Peer;

/// Target of the log events of single registrations. Strangers can cause them by the thousand, so a log should leave them
/// out unless the user wants every detail.
pub const FREQUENT: &str = "tracker::frequent";

/// Maximum changes to keep: more than a batch of datagrams can cause, except when many peers expire at once.
const MAX_CHANGES: usize = 512;

/// Changes since they were last taken. Keeps nothing by default.
#[derive(Debug, Default)]
pub struct Journal {
    is_kept: bool,
    changes: Vec<Change>,
    /// Changes beyond [`MAX_CHANGES`].
    left_out: usize,
}

#[derive(Debug)]
struct Change {
    what: What,
    infohash: InfoHash,
    peer: PeerId,
    address: IpAddr,
    port: NonZeroU16,
}

#[derive(Debug)]
pub(super) enum What {
    Registered { name: String, progress: Completion },
    Refused(Limit),
    Left,
    Displaced,
    Expired,
    NotAllowed,
}

impl Journal {
    /// A journal that keeps changes.
    pub(super) fn kept() -> Journal {
        Journal { is_kept: true, ..Journal::default() }
    }

    /// Keeps a change of `peer`, if changes are kept.
    pub(super) fn note(&mut self, infohash: &InfoHash, peer: &Peer, what: impl FnOnce() -> What) {
        if !self.is_kept {
            return;
        }
        if self.changes.len() == MAX_CHANGES {
            self.left_out += 1;
            return;
        }
        let (infohash, what) = (*infohash, what());
        let (peer, address, port) = (peer.member.id, peer.address(), peer.port());
        self.changes.push(Change { what, infohash, peer, address, port });
    }

    /// Takes the changes out.
    pub(super) fn take(&mut self) -> Journal {
        let is_kept = self.is_kept;
        mem::replace(self, Journal { is_kept, ..Journal::default() })
    }

    /// Writes everything to the log.
    pub fn write(self) {
        for Change { what, infohash, peer, address, port } in self.changes {
            match what {
                What::Registered { name, progress } => tracing::debug!(
                    target: FREQUENT, %infohash, name, ?peer, %address, port, %progress, "registered"
                ),
                What::Refused(limit) => {
                    tracing::debug!(target: FREQUENT, %infohash, ?peer, %address, "refused: {limit}");
                }
                What::Left => {
                    tracing::debug!(target: FREQUENT, %infohash, ?peer, %address, port, "left");
                }
                What::Displaced => {
                    tracing::debug!(target: FREQUENT, %infohash, ?peer, %address, port, "displaced");
                }
                What::NotAllowed => {
                    tracing::debug!(target: FREQUENT, %infohash, ?peer, %address, port, "not allowed any more");
                }
                What::Expired => {
                    tracing::debug!(target: FREQUENT, %infohash, ?peer, %address, port, "expired");
                }
            }
        }
        if self.left_out > 0 {
            tracing::debug!(target: FREQUENT, "and {} more at the same moment", self.left_out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::Secret;

    use super::{super::tick::Tick, *};

    #[test]
    fn a_journal_keeps_what_it_should_up_to_its_bound() {
        let ids = (PeerId([1; 16]), Secret([2; 16]));
        let peer =
            Peer::new(ids, [192, 0, 2, 1].into(), NonZeroU16::MAX, Completion::COMPLETE, Tick::default());
        let note = |journal: &mut Journal| {
            for _ in 0..MAX_CHANGES + 5 {
                journal.note(&InfoHash([3; 32]), &peer, || What::Left);
            }
        };
        let mut unkept = Journal::default();
        note(&mut unkept);
        assert_eq!((unkept.changes.len(), unkept.left_out), (0, 0));
        let mut kept = Journal::kept();
        for _ in 0..2 {
            note(&mut kept);
            let taken = kept.take();
            assert_eq!((taken.changes.len(), taken.left_out), (MAX_CHANGES, 5));
        }
    }
}
