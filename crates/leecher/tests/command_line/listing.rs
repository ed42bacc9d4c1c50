//! `--list`.

use proto::Link;
use store::Content;

use crate::{
    leecher,
    network::Network,
    program::{Place, run},
};

#[test]
fn lists_what_the_tracker_knows_with_links() {
    let (place, network) = (Place::new(), Network::start());
    let shares = [network.file("a.bin", b"12345"), network.directory("b dir", &[("x", b"1")])];
    shares.iter().for_each(|shared| _ = network.seed(shared.clone()));
    network.seed(shares[0].clone());
    let ended = run(leecher(&place, &["--list", "--tracker", &network.tracker()]));
    assert_eq!((ended.code, ended.err.as_str(), ended.out.len()), (Some(0), "", 4), "{ended:?}");
    for ((lines, shared), seeders) in ended.out.chunks(2).zip(&shares).zip(["2 seeders", "1 seeder"]) {
        let metainfo = shared.metainfo();
        for text in [&metainfo.infohash().to_string(), metainfo.name().as_str(), seeders] {
            assert!(lines[0].contains(text), "no {text}: {lines:?}");
        }
        let link: Link = lines[1].trim().parse().unwrap();
        assert_eq!((link.infohash, link.name.as_ref()), (metainfo.infohash(), Some(metainfo.name())));
        assert_eq!(link.trackers, [network.tracker().parse().unwrap()]);
    }
    assert_eq!(place.names(), ["leecher_debug.log"]);
}

#[test]
fn lists_in_json_one_share_a_line() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("a.bin", b"12345");
    network.seed(shared.clone());
    let ended = run(leecher(&place, &["--list", "--json", "--tracker", &network.tracker()]));
    assert_eq!((ended.code, ended.err.as_str(), ended.out.len()), (Some(0), "", 1), "{ended:?}");
    let share: serde_json::Value = serde_json::from_str(&ended.out[0]).unwrap();
    assert_eq!(share["infohash"], shared.metainfo().infohash().to_string());
    assert_eq!((&share["name"], &share["size"]), (&"a.bin".into(), &5.into()));
    assert_eq!((&share["seeders"], &share["leechers"]), (&1.into(), &0.into()));
    assert!(share["link"].as_str().unwrap().parse::<Link>().is_ok());
}

#[test]
fn a_tracker_without_shares_is_reported_as_one() {
    let (place, network) = (Place::new(), Network::start());
    let ended = run(leecher(&place, &["--list", "--tracker", &network.tracker()]));
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &["The tracker knows no shares.".to_owned()][..]));
    let ended = run(leecher(&place, &["--list", "--json", "--tracker", &network.tracker()]));
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &[][..]));
}
