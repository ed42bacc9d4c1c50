//! The actions that a swarm asks its caller to carry out.

use std::net::SocketAddr;

use proto::{ChunkIndex, peer::PeerMessage, tracker::Completion};

use super::{Failure, Report, SourceId};
use crate::{
    leaving::LeaveReason,
    scheduler::{PeerKey, Spread},
};

/// An action for the caller.
#[derive(Debug)]
pub enum Action {
    /// Ask this source for peers, and pass in an [`Event::Answered`](super::Event::Answered).
    LookUp(SourceId),
    /// Connect to this address.
    Dial(PeerKey, SocketAddr),
    /// Ask this peer for the description. If it is still being dialled, ask with the hello.
    AskDescription(PeerKey),
    /// Ask this peer for the rest of its metainfo. Without this it sends only the first part of one that is longer than
    /// [`SMALL_METAINFO`](crate::SMALL_METAINFO).
    AskRest(PeerKey),
    /// The description is known. Open the output, and pass in an [`Event::Opened`](super::Event::Opened).
    Open,
    /// Send a message.
    Send(PeerKey, PeerMessage),
    /// End a connection, and pass in [`PeerEvent::Closed`](super::PeerEvent::Closed). The peer receives [`LeaveReason::goodbye`].
    Close(PeerKey, LeaveReason),
    /// Announce this chunk to the connected peers.
    Have(ChunkIndex, Spread),
    /// Announce to the trackers how much is here.
    Announce(Completion),
    /// Make the received chunks durable.
    Checkpoint,
    /// All chunks are here. Make them durable, give the share its final name, and pass in an
    /// [`Event::Finished`](super::Event::Finished).
    Finish,
    /// Report this to the user.
    Report(Report),
    /// Report the progress of the transfer to the user: [`Swarm::progress`](super::Swarm::progress).
    ReportProgress,
    /// The transfer is over. This is the last action.
    End(Result<(), Failure>),
}

impl Action {
    /// The connection that it concerns.
    pub(super) fn peer(&self) -> Option<PeerKey> {
        match self {
            Action::Dial(key, _)
            | Action::AskDescription(key)
            | Action::AskRest(key)
            | Action::Send(key, _)
            | Action::Close(key, _) => Some(*key),
            _ => None,
        }
    }
}
