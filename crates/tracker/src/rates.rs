//! How much one address, and one IPv6 network, may ask for in a second.
//!
//! A client with a token can ask for answers that are many times as large as its requests, and a flood of requests takes the
//! tracker's time from others. So answers are counted, in each second anew. Over the first limit, which counts bytes, lookups get
//! [`SlowDown`](proto::tracker::ErrorCode::SlowDown), which is smaller than they are. Over the second, which counts answers, there is
//! no answer. The numbers are large enough for a thousand seeders behind one address.
//!
//! Requests without a good token are counted apart. They may come from anybody in the name of an address, and must not use up what
//! that address may ask for.
//!
//! There is a table of fixed size, and no list of addresses: a request is counted in one place of each of two rows, and what counts
//! is the smaller number. Places are chosen by a hash with a random key that changes every second. So an address shares both places
//! with a flood only by a rare chance, and for one second.
//!
//! Pure: time and randomness are arguments.

use std::{
    hash::BuildHasher,
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use foldhash::quality::FixedState;
use prefetch_index::prefetch_index;
use rand::{Rng, RngExt};

/// Default answers a second for one IPv4 address or one IPv6 /64: a thousand seeders of ten shares each, which all come back after a
/// restart.
pub const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

/// Bytes that lookups may bring for each answer of the limit. So by default these are 2 MB a second: two thousand of the largest
/// answers.
const BYTES_PER_ANSWER: u32 = 200;

/// An IPv6 /48 may ask for this many times as much as a /64.
const NETWORK_FACTOR: u32 = 4;

/// Time that is counted together.
const PERIOD: Duration = Duration::from_secs(1);

/// Places in each of the two rows, a power of two. With eight bytes a place, both rows are 64 KiB.
const PLACES: usize = 4_096;

/// What was answered in this period.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    answers: u32,
    bytes: u32,
}

/// Counts answers.
pub(crate) struct Rates {
    /// `None` if there is no limit.
    limits: Option<Count>,
    /// When the places change.
    ends: Instant,
    key: FixedState,
    rows: Box<[[Count; PLACES]; 2]>,
}

/// Whether the sender of a request has shown that it receives at its source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Proved,
    Unproved,
}

/// What may be sent in answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Anything,
    /// Nothing that is larger than the request. The time is what is left of the second.
    Small(Duration),
    Nothing,
}

/// The places of a request: those of its address, and of its network if it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket([Option<Places>; 2]);

/// One place in each row.
type Places = [u16; 2];

