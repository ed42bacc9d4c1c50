//! What a seeder prints about what it shares, and that it serves it.

use std::{
    fs::{self, File, FileTimes},
    ops::ControlFlow,
    os::unix::fs::{FileExt, symlink},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use proto::{
    ChunkIndex, InfoHash, Link, SMALL_CHUNK_LEN, ShareName,
    peer::{PeerMessage, Role},
    tracker::Completion,
};
use sha2::Digest as _;
use store::{Content, Scan, ScanRules, Symlinks};
use tokio::runtime::Runtime;

use crate::{
    peer::{answer, connect, send},
    program::{PATIENCE, Place, Running, run},
    seeder,
    tracking::Tracking,
};

/// What a seeder prints about one share.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) port: u16,
    pub(crate) name: String,
    pub(crate) link: Link,
}

/// Reads the description of one share, from its first line to its last, and checks that it agrees with itself.
pub(crate) fn described(seeder: &Running, path: &str) -> Described {
    let running = seeder.line_with("Seeder running");
    let port = running.strip_prefix("Seeder running on port ").and_then(|rest| rest.split_once(' '));
    let (port, rest) = port.unwrap_or_else(|| panic!("{running}"));
    assert_eq!(rest, format!("for file {path}"));
    let field = |name: &str| {
        let line = seeder.line();
        let value = line.trim_start().strip_prefix(name).unwrap_or_else(|| panic!("no {name}: {line}"));
        value.trim_start().to_owned()
    };
    let (name, infohash, size, link) = (field("name"), field("infohash"), field("size"), field("link"));
    assert!(size.contains("chunk"), "{size}");
    let leecher = Path::new(env!("CARGO_BIN_EXE_seeder")).with_file_name("leecher");
    assert_eq!(field("fetch it"), format!("{} '{link}'", leecher.display()));
    let link: Link = link.parse().unwrap();
    assert_eq!(link.infohash.to_string(), infohash);
    assert_eq!(link.name, Some(ShareName::new(&name).unwrap()));
    Described { port: port.parse().unwrap(), name, link }
}

/// The infohash as the library computes it.
fn infohash(path: &Path, name: Option<&str>) -> InfoHash {
    let name = name.map(|name| ShareName::new(name).unwrap());
    let shared = Scan::new(path, name, &ScanRules::default())
        .unwrap()
        .hash(None, &|_| ControlFlow::Continue(()))
        .unwrap();
    shared.metainfo().infohash()
}

/// Asks a seeder for the first chunk of a share.
pub(crate) fn first_chunk(port: u16, infohash: InfoHash) -> Vec<u8> {
    Runtime::new().unwrap().block_on(async {
        let mut connection = connect(port, infohash, 0).await.unwrap();
        assert_eq!(connection.hello.role, Role::Seeder);
        send(&mut connection, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }])
            .await;
        let (message, bytes) = answer(&mut connection).await;
        assert!(matches!(message, PeerMessage::Chunk { chunk: ChunkIndex(0), .. }), "{message:?}");
        bytes
    })
}

#[test]
fn prints_what_it_shares_and_how_to_fetch_it() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::write(place.path("data.bin"), vec![7; 3 * SMALL_CHUNK_LEN as usize]).unwrap();
    let seeder = Running::start(seeder(&place, &["-f", "data.bin", "--tracker", &tracker.address()]));
    let starting = seeder.line();
    let described = described(&seeder, "data.bin");
    assert_eq!(starting, format!("Starting seeder for file 'data.bin' on port {}", described.port));
    assert_eq!(described.name, "data.bin");
    assert_eq!(described.link.infohash, infohash(&place.path("data.bin"), None));
    assert_eq!(described.link.trackers, [tracker.address().parse().unwrap()]);
    assert_eq!(seeder.line(), "The links work on this machine only: no other machine can reach this seeder");
    assert_eq!(seeder.line(), "Press Ctrl+C to stop");
    assert_eq!(seeder.line(), format!("Registered 'data.bin' with tracker {}", tracker.address()));
}

#[test]
fn the_command_that_is_printed_works_on_other_hosts() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"12345").unwrap();
    let mut command = seeder(&place, &["data.bin", "--tracker", "localhost:1,tracker.invalid"]);
    command.env_remove("SHOAL_BIND");
    let seeder = Running::start(command);
    let share = described(&seeder, "data.bin");
    let [local, remote] = &share.link.trackers[..] else { panic!("{share:?}") };
    assert_eq!(remote.to_string(), "tracker.invalid:6020");
    let next = seeder.line();
    if local.host == "localhost" {
        // A machine without a network.
        assert!(next.starts_with("The links work on this machine only"), "{next}");
        return;
    }
    let own: std::net::IpAddr = local.host.parse().unwrap();
    assert!(!own.is_loopback() && !own.is_unspecified() && local.port == 1, "{own}");
    assert!(next.starts_with("  or here ") && next.contains("tr=shoal://localhost:1&"), "{next}");
}

