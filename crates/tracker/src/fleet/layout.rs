//! The names of keys in the store. docs/registry.md describes all of them.
//!
//! Each begins with the version of the layout, so trackers of two versions never read each other's keys. Infohashes are in hex: nothing
//! that comes from the network is in a key as it came.

use proto::InfoHash;

/// What all keys of this version begin with.
pub const PREFIX: &str = "shoal:1:";

/// The secret of the fleet, and since when the store has its registrations.
pub const FLEET: &str = "shoal:1:fleet";

/// The channel on which trackers publish their changes.
pub const FEED: &str = "shoal:1:feed";

/// The keys of shares, as `SCAN` finds them.
pub const SHARES: &str = "shoal:1:{*}:*";

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Parts into which shares are divided. The shares of a part have one hash slot in a cluster, so one pipeline carries them. Sixty-four are
/// enough to spread over the nodes of a cluster, and few enough that a batch of some hundred changes is a few pipelines.
pub const PARTS: u8 = 64;

/// The part that a share belongs to.
pub fn part(infohash: &InfoHash) -> u8 {
    infohash.0[0] % PARTS
}

/// The key of a share. What stands in braces decides its hash slot.
pub fn share_key(infohash: &InfoHash) -> String {
    let mut key = String::with_capacity(PREFIX.len() + 5 + 64);
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    let part = part(infohash);
    key.push_str(PREFIX);
    key.extend(['{', digit(part / 10), digit(part % 10), '}', ':']);
    // By hand, because formatting would be an eighth of what the task of the fleet takes.
    key.extend(infohash.0.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]));
    key
}

/// The share of a key; `None` if it is not the key of a share.
pub fn share_of(key: &[u8]) -> Option<InfoHash> {
    let key = str::from_utf8(key).ok()?;
    let infohash: InfoHash = key.strip_prefix(PREFIX)?.rsplit(':').next()?.parse().ok()?;
    (share_key(&infohash) == key).then_some(infohash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_share_is_found_again_and_no_other_is() {
        let infohash = InfoHash([0xab; 32]);
        let key = share_key(&infohash);
        assert_eq!(key, format!("shoal:1:{{43}}:{}", "ab".repeat(32)));
        assert_eq!(share_of(key.as_bytes()), Some(infohash));
        for other in [FLEET, FEED, "", "shoal:2:{43}:", &key[1..], &key.to_uppercase(), &format!("{key}0")] {
            assert_eq!(share_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(share_of(key.replace("{43}", "{44}").as_bytes()), None);
    }
}
