//! Where the answers of a tracker meet its fleet: what they change is noted for the others, and what the others know is taken in.
//!
//! Pure, and part of the [`Handler`](crate::Handler), so it is used under its lock. It does no more than it has to there.

use std::{
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use proto::{
    InfoHash, PeerId, ShareNameRef,
    tracker::{Announce, Announced, ErrorCode, Event, Token},
};

use super::{
    departed::Departed,
    feed::Change,
    outbox::MAX_WAITING,
    record::{Record, hashed},
    time::StoreClock,
};
use crate::registry::{PeerStanding, Registration, Registry};

/// Of the announces of a peer that change nothing, one in this part of a heartbeat is written. So a client that announces all the time
/// costs the store no more than two honest ones.
const WRITES_PER_HEARTBEAT: u32 = 2;

/// What a handler has if its tracker is part of a fleet.
pub struct Seam {
    clock: StoreClock,
    expire: Duration,
    write_every: Duration,
    /// The address at which other machines reach this host, if that is known.
    own_ip: Option<IpAddr>,
    changes: Vec<Change>,
    dropped: u64,
    departed: Departed,
    /// Whether the store can be asked.
    may_wait: bool,
    waiting: Option<InfoHash>,
}

impl Seam {
    /// The seam of `registry`, which must be empty.
    pub fn new(registry: &mut Registry, clock: StoreClock) -> Seam {
        registry.predate();
        let (heartbeat, expire) = registry.times();
        Seam {
            clock,
            expire,
            write_every: heartbeat / WRITES_PER_HEARTBEAT,
            own_ip: None,
            changes: Vec::new(),
            dropped: 0,
            departed: Departed::default(),
            may_wait: false,
            waiting: None,
        }
    }

    /// The clock of the store, as it was last read.
    pub fn set_clock(&mut self, clock: StoreClock) {
        self.clock = clock;
    }

    /// The address at which other machines reach this host. A peer on this host is known here by a loopback address, which means nothing
    /// elsewhere, so other trackers are given this one.
    pub fn set_own_ip(&mut self, ip: IpAddr) {
        self.own_ip = Some(ip).filter(|ip| !ip.is_loopback());
    }

    /// From now on, lookups of unknown shares wait for the store, or do not.
    pub fn let_wait(&mut self, may_wait: bool) {
        self.may_wait = may_wait;
    }

    /// Whether lookups of unknown shares wait.
    pub fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// A share is unknown here. Returns whether its lookup is to wait for the store; if so, [`Seam::take_waiting`] returns the share.
    pub(crate) fn wait_for(&mut self, infohash: &InfoHash) -> bool {
        if self.may_wait {
            self.waiting = Some(*infohash);
        }
        self.may_wait
    }

    /// The share for which the request that was handled last waits.
    pub fn take_waiting(&mut self) -> Option<InfoHash> {
        self.waiting.take()
    }

    /// Registers, renews or ends a registration, and notes that for the others.
    pub(crate) fn announce(
        &mut self,
        registry: &mut Registry,
        announce: &Announce<ShareNameRef<'_>>,
        source: IpAddr,
        now: Instant,
    ) -> Result<Announced, ErrorCode> {
        // From here on there is no secret, only its hash.
        let announce =
            Announce { secret: hashed(announce.secret), token: Token([0; 16]), ..announce.clone() };
        let standing = registry.standing(&announce, source, now);
        let announced = registry.announce(&announce, source, now)?;
        if self.is_worth_writing(&announce, standing, now)
            && let Some(ip) = self.public(source)
        {
            let known = Registration {
                infohash: announce.infohash,
                peer_id: announce.peer_id,
                secret: announce.secret,
                ip,
                port: announce.port,
                progress: announce.progress,
                name: announce.name.into(),
                size: announce.size,
                label: announce.label,
                fetched: announce.fetched,
                zone: announce.zone,
            };
            let record = Record { known, expires: self.clock.read(now).plus(self.expire) };
            if announce.event == Event::Stopped {
                self.departed.insert(&record);
                self.note(Change::Gone(record));
            } else {
                self.note(Change::Present(record));
            }
        }
        Ok(announced)
    }

    /// Takes in what another tracker knows. Returns whether it is registered here now, or ended.
    pub fn take_in(&mut self, registry: &mut Registry, change: &Change, now: Instant) -> bool {
        let record = change.record();
        let remaining = record.expires.since(self.clock.read(now));
        match change {
            Change::Present(record) => {
                !self.departed.outdates(record) && registry.merge(&record.known, remaining, now)
            }
            Change::Gone(record) => {
                self.departed.insert(record);
                registry.forget(&record.known, remaining, now)
            }
        }
    }

    /// Takes out what is noted, and the number of changes that found no room.
    pub fn take_changes(&mut self) -> (Vec<Change>, u64) {
        (mem::take(&mut self.changes), mem::take(&mut self.dropped))
    }

    /// Whether something is noted.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Everything that the share at `position` has here, for the store. Returns how many peers it has; `None` after the last share.
    pub fn export(
        &self,
        registry: &Registry,
        position: usize,
        now: Instant,
        mut each: impl FnMut(Change),
    ) -> Option<usize> {
        let store_now = self.clock.read(now);
        registry.export(position, now, |mut known, remaining| {
            if let Some(ip) = self.public(known.ip) {
                known.ip = ip;
                each(Change::Present(Record { known, expires: store_now.plus(remaining) }));
            }
        })
    }

    /// The address of a peer as other trackers can use it; `None` if they cannot.
    fn public(&self, ip: IpAddr) -> Option<IpAddr> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Some(self.own_ip.unwrap_or(ip)),
            IpAddr::V6(ip) if ip.is_unicast_link_local() => None,
            ip => Some(ip),
        }
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < MAX_WAITING {
            self.changes.push(change);
        } else {
            self.dropped += 1;
        }
    }

    fn is_worth_writing(
        &self,
        announce: &Announce<ShareNameRef<'_>>,
        standing: Option<PeerStanding>,
        now: Instant,
    ) -> bool {
        match standing {
            None => announce.event != Event::Stopped,
            Some(_) if announce.event == Event::Stopped => true,
            Some(PeerStanding { seen, is_seeder, is_there }) => {
                !is_there
                    || is_seeder != announce.progress.is_complete()
                    || self.turn(seen, announce.peer_id) != self.turn(now, announce.peer_id)
            }
        }
    }

    /// The part of a heartbeat that a time falls into. Each peer has its own times, so they are not all written together.
    fn turn(&self, time: Instant, PeerId(id): PeerId) -> u128 {
        let every_ms = self.write_every.as_millis().max(1);
        let phase_ms = u128::from(u16::from_le_bytes([id[1], id[2]])) % every_ms;
        (u128::from(self.clock.read(time).0) + phase_ms) / every_ms
    }
}

#[cfg(test)]
mod tests;
