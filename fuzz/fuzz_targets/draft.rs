//! A metainfo that is put together from sections of a similar one and of a peer, which may lie.
//!
//! No section is taken that has not its sum in the outline. So whatever the peer sends before, honest sections complete the metainfo,
//! and it is the one of the outline. There is never more to request than there are sections.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::outline::{Draft, Outline, SectionSet};

fuzz_target!(|input: (&[u8], Vec<(u32, u64, &[u8])>, &[u8])| {
    let (similar, lies, whole) = input;
    let outline = Outline::of(whole);
    let mut draft = Draft::new(outline.sums().to_vec(), similar);
    for (first, bits, bytes) in lies {
        let set = SectionSet { first, bits };
        if set.is_legal() {
            let (sections, before) = draft.len();
            // Whether it is believed shows at the end.
            let _ = draft.fill(set, bytes);
            assert!(draft.len().0 == sections && draft.len().1 <= before);
        }
    }
    let missing = draft.missing();
    assert_eq!(missing.iter().map(|set| set.bits.count_ones() as usize).sum::<usize>(), draft.len().1);
    for set in missing {
        assert!(set.is_legal());
        let sections = set.sections().map(|section| &whole[outline.range(section).expect("it is a section")]);
        draft.fill(set, &sections.collect::<Vec<_>>().concat()).expect("an honest peer is believed");
    }
    assert_eq!(draft.into_bytes().expect("nothing is missing"), whole);
});
