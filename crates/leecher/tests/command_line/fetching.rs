//! Transfers that succeed: what is saved where, and what is said.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{ChunkIndex, Link, SMALL_CHUNK_LEN};
use store::{Content, ScanRules};

use crate::{
    content::{Withheld, bytes},
    leecher,
    network::{Network, link, refusing_peer, share, silent_tracker},
    program::{Ended, Place, Running, run},
};

/// Checks that a transfer succeeded, in silence on stderr, and that its last line says so.
fn assert_fetched(ended: &Ended, name: &str) {
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.out.last(), Some(&format!("Successfully downloaded {name}")), "{ended:?}");
}

#[test]
fn saves_the_share_and_reports_that_last() {
    let (place, network, bytes) = (Place::new(), Network::start(), bytes(3));
    let shared = network.file("data.bin", &bytes);
    network.seed(shared.clone());
    let ended = run(leecher(&place, &["data.bin", "--tracker", &network.tracker()]));
    assert_fetched(&ended, "data.bin");
    assert_eq!(ended.out[0], "Downloading data.bin (384.00 KiB) to leeched_data.bin");
    let link: Link = ended.out[1].trim().parse().unwrap();
    assert_eq!(link.infohash, shared.metainfo().infohash());
    assert_eq!(link.trackers, [network.tracker().parse().unwrap()]);
    assert_eq!(place.names(), ["leeched_data.bin", "leecher_debug.log"]);
    assert_eq!(fs::read(place.path("leeched_data.bin")).unwrap(), bytes);
}

/// The seeder refuses to send them.
#[test]
fn zeros_do_not_travel() {
    let (place, network) = (Place::new(), Network::start());
    let mut expected = bytes(1);
    expected.resize(9 * SMALL_CHUNK_LEN as usize + 5, 0);
    // Written, so they are no hole.
    let shared = network.file("image", &expected);
    network.seed(Arc::new(Withheld { shared, from: ChunkIndex(1) }));
    for (args, is_sparse) in [(&["-o", "sparse"], true), (&["-o", "written"], false)] {
        let mut command = leecher(&place, &[&["image", "--tracker", &network.tracker()], &args[..]].concat());
        if !is_sparse {
            command.arg("--no-sparse");
        }
        let ended = run(command);
        assert_fetched(&ended, "image");
        assert!(
            ended.out.contains(&"  1.00 MiB of it are zeros, which are not fetched".to_owned()),
            "{ended:?}"
        );
        assert!(ended.out.iter().any(|line| line.starts_with("  100.0% (128.00 KiB) from ")), "{ended:?}");
        let path = place.path(args[1]);
        assert_eq!(fs::read(&path).unwrap(), expected);
        let room = fs::metadata(&path).unwrap().blocks() * 512;
        let is_small = room < 2 * u64::from(SMALL_CHUNK_LEN);
        assert_eq!(is_small, is_sparse, "{room} bytes on disk");
    }
}

/// By the umask of the receiver, and not by the mode at the seeder.
#[test]
fn a_build_arrives_as_it_was() {
    let (place, network) = (Place::new(), Network::start());
    let source = place.path("build");
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::write(source.join("bin/run"), b"#!/bin/sh\nexit 5\n").unwrap();
    fs::set_permissions(source.join("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(source.join("data"), b"12345").unwrap();
    symlink("bin/run", source.join("run")).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    fs::File::options().write(true).open(source.join("data")).unwrap().set_modified(time).unwrap();
    network.seed(share(&source, &ScanRules { times: true, ..ScanRules::default() }));
    for (mask, executable, plain, times) in [
        ("022", 0o755, 0o644, true),
        ("027", 0o750, 0o640, false),
        ("033", 0o744, 0o644, true),
        ("077", 0o700, 0o600, false),
    ] {
        let mut command = leecher(&place, &["build", "-o", mask, "--tracker", &network.tracker()]);
        if times {
            command.arg("--times");
        }
        assert_fetched(&run(with_mask(mask, &command)), "build");
        let mode = |name: &str| fs::metadata(place.path(mask).join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("bin/run"), mode("data")), (executable, plain), "{mask}");
        assert_eq!(fs::read_link(place.path(mask).join("run")).unwrap(), Path::new("bin/run"));
        let ran = Command::new(place.path(mask).join("run")).status().unwrap();
        assert_eq!(ran.code(), Some(5));
        let arrived = fs::metadata(place.path(mask).join("data")).unwrap().modified().unwrap();
        assert_eq!(arrived == time, times, "{mask}");
    }
}

/// The same command under this umask.
fn with_mask(mask: &str, command: &Command) -> Command {
    let mut masked = Command::new("sh");
    masked.args(["-c", "umask $0; exec \"$@\"", mask]).arg(command.get_program()).args(command.get_args());
    masked.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => masked.env(name, value),
            None => masked.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        masked.current_dir(dir);
    }
    masked
}

