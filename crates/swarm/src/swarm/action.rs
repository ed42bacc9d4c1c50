//! What a swarm says is to be done.

use std::net::SocketAddr;

use proto::{ChunkIndex, peer::PeerMessage, tracker::Completion};

use super::{Failure, Report, SourceId};
use crate::{leaving::LeaveReason, scheduler::PeerKey};

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Ask this source for peers, and hand in an [`Event::Answered`](super::Event::Answered).
    LookUp(SourceId),
    /// Connect.
    Dial(PeerKey, SocketAddr),
    /// Ask this peer what the share is.
    AskDescription(PeerKey),
    /// The description is known: prepare the output, and hand in an [`Event::Opened`](super::Event::Opened).
    Open,
    /// Send a message.
    Send(PeerKey, PeerMessage),
    /// End a connection and hand in [`PeerEvent::Closed`](super::PeerEvent::Closed). [`LeaveReason::goodbye`] is what the peer is told.
    Close(PeerKey, LeaveReason),
    /// Let the others know that this chunk is here.
    Tell(ChunkIndex),
    /// Let the trackers know how much is here.
    Announce(Completion),
    /// Make durable what came.
    Checkpoint,
    /// Everything is here. Make it durable, give it its name, and hand in an [`Event::Finished`](super::Event::Finished).
    Finish,
    /// Let the user know.
    Report(Report),
    /// Let the user know how far the transfer is, as [`Swarm::progress`](super::Swarm::progress) says.
    ReportProgress,
    /// It is over. Nothing else is to be done.
    End(Result<(), Failure>),
}

impl Action {
    /// The connection that it names.
    pub(super) fn peer(&self) -> Option<PeerKey> {
        match self {
            Action::Dial(key, _)
            | Action::AskDescription(key)
            | Action::Send(key, _)
            | Action::Close(key, _) => Some(*key),
            _ => None,
        }
    }
}
