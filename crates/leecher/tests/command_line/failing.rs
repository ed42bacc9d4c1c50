//! What goes wrong: exit codes, messages that name what happened, to what, and what to do next, and that
//! nothing is left behind.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, symlink},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use store::Content;
use tracker::{Admission, ShareList};

use crate::{
    content::{Wrong, bytes},
    leecher,
    network::{Network, link, refusing_peer, silent_tracker},
    program::{Place, run},
};

/// All that a transfer which never began may leave.
const ONLY_THE_LOG: [&str; 1] = ["leecher_debug.log"];

#[test]
fn a_share_that_the_tracker_does_not_know() {
    let (place, network) = (Place::new(), Network::start());
    let tracker = network.tracker();
    let hash = "ab".repeat(32);
    let link = format!("magnet:?xt=urn:btmh:1220{hash}&tr=shoal://{tracker}");
    let start_a_seeder = "check that a seeder is running";
    for (args, says) in [
        (&["no such.bin", "--tracker", &tracker][..], &["'no such.bin'", "--list", start_a_seeder][..]),
        (&[&hash, "--tracker", &tracker], &[&hash, start_a_seeder]),
        (&[&link], &[&hash, start_a_seeder]),
        (&["--tracker", &tracker], &["knows no shares", start_a_seeder]),
    ] {
        // The tracker has just been started, and may not know everybody yet.
        run(leecher(&place, &[args, &["--timeout", "1"]].concat())).assert_failed(3, says);
    }
    assert_eq!(place.names(), ONLY_THE_LOG);
}

/// Without an end it would try for an hour.
#[test]
fn a_tracker_whose_name_cannot_be_resolved() {
    let place = Place::new();
    let hash = "ab".repeat(32);
    for target in ["data.bin", &hash] {
        let args = [target, "--tracker", "no-host.invalid", "--timeout", "1h"];
        let says = ["tracker no-host.invalid:6020: its name cannot be resolved", "--tracker HOST"];
        run(leecher(&place, &args)).assert_failed(6, &says);
    }
}

#[test]
fn a_share_that_the_tracker_does_not_allow() {
    let deny = ShareList::parse(&format!("*.iso\n{}", "ab".repeat(32))).unwrap();
    let admission = Some(Admission { allow: None, deny: Some(deny) });
    let network = Network::with(tracker::Config { admission, ..tracker::Config::default() });
    let (place, tracker) = (Place::new(), network.tracker());
    for target in ["a.iso", &"ab".repeat(32)] {
        let says = [&tracker, "its operator does not allow this share", "name another tracker"];
        run(leecher(&place, &[target, "--tracker", &tracker])).assert_failed(3, &says);
    }
}

#[test]
fn a_malformed_link() {
    let place = Place::new();
    let (hash, v1) = ("ab".repeat(32), "ab".repeat(20));
    for link in [
        format!("magnet:?xt=urn:btmh:1220{}", &hash[1..]),
        format!("magnet:?xt=urn:btih:{v1}"),
        format!("magnet:?xt=urn:btmh:1220{hash}&x.pe=nowhere"),
        format!("magnet:?xt=urn:btmh:1220{hash}&dn=..%2F..%2Fetc%2Fpasswd"),
        "magnet:".to_owned(),
    ] {
        run(leecher(&place, &[&link])).assert_failed(2, &["malformed link: "]);
    }
    run(leecher(&place, &["a/b"])).assert_failed(2, &["not a link, an infohash or the name of a share"]);
    run(leecher(&place, &["https://example.org/a"]))
        .assert_failed(2, &["'https://example.org/a' is not a Shoal link"]);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_tracker_or_peer_that_does_not_answer_is_named() {
    let place = Place::new();
    let ((_silent, tracker), (_refusing, refusing)) = (silent_tracker(), refusing_peer());
    let hash = "ab".repeat(32);
    let no_tracker = ["no tracker can be reached", &tracker, "check that the tracker is running", "--peer"];
    let no_peer = [
        "the only known peer could not be reached",
        &refusing,
        "refused",
        "check that the seeders are running",
    ];
    let cases: [(&[&str], &[&str]); 5] = [
        (&["data.bin", "--tracker", &tracker], &no_tracker),
        (&["--tracker", &tracker], &no_tracker),
        (&[&hash, "--tracker", &tracker], &no_tracker),
        (&["--list", "--tracker", &tracker], &no_tracker),
        (&[&hash, "--peer", &refusing], &no_peer),
    ];
    // Each gives them seconds to answer: all at once.
    std::thread::scope(|scope| {
        for (args, says) in cases {
            let place = &place;
            let args =
                if args.contains(&"--list") { args.to_vec() } else { [args, &["--timeout", "2"]].concat() };
            scope.spawn(move || run(leecher(place, &args)).assert_failed(6, says));
        }
    });
    assert_eq!(place.names(), ONLY_THE_LOG);
}

#[test]
fn the_only_peer_does_not_have_the_share() {
    let (place, network) = (Place::new(), Network::start());
    let other = format!("127.0.0.1:{}", network.seed(network.file("other", b"1")));
    let hash = "ab".repeat(32);
    run(leecher(&place, &[&hash, "--peer", &other]))
        .assert_failed(3, &[&hash, "check that a seeder is running"]);
}

#[test]
fn a_peer_whose_name_leads_nowhere_is_not_called_a_tracker() {
    let place = Place::new();
    let ended = run(leecher(&place, &[&"ab".repeat(32), "--peer", "nowhere.invalid:1", "--timeout", "1"]));
    ended.assert_failed(6, &["peer nowhere.invalid:1"]);
    assert!(!ended.err.contains("no tracker can be reached"), "{}", ended.err);
}

#[test]
fn a_peer_that_sends_wrong_data() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("data.bin", &bytes(2));
    let peer = format!("127.0.0.1:{}", network.seed(std::sync::Arc::new(Wrong(shared.clone()))));
    let ended = run(leecher(&place, &[&link(&*shared, &[], &[]), "--peer", &peer]));
    ended.assert_failed(32, &["every peer sent wrong data", "no wrong data was saved"]);
    assert!(ended.err.contains(&format!("Peer {peer} left: sent wrong data")), "{}", ended.err);
    assert!(!place.path("leeched_data.bin").exists());
}

