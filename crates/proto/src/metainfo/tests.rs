//! Tests of the encoding, and of what it refuses.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ShareName {
    ShareName::new(text).unwrap()
}

fn file(len: u64) -> FileNode {
    FileNode { len, pieces_root: (len > 0).then_some(Digest([7; 32])) }
}

#[test]
fn one_file_has_the_form_of_bep_52() {
    let metainfo = Metainfo::new(name("a.bin"), Tree::File(file(5))).unwrap();
    let root = [7; 32];
    let mut expected = b"d9:file treed5:a.bind0:d6:lengthi5e11:pieces root32:".to_vec();
    expected.extend(root);
    expected.extend(b"eee12:meta versioni2e4:name5:a.bin12:piece lengthi524288ee");
    assert_eq!(metainfo.as_bytes(), &expected);
    assert_eq!(metainfo.kind(), Kind::File);
}

/// SHA-256 of the encoding, computed by an independent implementation of BEP 52.
#[test]
fn an_empty_file_has_the_infohash_that_bep_52_gives_it() {
    let metainfo = Metainfo::new(name("file-0.bin"), Tree::File(file(0))).unwrap();
    let expected = "6b9a867af08d4347f1c6a64007d0fd22ee4239121ee65240da4269fe5ddfc645";
    assert_eq!(metainfo.infohash().to_string(), expected);
    for example in [std::str::from_utf8(metainfo.as_bytes()).unwrap(), expected] {
        assert!(crate::golden::PAGE.contains(example), "{example} in docs/protocol.md");
    }
}

#[test]
fn files_come_in_tree_order() {
    let leaf = || Node::File(file(1));
    let inner = Directory::from([(name("x"), leaf())]);
    let entries = Directory::from([
        (name("a.txt"), leaf()),
        (name("a-b"), leaf()),
        (name("a"), Node::Directory(inner)),
        (name("empty"), Node::Directory(Directory::new())),
    ]);
    let metainfo = Metainfo::new(name("d"), Tree::new_directory(&name("d"), entries)).unwrap();
    let paths: Vec<_> = metainfo.files().iter().map(|file| file.path.join_slash()).collect();
    assert_eq!(paths, ["a/x", "a-b", "a.txt"]);
    assert_eq!(metainfo.empty_directories(), [Box::from([name("empty")])]);
}

trait JoinSlash {
    fn join_slash(&self) -> String;
}

impl JoinSlash for [ShareName] {
    fn join_slash(&self) -> String {
        self.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/")
    }
}

#[test]
fn a_directory_of_one_file_of_its_own_name_is_that_file() {
    let entries = Directory::from([(name("same"), Node::File(file(9)))]);
    assert_eq!(Tree::new_directory(&name("same"), entries), Tree::File(file(9)));
}

fn directories() -> impl Strategy<Value = Directory> {
    let names = "[a-cä~.]{1,3}".prop_filter_map("plain", |text| ShareName::new(&text).ok());
    let leaf = prop_oneof![Just(0), any::<u32>().prop_map(u64::from)].prop_map(|len| Node::File(file(len)));
    let node = leaf.prop_recursive(4, 32, 4, {
        let names = names.clone();
        move |inner| prop::collection::btree_map(names.clone(), inner, 0..4).prop_map(Node::Directory)
    });
    prop::collection::btree_map(names, node, 0..5)
}

proptest! {
    #[test]
    fn decodes_what_it_encodes(entries in directories()) {
        let share = name("share");
        let metainfo = Metainfo::new(share.clone(), Tree::new_directory(&share, entries)).unwrap();
        prop_assert_eq!(Metainfo::decode(metainfo.as_bytes()).unwrap(), metainfo);
    }

    #[test]
    fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(Metainfo::decode(&bytes).is_err());
    }

    #[test]
    fn a_changed_byte_is_never_the_same_share(at in 0..140_usize, bit in 0..8_u8) {
        let metainfo = Metainfo::new(name("a.bin"), Tree::File(file(5))).unwrap();
        let mut bytes = metainfo.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let decoded = Metainfo::decode_proved(&bytes, metainfo.infohash());
        prop_assert!(matches!(decoded, Err(MetainfoError::WrongInfoHash)));
    }
}

#[test]
fn other_encodings_and_hostile_names_are_refused() {
    let root = "r".repeat(32);
    let info = |tree: &str, rest: &str| format!("d9:file treed{tree}e{rest}e");
    let rest = "12:meta versioni2e4:name1:a12:piece lengthi524288e";
    let leaf = format!("d0:d6:lengthi5e11:pieces root32:{root}ee");
    let good = info(&format!("1:a{leaf}"), rest);
    assert!(Metainfo::decode(good.as_bytes()).is_ok());
    let nested = |depth| info(&format!("{}1:a{leaf}{}", "1:ad".repeat(depth), "e".repeat(depth)), rest);
    assert!(Metainfo::decode(nested(MAX_DEPTH).as_bytes()).is_ok());
    for bad in [
        format!("{good}x"),
        good[..good.len() - 1].to_owned(),
        good.replace("i5e", "i05e"),
        good.replace("i5e", "i-5e"),
        good.replace("i5e", "i0e"),
        good.replace("1:ad0:", "01:ad0:"),
        good.replace("i2e", "i1e"),
        good.replace("524288", "262144"),
        good.replace("524288e", "524288e1:zi1e"),
        info(&format!("2:..{leaf}"), rest),
        info(&format!("3:a/b{leaf}"), rest),
        info(&format!("1:b{leaf}1:a{leaf}"), rest),
        info(&format!("1:a{leaf}1:a{leaf}"), rest),
        info("1:ai5e", rest),
        info("1:ad0:d6:lengthi5eee", rest),
        info(&format!("1:ad0:d6:lengthi0e11:pieces root32:{root}ee"), rest),
        info(&format!("1:ad0:d6:lengthi5e11:pieces root32:{root}e1:xdee"), rest),
        info(&format!("1:ad0:d4:attr1:x6:lengthi5e11:pieces root32:{root}ee"), rest),
        info(&format!("1:a{leaf}"), "12:meta versioni2e4:name2:..12:piece lengthi524288e"),
        nested(MAX_DEPTH + 1),
        nested(80),
    ] {
        assert!(Metainfo::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}
