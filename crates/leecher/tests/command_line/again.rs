//! Fetching what is here already, all of it or in part: running a command again, `--update`, `--check`, `--from`.

use std::{collections::BTreeSet, fs, path::Path, sync::Mutex};

use proto::{BLOCK_LEN, SMALL_CHUNK_LEN};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    content::{Gated, bytes},
    json::{events, position},
    leecher,
    network::{Network, link},
    program::{Ended, Place, Running, run},
};

const CHUNK: u64 = SMALL_CHUNK_LEN as u64;
const BLOCK: u64 = BLOCK_LEN as u64;

/// Two versions of a share, which differ in a chunk of one file, and in files that are gone or new.
struct Versions {
    place: Place,
    network: Network,
    links: [String; 2],
}

impl Versions {
    fn new() -> Versions {
        let (place, network) = (Place::new(), Network::start());
        let mut changed = bytes(4);
        changed[SMALL_CHUNK_LEN as usize + 9] ^= 1;
        let first: [(&str, &[u8]); 3] = [("large", &bytes(4)), ("gone", b"gone"), ("same", b"same")];
        let second: [(&str, &[u8]); 3] = [("large", &changed), ("new", b"new"), ("same", b"same")];
        let shares = [network.directory("it", &first), network.directory("it", &second)];
        let links = shares.map(|shared| {
            network.seed(shared.clone());
            link(&*shared, &[network.tracker()], &[])
        });
        Versions { place, network, links }
    }

    fn run(&self, version: usize, more: &[&str]) -> Ended {
        run(leecher(&self.place, &[&[&*self.links[version]], more].concat()))
    }

    fn names(&self) -> Vec<String> {
        names(&self.place.path("leeched_it"))
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The event of this name.
fn event(ended: &Ended, name: &str) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let events = events(ended);
    events[position(&events, name)].clone()
}

/// Bytes that came from peers.
fn received(ended: &Ended) -> u64 {
    let finished = event(ended, "finished");
    finished["peers"].as_array().unwrap().iter().map(|peer| peer["bytes"].as_u64().unwrap()).sum()
}

#[test]
fn the_same_command_again_proves_what_is_here() {
    let versions = Versions::new();
    assert_eq!(versions.run(0, &[]).code, Some(0));
    let ended = versions.run(0, &[]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.out[0], "leeched_it has it (512.01 KiB), and every byte of it is proved");
    assert_eq!(ended.out.last().unwrap(), "Nothing to fetch: it is here already");
    for more in [&["--update"][..], &["--overwrite"], &["-o", "leeched_it"]] {
        let ended = versions.run(0, &[&["--json"], more].concat());
        assert_eq!(event(&ended, "started")["already_here"], json!(true));
        assert_eq!((received(&ended), &event(&ended, "finished")["already_here"]), (0, &json!(true)));
    }
    assert_eq!(versions.place.names(), ["leeched_it", "leecher_debug.log"]);
}

/// Bytes that were read to prove what is here are reported.
#[test]
fn what_is_here_is_read_again_each_time() {
    let versions = Versions::new();
    let is_read = |more: &[&str]| {
        let ended = versions.run(0, &[&["--json"], more].concat());
        assert_eq!(event(&ended, "finished")["already_here"], json!(true));
        events(&ended).iter().any(|event| event["event"] == "proving")
    };
    assert_eq!(versions.run(0, &["--no-cache"]).code, Some(0));
    assert!(!versions.place.path(".cache").exists());
    for more in [&[][..], &["--no-cache"], &["--update"], &["--overwrite"]] {
        assert!(is_read(more), "{more:?}");
    }
    let versions_of = |more: &[&str]| versions.run(1, &[&["--update"], more].concat());
    assert_eq!(versions_of(&["--cache-dir", "here"]).code, Some(0));
    assert_eq!(versions.run(0, &["--update", "--cache-dir", "here"]).code, Some(0));
    assert!(is_read(&["--cache-dir", "here"]));
    assert!(is_read(&["--cache-dir", "here", "--update"]));
    let checked = versions.run(0, &["--check", "--json", "--cache-dir", "here"]);
    assert!(events(&checked).iter().any(|event| event["event"] == "proving"), "{checked:?}");
}

#[test]
fn what_is_here_already_can_be_served() {
    let versions = Versions::new();
    versions.run(0, &[]);
    let serving = Running::start(leecher(&versions.place, &[&versions.links[0], "--seed"]));
    serving.line_with("Nothing to fetch");
    assert_eq!(serving.line(), "Serving other leechers; press Ctrl+C to stop");
    serving.signal(Signal::INT);
    assert_eq!(serving.end().code, Some(0));
}

#[test]
fn another_version_is_replaced_when_that_is_asked_for() {
    let versions = Versions::new();
    versions.run(0, &[]);
    let before = fs::read(versions.place.path("leeched_it/large")).unwrap();
    versions.run(1, &[]).assert_failed(13, &["leeched_it already exists", "leeched_it/gone", "--update"]);
    versions.run(1, &["--overwrite"]).assert_failed(13, &["leeched_it already exists", "--update"]);
    assert_eq!(
        (versions.names().len(), fs::read(versions.place.path("leeched_it/large")).unwrap()),
        (3, before)
    );
    let ended = versions.run(1, &["--update", "--json"]);
    assert_eq!(received(&ended), BLOCK + 3, "the block that changed, and the file that is new");
    assert_eq!(event(&ended, "started")["reused"], json!(3 * CHUNK + 4));
    assert_eq!(versions.names(), ["large", "new", "same"]);
    assert_eq!(versions.place.names(), ["leeched_it", "leecher_debug.log"]);
    assert_eq!(versions.run(1, &["--check"]).code, Some(0));
}

/// It deletes files, so it names them before.
#[test]
fn an_update_reports_what_it_removes() {
    let versions = Versions::new();
    versions.run(0, &[]);
    fs::create_dir(versions.place.path("leeched_it/more")).unwrap();
    for name in ["more/inner", "a1", "a2", "\u{202e}a3"] {
        fs::write(versions.place.path("leeched_it").join(name), b"mine").unwrap();
    }
    let ended = versions.run(1, &["--update", "-v"]);
    let line = "  not in this version, so it will be removed: leeched_it/a1, leeched_it/a2, leeched_it/gone and 2 more";
    assert!(ended.out.iter().any(|printed| printed == line), "{ended:?}");
    for name in ["a1", "a2", "gone", "more", "\\u{202e}a3"] {
        assert!(ended.err.contains(&format!("will be removed: leeched_it/{name}")), "{name}: {ended:?}");
    }
    assert_eq!(versions.names(), ["large", "new", "same"]);
    let only = versions.run(0, &["--update", "--only", "same", "--json"]);
    assert_eq!(event(&only, "started")["removes"], json!(2), "large and new");
    assert_eq!(event(&versions.run(0, &["--json"]), "started")["removes"], json!(0));
}

/// The old version is there until the new one is whole, and the next run takes up what there is.
#[test]
fn an_update_that_is_killed_leaves_the_old_version() {
    let (place, network) = (Place::new(), Network::start());
    let new = network.directory("it", &[("large", &bytes(4)), ("same", b"same")]);
    let gate = place.path("gate");
    let gated =
        Gated { shared: new.clone(), before: 2, passed: Mutex::new(BTreeSet::new()), gate: gate.clone() };
    network.seed(std::sync::Arc::new(gated));
    let output = place.path("leeched_it");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("large"), b"old").unwrap();
    fs::write(output.join("same"), b"same").unwrap();
    let link = link(&*new, &[network.tracker()], &[]);
    let update = || leecher(&place, &[&link, "--update"]);
    let killed = Running::start(update());
    killed.line_with("Downloading");
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().code, None);
    assert_eq!(
        (names(&output), fs::read(output.join("large")).unwrap()),
        (vec!["large".into(), "same".into()], b"old".to_vec())
    );
    fs::write(&gate, "").unwrap();
    assert_eq!(run(update()).code, Some(0));
    assert!(fs::read(output.join("large")).unwrap() == bytes(4));
    assert_eq!(place.names(), ["gate", "leeched_it", "leecher_debug.log"]);
}

