//! What the trackers of a fleet have in common: the secret that the keys of their tokens follow from.

use std::fmt;

use rand::CryptoRng;
use sha2::{Digest, Sha256};

/// The secret of a fleet. The first tracker draws it, and the store holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetSecret(pub [u8; 32]);

impl FleetSecret {
    /// A new one.
    pub fn random(rng: &mut impl CryptoRng) -> FleetSecret {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        FleetSecret(secret)
    }

    /// The key for the tokens of a period.
    pub(crate) fn key(&self, period: u64) -> [u8; 16] {
        let hash = Sha256::new()
            .chain_update(b"shoal token key")
            .chain_update(self.0)
            .chain_update(period.to_le_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        key
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSecret(..)")
    }
}
