//! Sharing a path: the hash cache, files that change, and what cannot be shared.

use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    ops::ControlFlow,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use proto::{ChunkIndex, SMALL_CHUNK_LEN, ShareName};
use sha2::Digest as _;
use store::{
    Content, HashCache, LeftOut, OpenChunkError, Scan, ScanError, ScanRules, ShareError, Shared, SpecialKind,
    Stopped, Symlinks,
};

fn share(path: &Path) -> Result<Shared, ShareError> {
    share_as(None, path, None)
}

fn share_as(name: Option<ShareName>, path: &Path, cache: Option<&HashCache>) -> Result<Shared, ShareError> {
    Scan::new(path, name, &ScanRules::default())?.hash(cache, &|_| ControlFlow::Continue(()))
}

/// Writes a file that is old enough for the hash cache.
fn write_settled(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    settle(path, 60);
}

fn settle(path: &Path, age_s: u64) {
    let mtime = SystemTime::now() - Duration::from_secs(age_s);
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
}

/// Changes the last hash in the only entry of a hash cache: a share from the cache then has another infohash.
fn forge(cache: &Path) {
    let entry = fs::read_dir(cache).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&entry).unwrap();
    let (body, checksum) = bytes.split_last_chunk_mut::<32>().unwrap();
    *body.last_mut().unwrap() ^= 1;
    *checksum = sha2::Sha256::digest(body).into();
    fs::write(entry, bytes).unwrap();
}

#[test]
fn the_cache_spares_the_second_hashing_and_only_of_unchanged_files() {
    let dir = tempfile::tempdir().unwrap();
    let entries = dir.path().join("cache");
    let cache = HashCache::open(entries.clone()).unwrap();
    let path = dir.path().join("big.bin");
    write_settled(&path, &vec![1; 5 * SMALL_CHUNK_LEN as usize]);
    let share = || share_as(None, &path, Some(&cache)).unwrap();
    let first = share().metainfo().infohash();
    // It is remembered once its last change is some time ago.
    while fs::read_dir(&entries).unwrap().count() == 0 {
        assert_eq!(share().metainfo().infohash(), first);
    }
    forge(&entries);
    let forged = share().metainfo().infohash();
    assert_ne!(forged, first);

    // The same size and time with other content.
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_times(FileTimes::new().set_modified(mtime)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), mtime);
    let other = share().metainfo().infohash();
    assert!(other != first && other != forged);
}

#[test]
fn a_file_that_changes_or_shrinks_is_no_longer_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_settled(&path, &vec![1; 2 * SMALL_CHUNK_LEN as usize + 5]);
    let shared = share(&path).unwrap();
    let source = shared.open_chunk(ChunkIndex(2)).unwrap();
    assert_eq!((source.offset, source.len), (2 * u64::from(SMALL_CHUNK_LEN), 5));
    assert!(matches!(shared.open_chunk(ChunkIndex(3)), Err(OpenChunkError::NotHave(_))));

    settle(&path, 30);
    assert!(matches!(shared.open_chunk(ChunkIndex(0)), Err(OpenChunkError::Changed { .. })));
    settle(&path, 60);
    File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
    assert!(matches!(shared.open_chunk(ChunkIndex(0)), Err(OpenChunkError::Changed { .. })));
}

/// It is described as the file alone, and so has its infohash.
#[test]
fn a_directory_that_only_holds_a_file_with_its_own_name_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("same");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("same"), b"content").unwrap();
    for (name, at) in [(None, path.clone()), (Some("same".parse().unwrap()), path.join("same"))] {
        let shared = share_as(name, &at, None).unwrap();
        let source = shared.open_chunk(ChunkIndex(0)).unwrap();
        let mut bytes = [0; 7];
        source.file.read_exact_at(&mut bytes, source.offset).unwrap();
        assert_eq!(&bytes, b"content");
        shared.check(&|| false).unwrap();
    }
}

#[test]
fn a_file_that_is_replaced_under_its_name_is_served_from_the_old_one_while_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"old").unwrap();
    let shared = share(&path).unwrap();
    shared.open_chunk(ChunkIndex(0)).unwrap();
    fs::write(dir.path().join("new"), b"new").unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    let source = shared.open_chunk(ChunkIndex(0)).unwrap();
    let mut bytes = [0; 3];
    source.file.read_exact_at(&mut bytes, source.offset).unwrap();
    assert_eq!(&bytes, b"old");
}

#[test]
fn links_are_followed_and_loops_of_them_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(dir.path().join("elsewhere"), b"12345").unwrap();
    symlink("../elsewhere", tree.join("link")).unwrap();
    let follow = ScanRules { symlinks: Symlinks::Follow, ..ScanRules::default() };
    assert_eq!(Scan::new(&tree, None, &follow).unwrap().total_len(), 5);
    symlink("..", tree.join("loop")).unwrap();
    assert!(matches!(Scan::new(dir.path(), None, &follow), Err(ScanError::TooDeep(_))));
    // The same loop is a link like any other where links are kept.
    assert_eq!(links(&share(dir.path()).unwrap()).len(), 1);
}

