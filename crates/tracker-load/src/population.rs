//! The simulated peers of a load and their shares.
//!
//! Nothing is stored: all properties of a peer or a share are computed from its number. The seed is drawn for each run, so
//! two runs against one tracker have no peers in common.

use std::{fmt::Write, num::NonZeroU16};

use proto::{InfoHash, PeerId, Secret, tracker::Completion};

/// First TCP port of the simulated peers. From here on a port takes the same number of bytes on the wire, so datagrams of
/// one kind have one size.
const FIRST_PORT: u16 = 1_024;

/// How peers are spread over shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Few shares have many peers and most have few: the n-th most popular has peers in proportion to 1/sqrt(n).
    Popular,
    /// Every share has the same number.
    Even,
}

/// Simulated shares and peers.
#[derive(Debug, Clone)]
pub(crate) struct Population {
    pub(crate) shares: u32,
    pub(crate) peers: u32,
    /// IP addresses that the peers come from; peer `n` from `n % addresses`.
    pub(crate) addresses: u32,
    pub(crate) spread: Spread,
    pub(crate) seed: u64,
}

/// One simulated peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) share: u32,
    pub(crate) id: PeerId,
    pub(crate) secret: Secret,
    pub(crate) port: NonZeroU16,
    pub(crate) progress: Completion,
}

impl Population {
    pub(crate) fn peer(&self, number: u32) -> Peer {
        let mixed = self.mix(1, number);
        let share = match self.spread {
            Spread::Even => number % self.shares,
            Spread::Popular => {
                let place = f64::from(u32_of(mixed)) / (f64::from(u32::MAX) + 1.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a part of a u32, rounded down"
                )]
                let share = (f64::from(self.shares) * place * place) as u32;
                share
            }
        };
        let port = FIRST_PORT + u16::try_from(mixed % u64::from(u16::MAX - FIRST_PORT)).unwrap_or(0);
        Peer {
            share,
            id: PeerId(bytes([mixed, self.mix(2, number)])),
            secret: Secret(bytes([self.mix(3, number), self.mix(4, number)])),
            port: NonZeroU16::new(port).unwrap_or(NonZeroU16::MIN),
            // Three in four are seeders.
            progress: if mixed.is_multiple_of(4) { Completion::of(1, 2) } else { Completion::COMPLETE },
        }
    }

    pub(crate) fn infohash(&self, share: u32) -> InfoHash {
        InfoHash(bytes([5, 6, 7, 8].map(|part| self.mix(part, share))))
    }

    /// Writes the name of a share into `name`. All names have one length.
    pub(crate) fn name(share: u32, name: &mut String) {
        name.clear();
        // Writing to a `String` cannot fail.
        let _ = write!(name, "share-{share:07}.bin");
    }

    /// Peers that come from an address.
    pub(crate) fn peers_at(&self, address: u32) -> u32 {
        (self.peers - address).div_ceil(self.addresses)
    }

    /// The `index`-th peer of an address.
    pub(crate) fn peer_at(&self, address: u32, index: u32) -> u32 {
        address + index * self.addresses
    }

    /// A number that looks random (splitmix64).
    fn mix(&self, part: u64, number: u32) -> u64 {
        let mut mixed = self.seed ^ (part << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The upper half, because its bits are mixed best.
fn u32_of(mixed: u64) -> u32 {
    u32::try_from(mixed >> 32).unwrap_or(u32::MAX)
}

fn bytes<const PARTS: usize, const LEN: usize>(parts: [u64; PARTS]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (bytes, part) in bytes.chunks_mut(8).zip(parts) {
        bytes.copy_from_slice(&part.to_le_bytes()[..bytes.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn population(spread: Spread) -> Population {
        Population { shares: 100, peers: 1_001, addresses: 10, spread, seed: 7 }
    }

    #[test]
    fn every_peer_is_someone_else_and_comes_from_one_address() {
        let population = population(Spread::Even);
        let ids: HashSet<[u8; 16]> = (0..1_001).map(|number| population.peer(number).id.0).collect();
        assert_eq!(ids.len(), 1_001);
        let mut seen = HashSet::new();
        for address in 0..10 {
            for index in 0..population.peers_at(address) {
                assert!(seen.insert(population.peer_at(address, index)));
            }
        }
        assert_eq!(seen, (0..1_001).collect());
    }

    #[test]
    fn shares_are_even_or_popular() {
        let count = |spread, share| {
            let population = population(spread);
            (0..1_000).filter(|&number| population.peer(number).share == share).count()
        };
        assert!((0..100).all(|share| count(Spread::Even, share) == 10));
        assert!(count(Spread::Popular, 0) > 60 && count(Spread::Popular, 99) < 20);
    }
}
