use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::{InfoHash, Zone};

const TOKEN: Token = Token([9; 16]);

struct Bench {
    client: Client,
    now: Instant,
    rng: StdRng,
}

impl Bench {
    fn new() -> Bench {
        Bench { client: Client::default(), now: Instant::now(), rng: StdRng::seed_from_u64(1) }
    }

    fn lookup(&mut self) -> CallId {
        let query = Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE };
        self.client.start(Call::Lookup(query), self.now)
    }

    fn sent(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.client.poll_transmit(self.now, &mut self.rng)).collect()
    }

    fn reply(&mut self, transaction: TransactionId, body: ReplyBody) {
        self.client.on_reply(Reply { transaction, body }, self.now, &mut self.rng);
    }

    fn first_lookup_sent(&mut self) -> TransactionId {
        let sent = self.sent();
        assert!(matches!(sent[..], [Request { body: RequestBody::FirstLookup { .. }, .. }]), "{sent:?}");
        sent[0].transaction
    }

    /// The first lookup is lost, and the client connects.
    fn connect(&mut self) {
        self.first_lookup_sent();
        self.now = self.client.next_timeout().unwrap();
        let sent = self.sent();
        assert!(matches!(sent[..], [Request { body: RequestBody::Connect { .. }, .. }]), "{sent:?}");
        self.reply(sent[0].transaction, ReplyBody::Connected { token: TOKEN, lifetime_s: 60 });
    }

    fn one_lookup_sent(&mut self) -> TransactionId {
        let sent = self.sent();
        assert!(
            matches!(sent[..], [Request { body: RequestBody::Lookup { token: TOKEN, .. }, .. }]),
            "{sent:?}"
        );
        sent[0].transaction
    }
}

fn peers() -> Peers {
    Peers { interval_s: 30, settles_in_s: 0, seeders: 1, leechers: 0, completed: 0, peers: Vec::new() }
}

#[test]
fn a_lookup_without_a_token_takes_one_request() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    let transaction = bench.first_lookup_sent();
    assert_eq!(bench.sent(), []);
    bench.reply(transaction, ReplyBody::Peers(peers()));
    assert_eq!(bench.client.poll_outcome(), Some((id, Ok(Answer::Peers(peers())))));
    assert_eq!(bench.client.next_timeout(), None);
}

#[test]
fn a_late_reply_to_the_first_lookup_counts() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    let transaction = bench.first_lookup_sent();
    bench.now = bench.client.next_timeout().unwrap();
    assert!(matches!(bench.sent()[..], [Request { body: RequestBody::Connect { .. }, .. }]));
    bench.reply(transaction, ReplyBody::Peers(peers()));
    assert_eq!(bench.client.poll_outcome(), Some((id, Ok(Answer::Peers(peers())))));
}

#[test]
fn connects_asks_and_answers() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    bench.connect();
    let transaction = bench.one_lookup_sent();
    assert_eq!(bench.sent(), []);
    bench.reply(transaction, ReplyBody::Peers(peers()));
    assert_eq!(bench.client.poll_outcome(), Some((id, Ok(Answer::Peers(peers())))));
    assert_eq!(bench.client.next_timeout(), None);
}

#[test]
fn reuses_the_token_until_it_ages() {
    let mut bench = Bench::new();
    bench.lookup();
    bench.connect();
    let transaction = bench.one_lookup_sent();
    bench.reply(transaction, ReplyBody::Peers(peers()));
    bench.now += Duration::from_secs(49);
    bench.lookup();
    let transaction = bench.one_lookup_sent();
    bench.reply(transaction, ReplyBody::Peers(peers()));
    bench.now += Duration::from_secs(2);
    bench.lookup();
    bench.connect();
    bench.one_lookup_sent();
}

#[test]
fn a_silent_tracker_is_tried_four_times_with_growing_waits_and_then_given_up() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    let start = bench.now;
    let mut tries = Vec::new();
    while bench.client.poll_outcome().is_none() {
        for request in bench.sent() {
            match request.body {
                RequestBody::FirstLookup { .. } => assert_eq!(bench.now, start),
                RequestBody::Connect { .. } => tries.push(bench.now - start),
                other => panic!("{other:?}"),
            }
        }
        match bench.client.next_timeout() {
            Some(timeout) => bench.now = timeout,
            None => assert_eq!(bench.client.poll_outcome(), Some((id, Err(CallError::Unanswered)))),
        }
        if bench.client.calls_under_way() == 0 {
            break;
        }
    }
    assert_eq!(tries.len(), 4);
    assert!(tries.windows(3).all(|w| w[2] - w[1] > w[1] - w[0]), "{tries:?}");
    assert!(bench.now - start <= CALL_TIMEOUT);
}

#[test]
fn a_lost_request_is_sent_again_and_a_late_reply_counts() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    bench.connect();
    let first = bench.one_lookup_sent();
    bench.now = bench.client.next_timeout().unwrap();
    assert_eq!(bench.one_lookup_sent(), first);
    bench.reply(first, ReplyBody::Peers(peers()));
    assert_eq!(bench.client.poll_outcome(), Some((id, Ok(Answer::Peers(peers())))));
}

#[test]
fn a_refused_token_means_reconnecting_after_a_jitter() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    bench.connect();
    let transaction = bench.one_lookup_sent();
    bench.reply(transaction, ReplyBody::Error(ErrorCode::TokenRefused));
    assert_eq!(bench.sent(), []);
    let timeout = bench.client.next_timeout().unwrap();
    assert!(timeout > bench.now && timeout <= bench.now + RECONNECT_JITTER);
    bench.now = timeout;
    bench.connect();
    let transaction = bench.one_lookup_sent();
    bench.reply(transaction, ReplyBody::Peers(peers()));
    assert_eq!(bench.client.poll_outcome(), Some((id, Ok(Answer::Peers(peers())))));
}