#[test]
fn a_copy_is_checked_and_not_changed() {
    let versions = Versions::new();
    versions
        .run(1, &["--check"])
        .assert_failed(32, &["leeched_it differs from the share 'it'", "leeched_it is missing"]);
    versions.run(0, &[]);
    let ended = versions.run(0, &["--check"]);
    assert_eq!(
        (ended.code, &ended.out[..]),
        (Some(0), &["leeched_it is right: 512.01 KiB of it".to_owned()][..])
    );
    assert_eq!(event(&versions.run(0, &["--check", "--json"]), "checked")["bytes"], json!(4 * CHUNK + 8));
    let wrong = ["leeched_it/gone does not belong", "leeched_it/large differs", "leeched_it/new is missing"];
    versions.run(1, &["--check"]).assert_failed(32, &wrong);
    versions.run(1, &["--check", "--only", "same"]).assert_failed(32, &wrong[..2]);
    assert_eq!(versions.names(), ["gone", "large", "same"]);
    assert_eq!(versions.place.names(), ["leeched_it", "leecher_debug.log"]);
    // By its name, and elsewhere.
    let tracker = versions.network.tracker();
    let by_name = ["it", "--check", "-o", "leeched_it", "--tracker", &tracker];
    run(leecher(&versions.place, &by_name)).assert_failed(2, &["2 shares"]);
}

#[test]
fn running_again_with_more_patterns_fetches_only_the_rest() {
    let versions = Versions::new();
    assert_eq!(received(&versions.run(0, &["--only", "same", "--json"])), 4);
    assert_eq!(received(&versions.run(0, &["--only", "gone", "--json"])), 4);
    assert_eq!(versions.names(), ["gone", "same"]);
    let again = versions.run(0, &["--only", "same", "--json"]);
    assert_eq!((received(&again), &event(&again, "started")["already_here"]), (0, &json!(true)));
    let rest = versions.run(0, &["--json"]);
    assert_eq!((received(&rest), &event(&rest, "started")["reused"]), (4 * CHUNK, &json!(8)));
    assert_eq!(versions.run(0, &["--check"]).code, Some(0));
}

#[test]
fn chunks_that_are_here_do_not_travel() {
    let versions = Versions::new();
    versions.run(0, &[]);
    fs::rename(versions.place.path("leeched_it/large"), versions.place.path("renamed")).unwrap();
    let ended = versions.run(1, &["-o", "other", "--from", "leeched_it", "--from", "renamed", "--json"]);
    assert_eq!(received(&ended), BLOCK + 3);
    assert_eq!(versions.names(), ["gone", "same"]);
    let missing = versions.run(1, &["-o", "third", "--from", "nowhere"]);
    assert_eq!(missing.code, Some(0));
    assert!(missing.err.contains("warning: --from nowhere"), "{}", missing.err);
}