#[test]
fn shares_the_default_file_without_arguments() {
    let place = Place::new();
    run(seeder(&place, &[])).assert_failed(2, &["no large_text_file.txt here", "seeder PATH"]);
    fs::write(place.path("large_text_file.txt"), b"12345").unwrap();
    assert_eq!(
        described(&Running::start(seeder(&place, &[])), "large_text_file.txt").name,
        "large_text_file.txt"
    );
}

#[test]
fn names_that_would_fool_the_reader_are_shown_escaped() {
    let place = Place::new();
    fs::write(place.path("gpj\u{202e}exe\u{200b}"), b"12345").unwrap();
    let seeder = Running::start(seeder(&place, &["gpj\u{202e}exe\u{200b}", "-vv"]));
    assert!(seeder.line().contains(r"gpj\u{202e}exe\u{200b}"));
    assert_eq!(seeder.line_with("  name").trim_start(), r"name      gpj\u{202e}exe\u{200b}");
    let link: Link =
        seeder.line_with("  link").trim_start().trim_start_matches("link").trim().parse().unwrap();
    assert_eq!(link.name.unwrap().as_str(), "gpj\u{202e}exe\u{200b}");
    seeder.line_with("Press");
    seeder.signal(rustix::process::Signal::TERM);
    let ended = seeder.end();
    let log = fs::read_to_string(place.path("seeder_debug.log")).unwrap();
    assert!(![ended.err, log].iter().any(|text| text.contains(['\u{202e}', '\u{200b}'])));
}

#[test]
fn shares_several_files_and_directories_under_one_port() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::write(place.path("data.bin"), b"12345").unwrap();
    fs::create_dir_all(place.path("tree/empty")).unwrap();
    fs::write(place.path("tree/a"), b"a").unwrap();
    let seeder = Running::start(seeder(&place, &["data.bin", "tree", "--tracker", &tracker.address()]));
    let (file, tree) = (described(&seeder, "data.bin"), described(&seeder, "tree"));
    assert_eq!(file.link.infohash, infohash(&place.path("data.bin"), None));
    assert_eq!(tree.link.infohash, infohash(&place.path("tree"), None));
    assert_eq!(tree.name, "tree");
    for _ in 0..2 {
        seeder.line_with("Registered '");
    }
    for share in [file, tree] {
        assert_eq!(tracker.seeder_ports(share.link.infohash), [share.port]);
    }
}

#[test]
fn a_path_that_is_named_twice_is_shared_once() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::write(place.path("data.bin"), b"12345").unwrap();
    let seeder = Running::start(seeder(
        &place,
        &["-f", "data.bin", "-f", "./data.bin", "--tracker", &tracker.address()],
    ));
    described(&seeder, "data.bin");
    seeder.line_with("Registered 'data.bin'");
    seeder.signal(rustix::process::Signal::TERM);
    assert_eq!(seeder.end().err, "");
}

#[test]
fn another_name_makes_another_share() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::write(place.path("data.bin"), b"12345").unwrap();
    let args = ["-f", "data.bin", "--name", "other name", "--tracker", &tracker.address()];
    let seeder = Running::start(seeder(&place, &args));
    let described = described(&seeder, "data.bin");
    assert_eq!(described.name, "other name");
    assert_eq!(described.link.infohash, infohash(&place.path("data.bin"), Some("other name")));
    seeder.line_with("Registered 'other name' with");
}

#[test]
fn shares_a_directory_without_what_cannot_be_shared_and_what_is_excluded() {
    let place = Place::new();
    fs::create_dir_all(place.path("tree/keep")).unwrap();
    fs::create_dir_all(place.path("plain/keep")).unwrap();
    for tree in ["tree", "plain"] {
        fs::write(place.path(tree).join("keep/a"), b"a").unwrap();
    }
    fs::write(place.path("tree/keep/b.tmp"), b"b").unwrap();
    for link in ["1", "2", "3", "4", "5"] {
        symlink("../../outside", place.path("tree/keep").join(link)).unwrap();
    }
    let args = ["tree", "--exclude", "*.tmp", "--exclude", "1", "--tracker", "127.0.0.1:1"];
    let seeder = Running::start(seeder(&place, &args));
    let warning = seeder.err_line();
    for text in [
        "'tree/keep/2' (a symbolic link that leads out of the share, or to all of it)",
        "'tree/keep/4'",
        "and 1 more",
    ] {
        assert!(warning.contains(text), "{warning}");
    }
    let described = described(&seeder, "tree");
    assert_eq!(described.link.infohash, infohash(&place.path("plain"), Some("tree")));
}

