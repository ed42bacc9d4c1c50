//! When the leechers are informed of new chunks.
//!
//! A chunk costs a message to each leecher. If each was sent at once, most packets of a swarm would be such messages: 32 leechers with 512
//! chunks send half a million. So new chunks are reported several at a time, and those that many have already less often. The first after
//! a pause is reported at once, because a share spreads by doubling. What is sent to a leecher meanwhile takes along the news that waits
//! for it ([`peer::outbox`]).

use std::time::{Duration, Instant};

use swarm::scheduler::Spread;

/// To so few leechers each chunk is reported at once: that is little work, and they have few others to receive it from.
const FEW: u32 = 8;

/// Interval of reports for each further leecher. With more leechers a report costs more, and is needed less, because others have most chunks
/// too.
const INTERVAL_PER_LEECHER: Duration = Duration::from_millis(2);

/// Maximum interval. In the simulation 8, 16 and 32 leechers take as long with 50 ms as with 5, and 2 to 3 % longer with 100.
const MAX_INTERVAL: Duration = Duration::from_millis(50);

/// A chunk that is common already may be reported after this many intervals, because it matters little that one more leecher has it.
const COMMON_INTERVALS: u32 = 4;

/// This many chunks are reported at once. On a fast network thousands come in a second.
const MANY: u32 = 8;

/// The chunks that were stored and are not reported yet.
#[derive(Debug, Default)]
pub(super) struct News {
    rare: Waiting,
    common: Waiting,
    reported: Option<Instant>,
}

/// Chunks that wait to be reported: their number, and when the first of them was stored.
#[derive(Debug, Clone, Copy, Default)]
struct Waiting(Option<(u32, Instant)>);

impl News {
    /// Another chunk was stored.
    pub(super) fn add(&mut self, spread: Spread, now: Instant) {
        let waiting = match spread {
            Spread::Rare => &mut self.rare,
            Spread::Common => &mut self.common,
        };
        let (count, since) = waiting.0.unwrap_or((0, now));
        *waiting = Waiting(Some((count.saturating_add(1), since)));
    }

    /// When to report to this number of leechers what waits; `None` if nothing does.
    pub(super) fn due(&self, leechers: usize) -> Option<Instant> {
        let further = u32::try_from(leechers).unwrap_or(u32::MAX).saturating_sub(FEW);
        let interval = INTERVAL_PER_LEECHER.saturating_mul(further).min(MAX_INTERVAL);
        let rare = self.rare.due(self.reported.map(|at| at + interval), MANY);
        let common = self
            .common
            .due(self.reported.map(|at| at + COMMON_INTERVALS * interval), COMMON_INTERVALS * MANY);
        rare.into_iter().chain(common).min()
    }

    /// What waited is reported now.
    pub(super) fn report(&mut self, now: Instant) {
        *self = News { reported: Some(now), ..News::default() };
    }
}

impl Waiting {
    /// When to report them: not before `earliest`, unless they are `many`.
    fn due(self, earliest: Option<Instant>, many: u32) -> Option<Instant> {
        let (count, since) = self.0?;
        Some(earliest.filter(|_| count < many).map_or(since, |earliest| since.max(earliest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chunk_is_reported_at_once_and_others_together() {
        let (mut news, now) = (News::default(), Instant::now());
        let ms = |ms| now + Duration::from_millis(ms);
        assert_eq!(news.due(10), None);
        news.add(Spread::Rare, ms(0));
        assert_eq!(news.due(10), Some(ms(0)));
        news.report(ms(0));
        news.add(Spread::Rare, ms(5));
        news.add(Spread::Rare, ms(7));
        assert_eq!(news.due(8), Some(ms(5)), "they are few");
        assert_eq!(news.due(18), Some(ms(20)), "2 ms for each of ten");
        assert_eq!(news.due(1_000), Some(ms(50)), "at most");
        (2..MANY).for_each(|_| news.add(Spread::Rare, ms(8)));
        assert_eq!(news.due(1_000), Some(ms(5)), "they are many");
        news.report(ms(9));
        assert_eq!(news.due(10), None);
        news.add(Spread::Rare, ms(500));
        assert_eq!(news.due(1_000), Some(ms(500)), "after a pause");
    }

    #[test]
    fn common_chunks_wait_longer_or_go_along_with_rare_ones() {
        let (mut news, now) = (News::default(), Instant::now());
        let ms = |ms| now + Duration::from_millis(ms);
        news.report(ms(0));
        news.add(Spread::Common, ms(5));
        assert_eq!(news.due(18), Some(ms(80)));
        assert_eq!(news.due(8), Some(ms(5)), "they are few");
        news.add(Spread::Rare, ms(30));
        assert_eq!(news.due(18), Some(ms(30)));
        news.report(ms(30));
        assert_eq!(news.due(18), None);
        (0..COMMON_INTERVALS * MANY).for_each(|_| news.add(Spread::Common, ms(40)));
        assert_eq!(news.due(18), Some(ms(40)), "they are many");
    }
}