#[test]
fn a_tracker_that_always_refuses_the_token_does_not_hold_a_call_for_ever() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    let start = bench.now;
    loop {
        for request in bench.sent() {
            let body = match request.body {
                RequestBody::Connect { .. } => ReplyBody::Connected { token: TOKEN, lifetime_s: 60 },
                _ => ReplyBody::Error(ErrorCode::TokenRefused),
            };
            bench.reply(request.transaction, body);
        }
        if let Some(outcome) = bench.client.poll_outcome() {
            assert_eq!(outcome, (id, Err(CallError::Unanswered)));
            break;
        }
        bench.now = bench.client.next_timeout().unwrap().max(bench.now + Duration::from_millis(1));
        assert!(bench.now <= start + CALL_TIMEOUT);
    }
}

#[test]
fn replies_to_nothing_asked_and_answers_to_other_questions_do_no_harm() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    bench.reply(TransactionId(1), ReplyBody::Connected { token: Token([0; 16]), lifetime_s: 60 });
    bench.connect();
    let transaction = bench.one_lookup_sent();
    bench.reply(TransactionId(transaction.0.wrapping_add(1)), ReplyBody::Peers(peers()));
    assert_eq!(bench.client.poll_outcome(), None);
    bench.reply(
        transaction,
        ReplyBody::Announced(Announced { interval_s: 1, seeders: 0, leechers: 0, completed: 0 }),
    );
    assert_eq!(bench.client.poll_outcome(), Some((id, Err(CallError::Unexpected))));
}

#[test]
fn a_call_that_is_to_slow_down_asks_again_later_and_not_at_once_with_others() {
    let mut waits = Vec::new();
    for (retry_after_ms, soonest_ms, latest_ms) in [(0, 100, 200), (700, 700, 1_400), (60_000, 3_000, 6_000)]
    {
        let mut bench = Bench::new();
        let id = bench.lookup();
        bench.connect();
        let transaction = bench.one_lookup_sent();
        bench.reply(transaction, ReplyBody::Error(ErrorCode::SlowDown { retry_after_ms }));
        let wait = bench.client.next_timeout().unwrap() - bench.now;
        let (soonest, latest) = (Duration::from_millis(soonest_ms), Duration::from_millis(latest_ms));
        assert!((soonest..latest).contains(&wait), "{wait:?}");
        bench.now += wait - Duration::from_millis(1);
        assert_eq!(bench.sent(), []);
        bench.now += Duration::from_millis(1);
        assert_eq!(bench.one_lookup_sent(), transaction);
        bench.reply(transaction, ReplyBody::Peers(peers()));
        assert_eq!(bench.client.poll_outcome(), Some((id, Ok(Answer::Peers(peers())))));
        waits.push(wait);
    }
    assert!(waits.is_sorted());
}

#[test]
fn a_call_that_is_slowed_down_to_its_end_reports_that() {
    let mut bench = Bench::new();
    let id = bench.lookup();
    bench.connect();
    let transaction = bench.one_lookup_sent();
    let code = ErrorCode::SlowDown { retry_after_ms: 1_000 };
    bench.reply(transaction, ReplyBody::Error(code));
    bench.now += CALL_TIMEOUT;
    assert_eq!(bench.sent(), []);
    assert_eq!(bench.client.poll_outcome(), Some((id, Err(CallError::Refused(code)))));
}

/// An announce that is given up no longer needs a token, and a lookup under way does not need one yet.
#[test]
fn nothing_is_due_for_a_token_that_no_call_needs() {
    for later_ms in 6_500..7_000 {
        let mut bench = Bench::new();
        bench.rng = StdRng::seed_from_u64(later_ms);
        let start = bench.now;
        let announce = Announce {
            token: TOKEN,
            infohash: InfoHash([1; 32]),
            peer_id: crate::PeerId([2; 16]),
            secret: crate::Secret([3; 16]),
            port: 7_000.try_into().unwrap(),
            name: crate::ShareName::new("n").unwrap(),
            size: 1,
            event: crate::tracker::Event::Started,
            progress: crate::tracker::Completion::COMPLETE,
            label: Default::default(),
            fetched: false,
            zone: Zone::NONE,
        };
        bench.client.start(Call::Announce(announce), start);
        let mut later = Some(start + Duration::from_millis(later_ms));
        loop {
            bench.sent();
            while bench.client.poll_outcome().is_some() {}
            let timeout = bench.client.next_timeout();
            assert!(timeout.is_none_or(|at| at > bench.now), "what is due was not done, {later_ms} ms");
            match (timeout, later) {
                (Some(timeout), Some(at)) if timeout < at => bench.now = timeout,
                (_, Some(at)) => {
                    bench.now = at.max(bench.now);
                    later = None;
                    bench.lookup();
                }
                (Some(timeout), None) => bench.now = timeout,
                (None, None) => break,
            }
        }
    }
}

#[test]
fn calls_begin_anew_at_another_address_and_have_no_more_time_there() {
    let mut bench = Bench::new();
    let began = bench.now;
    let call = bench.lookup();
    bench.connect();
    bench.one_lookup_sent();
    bench.now += Duration::from_secs(1);
    bench.client.start_over();
    // Neither a token of the first address nor a wait from there.
    bench.first_lookup_sent();
    bench.now = began + CALL_TIMEOUT;
    bench.sent();
    assert_eq!(bench.client.poll_outcome(), Some((call, Err(CallError::Unanswered))));
}
