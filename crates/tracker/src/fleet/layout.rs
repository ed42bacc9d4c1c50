//! The names of keys in the store. docs/registry.md describes all of them.
//!
//! Each begins with the version of the layout, so trackers of two versions never read each other's keys. Nothing that comes from the
//! network is in a key: a share lies in the [`Bucket`] that the fleet's secret gives it.

use proto::InfoHash;
use sha2::{Digest, Sha256};

use super::secret::FleetSecret;

/// The secret of the fleet, and since when the store has its registrations.
pub const FLEET: &str = "shoal:1:fleet";

/// The channel on which trackers publish their changes.
pub const FEED: &str = "shoal:1:feed";

/// The keys of buckets, as `SCAN` finds them.
pub const BUCKETS: &str = "shoal:1:{*}:*";

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Parts into which buckets are divided. The buckets of a part have one hash slot in a cluster, so one pipeline carries them. Sixty-four
/// are enough to spread over the nodes of a cluster, and few enough that a batch of some hundred changes is a few pipelines.
const PARTS: u16 = 64;

/// One of 65,536 sorted sets, with the registrations of some shares.
///
/// A key costs the store more than a registration does (165 bytes), so shares with few peers have to lie together. With a million
/// shares sixteen are in a bucket. The store still packs that tightly, and adding to it takes no longer than to a set of one share. The
/// secret decides which, so nobody can fill one bucket on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(pub u16);

impl Bucket {
    /// The bucket of a share.
    pub fn of(infohash: &InfoHash, secret: &FleetSecret) -> Bucket {
        let hash = Sha256::new()
            .chain_update(b"shoal bucket")
            .chain_update(secret.0)
            .chain_update(infohash.0)
            .finalize();
        Bucket(u16::from_be_bytes([hash[0], hash[1]]))
    }

    /// Its part. Each has one hash slot in a cluster.
    pub fn part(self) -> u16 {
        self.0 % PARTS
    }

    /// Its key. What stands in braces decides its hash slot.
    pub fn key(self) -> String {
        let digit = |value: u16| char::from(DIGITS[usize::from(value & 15)]);
        let Bucket(number) = self;
        let part = [digit(self.part() / 10), digit(self.part() % 10)];
        let number = [12, 8, 4, 0].map(|shift| digit(number >> shift));
        // By hand, because formatting would be an eighth of what the task of the fleet takes.
        let mut key = String::with_capacity(17);
        key.push_str("shoal:1:{");
        key.extend(part);
        key.push_str("}:");
        key.extend(number);
        key
    }

    /// The bucket with this key, if it is one.
    pub fn with_key(key: &[u8]) -> Option<Bucket> {
        let number = str::from_utf8(key).ok()?.rsplit(':').next()?;
        let bucket = Bucket(u16::from_str_radix(number, 16).ok()?);
        (bucket.key().as_bytes() == key).then_some(bucket)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_bucket_of_a_key_is_found_again_and_no_other_is() {
        let key = Bucket(0xab6b).key();
        assert_eq!(key, "shoal:1:{43}:ab6b");
        assert!(
            (0..=u16::MAX)
                .all(|number| Bucket::with_key(Bucket(number).key().as_bytes()) == Some(Bucket(number)))
        );
        for other in [
            FLEET,
            FEED,
            "",
            "shoal:2:{43}:ab6b",
            "shoal:1:{44}:ab6b",
            "shoal:1:{43}:AB6B",
            "shoal:1:{43}:0ab6b",
        ] {
            assert_eq!(Bucket::with_key(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn only_the_secret_tells_which_shares_lie_together() {
        let (one, other) = (FleetSecret([1; 32]), FleetSecret([2; 32]));
        let buckets = |secret| -> Vec<Bucket> {
            (0..=255).map(|share| Bucket::of(&InfoHash([share; 32]), secret)).collect()
        };
        assert_eq!(buckets(&one), buckets(&one));
        let same = buckets(&one).iter().zip(buckets(&other)).filter(|(one, other)| **one == *other).count();
        assert!(same < 3, "{same}");
        assert!(buckets(&one).into_iter().collect::<BTreeSet<_>>().len() > 250);
        assert!(buckets(&one).into_iter().map(Bucket::part).collect::<BTreeSet<_>>().len() > 55);
    }
}
