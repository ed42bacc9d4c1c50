//! What a seeder shows over HTTP is what docs/http.md says.

use std::fs;

use proto::{ChunkIndex, peer::PeerMessage, tracker::Completion};
use tokio::runtime::Runtime;

use crate::{
    docs,
    get::get,
    peer::{answer, connect, send},
    program::{Place, Running},
    seeder,
    sharing::described,
    tracking::Tracking,
};

#[test]
fn shows_its_peers_as_the_docs_say() {
    let (place, tracking) = (Place::new(), Tracking::start());
    fs::write(place.path("a file"), "12345").unwrap();
    let args = ["--http=:0", "a file", "--tracker", &tracking.address(), "--upload-limit", "1M"];
    let seeder = Running::start(seeder(&place, &args));
    let line = seeder.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap_or_else(|| panic!("{line}"));
    let described = described(&seeder, "a file");
    seeder.line_with("Registered");
    let infohash = described.link.infohash;
    Runtime::new().unwrap().block_on(async {
        let mut peer = connect(described.port, infohash, 0).await.unwrap();
        send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }]).await;
        let (message, _) = answer(&mut peer).await;
        assert_eq!(message, PeerMessage::Chunk { chunk: ChunkIndex(0), len: 5 });
        let share = loop {
            let answer = get(url, &format!("/api/v1/shares/{infohash}"));
            let share = docs::check("Seeder: `/api/v1/shares/INFOHASH`", &answer.body);
            // The chunk may be here before it is counted there.
            if share["sent"] == 5 {
                break share;
            }
        };
        let receiver = &share["receivers"][0];
        assert_eq!((&receiver["sent"], &receiver["given"]), (&5.into(), &vec![100].into()), "{share}");
        assert_eq!(share["trackers"][0]["registered"], true, "{share}");
        let shares = docs::check("Seeder: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
        assert_eq!(
            (&shares["shares"][0]["name"], &shares["shares"][0]["peers"]),
            (&"a file".into(), &1.into())
        );
        let status = docs::check("Seeder: `/api/v1/status`", &get(url, "/api/v1/status").body);
        assert_eq!((&status["peers"], &status["upload_limit"]), (&1.into(), &1_000_000.into()));
        let metrics = get(url, "/metrics").body;
        assert_eq!(docs::names_in(&metrics), docs::metrics("shoal_seeder_"));
        for line in [
            "shoal_seeder_sent_bytes_total 5.0",
            "shoal_seeder_peers 1.0",
            "shoal_seeder_registrations 1.0",
            "shoal_seeder_announces_total{outcome=\"accepted\"} 1.0",
        ] {
            assert!(metrics.lines().any(|has| has == line), "no {line} in {metrics}");
        }
        assert_eq!(get(url, &format!("/api/v1/shares/{}", "00".repeat(32))).status, 404);
    });
}
