//! Limits, and lists of what is allowed.

use std::fs;

use proto::tracker::{ErrorCode, Limit, ReplyBody};
use rustix::process::Signal;

use crate::{
    Running,
    asking::{announce_and_look_up, announce_of},
    get::get,
    run,
};

#[test]
fn lists_say_what_is_allowed_and_are_read_again_at_a_hangup() {
    let files = tempfile::tempdir().unwrap();
    let [allow, deny] = ["allow", "deny"].map(|name| files.path().join(name).to_str().unwrap().to_owned());
    fs::write(&allow, "# ours\n*.bin\n").unwrap();
    fs::write(&deny, "02".repeat(32)).unwrap();
    let args = ["--bind", "127.0.0.1", "-p", "0", "--allow", &allow, "--deny", &deny, "--http=:0"];
    let mut tracker = Running::start(&args);
    let port = tracker.port("127.0.0.1");
    assert_eq!(tracker.line(), "[LISTS] Allowed: 1 entry; denied: 1 entry");
    let url = tracker.line();
    let url = url.strip_prefix("[HTTP] Page and metrics are at ").unwrap();
    let (registered, refused) = (
        |body: &ReplyBody| matches!(body, ReplyBody::Announced(_) | ReplyBody::Peers(_)),
        || ReplyBody::Error(ErrorCode::NotAllowed),
    );
    let (announced, found) = announce_and_look_up(port, 1, "a.bin");
    assert!(registered(&announced) && registered(&found), "{announced:?} {found:?}");
    assert_eq!(announce_and_look_up(port, 2, "b.bin"), (refused(), refused()));
    let (announced, found) = announce_and_look_up(port, 3, "c.iso");
    assert_eq!(announced, refused());
    assert!(matches!(found, ReplyBody::Error(ErrorCode::UnknownShare { .. })), "{found:?}");
    let metrics = get(url, "/metrics").body;
    let counted = "shoal_tracker_refusals_total{reason=\"not_allowed\"} 3.0";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    // A broken list changes nothing.
    fs::write(&deny, "ok\n[broken\n").unwrap();
    tracker.signal(Signal::HUP);
    tracker.log_has("the old lists stay: ");
    let log = fs::read_to_string(tracker.dir.path().join("tracker_debug.log")).unwrap();
    assert!(log.contains(&format!("{deny}: line 2: ")), "{log}");
    assert_eq!(announce_and_look_up(port, 2, "b.bin").0, refused());
    fs::write(&deny, "01".repeat(32)).unwrap();
    tracker.signal(Signal::HUP);
    assert_eq!(tracker.line(), "[LISTS] Allowed: 1 entry; denied: 1 entry; registrations ended: 1");
    assert_eq!(announce_and_look_up(port, 1, "a.bin"), (refused(), refused()));
    assert!(registered(&announce_and_look_up(port, 2, "b.bin").1));
    tracker.signal(Signal::TERM);
    let (code, err) = tracker.end();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("the old lists stay"), "{err}");
    fs::write(&allow, "[broken").unwrap();
    let (code, _, err) = run(&args);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("line 1: "), "{err}");
    fs::remove_file(&allow).unwrap();
    let (code, _, err) = run(&args);
    assert_eq!(code, Some(17), "{err}");
    assert!(err.contains(&allow), "{err}");
}

/// A list of 128 MiB is no mistake of a few lines, so it is not read into memory.
#[test]
fn a_list_that_is_far_too_long_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let long = files.path().join("long");
    fs::File::create(&long).unwrap().set_len((128 << 20) + 1).unwrap();
    let (code, _, err) = run(&["--bind", "127.0.0.1", "-p", "0", "--allow", long.to_str().unwrap()]);
    assert_eq!(code, Some(17), "{err}");
    assert!(err.contains("too large"), "{err}");
}

#[test]
fn the_flags_for_limits_are_obeyed() {
    let full = |limit| ReplyBody::Error(ErrorCode::Full(limit));
    // The second peer, and its share.
    for (flag, share, limit) in [
        ("--max-registrations", 2, Limit::Tracker),
        ("--max-shares", 2, Limit::Shares),
        ("--max-per-share", 1, Limit::Share),
        ("--max-per-address", 2, Limit::Address),
        ("--max-per-address-and-share", 1, Limit::Address),
    ] {
        let tracker = Running::start(&["--bind", "127.0.0.1", "-p", "0", flag, "1"]);
        let port = tracker.port("127.0.0.1");
        let (announced, _) = announce_of(port, 1, 1, "a.bin");
        assert!(matches!(announced, ReplyBody::Announced(_)), "{flag}: {announced:?}");
        assert_eq!(announce_of(port, 2, share, "a.bin").0, full(limit), "{flag}");
    }
    // What was sent counts until the second is over, which may be at any moment.
    let is_slowed = |args: &[&str]| {
        let tracker = Running::start(&[&["--bind", "127.0.0.1", "-p", "0"], args].concat());
        let port = tracker.port("127.0.0.1");
        let mut lookups = (0..5).map(|_| announce_of(port, 1, 1, "a.bin").1);
        lookups.any(|found| matches!(found, ReplyBody::Error(ErrorCode::SlowDown { .. })))
    };
    assert!(is_slowed(&["--byte-rate", "1"]));
    assert!(!is_slowed(&[]));
}