#[test]
fn links_and_times_are_shared_as_the_user_wants() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/a"), b"a").unwrap();
    symlink("a", place.path("tree/b")).unwrap();
    let default = ScanRules::default;
    let mut infohashes = Vec::new();
    for (args, rules) in [
        (&[][..], default()),
        (&["--symlinks", "follow"], ScanRules { symlinks: Symlinks::Follow, ..default() }),
        (&["--symlinks", "skip"], ScanRules { symlinks: Symlinks::Skip, ..default() }),
        (&["--times"], ScanRules { times: true, ..default() }),
    ] {
        let seeder = Running::start(seeder(&place, &[&["tree", "--tracker", "127.0.0.1:1"], args].concat()));
        let described = described(&seeder, "tree");
        let scan = Scan::new(&place.path("tree"), None, &rules).unwrap();
        let shared = scan.hash(None, &|_| ControlFlow::Continue(())).unwrap();
        assert_eq!(described.link.infohash, shared.metainfo().infohash(), "{args:?}");
        assert!(!infohashes.contains(&described.link.infohash), "{args:?}");
        infohashes.push(described.link.infohash);
    }
    let wrong = run(seeder(&place, &["tree", "--symlinks", "copy"]));
    wrong.assert_failed(2, &["it must be keep, follow or skip"]);
}

#[test]
fn a_path_that_ends_in_nothing_has_the_name_of_what_it_leads_to() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/a"), b"a").unwrap();
    for path in [".", "tree/"] {
        let mut command = seeder(&place, &["-f", path, "--tracker", "127.0.0.1:1", "--no-log-file"]);
        command.current_dir(place.path(if path == "." { "tree" } else { "" }));
        assert_eq!(described(&Running::start(command), path).name, "tree");
    }
}

#[test]
fn serves_although_its_output_is_not_read() {
    let (place, tracker) = (Place::new(), Tracking::start());
    let bytes: Vec<u8> = (0..SMALL_CHUNK_LEN + 5).map(|i| (i % 251) as u8).collect();
    fs::write(place.path("data.bin"), &bytes).unwrap();
    let mut command = seeder(&place, &["-f", "data.bin", "-vv", "--tracker", &tracker.address()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer);
    let seeder = Running::start(command);
    // The one place left where the port shows, since stdout is closed.
    let deadline = Instant::now() + PATIENCE;
    while !seeder.err_line().contains("event=Announced") {
        assert!(Instant::now() < deadline, "no word of a registration");
    }
    let infohash = infohash(&place.path("data.bin"), None);
    let ports = tracker.seeder_ports(infohash);
    assert_eq!(ports.len(), 1);
    assert_eq!(first_chunk(ports[0], infohash), bytes[..SMALL_CHUNK_LEN as usize]);
    seeder.signal(rustix::process::Signal::TERM);
    let ended = seeder.end();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}

#[test]
fn serves_without_a_tracker_and_warns() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"12345").unwrap();
    // Takes what it is sent, and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let seeder = Running::start(seeder(&place, &["-f", "data.bin", "--tracker", &address]));
    let described = described(&seeder, "data.bin");
    assert_eq!(first_chunk(described.port, described.link.infohash), b"12345");
    let warning = seeder.err_line();
    assert!(warning.contains("'data.bin' is not registered") && warning.contains(&address), "{warning}");
    assert_eq!(first_chunk(described.port, described.link.infohash), b"12345");
    seeder.signal(rustix::process::Signal::TERM);
    let ended = seeder.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
}

/// Changes the hash of the last chunk in the only entry of a hash cache: a share that comes from it shows that.
fn forge(cache: &Path) {
    let entry = fs::read_dir(cache).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&entry).unwrap();
    let (body, checksum) = bytes.split_last_chunk_mut::<32>().unwrap();
    *body.last_mut().unwrap() ^= 1;
    *checksum = sha2::Sha256::digest(body).into();
    fs::write(entry, bytes).unwrap();
}

#[test]
fn hashes_once_and_remembers_by_default() {
    let place = Place::new();
    let path = place.path("data.bin");
    fs::write(&path, vec![1; 5 * SMALL_CHUNK_LEN as usize]).unwrap();
    let mtime = SystemTime::now() - Duration::from_secs(60);
    let settle = |file: &File| file.set_times(FileTimes::new().set_modified(mtime)).unwrap();
    settle(&File::options().write(true).open(&path).unwrap());
    let start = |args: &[&str]| {
        let args = [&["-f", "data.bin", "--tracker", "127.0.0.1:1"], args].concat();
        let seeder = Running::start(seeder(&place, &args));
        described(&seeder, "data.bin").link.infohash
    };
    let true_one = infohash(&path, None);
    let cache = place.dir().with_file_name(".cache").join("shoal/hashes");
    // A file that changed a moment ago is not remembered.
    while !fs::read_dir(&cache).is_ok_and(|entries| entries.count() > 0) {
        assert_eq!(start(&[]), true_one);
    }
    forge(&cache);
    let forged = start(&[]);
    assert_ne!(forged, true_one);
    assert_eq!(start(&["--no-cache"]), true_one);
    assert_eq!(start(&["--cache-dir", "elsewhere"]), true_one);
    assert!(fs::read_dir(place.path("elsewhere")).unwrap().count() > 0);
    assert_eq!(start(&[]), forged, "--no-cache and --cache-dir leave the user's cache alone");
    // The same size and time with other content.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    settle(&file);
    assert_eq!(start(&[]), infohash(&path, None));
}