/// With `leeched_` before it and `.part` behind it, such a name is longer than a file system takes.
#[test]
fn a_share_with_the_longest_of_names_arrives() {
    let (place, network) = (Place::new(), Network::start());
    for len in [240, 255] {
        let name = "n".repeat(len);
        network.seed(network.file(&name, name.as_bytes()));
        let ended = run(leecher(&place, &[&name, "--tracker", &network.tracker()]));
        assert_fetched(&ended, &name);
        let saved = ended.out[0].split_once(" to ").unwrap().1.to_owned();
        assert_eq!(fs::read(place.path(&saved)).unwrap(), name.as_bytes());
        fs::remove_file(place.path(&saved)).unwrap();
        assert_eq!(place.names(), ["leecher_debug.log"]);
    }
}

#[test]
fn the_link_that_is_printed_leads_where_the_users_link_led() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("data.bin", b"12345");
    let peer = format!("127.0.0.1:{}", network.seed(shared.clone()));
    let (tracker, (_silent, other)) = (network.tracker(), silent_tracker());
    let whole = link(&*shared, std::slice::from_ref(&tracker), std::slice::from_ref(&peer));
    for (number, (args, trackers)) in [
        (&[][..], &[&tracker][..]),
        (&["--tracker", &other], &[&tracker, &other]),
        (&["--tracker", &tracker, "--peer", &peer], &[&tracker]),
    ]
    .into_iter()
    .enumerate()
    {
        let output = number.to_string();
        let ended = run(leecher(&place, &[&[&whole, "-o", &output], args].concat()));
        let printed: Link = ended.out[1].trim().parse().unwrap();
        let named: Vec<String> = printed.trackers.iter().map(ToString::to_string).collect();
        assert_eq!(named.iter().collect::<Vec<_>>(), trackers, "{args:?}");
        assert_eq!(printed.peers, [peer.parse().unwrap()], "{args:?}");
    }
}

#[test]
fn a_leecher_that_stays_reports_that() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let leecher = Running::start(leecher(&place, &["--seed", "--tracker", &network.tracker()]));
    leecher.line_with("Successfully downloaded");
    assert_eq!(leecher.line(), "Serving other leechers; press Ctrl+C to stop");
    leecher.signal(rustix::process::Signal::INT);
    let ended = leecher.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(ended.out, ["Leecher stopped after sending 0 B to others"]);
}

#[test]
fn a_directory_that_does_not_exist_is_made() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let tracker = network.tracker();
    run(leecher(&place, &["other", "-d", "new", "--tracker", &tracker, "--timeout", "1"]))
        .assert_failed(3, &["'other'"]);
    assert!(!place.path("new").exists(), "nothing to put into it");
    assert_fetched(&run(leecher(&place, &["-d", "new/sub", "--tracker", &tracker])), "data.bin");
    assert_eq!(fs::read(place.path("new/sub/leeched_data.bin")).unwrap(), b"12345");
}

#[test]
fn a_share_can_be_named_in_every_way() {
    let (place, network, bytes) = (Place::new(), Network::start(), bytes(1));
    let shared = network.file("data.bin", &bytes);
    network.seed(shared.clone());
    let (tracker, infohash) = (network.tracker(), shared.metainfo().infohash().to_string());
    let (bare_link, whole_link) =
        (link(&*shared, &[], &[]), link(&*shared, std::slice::from_ref(&tracker), &[]));
    let ways: [&[&str]; 6] = [
        &["--tracker", &tracker],
        &["--tracker", &tracker, "data.bin"],
        &["--tracker", &tracker, "-f", "data.bin"],
        &["--tracker", &tracker, &infohash],
        &["--tracker", &tracker, &bare_link],
        &[&whole_link],
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let output = number.to_string();
        assert_fetched(&run(leecher(&place, &[way, &["-o", &output]].concat())), "data.bin");
        assert_eq!(fs::read(place.path(&output)).unwrap(), bytes, "{way:?}");
    }
}