#[test]
fn what_cannot_be_shared_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = share(&dir.path().join("missing")).unwrap_err().to_string();
    assert!(missing.contains("missing"), "{missing}");
    let special = share(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(special.contains("/dev/null"), "{special}");
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("bad\nname"), b"").unwrap();
    let bad = share(&tree).unwrap_err().to_string();
    assert!(bad.contains("bad\\nname") || bad.contains("bad\nname"), "{bad}");
}

/// The files that a scan of `root` finds under `rules`, in order, and what it left out.
fn scan(root: &Path, rules: &ScanRules) -> Result<(Vec<String>, LeftOut), ScanError> {
    let scan = Scan::new(root, None, rules)?;
    let left_out = scan.left_out().clone();
    let shared = scan.hash(None, &|_| ControlFlow::Continue(())).unwrap();
    let join = |path: &[ShareName]| path.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/");
    Ok((shared.metainfo().files().iter().map(|file| join(&file.path)).collect(), left_out))
}

#[test]
fn what_is_neither_file_nor_directory_is_left_out_of_a_directory_unless_scanning_is_strict() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    fs::create_dir_all(root.join("deep")).unwrap();
    fs::write(root.join("deep/file"), b"12345").unwrap();
    symlink("nothing", root.join("a dangling link")).unwrap();
    symlink("b loop", root.join("b loop")).unwrap();
    symlink("/dev/null", root.join("c device")).unwrap();
    let _socket = UnixListener::bind(root.join("deep/d socket")).unwrap();
    mkfifo(&root.join("e fifo"), Mode::S_IRUSR).unwrap();
    let follow = ScanRules { symlinks: Symlinks::Follow, ..ScanRules::default() };
    let (files, left_out) = scan(&root, &follow).unwrap();
    assert_eq!(files, ["deep/file"]);
    let first = [
        (root.join("a dangling link"), SpecialKind::DanglingLink),
        (root.join("b loop"), SpecialKind::DanglingLink),
        (root.join("c device"), SpecialKind::Device),
    ];
    assert_eq!(left_out, LeftOut { first: first.to_vec(), count: 5 });

    let strict = ScanRules { strict: true, ..follow };
    assert!(matches!(scan(&root, &strict), Err(ScanError::Special { .. })));
    let exclude = ["a*", "b*", "c*", "deep/d socket", "/e*"].map(|glob| glob.parse().unwrap()).into();
    let (files, left_out) = scan(&root, &ScanRules { exclude, ..strict }).unwrap();
    assert_eq!((files, left_out.count), (vec!["deep/file".to_owned()], 0));
    assert!(matches!(scan(&root.join("e fifo"), &ScanRules::default()), Err(ScanError::Special { .. })));
}

/// A directory with links of all kinds, in `dir`.
fn linked(dir: &Path) -> PathBuf {
    let root = dir.join("tree");
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::write(root.join("sub/file"), b"12345").unwrap();
    fs::write(dir.join("outside"), b"1").unwrap();
    let long = format!("sub/{}", "n/".repeat(600));
    for (link, text) in [
        ("absolute", root.join("sub/file").to_str().unwrap()),
        ("all", "."),
        ("dangling", "nowhere/at/all"),
        ("directory", "sub/"),
        ("itself", "itself"),
        ("long", &long),
        ("name", "a\\b"),
        ("out", "../outside"),
        ("out-and-in", "../tree/sub/file"),
        ("roundabout", "./sub//deep/.././file"),
        ("sub/deep/up", "../../directory/file"),
        ("sub/near", "../sub/file"),
        ("sub/out", "deep/../../../outside"),
        ("system", "/etc/passwd"),
    ] {
        symlink(text, root.join(link)).unwrap();
    }
    root
}

fn links(shared: &Shared) -> Vec<(String, String)> {
    let join = |path: &[ShareName]| path.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/");
    shared.metainfo().links().iter().map(|link| (join(&link.path), link.text())).collect()
}

/// libtorrent keeps the same links.
#[test]
fn links_that_stay_inside_a_share_are_kept_and_others_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = linked(dir.path());
    let scan = Scan::new(&root, None, &ScanRules::default()).unwrap();
    let out = |name: &str| (root.join(name), SpecialKind::OutsideLink);
    let unfit = |name: &str| (root.join(name), SpecialKind::UnfitLink);
    // `out`, `out-and-in`, `sub/out` and `system` are the others.
    let first = vec![out("all"), unfit("long"), unfit("name")];
    assert_eq!(*scan.left_out(), LeftOut { first, count: 7 });
    let shared = scan.hash(None, &|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(shared.metainfo().files().len(), 1);
    let kept = [
        ("absolute", "sub/file"),
        ("dangling", "nowhere/at/all"),
        ("directory", "sub"),
        ("itself", "itself"),
        ("roundabout", "sub/file"),
        ("sub/deep/up", "../../directory/file"),
        ("sub/near", "file"),
    ];
    assert_eq!(links(&shared), kept.map(|(path, text)| (path.to_owned(), text.to_owned())));
    let strict = ScanRules { strict: true, ..ScanRules::default() };
    assert!(matches!(Scan::new(&root, None, &strict), Err(ScanError::Special { .. })));
}