impl Rates {
    /// Limits of answers and of their bytes. Without the latter, it follows from the former.
    pub(crate) fn new(
        answers: Option<NonZeroU32>,
        bytes: Option<NonZeroU32>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Rates {
        let rows = Box::new([[Count::default(); PLACES]; 2]);
        let limits = limits(answers, bytes);
        Rates { limits, ends: now + PERIOD, key: FixedState::with_seed(rng.random()), rows }
    }

    /// Other limits from now on. What was counted in this second counts.
    pub(crate) fn set(&mut self, answers: Option<NonZeroU32>, bytes: Option<NonZeroU32>) {
        self.limits = limits(answers, bytes);
    }

    /// The places of a request from `ip`, whose memory is requested.
    pub(crate) fn ticket(&mut self, ip: IpAddr, source: Source, now: Instant, rng: &mut impl Rng) -> Ticket {
        if self.limits.is_none() {
            return Ticket([None; 2]);
        }
        if now >= self.ends {
            self.rows.iter_mut().for_each(|row| row.fill(Count::default()));
            self.key = FixedState::with_seed(rng.random());
            self.ends = now + PERIOD;
        }
        let ticket = self.ticket_of(ip, source);
        for places in ticket.0.iter().flatten() {
            self.rows.iter().zip(places).for_each(|(row, &place)| prefetch_index(row, place.into()));
        }
        ticket
    }

    /// Counts a request with a ticket of this moment. The caller reports the size of the answer with [`Rates::charge`].
    pub(crate) fn admit(&mut self, ticket: Ticket, now: Instant) -> Verdict {
        let Some(limits) = self.limits else { return Verdict::Anything };
        let mut verdict = Verdict::Anything;
        for (places, factor) in ticket.0.iter().zip([1, NETWORK_FACTOR]) {
            let Some(places) = places else { continue };
            let count = self.count(*places);
            if count.answers >= limits.answers.saturating_mul(factor) {
                return Verdict::Nothing;
            }
            if count.bytes >= limits.bytes.saturating_mul(factor) {
                verdict = Verdict::Small(self.ends.saturating_duration_since(now));
            }
        }
        self.each(ticket, |count| count.answers = count.answers.saturating_add(1));
        verdict
    }

    /// Counts the bytes of the answer to a request.
    pub(crate) fn charge(&mut self, ticket: Ticket, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.each(ticket, |count| count.bytes = count.bytes.saturating_add(bytes));
    }

    fn each(&mut self, ticket: Ticket, change: impl Fn(&mut Count)) {
        for places in ticket.0.into_iter().flatten() {
            for (row, place) in self.rows.iter_mut().zip(places) {
                change(&mut row[usize::from(place)]);
            }
        }
    }

    fn count(&self, [first, second]: Places) -> Count {
        let (first, second) = (self.rows[0][usize::from(first)], self.rows[1][usize::from(second)]);
        Count { answers: first.answers.min(second.answers), bytes: first.bytes.min(second.bytes) }
    }

    fn ticket_of(&self, ip: IpAddr, source: Source) -> Ticket {
        let proved = u64::from(source == Source::Proved);
        // In one number each: whether the source is proved, and how long the prefix is.
        let places = |prefix, len: u64| self.places(prefix, len << 1 | proved);
        match ip {
            IpAddr::V4(ip) => Ticket([Some(places(ip.to_bits().into(), 32)), None]),
            IpAddr::V6(ip) => {
                // The first 64 and 48 bits.
                let subnet = (ip.to_bits() >> 64) as u64;
                Ticket([Some(places(subnet, 64)), Some(places(subnet >> 16, 48))])
            }
        }
    }

    fn places(&self, prefix: u64, kind: u64) -> Places {
        let hash = self.key.hash_one((prefix, kind));
        #[expect(clippy::cast_possible_truncation, reason = "only some of the bits are used")]
        [(hash as usize % PLACES) as u16, ((hash >> 32) as usize % PLACES) as u16]
    }
}

fn limits(answers: Option<NonZeroU32>, bytes: Option<NonZeroU32>) -> Option<Count> {
    let most = |limit: Option<NonZeroU32>| limit.map_or(u32::MAX, NonZeroU32::get);
    (answers.is_some() || bytes.is_some()).then(|| Count {
        answers: most(answers),
        bytes: bytes.map_or(most(answers).saturating_mul(BYTES_PER_ANSWER), NonZeroU32::get),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const FEW: NonZeroU32 = NonZeroU32::new(10).unwrap();

    #[test]
    fn bytes_have_a_limit_of_their_own() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        for answers in [None, Some(FEW)] {
            let mut rates = Rates::new(answers, Some(NonZeroU32::MIN), now, &mut rng);
            let ip = Ipv4Addr::LOCALHOST.into();
            let ticket = rates.ticket(ip, Source::Proved, now, &mut rng);
            assert_eq!(rates.admit(ticket, now), Verdict::Anything);
            rates.charge(ticket, 1);
            assert!(matches!(rates.admit(ticket, now), Verdict::Small(_)));
        }
    }

    struct Bench {
        rates: Rates,
        now: Instant,
        rng: StdRng,
    }

    impl Bench {
        fn new(per_second: Option<NonZeroU32>) -> Bench {
            let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
            Bench { rates: Rates::new(per_second, None, now, &mut rng), now, rng }
        }

        fn ask(&mut self, ip: IpAddr, source: Source, bytes: usize) -> Verdict {
            let ticket = self.rates.ticket(ip, source, self.now, &mut self.rng);
            let verdict = self.rates.admit(ticket, self.now);
            self.rates.charge(ticket, bytes);
            verdict
        }

        /// How many of 1,000 requests are answered.
        fn answered(&mut self, ip: IpAddr, source: Source) -> usize {
            (0..1_000).filter(|_| self.ask(ip, source, 0) != Verdict::Nothing).count()
        }
    }

    fn v6(network: u16, subnet: u16, host: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, network, subnet, 0, 0, 0, host).into()
    }

    #[test]
    fn an_address_gets_a_bounded_number_of_answers_a_second_and_others_are_not_affected() {
        let mut bench = Bench::new(Some(FEW));
        let (one, other) = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into());
        for _ in 0..3 {
            assert_eq!(bench.answered(one, Source::Proved), 10);
            assert_eq!(bench.ask(other, Source::Proved, 0), Verdict::Anything);
            bench.now += PERIOD;
        }
        assert_eq!(Bench::new(None).answered(one, Source::Proved), 1_000);
    }

