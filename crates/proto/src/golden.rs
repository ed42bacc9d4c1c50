//! Golden bytes in hexadecimal, and the examples of `docs/protocol.md`, which must be the same bytes.

use std::collections::BTreeMap;

/// The page that describes the wire formats.
pub(crate) const PAGE: &str = include_str!("../../../docs/protocol.md");

/// Reads hexadecimal digits. Spaces are ignored, and `ab*16` is the byte `ab` 16 times.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in hex.split_whitespace() {
        let (digits, times) = word.split_once('*').map_or((word, 1), |(d, n)| (d, n.parse().unwrap()));
        assert!(digits.len().is_multiple_of(2), "{word}");
        let octets: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        bytes.extend(octets.repeat(times));
    }
    bytes
}

/// The `hex` blocks of the page whose name starts with one of `prefixes`. The first line of a block is
/// `# ` and its name; in the others, a `#` starts a comment.
fn documented(prefixes: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut examples = BTreeMap::new();
    for block in PAGE.split("```hex\n").skip(1) {
        let mut lines = block.split("```").next().unwrap().lines();
        let name = lines.next().unwrap().strip_prefix("# ").expect("a block begins with its name");
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            let hex: Vec<_> = lines.map(|line| line.split('#').next().unwrap()).collect();
            let twice = examples.insert(name.to_owned(), bytes(&hex.join(" ")));
            assert_eq!(twice, None, "{name} twice");
        }
    }
    examples
}

/// Checks that the page has exactly these examples among those whose name starts with one of `prefixes`.
pub(crate) fn assert_documented(
    prefixes: &[&str],
    golden: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
) {
    let mut examples = documented(prefixes);
    for (name, bytes) in golden {
        assert_eq!(examples.remove(name), Some(bytes), "{name} in docs/protocol.md");
    }
    assert_eq!(examples, BTreeMap::new(), "examples in docs/protocol.md without golden bytes");
}

#[test]
fn the_protocol_page_has_the_limits() {
    use crate::{
        BLOCK_LEN, CHUNK_LEN, PREAMBLE_LEN, SMALL_CHUNK_LEN, chunk, link, metainfo, name, peer, tracker,
    };

    let bytes = |value: u64| format!("{} bytes", grouped(value));
    for (value, constant) in [
        (bytes(CHUNK_LEN.into()), "CHUNK_LEN"),
        (bytes(SMALL_CHUNK_LEN.into()), "SMALL_CHUNK_LEN"),
        (bytes(chunk::SMALL_SHARE_LEN), "SMALL_SHARE_LEN"),
        (bytes(BLOCK_LEN.into()), "BLOCK_LEN"),
        (grouped(chunk::MAX_CHUNKS.into()), "MAX_CHUNKS"),
        (bytes(chunk::MAX_SHARE_LEN), "MAX_SHARE_LEN"),
        (bytes(metainfo::MAX_METAINFO_LEN.into()), "MAX_METAINFO_LEN"),
        (metainfo::MAX_DEPTH.to_string(), "MAX_DEPTH"),
        (format!("{} bytes", name::MAX_NAME_LEN), "MAX_NAME_LEN"),
        (bytes(metainfo::MAX_LINK_LEN as u64), "MAX_LINK_LEN"),
        (format!("{} each", link::MAX_ENDPOINTS), "MAX_ENDPOINTS"),
        (format!("{PREAMBLE_LEN} bytes"), "PREAMBLE_LEN"),
        (tracker::DEFAULT_PORT.to_string(), "tracker::DEFAULT_PORT"),
        (bytes(tracker::MAX_DATAGRAM_LEN as u64), "MAX_DATAGRAM_LEN"),
        (tracker::message::MAX_PEERS.to_string(), "MAX_PEERS"),
        (tracker::message::MAX_SHARES.to_string(), "MAX_SHARES"),
        (format!("{} s", tracker::client::CALL_TIMEOUT.as_secs()), "CALL_TIMEOUT"),
        (peer::DEFAULT_PORT.to_string(), "peer::DEFAULT_PORT"),
        (format!("{} bytes", peer::MAX_FRAME_LEN), "MAX_FRAME_LEN"),
        (bytes(peer::MAX_PART_LEN.into()), "MAX_PART_LEN"),
        (grouped(peer::MAX_HASHES.into()), "MAX_HASHES"),
        (peer::MAX_PUSHED_PARTS.to_string(), "MAX_PUSHED_PARTS"),
        (grouped(peer::MAX_PIPELINE as u64), "MAX_PIPELINE"),
        (peer::BLOCKS_PER_CHUNK.to_string(), "BLOCKS_PER_CHUNK"),
    ] {
        let row = format!("| {value} | `{constant}` |");
        assert!(PAGE.contains(&row), "{row} in docs/protocol.md");
    }
}

/// 524288 as 524,288.
fn grouped(value: u64) -> String {
    if value < 1_000 {
        return value.to_string();
    }
    format!("{},{:03}", grouped(value / 1_000), value % 1_000)
}