#[test]
fn a_name_that_looks_like_an_infohash_is_a_name_after_dash_f() {
    let (place, network) = (Place::new(), Network::start());
    let name = "ab".repeat(32);
    network.seed(network.file(&name, b"12345"));
    let tracker = network.tracker();
    run(leecher(&place, &["--tracker", &tracker, &name, "--timeout", "1"]))
        .assert_failed(3, &["no tracker knows the share"]);
    assert_fetched(&run(leecher(&place, &["--tracker", &tracker, "-f", &name])), &name);
}

#[test]
fn with_a_peer_no_tracker_is_needed() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("data.bin", b"12345");
    let peer = format!("127.0.0.1:{}", network.seed(shared.clone()));
    let (infohash, bare_link) = (shared.metainfo().infohash().to_string(), link(&*shared, &[], &[]));
    let whole_link = link(&*shared, &[], std::slice::from_ref(&peer));
    let ways: [&[&str]; 3] = [&["--peer", &peer, &infohash], &["--peer", &peer, &bare_link], &[&whole_link]];
    for way in ways {
        assert_fetched(&run(leecher(&place, way)), "data.bin");
        fs::remove_file(place.path("leeched_data.bin")).unwrap();
    }
}

#[test]
fn a_peer_that_cannot_be_reached_does_not_keep_others_from_serving() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("data.bin", b"12345");
    let peer = format!("127.0.0.1:{}", network.seed(shared.clone()));
    let (_refusing, refused) = refusing_peer();
    let infohash = shared.metainfo().infohash().to_string();
    let ended = run(leecher(&place, &[&infohash, "--peer", &format!("{refused},{peer}")]));
    assert_fetched(&ended, "data.bin");
}

#[test]
fn directories_come_whole() {
    let (place, network, big) = (Place::new(), Network::start(), bytes(2));
    let files = [("a", &b"a"[..]), ("empty", b""), ("sub/b", &big), ("データ/c d", b"c")];
    network.seed(network.directory("tree", &files));
    assert_fetched(&run(leecher(&place, &["tree", "--tracker", &network.tracker()])), "tree");
    for (path, bytes) in files {
        assert_eq!(fs::read(place.path("leeched_tree").join(path)).unwrap(), bytes, "{path}");
    }
    assert_eq!(place.names(), ["leeched_tree", "leecher_debug.log"]);
}

#[test]
fn an_empty_file_is_fetched_too() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("nothing", b""));
    assert_fetched(&run(leecher(&place, &["nothing", "--tracker", &network.tracker()])), "nothing");
    assert_eq!(fs::read(place.path("leeched_nothing")).unwrap(), b"");
}

#[test]
fn the_output_is_where_the_user_wants_it() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    fs::create_dir(place.path("sub")).unwrap();
    let tracker = network.tracker();
    for (args, saved) in [
        (["-o", "other name"], "other name"),
        (["-o", "sub/x"], "sub/x"),
        (["-d", "sub"], "sub/leeched_data.bin"),
    ] {
        let ended = run(leecher(&place, &[&args[..], &["--tracker", &tracker]].concat()));
        assert_fetched(&ended, "data.bin");
        assert_eq!(ended.out[0], format!("Downloading data.bin (5 B) to {saved}"));
        assert_eq!(fs::read(place.path(saved)).unwrap(), b"12345");
    }
}

#[test]
fn overwrite_replaces_a_file() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    fs::write(place.path("leeched_data.bin"), b"old").unwrap();
    assert_fetched(&run(leecher(&place, &["--overwrite", "--tracker", &network.tracker()])), "data.bin");
    assert_eq!(fs::read(place.path("leeched_data.bin")).unwrap(), b"12345");
}

#[test]
fn quiet_prints_nothing() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let ended = run(leecher(&place, &["-q", "--tracker", &network.tracker()]));
    assert_eq!((ended.code, ended.err.as_str(), &ended.out[..]), (Some(0), "", &[][..]));
    assert_eq!(fs::read(place.path("leeched_data.bin")).unwrap(), b"12345");
}

#[test]
fn a_closed_stdout_is_no_reason_to_fail() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = leecher(&place, &["--tracker", &network.tracker()]);
    command.stdout(writer);
    let ended = run(command);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(fs::read(place.path("leeched_data.bin")).unwrap(), b"12345");
}