#[test]
fn several_shares_fit() {
    let (place, network) = (Place::new(), Network::start());
    let shares = [network.file("data.bin", b"one"), network.file("data.bin", b"another")];
    shares.iter().for_each(|shared| _ = network.seed(shared.clone()));
    let hashes = shares.each_ref().map(|shared| shared.metainfo().infohash().to_string());
    for args in [&["data.bin"][..], &[]] {
        let ended = run(leecher(&place, &[args, &["--tracker", &network.tracker()]].concat()));
        ended.assert_failed(2, &["2 shares", &hashes[0], &hashes[1], "infohash"]);
    }
    assert_eq!(place.names(), ONLY_THE_LOG);
}

#[test]
fn an_output_that_is_taken() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let tracker = network.tracker();
    let args = ["data.bin", "--tracker", &tracker];
    let fetch = |more: &[&str]| run(leecher(&place, &[&args, more].concat()));
    fs::write(place.path("leeched_data.bin"), b"old").unwrap();
    fetch(&[]).assert_failed(13, &["leeched_data.bin already exists", "-o", "-d", "--overwrite", "--update"]);
    assert_eq!(fs::read(place.path("leeched_data.bin")).unwrap(), b"old");

    fs::create_dir(place.path("sub")).unwrap();
    fetch(&["-o", "sub"]).assert_failed(13, &["sub already exists", "-d sub"]);
    fetch(&["-o", "sub", "--overwrite"]).assert_failed(13, &["sub already exists", "-d sub"]);
    fetch(&["-o", "sub", "--update"]).assert_failed(13, &["sub already exists", "nothing in it", "-d sub"]);
    fs::create_dir(place.path("sub/leeched_data.bin")).unwrap();
    fetch(&["-d", "sub", "--overwrite"]).assert_failed(13, &["sub/leeched_data.bin already exists", "-d"]);

    // What is no regular file stays, and nobody is told to try.
    mkfifo(&place.path("fifo"), Mode::S_IRWXU).unwrap();
    symlink("leeched_data.bin", place.path("link")).unwrap();
    for special in ["fifo", "link"] {
        for more in [&["-o", special][..], &["-o", special, "--overwrite"]] {
            let ended = fetch(more);
            ended.assert_failed(13, &[&format!("{special} already exists, and is not a regular file"), "-o"]);
            assert!(!ended.err.contains("--overwrite"), "{}", ended.err);
        }
    }
    assert!(fs::symlink_metadata(place.path("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink());
    ["fifo", "link"].iter().for_each(|name| fs::remove_file(place.path(name)).unwrap());

    // Neither what is a download of something else nor what is none is touched.
    fs::write(place.path("x.part"), b"mine").unwrap();
    fetch(&["-o", "x"]).assert_failed(13, &["x.part is in the way", "remove it"]);
    fs::write(place.path("y.resume"), b"mine").unwrap();
    fetch(&["-o", "y"]).assert_failed(13, &["y.resume is in the way", "remove it"]);
    for name in ["x.part", "y.resume"] {
        assert_eq!(fs::read(place.path(name)).unwrap(), b"mine");
    }
    assert_eq!(place.names(), ["leeched_data.bin", "leecher_debug.log", "sub", "x.part", "y.resume"]);
}

#[test]
fn a_dash_is_not_taken_for_the_name_of_a_file() {
    let place = Place::new();
    run(leecher(&place, &["data.bin", "-o", "-"])).assert_failed(2, &["-o -", "stdout", "./-"]);
    assert_eq!(place.names(), ONLY_THE_LOG);
}

#[test]
fn an_output_that_cannot_be_written() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    fs::write(place.path("plain"), b"x").unwrap();
    let tracker = network.tracker();
    for (args, says) in [
        (&["-d", "plain"][..], &["plain is not a directory", "-d"][..]),
        (&["-d", "plain/x"], &["plain/x", "Not a directory", "-d"]),
        (&["-o", "plain/x"], &["plain is not a directory", "-o"]),
        (&["-o", "missing/x"], &["directory missing does not exist", "-d"]),
    ] {
        run(leecher(&place, &[args, &["--tracker", &tracker]].concat())).assert_failed(17, says);
    }
    assert_eq!(place.names(), ["leecher_debug.log", "plain"]);
}

#[test]
fn a_file_system_that_holds_no_files_is_not_called_full() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let ended = run(leecher(&place, &["-d", "/proc", "--tracker", &network.tracker()]));
    ended.assert_failed(17, &["/proc", "-d"]);
}

#[test]
fn what_went_wrong_is_printed_once() {
    let place = Place::new();
    let args = [&"ab".repeat(32), "--tracker", "nowhere.invalid", "--timeout", "1", "--quiet"];
    let ended = run(leecher(&place, &args));
    ended.assert_failed(6, &["no tracker can be reached"]);
    assert_eq!(ended.err.matches("nowhere.invalid").count(), 1, "{}", ended.err);
}
