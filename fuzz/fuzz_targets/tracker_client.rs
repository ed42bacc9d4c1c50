//! `proto::tracker::client::Client`, the logic of a tracker client, with a tracker that sends anything at any time.
//!
//! Every call ends once, in time, whatever is received, and nothing is sent more often than the back-off allows.

#![no_main]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use proto::{
    InfoHash, PREAMBLE, Zone,
    tracker::{
        Query, ReplyBody, RequestBody, TransactionId,
        client::{CALL_TIMEOUT, Call, CallId, Client},
        codec::decode_reply,
    },
};
use rand::{SeedableRng, rngs::StdRng};

/// Requests that one call may cause: its tries, those of connects for it, and those after refused tokens.
const MAX_REQUESTS: usize = 64;

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Call,
    Pass {
        ms: u16,
    },
    /// A reply to one of the last requests, or to none.
    Reply {
        to: u8,
        message: &'a [u8],
    },
    RefuseToken {
        to: u8,
    },
}

fuzz_target!(|input: (u64, Vec<Step>)| {
    let (seed, steps) = input;
    let start = Instant::now();
    let mut world = World {
        client: Client::default(),
        rng: StdRng::seed_from_u64(seed),
        now: start,
        under_way: BTreeMap::new(),
        sent: Vec::new(),
        calls: 0,
    };
    for step in steps {
        match step {
            Step::Call => world.call(),
            Step::Pass { ms } => world.pass(Duration::from_millis(ms.into())),
            Step::Reply { to, message } => world.reply(to, message),
            Step::RefuseToken { to } => world.reply(to, &[0, 4, 0]),
        }
        world.act();
    }
    world.pass(CALL_TIMEOUT);
    assert!(world.under_way.is_empty(), "{:?} have no outcome", world.under_way);
    assert_eq!(world.client.next_timeout(), None);
});

struct World {
    client: Client,
    rng: StdRng,
    now: Instant,
    /// When each call began that has no outcome.
    under_way: BTreeMap<CallId, Instant>,
    sent: Vec<(TransactionId, bool)>,
    calls: usize,
}

impl World {
    fn call(&mut self) {
        let query = Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE };
        let id = self.client.start(Call::Lookup(query), self.now);
        assert!(self.under_way.insert(id, self.now).is_none(), "{id:?} is used twice");
        self.calls += 1;
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(wake) = self.client.next_timeout().filter(|&wake| wake <= until) {
            assert!(wake >= self.now, "it was due before");
            self.now = wake;
            self.act();
        }
        self.now = until;
        self.act();
    }

    fn reply(&mut self, to: u8, message: &[u8]) {
        let Ok(mut reply) = decode_reply(&[&PREAMBLE, message].concat()) else { return };
        if let Some(at) = self.sent.len().checked_sub(1 + usize::from(to)) {
            let (transaction, is_connect) = self.sent[at];
            reply.transaction = transaction;
            // A tracker answers a connect with a token, if it is honest.
            if is_connect && to % 2 == 0 {
                reply.body =
                    ReplyBody::Connected { token: proto::tracker::Token([to; 16]), lifetime_s: to.into() };
            }
        }
        self.client.on_reply(reply, self.now, &mut self.rng);
    }

    fn act(&mut self) {
        while let Some(request) = self.client.poll_transmit(self.now, &mut self.rng) {
            self.sent.push((request.transaction, matches!(request.body, RequestBody::Connect { .. })));
            // A refused token costs each call another request, and each reply can refuse it.
            assert!(
                self.sent.len() <= MAX_REQUESTS * (1 + self.calls) * (1 + self.calls),
                "it sends without end"
            );
        }
        while let Some((id, _)) = self.client.poll_outcome() {
            let begun = self.under_way.remove(&id).expect("a call has one outcome");
            assert!(self.now - begun <= CALL_TIMEOUT, "{id:?} took {:?}", self.now - begun);
        }
        assert_eq!(self.client.calls_under_way(), self.under_way.len());
        let wake = self.client.next_timeout();
        assert!(wake.is_none_or(|at| at > self.now), "what is due was not done");
        assert_eq!(wake.is_none(), self.under_way.is_empty());
    }
}
