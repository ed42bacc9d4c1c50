//! Connection tokens: proof that the sender of a datagram also receives at its source address.
//!
//! They are stateless, so a flood of connects fills no memory. A token is its time of issue, by a clock that begins at a
//! random time, and a keyed MAC over that time and the source IP. It is bound to the address and not to the port, because a
//! peer announces and looks up from several sockets. Keys never leave the process and are drawn anew at every start. So
//! tokens from before a restart are refused, and clients connect again.
//!
//! The trackers of a fleet have a secret in common. Their keys follow from it and from the clock of their store, so a token of one is
//! accepted by all.
//!
//! Pure: time and randomness are arguments.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use proto::tracker::Token;
use rand::{CryptoRng, RngExt};
use siphasher::sip128::SipHasher24;
use subtle::ConstantTimeEq;

use crate::fleet::{
    secret::FleetSecret,
    time::{StoreClock, StoreTime},
};

/// A token is accepted for this long. It is four heartbeats. With a third of that there would be as many connects as
/// announces. Addresses change hands more slowly than this. BEP 15 has the same two minutes.
pub const LIFETIME: Duration = Duration::from_secs(LIFETIME_S as u64);

/// [`LIFETIME`] in seconds, as `Connected` carries it.
pub const LIFETIME_S: u16 = 120;

/// A key signs for this long, and is accepted for at least as long afterwards. So no token ends before [`LIFETIME`] because
/// of its key.
const ROTATION: Duration = LIFETIME;

/// Trackers of a fleet may be this far apart in what they take for the time of their store.
const FLEET_SKEW_S: u32 = 5;

pub(crate) type Key = [u8; 16];

/// Issues tokens and checks them.
pub struct Tokens {
    start: Instant,
    /// The clock's value at the start. It is random, so tokens do not reveal how long the tracker has been up.
    start_s: u32,
    /// The clock's value at the last time. Many requests are answered at one time.
    last: (Instant, u32),
    rotate_at: Instant,
    current: Key,
    previous: Key,
    fleet: Option<Fleet>,
}

/// What tokens of a fleet need besides.
struct Fleet {
    secret: FleetSecret,
    clock: StoreClock,
    /// The key that other trackers may have already.
    next: Key,
}

impl Tokens {
    /// Draws the first keys.
    pub fn new(now: Instant, rng: &mut impl CryptoRng) -> Tokens {
        let start_s = rng.random();
        Tokens {
            start: now,
            start_s,
            last: (now, start_s),
            rotate_at: now + ROTATION,
            current: draw_key(rng),
            previous: draw_key(rng),
            fleet: None,
        }
    }

    /// From now on, tokens are those of all trackers that have this secret.
    pub fn share(&mut self, secret: &FleetSecret, clock: StoreClock, now: Instant) {
        self.start = now;
        #[expect(clippy::cast_possible_truncation, reason = "the clock goes round")]
        let start_s = clock.read(now).seconds() as u32;
        self.start_s = start_s;
        self.last = (now, start_s);
        self.fleet = Some(Fleet { secret: secret.clone(), clock, next: Key::default() });
        self.derive(now);
    }

    /// A token for `ip`, to be accepted for [`LIFETIME`].
    pub fn issue(&mut self, ip: IpAddr, now: Instant, rng: &mut impl CryptoRng) -> Token {
        self.rotate(now, rng);
        let seconds = self.seconds(now);
        token(&self.current, seconds, ip)
    }

    /// Whether `token` was issued here, to `ip`, and not longer than [`LIFETIME`] ago. Takes the same time
    /// for every forged token.
    pub fn accepts(&mut self, token: &Token, ip: IpAddr, now: Instant, rng: &mut impl CryptoRng) -> bool {
        self.rotate(now, rng);
        let [a, b, c, d, ..] = token.0;
        let issued = u32::from_le_bytes([a, b, c, d]);
        // Numbers are compared in one step, arrays byte by byte.
        let shown = u128::from_le_bytes(token.0);
        let signed_by = |key: &Key| bool::from(number(key, issued, ip).ct_eq(&shown));
        // A genuine token is recognised sooner under the current key. That reveals nothing.
        let (next, skew_s) = match &self.fleet {
            None => (None, 0),
            Some(fleet) => (Some(&fleet.next), FLEET_SKEW_S),
        };
        let genuine = signed_by(&self.current) || signed_by(&self.previous) || next.is_some_and(signed_by);
        let age = self.seconds(now).wrapping_add(skew_s).wrapping_sub(issued);
        genuine && age <= u32::from(LIFETIME_S) + skew_s
    }

