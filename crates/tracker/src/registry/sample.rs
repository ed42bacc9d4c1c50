//! A random sample of places.
//!
//! Every set of places is as likely as every other, so no place is drawn more often, and peers that came together are not
//! drawn together. A sample of all places has them in order, from a random one on.

use proto::tracker::message::MAX_PEERS;
use rand::{Rng, RngExt};

/// Room for the places of the peers of one reply.
pub(super) type Places = [u32; MAX_PEERS];

/// Draws as many of the places below `all` as `chosen` has room for, and returns those. Floyd's method: one number drawn for
/// each, and no memory but `chosen`.
pub(super) fn sample<'a>(chosen: &'a mut [u32], all: u32, rng: &mut impl Rng) -> &'a mut [u32] {
    sample_each(chosen, all, rng, |_| {})
}

/// [`sample`] that calls `each` with each place as soon as it is drawn, except if all are.
pub(super) fn sample_each<'a>(
    chosen: &'a mut [u32],
    all: u32,
    rng: &mut impl Rng,
    each: impl Fn(u32),
) -> &'a mut [u32] {
    // A reply has room for far fewer than a u32 can count.
    let amount = u32::try_from(chosen.len()).unwrap_or(u32::MAX).min(all);
    let chosen = &mut chosen[..amount as usize];
    if amount == all {
        rotate(chosen, all, rng);
        return chosen;
    }
    let mut drawn_before = Traces::default();
    for (count, newest) in (all - amount..all).enumerate() {
        let drawn = rng.random_range(0..=newest);
        let (before, rest) = chosen.split_at_mut(count);
        let is_repeat = drawn_before.may_have(drawn) && before.contains(&drawn);
        rest[0] = if is_repeat { newest } else { drawn };
        drawn_before.add(rest[0]);
        each(rest[0]);
    }
    chosen
}

/// All places below `all` in their order, from a random one on.
fn rotate(chosen: &mut [u32], all: u32, rng: &mut impl Rng) {
    if all > 1 {
        let first = rng.random_range(0..all);
        for (chosen, place) in chosen.iter_mut().zip(first..) {
            *chosen = if place < all { place } else { place - all };
        }
    } else {
        chosen.fill(0);
    }
}

/// One bit for each number that was drawn. A few numbers have the same bit, so most draws need no look at those before.
#[derive(Default)]
struct Traces([u64; Traces::WORDS as usize]);

impl Traces {
    const WORDS: u32 = 8;

    fn may_have(&self, drawn: u32) -> bool {
        self.0[Traces::word(drawn)] >> (drawn % u64::BITS) & 1 != 0
    }

    fn add(&mut self, drawn: u32) {
        self.0[Traces::word(drawn)] |= 1 << (drawn % u64::BITS);
    }

    fn word(drawn: u32) -> usize {
        (drawn / u64::BITS % Traces::WORDS) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_sample_is_as_large_as_can_be_and_without_repeats() {
        let mut rng = StdRng::seed_from_u64(1);
        for all in [0, 1, 2, 29, 30, 31, 50, 51, 1_000, u32::MAX] {
            for want in [0, 1, 30, MAX_PEERS] {
                let mut places = vec![0; want];
                let sample = sample(&mut places, all, &mut rng);
                assert_eq!(sample.len(), want.min(all as usize));
                assert!(sample.iter().all(|&place| place < all));
                assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), sample.len());
            }
        }
    }

    #[test]
    fn each_peer_and_each_pair_is_named_equally_often() {
        const ALL: u32 = 40;
        const WANT: u8 = 30;
        const DRAWS: u32 = 20_000;
        let mut rng = StdRng::seed_from_u64(1);
        let mut pairs = [[0_u32; ALL as usize]; ALL as usize];
        let mut places = [0; MAX_PEERS];
        for _ in 0..DRAWS {
            let sample = &*sample(&mut places[..WANT as usize], ALL, &mut rng);
            for &a in sample {
                for &b in sample {
                    pairs[a as usize][b as usize] += 1;
                }
            }
        }
        // Of each, and of two others: five standard deviations are some 300.
        let alone = DRAWS * u32::from(WANT) / ALL;
        let together = alone * u32::from(WANT - 1) / (ALL - 1);
        for (a, counts) in pairs.iter().enumerate() {
            for (b, &count) in counts.iter().enumerate() {
                let expected = if a == b { alone } else { together };
                assert!(count.abs_diff(expected) < 350, "{a} and {b}: {count} times, {expected} expected");
            }
        }
    }

    /// There are more places than bits in [`Traces`], so some places share a bit.
    #[test]
    fn each_of_many_is_named_equally_often_and_the_last_ones_too() {
        const ALL: u32 = 2_000;
        const DRAWS: u32 = 20_000;
        let mut rng = StdRng::seed_from_u64(1);
        let (mut named, mut places) = ([0_u32; ALL as usize], [0; 30]);
        for _ in 0..DRAWS {
            let sample = &*sample(&mut places, ALL, &mut rng);
            assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 30);
            sample.iter().for_each(|&place| named[place as usize] += 1);
        }
        // Six standard deviations are some 100.
        let expected = DRAWS * 30 / ALL;
        for (place, &count) in named.iter().enumerate() {
            assert!(count.abs_diff(expected) < 110, "{place}: {count} times, {expected} expected");
        }
    }

    #[test]
    fn an_answer_with_all_peers_begins_with_each_equally_often() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut firsts = [0_u32; 10];
        let mut places = [0; MAX_PEERS];
        for _ in 0..10_000 {
            firsts[sample(&mut places, 10, &mut rng)[0] as usize] += 1;
        }
        assert!(firsts.iter().all(|first| first.abs_diff(1_000) < 150), "{firsts:?}");
    }
}
