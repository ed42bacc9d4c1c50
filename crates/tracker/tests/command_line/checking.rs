//! `tracker --check`.

use std::{fs, net::UdpSocket, thread};

use proto::tracker::{
    ErrorCode, Reply, ReplyBody, Request, Token, TransactionId,
    codec::{decode_request, encode_reply},
};

use crate::{PATIENCE, Running, output, run};

/// A host that answers anything else is no tracker, and neither is one that answers what was not asked.
#[test]
fn only_an_answer_to_its_own_request_satisfies_a_check() {
    let fake = UdpSocket::bind("127.0.0.1:0").unwrap();
    let here = fake.local_addr().unwrap().to_string();
    fake.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::spawn(move || {
        let mut request = [0; 1_500];
        while let Ok((len, from)) = fake.recv_from(&mut request) {
            let Ok(Request { transaction: TransactionId(asked), .. }) = decode_request(&request[..len])
            else {
                return;
            };
            let connected = ReplyBody::Connected { token: Token([7; 16]), lifetime_s: 9 };
            let refused = ReplyBody::Error(ErrorCode::NotYours);
            for (transaction, body) in [(asked ^ 1, connected), (asked, refused)] {
                let mut reply = bytes::BytesMut::new();
                encode_reply(&Reply { transaction: TransactionId(transaction), body }, &mut reply).unwrap();
                let _ = fake.send_to(&reply, from);
            }
        }
    });
    let (code, out, err) = run(&["--check", &here]);
    assert_eq!((code, out.as_str()), (Some(6), ""), "{err}");
}

#[test]
fn a_tracker_can_be_asked_whether_it_answers() {
    let tracker = Running::start(&["--bind", "127.0.0.1", "-p", "0"]);
    let here = format!("127.0.0.1:{}", tracker.port("127.0.0.1"));
    let (code, out, err) = run(&["--check", &here]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with(&format!("Tracker {here} answers after ")) && out.ends_with(" ms\n"), "{out}");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for nowhere in [&silent, &gone] {
        let (code, out, err) = run(&["--check", nowhere]);
        assert_eq!((code, out.as_str()), (Some(6), ""), "{err}");
        assert!(err.contains(nowhere.as_str()) && err.contains("check that a tracker"), "{err}");
    }
    // It leaves no file.
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(output(crate::tracker(&["--check", &here], dir.path())).status.code(), Some(0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