    /// The clock's value in whole seconds. It has no meaning outside this process, and wraps around after 136 years.
    fn seconds(&mut self, now: Instant) -> u32 {
        if self.last.0 != now {
            let seconds = now.saturating_duration_since(self.start).as_secs();
            #[expect(clippy::cast_possible_truncation, reason = "the clock goes round")]
            let value = self.start_s.wrapping_add(seconds as u32);
            self.last = (now, value);
        }
        self.last.1
    }

    /// One step is enough even after a long time without requests: tokens of the key that becomes the previous one are
    /// refused because of their age.
    fn rotate(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        if now >= self.rotate_at {
            if self.fleet.is_some() {
                return self.derive(now);
            }
            self.previous = self.current;
            self.current = draw_key(rng);
            self.rotate_at = now + ROTATION;
        }
    }

    /// Derives the keys of the fleet for this time.
    fn derive(&mut self, now: Instant) {
        let Some(fleet) = &mut self.fleet else { return };
        let StoreTime(now_ms) = fleet.clock.read(now);
        let rotation_ms = u64::from(LIFETIME_S) * 1_000;
        let period = now_ms / rotation_ms;
        self.previous = fleet.secret.key(period.wrapping_sub(1));
        self.current = fleet.secret.key(period);
        fleet.next = fleet.secret.key(period + 1);
        self.rotate_at = now + Duration::from_millis(rotation_ms - now_ms % rotation_ms);
    }
}

fn draw_key(rng: &mut impl CryptoRng) -> Key {
    let mut key = Key::default();
    rng.fill_bytes(&mut key);
    key
}

fn token(key: &Key, issued_s: u32, ip: IpAddr) -> Token {
    Token(number(key, issued_s, ip).to_le_bytes())
}

