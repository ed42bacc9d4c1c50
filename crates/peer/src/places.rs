//! The places of a server, for the peers of all its shares.
//!
//! [`swarm::places`] decides which peers get one. This file records the peers that have one, and when each was last active.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use swarm::places::{Admission, Holder, admit};
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;

/// The places. Clones are the same places.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    most: Arc<AtomicUsize>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    places: BTreeMap<u64, (IpAddr, Activity, CancellationToken)>,
    last_key: u64,
}

/// A place, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    key: u64,
    pub(crate) activity: Activity,
    /// Cancelled when the peer has to make room for another.
    pub(crate) lost: CancellationToken,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// There is none now.
    Now,
    /// There may be one after this time.
    Before(Duration),
}

impl Places {
    /// This many places.
    pub(crate) fn new(most: usize) -> Places {
        Places { most: Arc::new(most.into()), taken: Arc::default() }
    }

    /// From now on there are this many places. A peer that has one keeps it.
    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Number of places.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// A place for a peer at `ip`, if there is one.
    pub(crate) fn take(&self, ip: IpAddr, now: Instant) -> Result<Place, NoPlace> {
        let mut taken = self.lock();
        let holder = |(&key, (ip, activity, _)): (&u64, &(IpAddr, Activity, CancellationToken))| Holder {
            key,
            ip: *ip,
            idle: now.saturating_duration_since(activity.last()),
        };
        let holders: Vec<_> = taken.places.iter().map(holder).collect();
        match admit(ip, self.most(), &holders) {
            Admission::Welcome => {}
            Admission::Instead(key) => {
                if let Some((.., lost)) = taken.places.remove(&key) {
                    lost.cancel();
                }
            }
            Admission::Later(wait) => return Err(NoPlace::Before(wait)),
            Admission::Full => return Err(NoPlace::Now),
        }
        taken.last_key += 1;
        let (key, activity, lost) = (taken.last_key, Activity::default(), CancellationToken::new());
        taken.places.insert(key, (ip, activity.clone(), lost.clone()));
        Ok(Place { places: self.clone(), key, activity, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().places.remove(&self.key);
    }
}
