//! `--only` and `--list-files`: some files of a share.

use std::{fs, sync::Arc};

use serde_json::json;
use store::Shared;

use crate::{
    content::bytes,
    json::{events, position},
    leecher,
    network::Network,
    program::{Place, run},
};

fn models(network: &Network) -> Arc<Shared> {
    network.directory(
        "models",
        &[
            ("big/[1].bin", &bytes(3)),
            ("big/2.bin", &bytes(2)),
            ("small/x.bin", b"12345"),
            ("read.me", b"123"),
        ],
    )
}

/// Paths of files below a directory of the place, sorted.
fn files(place: &Place, name: &str) -> Vec<String> {
    let (root, mut found) = (place.path(name), Vec::new());
    let mut todo = vec![root.clone()];
    while let Some(at) = todo.pop() {
        if at.is_dir() {
            todo.extend(fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push(at.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn lists_the_files_of_a_share_and_saves_nothing() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(models(&network));
    let tracker = network.tracker();
    let list = |more: &[&str]| {
        run(leecher(&place, &[&["models", "--list-files", "--tracker", &tracker], more].concat()))
    };
    let ended = list(&[]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(
        ended.out,
        [
            "256.00 KiB  big/2.bin",
            "384.00 KiB  big/[1].bin",
            "       3 B  read.me",
            "       5 B  small/x.bin"
        ]
    );
    let ended = list(&["--json", "--only", "s*"]);
    assert_eq!((ended.code, ended.out.len()), (Some(0), 1), "{ended:?}");
    let events = events(&ended);
    let line = &events[position(&events, "file")];
    assert_eq!((&line["path"], &line["size"]), (&json!("small/x.bin"), &json!(5)));
    list(&["--only", "nothing"]).assert_failed(3, &["nothing in the share matches 'nothing'"]);
    assert_eq!(place.names(), ["leecher_debug.log"]);
}

#[test]
fn the_file_of_a_share_of_one_file_has_the_name_of_the_share() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let ended = run(leecher(&place, &["data.bin", "--list-files", "--tracker", &network.tracker()]));
    assert_eq!(
        (ended.code, &ended.out[..]),
        (Some(0), &["       5 B  data.bin".to_owned()][..]),
        "{ended:?}"
    );
    let only = ["data.bin", "--only", "data.*", "--tracker", &network.tracker()];
    assert_eq!(run(leecher(&place, &only)).code, Some(0));
    assert_eq!(fs::read(place.path("leeched_data.bin")).unwrap(), b"12345");
}

#[test]
fn only_what_is_named_is_fetched_and_reported() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(models(&network));
    let fetch =
        |args: &[&str]| run(leecher(&place, &[&["models", "--tracker", &network.tracker()], args].concat()));
    let ended = fetch(&["--only", "big/[1].bin", "--only", "small/"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.out[0], "Downloading models (384.00 KiB of 640.01 KiB) to leeched_models");
    assert_eq!(files(&place, "leeched_models"), ["big/[1].bin", "small/x.bin"]);
    assert_eq!(fs::read(place.path("leeched_models/big/[1].bin")).unwrap(), bytes(3));
    assert_eq!(place.names(), ["leeched_models", "leecher_debug.log"]);

    let ended = fetch(&["--only", "read.me", "-o", "other", "--json"]);
    let events = events(&ended);
    let (started, finished) = (&events[position(&events, "started")], &events[position(&events, "finished")]);
    assert_eq!((&started["wanted"], &finished["bytes"]), (&json!(3), &json!(3)));
    assert_eq!(files(&place, "other"), ["read.me"]);
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_and_saves_nothing() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(models(&network));
    let args =
        ["models", "--only", "small/", "--only", "bigger/*", "-d", "new", "--tracker", &network.tracker()];
    run(leecher(&place, &args)).assert_failed(3, &["'bigger/*'", "--list-files"]);
    assert!(!place.path("new").exists());
    run(leecher(&place, &["models", "--only", "[a"])).assert_failed(2, &["--only"]);
}