#[test]
fn where_there_is_no_terminal_progress_comes_in_lines_and_only_if_wanted() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("data.bin", &bytes(3));
    network.seed(Arc::new(Withheld { shared, from: ChunkIndex(2) }));
    let tracker = network.tracker();
    let waiting = Running::start(leecher(&place, &["--tracker", &tracker, "-o", "a", "--no-serve"]));
    let silent = ["--tracker", &tracker, "-o", "b", "--no-serve", "--no-progress", "--timeout", "2"];
    let silent = run(leecher(&place, &silent));
    assert_eq!(silent.code, Some(7), "{silent:?}");
    assert!(!silent.err.contains('%'), "{silent:?}");
    let line = waiting.err_line();
    assert!(line.starts_with("66% (256.00 KiB of 384.00 KiB) at ") && line.contains("1 peer"), "{line}");
    assert!(!line.contains(['\x1b', '\r']), "{line:?}");
}

#[test]
fn prints_what_it_waits_for() {
    let (place, (_silent, address)) = (Place::new(), silent_tracker());
    let waiting = Running::start(leecher(&place, &["data.bin", "--tracker", &address]));
    let line = waiting.err_line();
    assert!(!line.starts_with("error"), "nothing before: {line}");
}

#[test]
fn several_shares_are_fetched_by_one_command() {
    let (place, network) = (Place::new(), Network::start());
    let shares = ["a.bin", "b.bin", "c.bin"].map(|name| network.file(name, name.as_bytes()));
    shares.iter().for_each(|shared| _ = network.seed(shared.clone()));
    let (tracker, id) = (network.tracker(), shares[1].metainfo().infohash().to_string());
    let link = link(&*shares[2], std::slice::from_ref(&tracker), &[]);
    // The one that is named twice is fetched once.
    let ended = run(leecher(&place, &["a.bin", &id, &link, "a.bin", "-d", "saved", "--tracker", &tracker]));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    for name in ["a.bin", "b.bin", "c.bin"] {
        let said = format!("Successfully downloaded {name}");
        assert_eq!(ended.out.iter().filter(|line| **line == said).count(), 1, "{ended:?}");
        assert_eq!(fs::read(place.path(&format!("saved/leeched_{name}"))).unwrap(), name.as_bytes());
    }
}

#[test]
fn a_share_that_cannot_be_fetched_does_not_stop_the_others() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("a.bin", b"12345"));
    let tracker = network.tracker();
    let ended = run(leecher(&place, &["nothing.bin", "a.bin", "--timeout", "1s", "--tracker", &tracker]));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.err.contains("error: nothing.bin: no tracker knows a share called 'nothing.bin'"),
        "{ended:?}"
    );
    assert!(ended.err.ends_with("error: 1 of 2 shares could not be fetched"), "{ended:?}");
    assert_eq!(fs::read(place.path("leeched_a.bin")).unwrap(), b"12345");
}

/// The two trackers stand for one at two times.
#[test]
fn a_name_that_leads_elsewhere_than_before_is_reported() {
    let (place, before, after) = (Place::new(), Network::start(), Network::start());
    let shares = [before.file("data.bin", &bytes(1)), after.file("data.bin", &bytes(2))];
    before.seed(shares[0].clone());
    after.seed(shares[1].clone());
    let infohashes = shares.each_ref().map(|shared| shared.metainfo().infohash().to_string());
    let (before, after) = (before.tracker(), after.tracker());
    for (output, more) in [("a", "--no-serve"), ("b", "--no-progress")] {
        let ended = run(leecher(&place, &["data.bin", more, "-o", output, "--tracker", &before]));
        assert_fetched(&ended, "data.bin");
    }
    // Without memory there is nothing to report.
    let ended = run(leecher(&place, &["data.bin", "-o", "c", "--tracker", &after, "--known-names", "none"]));
    assert_fetched(&ended, "data.bin");
    let ended = run(leecher(&place, &["data.bin", "-o", "d", "--tracker", &after]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let warning = format!(
        "warning: 'data.bin' led to {} when it was last fetched here, and leads to {} now",
        infohashes[0], infohashes[1]
    );
    assert_eq!(ended.err.trim_end(), warning);
    // It is remembered, and going back is reported again.
    let ended = run(leecher(&place, &["data.bin", "-o", "e", "--tracker", &after]));
    assert_fetched(&ended, "data.bin");
    let ended = run(leecher(&place, &["data.bin", "-o", "f", "--json", "--tracker", &before]));
    let moved: serde_json::Value = serde_json::from_str(&ended.out[0]).unwrap();
    assert_eq!(moved["event"], "name_moved", "{ended:?}");
    assert_eq!(
        (&moved["before"], &moved["now"]),
        (&infohashes[1].as_str().into(), &infohashes[0].as_str().into())
    );
}
