//! What a tracker reads from the store of its fleet: messages of other trackers, and the members of a share.
//!
//! Whoever can write to the store can write anything. Changes that are decoded encode to the same bytes, and a record comes out
//! of its members as it went in.
//!
//! Decodes: tracker/src/fleet/feed.rs: fn decode

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{Label, Zone};
use tracker::fleet::{
    feed::{Change, decode, encode},
    members::{peer_member, records_of, tag, title_members},
    record::{Record, Score},
};

fuzz_target!(|bytes: &[u8]| {
    if let Some((from, changes)) = decode(bytes) {
        let changes: Vec<Change> = changes.collect();
        let encoded = encode(from, &changes);
        assert_eq!(encoded, bytes[..encoded.len()], "a change has one encoding");
        changes.iter().for_each(|change| check_members(change.record()));
    }
    // Any members, cut at every 0x0a.
    let members = bytes.split(|&byte| byte == b'\n').zip(1..);
    let scored = members.map(|(member, score)| (member, Score(score * 128 + 100)));
    records_of(scored).iter().for_each(check_members);
});

/// Times of the next two centuries fit a score.
const LAST_MS: u64 = 1 << 43;

fn check_members(record: &Record) {
    if record.expires.0 > LAST_MS {
        return;
    }
    let mut members = title_members(record, tag(record));
    members.push(peer_member(record, tag(record)));
    let scored = members.iter().map(|member| (&member[..], record.score()));
    let found = records_of(scored);
    let [found] = &found[..] else { panic!("{found:?} in place of {record:?}") };
    // The store has no labels and no zones, and notes of complete peers only that they have fetched the share.
    let mut known = record.known.clone();
    known.label = Label::NONE;
    known.zone = Zone::NONE;
    known.fetched &= known.progress.is_complete();
    assert_eq!(found.known, known);
    // A score has tenths of a second.
    assert!(found.expires <= record.expires);
}
