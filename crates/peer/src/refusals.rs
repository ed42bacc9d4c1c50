//! Refusing peers that connected, when there is no room for them.

use proto::peer::GoodbyeReason;
use tokio::task::JoinSet;

use crate::{
    descriptors::{FOR_REFUSALS, at_most},
    handshake::Incoming,
    task::task_output,
};

/// Maximum number of refusals under way, which bounds the cost of a burst of connections. Further peers are dropped without a
/// goodbye.
pub(crate) const MAX_REFUSALS: usize = 64;

/// The refusals that are under way.
#[derive(Debug)]
pub struct Refusals {
    under_way: JoinSet<()>,
    most: usize,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { under_way: JoinSet::new(), most: at_most(MAX_REFUSALS, FOR_REFUSALS) }
    }
}

impl Refusals {
    /// Refuses a peer.
    pub fn refuse(&mut self, incoming: Incoming, reason: GoodbyeReason) {
        while let Some(ended) = self.under_way.try_join_next() {
            task_output(ended);
        }
        if self.under_way.len() < self.most {
            // If this fails, the peer notices that the connection closes.
            self.under_way.spawn(async move { _ = incoming.refuse(reason).await });
        }
    }

    /// Gives up those that are under way. When it returns, no task is left.
    pub async fn stop(&mut self) {
        self.under_way.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proto::{
        InfoHash, PeerId, Zone,
        peer::{Hello, Role},
    };
    use swarm::NO_ROOM;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::handshake::{self, HandshakeError};

    #[tokio::test]
    async fn a_burst_of_peers_is_refused_up_to_a_bound() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut peers, mut incoming) = (JoinSet::new(), Vec::new());
        for _ in 0..MAX_REFUSALS + 9 {
            peers.spawn(async move {
                let (infohash, peer_id) = (InfoHash([1; 32]), PeerId([2; 16]));
                let hello =
                    Hello { infohash, peer_id, role: Role::Leecher, listen_port: 0, zone: Zone::NONE };
                handshake::initiate(TcpStream::connect(address).await.unwrap(), hello).await.unwrap_err()
            });
            let (stream, from) = listener.accept().await.unwrap();
            incoming.push(handshake::receive(stream, from).await.unwrap());
        }
        // They come all at once: no refusal can end in between.
        let mut refusals = Refusals::default();
        incoming.into_iter().for_each(|peer| refusals.refuse(peer, NO_ROOM));
        let errors = peers.join_all().await;
        let is_refused = |error: &&HandshakeError| matches!(error, HandshakeError::Goodbye(NO_ROOM));
        assert_eq!(errors.iter().filter(is_refused).count(), MAX_REFUSALS);
        refusals.stop().await;
    }
}
