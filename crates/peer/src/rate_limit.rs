//! Limits on how fast a process sends or receives chunks.
//!
//! The crate `governor` does the counting (GCRA, a leaky bucket). This file adds bytes, and a way for users to write rates.
//! Bytes are counted in KiB, because `governor` counts nanoseconds for each unit.

use std::{
    num::NonZeroU32,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::wait_count::WaitCount;

/// Bytes in a unit of counting.
const UNIT: u32 = 1024;

/// Maximum bytes that pass at a time under a limit: much less than a chunk, so that the flow is smooth.
const MAX_SLICE_LEN: u32 = 16 * 1024;

/// Part of a second's bytes that pass at a time under a lower limit. Several connections take turns, and a peer that
/// receives nothing for some seconds considers this side silent.
const SLICES_PER_SECOND: u64 = 10;

/// Part of a second's bytes that may pass at once after a pause, but at least one slice.
const BURST_PART: u64 = 50;

/// A limit that any number of connections share; clones are the same limit. It can change while they use it.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Arc<RwLock<Option<Arc<Limit>>>>);

#[derive(Debug)]
struct Limit {
    limiter: DefaultDirectRateLimiter,
    bytes_per_second: u64,
    slice_len: u32,
    /// Held by the next connection: connections take turns in the order in which they came.
    turn: Mutex<()>,
    waiting: WaitCount,
    /// Cancelled when another limit takes its place: nothing waits for this one any more.
    replaced: CancellationToken,
}

/// A text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a rate: 10M or 10MB is 10,000,000 bytes a second, 10MiB is 10,485,760, 80mbit is 80,000,000 bits (K, M, G; at least 1K)"
)]
pub struct ParseRateError(String);

impl RateLimit {
    /// No limit.
    pub fn unlimited() -> RateLimit {
        RateLimit::default()
    }

    /// A limit in bytes a second, rounded up to KiB.
    pub fn bytes_per_second(bytes: u64) -> RateLimit {
        let units = |bytes: u64| {
            NonZeroU32::new(u32::try_from(bytes.div_ceil(UNIT.into())).unwrap_or(u32::MAX))
                .unwrap_or(NonZeroU32::MIN)
        };
        // Whole units. Otherwise every slice would count for more than its bytes.
        let slice_len = bytes / SLICES_PER_SECOND / u64::from(UNIT) * u64::from(UNIT);
        let slice_len = slice_len.clamp(UNIT.into(), MAX_SLICE_LEN.into());
        let burst = units((bytes / BURST_PART).max(slice_len));
        let limiter = RateLimiter::direct(Quota::per_second(units(bytes)).allow_burst(burst));
        let slice_len = u32::try_from(slice_len).unwrap_or(MAX_SLICE_LEN);
        let limit = Limit {
            limiter,
            bytes_per_second: bytes,
            slice_len,
            turn: Mutex::default(),
            waiting: WaitCount::default(),
            replaced: CancellationToken::new(),
        };
        RateLimit(Arc::new(RwLock::new(Some(Arc::new(limit)))))
    }

    /// From now on this limit, and each clone of it, is as `other` is now. What waits for it now waits for the new one.
    pub fn set(&self, other: &RateLimit) {
        // A limit of its own, or the two would count together.
        let new = other.per_second().and_then(|bytes| RateLimit::bytes_per_second(bytes).current());
        let old = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), new);
        if let Some(old) = old {
            old.replaced.cancel();
        }
    }

    fn current(&self) -> Option<Arc<Limit>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a rate as users write it: a number, and `K`, `M` or `G` (powers of 1000; `KB` … too), `KiB`,
    /// `MiB` or `GiB` (powers of 1024) for bytes a second, or `kbit`, `mbit` or `gbit` for bits a second.
    pub fn parse(text: &str) -> Result<RateLimit, ParseRateError> {
        let error = || ParseRateError(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let number: f64 = number.parse().map_err(|_| error())?;
        let unit = match unit.trim().trim_end_matches("/s").to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            "gib" => 1024.0 * 1024.0 * 1024.0,
            "kbit" => 1e3 / 8.0,
            "mbit" => 1e6 / 8.0,
            "gbit" => 1e9 / 8.0,
            _ => return Err(error()),
        };
        let rate = number * unit;
        if !(1e3..1e13).contains(&rate) {
            return Err(error());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in range by the check above"
        )]
        Ok(RateLimit::bytes_per_second(rate as u64))
    }

    /// The limit in bytes a second, if there is one.
    pub fn per_second(&self) -> Option<u64> {
        self.current().map(|limit| limit.bytes_per_second)
    }

    /// Bytes to send or receive at a time, if there is a limit.
    #[doc(hidden)]
    pub fn slice_len(&self) -> Option<u32> {
        self.current().map(|limit| limit.slice_len)
    }

    /// Waits until `bytes` more may pass, at most a slice.
    #[doc(hidden)]
    pub async fn take(&self, bytes: u32) {
        while let Some(limit) = self.current() {
            let Some(units) = NonZeroU32::new(bytes.min(limit.slice_len).div_ceil(UNIT)) else { return };
            let _waiting = limit.waiting.enter();
            let waiting = async {
                let _turn = limit.turn.lock().await;
                // Never more than the burst, so this cannot fail.
                let _ = limit.limiter.until_n_ready(units).await;
            };
            if limit.replaced.run_until_cancelled(waiting).await.is_some() {
                return;
            }
        }
    }

    /// Whether a connection waits for the limit now.
    #[doc(hidden)]
    pub fn is_waited_for(&self) -> bool {
        self.current().is_some_and(|limit| limit.waiting.is_waited())
    }
}

