//! Tests of the encoding, and of what it refuses.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ShareName {
    ShareName::new(text).unwrap()
}

fn file(len: u64) -> FileNode {
    FileNode::new(len, (len > 0).then_some(Digest([7; 32])))
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

fn link(target: &[&str]) -> LinkNode {
    LinkNode::new(target.iter().map(|text| name(text)).collect()).unwrap()
}

/// The bytes and both infohashes are libtorrent's.
#[test]
fn executables_links_and_times_have_libtorrents_form() {
    let root = crate::golden::bytes("a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf");
    let share = |mtime_s| {
        let root = Digest(root.as_slice().try_into().unwrap());
        let run = Node::File(FileNode { is_executable: true, mtime_s, ..FileNode::new(10, Some(root)) });
        let to_run = Node::Link(link(&["bin", "run"]).with_mtime(mtime_s));
        let bin = Directory::from([(name("run"), run), (name("self"), to_run.clone())]);
        let entries = Directory::from([(name("bin"), Node::Directory(bin)), (name("latest"), to_run)]);
        Metainfo::new(name("tool"), Tree::new_directory(&name("tool"), entries)).unwrap()
    };
    let example = ("Metainfo of an executable and two links", share(None).as_bytes().to_vec());
    crate::golden::assert_documented(&["Metainfo"], [example]);
    for (mtime_s, infohash) in [
        (None, "3a59d81a5c2fe7f8cdec1abf9dcda78f683d092b77fea6631b8758af5c8e6fe6"),
        (NonZeroI64::new(1_700_000_000), "93fa41db4a3fa6b898d5f4da81b8e997996504d09adf1fc48473a907bbda39c3"),
    ] {
        let share = share(mtime_s);
        assert_eq!(share.infohash().to_string(), infohash);
        assert!(crate::golden::PAGE.contains(infohash), "{infohash} in docs/protocol.md");
        let links: Vec<_> = share.links().iter().map(|link| [link.path.join_slash(), link.text()]).collect();
        assert_eq!(links, [["bin/self", "run"], ["latest", "bin/run"]]);
        assert_eq!(Metainfo::decode(share.as_bytes()).unwrap(), share);
    }
}

/// The table of docs/protocol.md.
#[test]
fn nodes_are_accepted_and_refused_as_on_the_protocols_page() {
    let (_, table) = crate::golden::PAGE.split_once("| node | |\n|---|---|\n").unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut count = 0;
    for (node, meaning) in rows {
        let info = format!("d9:file treed1:a{node}e12:meta versioni2e4:name1:s12:piece lengthi524288ee");
        let decoded = Metainfo::decode(info.as_bytes());
        assert_eq!(decoded.is_err(), meaning.starts_with("refused"), "{node} is {meaning} {decoded:?}");
        count += 1;
    }
    assert_eq!(count, 23);
}

#[test]
fn a_link_has_the_shortest_relative_text() {
    for (dir, target, text) in [
        ("", "a", "a"),
        ("", "a/b", "a/b"),
        ("a", "a/b", "b"),
        ("a", "b", "../b"),
        ("a", "a", "."),
        ("a/b", "a", ".."),
        ("a/b/c", "a/b", ".."),
        ("a/b", "a/c/b", "../c/b"),
        ("a/b", "ab", "../../ab"),
    ] {
        let path: Vec<_> = dir.split('/').filter(|name| !name.is_empty()).map(name).collect();
        let target: Vec<_> = target.split('/').collect();
        assert_eq!(link(&target).text(&path), text, "{target:?} from {dir}");
    }
}

#[test]
fn a_link_is_as_long_as_a_file_system_stores_and_no_longer() {
    let share = |depth: usize, target: &[String]| {
        let mut node = Node::Link(link(&target.iter().map(String::as_str).collect::<Vec<_>>()));
        for _ in 0..depth {
            node = Node::Directory(Directory::from([(name("d"), node)]));
        }
        Metainfo::new(name("s"), Tree::new_directory(&name("s"), Directory::from([(name("a"), node)])))
    };
    // All of the way to the target is part of the text, because the first names differ.
    for depth in [0, 1, 60] {
        let room = MAX_LINK_LEN - 3 * depth;
        // Names of 255 bytes, and the slashes between them.
        let mut target = vec!["n".repeat(255); room / 256];
        target.push("n".repeat(room % 256));
        assert_eq!(share(depth, &target).unwrap().links()[0].text().len(), MAX_LINK_LEN);
        target[0].pop();
        target.push("n".to_owned());
        assert!(matches!(share(depth, &target), Err(MetainfoError::LinkTooLong)));
    }
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

fn times() -> impl Strategy<Value = Option<NonZeroI64>> {
    prop_oneof![Just(None), any::<i64>().prop_map(NonZeroI64::new)]
}

fn directories() -> impl Strategy<Value = Directory> {
    let names = "[a-cä~.]{1,3}".prop_filter_map("plain", |text| ShareName::new(&text).ok());
    let len = prop_oneof![Just(0), any::<u32>().prop_map(u64::from)];
    let file = (len, any::<bool>(), times()).prop_map(|(len, is_executable, mtime_s)| FileNode {
        is_executable,
        mtime_s,
        ..file(len)
    });
    let link = (prop::collection::vec(names.clone(), 1..4), times())
        .prop_map(|(target, mtime_s)| LinkNode::new(target.into()).unwrap().with_mtime(mtime_s));
    let leaf = prop_oneof![3 => file.prop_map(Node::File), 1 => link.prop_map(Node::Link)];
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
        info(&format!("1:ad0:d4:attr1:y6:lengthi5e11:pieces root32:{root}ee"), rest),
        info(&format!("1:a{leaf}"), "12:meta versioni2e4:name2:..12:piece lengthi524288e"),
        nested(MAX_DEPTH + 1),
        nested(80),
    ] {
        assert!(Metainfo::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}
