//! The choice of peers for a lookup.
//!
//! Every set of peers is as likely as every other. So no position is sent more often, and peers that came together are not
//! sent together. A client that asks for as many as there are, or more, gets all, in the order of memory, from a random one
//! on.

use proto::tracker::message::MAX_PEERS;
use rand::{Rng, RngExt};

const MOST: u32 = MAX_PEERS as u32;

/// Room for the positions of the peers of one reply.
pub(super) type Places = [u32; MAX_PEERS];

/// Draws at most `want` of the positions below `all`. Floyd's method draws one number for each, and needs no memory but
/// `chosen`.
pub(super) fn sample<'a>(chosen: &'a mut Places, all: u32, want: u8, rng: &mut impl Rng) -> &'a [u32] {
    let amount = MOST.min(want.into()).min(all);
    let chosen = &mut chosen[..amount as usize];
    if amount == all && amount > 0 {
        let first = rng.random_range(0..all);
        for (chosen, place) in chosen.iter_mut().zip((first..all).chain(0..first)) {
            *chosen = place;
        }
        return chosen;
    }
    for (count, newest) in (all - amount..all).enumerate() {
        let drawn = rng.random_range(0..=newest);
        let (before, rest) = chosen.split_at_mut(count);
        rest[0] = if before.contains(&drawn) { newest } else { drawn };
    }
    chosen
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
            for want in [0, 1, 30, 50, u8::MAX] {
                let mut places = [0; MAX_PEERS];
                let sample = sample(&mut places, all, want, &mut rng);
                assert_eq!(sample.len() as u64, u64::from(all).min(want.into()).min(MAX_PEERS as u64));
                assert!(sample.iter().all(|&place| place < all));
                assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), sample.len());
            }
        }
    }

    #[test]
    fn everybody_is_told_of_equally_often_and_every_pair() {
        const ALL: u32 = 40;
        const WANT: u8 = 30;
        const DRAWS: u32 = 20_000;
        let mut rng = StdRng::seed_from_u64(1);
        let mut pairs = [[0_u32; ALL as usize]; ALL as usize];
        let mut places = [0; MAX_PEERS];
        for _ in 0..DRAWS {
            let sample = sample(&mut places, ALL, WANT, &mut rng);
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

    #[test]
    fn whoever_gets_all_begins_with_each_equally_often() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut firsts = [0_u32; 10];
        let mut places = [0; MAX_PEERS];
        for _ in 0..10_000 {
            firsts[sample(&mut places, 10, 30, &mut rng)[0] as usize] += 1;
        }
        assert!(firsts.iter().all(|first| first.abs_diff(1_000) < 150), "{firsts:?}");
    }
}