/// The token as a number: the time of issue, and above it the MAC as far as there is room. All of it is made of numbers, because
/// bytes that were written one by one and are read as a whole take the processor longer than the hash.
fn number(key: &Key, issued_s: u32, ip: IpAddr) -> u128 {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    // All at once and in whole words, because the hash would have to assemble smaller pieces.
    let mut signed = [0; 24];
    signed[..16].copy_from_slice(&ip.to_bits().to_be_bytes());
    signed[16..].copy_from_slice(&u64::from(issued_s).to_le_bytes());
    SipHasher24::new_with_key(key).hash(&signed).as_u128() << u32::BITS | u128::from(issued_s)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    /// Bytes of a token that hold its time of issue.
    const TIME_LEN: usize = 4;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn tokens(seed: u64) -> (Tokens, Instant, StdRng) {
        let mut rng = StdRng::seed_from_u64(seed);
        let start = Instant::now();
        (Tokens::new(start, &mut rng), start, rng)
    }

    #[test]
    fn a_token_is_accepted_for_its_whole_life_and_not_after() {
        // Issued at every phase of a key's life, and checked every second.
        for issued_ms in (0..400_000).step_by(17_300) {
            let (mut tokens, start, mut rng) = tokens(1);
            let issued = start + Duration::from_millis(issued_ms);
            let token = tokens.issue(HERE, issued, &mut rng);
            for age_s in 0..=LIFETIME_S.into() {
                let now = issued + Duration::from_secs(age_s);
                assert!(tokens.accepts(&token, HERE, now, &mut rng), "at {issued_ms} ms, aged {age_s} s");
            }
            for age_s in 1..400 {
                let now = issued + LIFETIME + Duration::from_secs(age_s);
                assert!(!tokens.accepts(&token, HERE, now, &mut rng), "at {issued_ms} ms, {age_s} s late");
            }
        }
    }

    #[test]
    fn an_old_token_is_refused_although_no_request_came_in_between() {
        let (mut tokens, start, mut rng) = tokens(1);
        let token = tokens.issue(HERE, start, &mut rng);
        assert!(!tokens.accepts(&token, HERE, start + LIFETIME * 1000, &mut rng));
    }

    #[test]
    fn a_token_is_good_for_one_address() {
        let (mut tokens, start, mut rng) = tokens(1);
        let token = tokens.issue(HERE, start, &mut rng);
        assert!(tokens.accepts(&token, HERE, start, &mut rng));
        assert!(!tokens.accepts(&token, ELSEWHERE, start, &mut rng));
    }

    #[test]
    fn a_token_with_any_bit_changed_is_refused() {
        let (mut tokens, start, mut rng) = tokens(1);
        let now = start + Duration::from_secs(50);
        let token = tokens.issue(HERE, now, &mut rng);
        for bit in 0..128 {
            let mut forged = token;
            forged.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!tokens.accepts(&forged, HERE, now, &mut rng), "bit {bit}");
        }
    }

    #[test]
    fn a_restart_forgets_all_tokens() {
        let (mut before, start, mut rng) = tokens(1);
        let token = before.issue(HERE, start, &mut rng);
        let mut after = Tokens::new(start, &mut rng);
        assert!(!after.accepts(&token, HERE, start, &mut rng));
    }

    #[test]
    fn tokens_do_not_reveal_how_long_the_tracker_has_been_up() {
        let times: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| {
                let (mut tokens, start, mut rng) = tokens(seed);
                let token = tokens.issue(HERE, start, &mut rng);
                assert!(tokens.accepts(&token, HERE, start + LIFETIME, &mut rng));
                token.0[..TIME_LEN].to_vec()
            })
            .collect();
        assert_eq!(times.len(), 100);
    }

    #[test]
    fn the_clock_of_tokens_may_go_round() {
        let (mut tokens, start, mut rng) = tokens(1);
        tokens.start_s = u32::MAX - 5;
        tokens.last = (start, tokens.start_s);
        let token = tokens.issue(HERE, start, &mut rng);
        assert!(tokens.accepts(&token, HERE, start + Duration::from_secs(60), &mut rng));
        assert!(!tokens.accepts(&token, HERE, start + LIFETIME + Duration::from_secs(1), &mut rng));
    }

    /// Two trackers of a fleet that were started at different times, and whose clocks are two seconds apart.
    #[test]
    fn a_token_of_one_tracker_of_a_fleet_is_good_at_all_for_its_whole_life() {
        let secret = FleetSecret([7; 32]);
        let shown_ms = 1_800_000_000_000;
        for issued_ms in (0..400_000).step_by(17_300) {
            let (mut a, start, mut rng) = tokens(1);
            let (mut b, ..) = tokens(2);
            a.share(&secret, StoreClock::new(start, StoreTime(shown_ms)), start);
            b.share(&secret, StoreClock::new(start, StoreTime(shown_ms - 2_000)), start);
            let issued = start + Duration::from_millis(issued_ms);
            let issued_there = [a.issue(HERE, issued, &mut rng), b.issue(HERE, issued, &mut rng)];
            for age_s in 0..=u64::from(LIFETIME_S) - 2 {
                let now = issued + Duration::from_secs(age_s);
                for token in &issued_there {
                    for (which, tokens) in [&mut a, &mut b].into_iter().enumerate() {
                        assert!(
                            tokens.accepts(token, HERE, now, &mut rng),
                            "{which}: {issued_ms} ms, {age_s} s"
                        );
                        assert!(!tokens.accepts(token, ELSEWHERE, now, &mut rng));
                    }
                }
            }
            let late = issued + LIFETIME + Duration::from_secs(3);
            for token in &issued_there {
                assert!(!a.accepts(token, HERE, late, &mut rng) && !b.accepts(token, HERE, late, &mut rng));
            }
        }
    }

    #[test]
    fn another_secret_makes_other_tokens() {
        let (mut tokens, start, mut rng) = tokens(1);
        let clock = StoreClock::new(start, StoreTime(1_800_000_000_000));
        tokens.share(&FleetSecret([7; 32]), clock, start);
        let token = tokens.issue(HERE, start, &mut rng);
        tokens.share(&FleetSecret([8; 32]), clock, start);
        assert!(!tokens.accepts(&token, HERE, start, &mut rng));
    }

    #[test]
    fn tokens_reveal_nothing_about_the_next() {
        let (mut tokens, start, mut rng) = tokens(1);
        let mut token = |ip, s| tokens.issue(ip, start + Duration::from_secs(s), &mut rng).0;
        let (a, b, c) = (token(HERE, 0), token(ELSEWHERE, 0), token(HERE, 1));
        assert_ne!(a[TIME_LEN..], b[TIME_LEN..]);
        assert_ne!(a[TIME_LEN..], c[TIME_LEN..]);
    }
}
