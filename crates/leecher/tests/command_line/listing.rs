//! `--list`.

use proto::Link;
use store::Content;

use crate::{
    json::events,
    leecher,
    network::Network,
    on_terminal::OnTerminal,
    program::{Ended, Place, run},
};

/// A network with three shares, of which one has two seeders.
fn three() -> (Network, Vec<String>) {
    let network = Network::start();
    let shares = [
        network.file("middle.img", &[7; 2_000]),
        network.directory("b dir", &[("x", b"1")]),
        network.file("a.img", b"12345"),
    ];
    shares.iter().for_each(|shared| _ = network.seed(shared.clone()));
    network.seed(shares[2].clone());
    let infohashes = shares.iter().map(|shared| shared.metainfo().infohash().to_string()).collect();
    (network, infohashes)
}

fn list(network: &Network, more: &[&str]) -> Ended {
    let tracker = network.tracker();
    let args = [&["--list", "--tracker", &tracker], more].concat();
    run(leecher(&Place::new(), &args))
}

/// The names in a list, which is the last column.
fn names(ended: &Ended) -> Vec<&str> {
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    ended.out.iter().skip(1).map(|line| line.get(45..).unwrap_or(line)).collect()
}

#[test]
fn lists_what_the_tracker_knows_with_a_header_in_order_of_name() {
    let (network, infohashes) = three();
    let ended = list(&network, &[]);
    assert_eq!(names(&ended), ["a.img", "b dir", "middle.img"]);
    assert_eq!(ended.out[0], "INFOHASH            SIZE  SEEDERS  LEECHERS  NAME");
    assert_eq!(ended.out[1], format!("{}         5 B        2         0  a.img", &infohashes[2][..12]));
}

#[test]
fn sorts_by_what_is_asked_for() {
    let (network, _) = three();
    for (order, first) in [("name", "a.img"), ("size", "middle.img"), ("seeders", "a.img")] {
        assert_eq!(names(&list(&network, &["--sort", order]))[0], first, "{order}");
    }
}

#[test]
fn lists_only_what_fits_a_pattern_or_begins_with_these_digits() {
    let (network, infohashes) = three();
    for (patterns, fitting) in [
        (&["*.img"][..], &["a.img", "middle.img"][..]),
        (&["b dir"], &["b dir"]),
        (&["b*", "a.*"], &["a.img", "b dir"]),
        (&[&infohashes[0][..12]], &["middle.img"]),
        (&[&infohashes[0].to_uppercase()], &["middle.img"]),
    ] {
        assert_eq!(names(&list(&network, patterns)), fitting, "{patterns:?}");
    }
    list(&network, &["a"]).assert_failed(3, &["no share fits 'a'", "'*.img'"]);
    // Digits as short as these may be a name.
    list(&network, &[&infohashes[0][..7]]).assert_failed(3, &["no share fits"]);
    list(&network, &["[a"]).assert_failed(2, &["[a"]);
}

#[test]
fn a_long_list_has_whole_infohashes_and_links() {
    let (network, infohashes) = three();
    let ended = list(&network, &["--long", "a.img"]);
    assert_eq!((ended.code, ended.out.len()), (Some(0), 3), "{ended:?}");
    assert!(ended.out[0].contains("ADDRESSES") && ended.out[1].starts_with(&infohashes[2]), "{ended:?}");
    let link: Link = ended.out[2].trim().parse().unwrap();
    assert_eq!(
        (link.infohash.to_string(), link.name.unwrap().to_string()),
        (infohashes[2].clone(), "a.img".to_owned())
    );
    assert_eq!(link.trackers, [network.tracker().parse().unwrap()]);
}

#[test]
fn on_a_terminal_no_line_wraps() {
    let network = Network::start();
    network.seed(network.file(&"long ".repeat(20), b"12345"));
    let place = Place::new();
    let mut command = leecher(&place, &["--list", "--tracker", &network.tracker()]);
    command.env("TERM", "xterm");
    let screen = OnTerminal::start(command, 80).end();
    assert_eq!(screen.len(), 2, "{screen:#?}");
    assert!(screen[1].ends_with('…') && screen[1].chars().count() == 80, "{screen:#?}");
}

#[test]
fn lists_in_json_one_share_a_line() {
    let (network, infohashes) = three();
    let ended = list(&network, &["--json", "a.img"]);
    assert_eq!((ended.code, ended.err.as_str(), ended.out.len()), (Some(0), "", 2), "{ended:?}");
    let events = events(&ended);
    let share = &events[0];
    assert_eq!((&share["event"], &share["infohash"]), (&"listed".into(), &infohashes[2].as_str().into()));
    assert_eq!((&share["name"], &share["size"]), (&"a.img".into(), &5.into()));
    assert_eq!((&share["seeders"], &share["leechers"]), (&2.into(), &0.into()));
    assert!(share["link"].as_str().unwrap().parse::<Link>().is_ok());
    assert_eq!((&events[1]["event"], &events[1]["cut"]), (&"end_of_list".into(), &false.into()));
}

/// Each of these numbers is another one.
#[test]
fn counts_are_those_of_the_tracker() {
    let network = Network::start();
    let shared = network.file("a.img", b"12345");
    (0..3).for_each(|_| _ = network.seed(shared.clone()));
    for label in ["one", "two"] {
        let args = ["--tracker", &network.tracker(), "--label", label, "a.img"];
        assert_eq!(run(leecher(&Place::new(), &args)).code, Some(0));
    }
    let listed = events(&list(&network, &["--json"]));
    let counts = ["size", "seeders", "leechers", "addresses", "completed"].map(|key| listed[0][key].clone());
    assert_eq!(counts, [5, 3, 0, 1, 2].map(serde_json::Value::from), "{listed:?}");
}

#[test]
fn a_tracker_without_shares_is_reported_as_one() {
    let network = Network::start();
    let ended = list(&network, &[]);
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &["The tracker knows no shares.".to_owned()][..]));
    let ended = list(&network, &["--json"]);
    let events = events(&ended);
    assert_eq!((ended.code, events.len(), &events[0]["listed"]), (Some(0), 1, &0.into()));
}