    #[test]
    fn what_comes_in_the_name_of_an_address_does_not_use_up_what_it_may_ask() {
        let mut bench = Bench::new(Some(FEW));
        let ip = Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(bench.answered(ip, Source::Unproved), 10);
        assert_eq!(bench.answered(ip, Source::Proved), 10);
    }

    #[test]
    fn over_the_bytes_only_small_answers_are_sent_until_the_second_is_over() {
        let mut bench = Bench::new(Some(FEW));
        let ip = Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(bench.ask(ip, Source::Proved, 1_199), Verdict::Anything);
        assert_eq!(bench.ask(ip, Source::Proved, 1_000), Verdict::Anything);
        bench.now += Duration::from_millis(300);
        assert_eq!(bench.ask(ip, Source::Proved, 0), Verdict::Small(Duration::from_millis(700)));
        bench.now += Duration::from_millis(700);
        assert_eq!(bench.ask(ip, Source::Proved, 0), Verdict::Anything);
    }

    #[test]
    fn ipv6_is_counted_by_64_and_by_48() {
        let mut bench = Bench::new(Some(FEW));
        let hosts = |bench: &mut Bench, ips: &mut dyn Iterator<Item = IpAddr>| {
            ips.filter(|&ip| bench.ask(ip, Source::Proved, 0) != Verdict::Nothing).count()
        };
        assert_eq!(hosts(&mut bench, &mut (0..1_000).map(|host| v6(1, 1, host))), 10);
        assert_eq!(hosts(&mut bench, &mut (0..1_000).map(|subnet| v6(2, subnet, 1))), 40);
        assert_eq!(bench.ask(v6(3, 1, 1), Source::Proved, 0), Verdict::Anything);
    }

    #[test]
    fn the_places_of_an_address_change_every_second() {
        let mut bench = Bench::new(Some(FEW));
        let ips: Vec<IpAddr> = (0..10).map(|host| Ipv4Addr::new(192, 0, 2, host).into()).collect();
        let places = |bench: &Bench| {
            ips.iter().map(|&ip| bench.rates.ticket_of(ip, Source::Proved).0).collect::<Vec<_>>()
        };
        let before = places(&bench);
        bench.now += PERIOD / 2;
        bench.ask(ips[0], Source::Proved, 0);
        assert_eq!(places(&bench), before);
        bench.now += PERIOD;
        bench.ask(ips[0], Source::Proved, 0);
        let after = places(&bench);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    }

    /// A hundred addresses flood, and a thousand others ask once.
    #[test]
    fn a_flood_of_some_addresses_seldom_hits_others() {
        let mut bench = Bench::new(Some(FEW));
        let mut silenced = 0;
        for _ in 0..10 {
            for flooder in 0..100 {
                bench.answered(Ipv4Addr::new(198, 51, 100, flooder).into(), Source::Proved);
            }
            for host in 0..1_000_u16 {
                let [high, low] = host.to_be_bytes();
                let verdict = bench.ask(Ipv4Addr::new(10, 0, high, low).into(), Source::Proved, 100);
                silenced += usize::from(verdict == Verdict::Nothing);
            }
            bench.now += PERIOD;
        }
        // One in 1,700 by calculation.
        assert!(silenced < 40, "{silenced} of 10,000");
    }
}