impl FromStr for RateLimit {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<RateLimit, ParseRateError> {
        RateLimit::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_documented() {
        for good in ["1000", "1K", "10M", "10MB", "1.5MiB", "2G", "80mbit", "100kbit", "1gbit", "10M/s"] {
            assert!(RateLimit::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "M", "-1M", "10X", "0", "999", "1e9", "NaN", "10 000", "1..5M", "99999G"] {
            assert!(RateLimit::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_low_limit_goes_by_small_slices() {
        let slice_len = |bytes| RateLimit::bytes_per_second(bytes).slice_len();
        assert_eq!(slice_len(1_000), Some(UNIT));
        assert_eq!(slice_len(32_000), Some(3 * UNIT));
        assert_eq!(slice_len(1_000_000), Some(MAX_SLICE_LEN));
        assert_eq!(RateLimit::unlimited().slice_len(), None);
    }

    #[tokio::test]
    async fn the_first_to_come_goes_first() {
        let limit = RateLimit::bytes_per_second(64_000);
        let order = Mutex::new(Vec::new());
        let sending = async |number| {
            for _ in 0..3 {
                limit.take(UNIT).await;
                order.lock().await.push(number);
            }
        };
        // Uses up the burst, so that all of them wait.
        limit.take(MAX_SLICE_LEN).await;
        tokio::join!(sending(0), sending(1), sending(2));
        assert_eq!(order.into_inner(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[tokio::test]
    async fn a_limit_lets_a_burst_through_and_then_makes_wait() {
        let limit = RateLimit::bytes_per_second(1_000);
        limit.take(UNIT).await;
        let second = limit.clone();
        let mut waiting = Box::pin(second.take(UNIT));
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(polled, "no wait");
        assert!(limit.is_waited_for());
        RateLimit::unlimited().take(u32::MAX).await;
    }
    #[tokio::test]
    async fn a_changed_limit_counts_for_what_waits_already_and_for_every_clone() {
        let limit = RateLimit::bytes_per_second(1_000);
        let clone = limit.clone();
        clone.take(UNIT).await;
        let mut waiting = Box::pin(clone.take(UNIT));
        let mut is_ready = async || {
            std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await
        };
        assert!(!is_ready().await, "the burst is used up");
        limit.set(&RateLimit::unlimited());
        assert!(is_ready().await, "nothing limits it any more");
        assert_eq!((clone.per_second(), clone.slice_len()), (None, None));
        let other = RateLimit::bytes_per_second(2_000_000);
        limit.set(&other);
        assert_eq!(clone.per_second(), Some(2_000_000));
        // The bucket of the new limit: what is more than its burst waits.
        let burst = 2_000_000 / BURST_PART / u64::from(UNIT);
        let taken = |limit: &RateLimit| {
            let limit = limit.current().unwrap();
            (0..1_000).take_while(|_| limit.limiter.check().is_ok()).count() as u64
        };
        assert!((burst..2 * burst).contains(&taken(&clone)));
        assert!(taken(&other) >= burst, "it has a bucket of its own");
    }
}