#[test]
fn links_are_followed_or_skipped_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let root = linked(dir.path());
    fs::remove_file(root.join("all")).unwrap();
    let follow = ScanRules { symlinks: Symlinks::Follow, ..ScanRules::default() };
    let (files, left_out) = scan(&root, &follow).unwrap();
    let followed =
        ["absolute", "directory/deep/up", "directory/file", "directory/near", "directory/out", "out"];
    assert_eq!(files[..followed.len()], followed);
    assert!(files.contains(&"system".to_owned()));
    assert!(left_out.first.contains(&(root.join("dangling"), SpecialKind::DanglingLink)), "{left_out:?}");

    let skip = ScanRules { symlinks: Symlinks::Skip, strict: true, ..ScanRules::default() };
    let (files, left_out) = scan(&root, &skip).unwrap();
    assert_eq!((files, left_out.count), (vec!["sub/file".to_owned()], 0));
}

#[test]
fn a_link_that_the_user_named_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    linked(dir.path());
    symlink("tree/sub", dir.path().join("current")).unwrap();
    let scan = Scan::new(&dir.path().join("current"), None, &ScanRules::default()).unwrap();
    let shared = scan.hash(None, &|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(shared.metainfo().name().as_str(), "current");
    assert_eq!(shared.metainfo().files().len(), 1);
    // What is inside depends on where the share begins.
    assert_eq!(links(&shared), []);
}

#[test]
fn the_owners_permission_and_the_time_are_in_the_metainfo() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    fs::create_dir(&root).unwrap();
    for (name, mode) in [("all", 0o755), ("group", 0o610), ("owner", 0o500), ("nobody", 0o666)] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890_987);
    File::options().write(true).open(root.join("nobody")).unwrap().set_modified(time).unwrap();
    let nodes = |rules: &ScanRules| {
        let shared =
            Scan::new(&root, None, rules).unwrap().hash(None, &|_| ControlFlow::Continue(())).unwrap();
        shared.metainfo().files().iter().map(|file| file.node).collect::<Vec<_>>()
    };
    let plain = nodes(&ScanRules::default());
    assert_eq!(plain.iter().map(|node| node.is_executable).collect::<Vec<_>>(), [true, false, false, true]);
    assert!(plain.iter().all(|node| node.mtime_s.is_none()));
    let timed = nodes(&ScanRules { times: true, ..ScanRules::default() });
    assert_eq!(timed[2].mtime_s.unwrap().get(), 1_234_567_890);
    assert!(timed.iter().all(|node| node.mtime_s.is_some()));
}

#[test]
fn what_is_excluded_need_not_be_fit_to_be_shared() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    fs::create_dir_all(root.join("work/deep")).unwrap();
    fs::write(root.join("file"), b"12345").unwrap();
    fs::write(root.join("work/deep/bad\nname"), b"1").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9.tmp")), b"1").unwrap();
    symlink("..", root.join("work/loop")).unwrap();
    assert!(matches!(scan(&root, &ScanRules::default()), Err(ScanError::Name { .. })));
    let exclude = ["*.tmp", "work/"].map(|glob| glob.parse().unwrap()).into();
    let (files, _) = scan(&root, &ScanRules { exclude, ..ScanRules::default() }).unwrap();
    assert_eq!(files, ["file"]);
}

/// Otherwise every request for it would block a thread for ever.
#[test]
fn a_fifo_in_the_place_of_a_shared_file_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"12345").unwrap();
    let shared = share(&path).unwrap();
    fs::remove_file(&path).unwrap();
    mkfifo(&path, Mode::S_IRUSR).unwrap();
    assert!(matches!(shared.open_chunk(ChunkIndex(0)), Err(OpenChunkError::Changed { .. })));
}

#[test]
fn another_name_makes_another_share() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"12345").unwrap();
    let name = ShareName::new("other").unwrap();
    let renamed = share_as(Some(name), &path, None).unwrap();
    assert_eq!(renamed.metainfo().name().as_str(), "other");
    assert_ne!(renamed.metainfo().infohash(), share(&path).unwrap().metainfo().infohash());
}

#[test]
fn progress_receives_every_byte_and_can_stop() {
    let dir = tempfile::tempdir().unwrap();
    let len = 40 * u64::from(SMALL_CHUNK_LEN) + 77;
    File::create(dir.path().join("f")).unwrap().set_len(len).unwrap();
    fs::write(dir.path().join("g"), b"12").unwrap();
    let hashed = AtomicU64::new(0);
    let progress = |bytes| {
        hashed.fetch_add(bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let scan = || Scan::new(dir.path(), None, &ScanRules::default()).unwrap();
    assert_eq!(scan().total_len(), len + 2);
    scan().hash(None, &progress).unwrap();
    assert_eq!(hashed.into_inner(), len + 2);
    let stopped = scan().hash(None, &|_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ShareError::Stopped(Stopped))));
}
