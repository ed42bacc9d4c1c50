//! What trackers of a fleet know of each other's registrations: taken in here, and given out.
//!
//! A registration from elsewhere passes the same admission as one that is announced here. So limits, names and votes hold over all of
//! them. The newer announce of a peer wins, no matter where it came from.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use proto::{
    InfoHash, Label, PeerId, Secret, ShareName, Zone,
    tracker::{Announce, Completion, Event, Token},
};

use super::{Registry, Share, TICK, Tick, journal::What, peer::Peer};

/// A registration as trackers exchange it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The share.
    pub infohash: InfoHash,
    /// The peer.
    pub peer_id: PeerId,
    /// What its secret is compared with: in a fleet, a hash of it.
    pub secret: Secret,
    /// Where the peer is.
    pub ip: IpAddr,
    /// The TCP port that it listens on.
    pub port: NonZeroU16,
    /// How much of the share it has.
    pub progress: Completion,
    /// What it calls the share.
    pub name: ShareName,
    /// Bytes in the share.
    pub size: u64,
    /// What people call its host; empty if that is not known.
    pub label: Label,
    /// Whether it has fetched the share, or fetches it. Only what is complete counts.
    pub fetched: bool,
    /// Where in a network it is; none if that is not known.
    pub zone: Zone,
}

/// What a registry knows of a peer that is about to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When it was last seen, rounded down to a [`TICK`].
    pub seen: Instant,
    /// Whether it has all of the share.
    pub is_seeder: bool,
    /// Whether it is at the address that the announce comes from.
    pub is_there: bool,
}

impl Registry {
    /// Takes in a registration that another tracker knows and that lasts for `remaining`. It changes nothing if the one here is newer, or
    /// belongs to another secret, or if another peer was seen there later, or if a limit is in the way or the share is not allowed here. Returns whether the peer is registered now as it was given.
    pub fn merge(&mut self, known: &Registration, remaining: Duration, now: Instant) -> bool {
        if remaining.is_zero() || !self.allows(&known.infohash, known.name.as_str()) {
            return false;
        }
        let seen = self.seen(remaining, now);
        let ids = (known.peer_id, known.secret);
        let peer = Peer::new(ids, known.ip, known.port, known.progress, seen);
        let share = self.live_share(&known.infohash, now);
        let found = share.and_then(|share| Some((share, self.find(share, known.peer_id)?)));
        let announce = Announce {
            token: Token([0; 16]),
            infohash: known.infohash,
            peer_id: known.peer_id,
            secret: known.secret,
            port: known.port,
            name: &known.name,
            size: known.size,
            event: Event::Heartbeat,
            progress: known.progress,
            // The store keeps no labels.
            label: if known.label.is_empty() { self.labels.of(known.peer_id) } else { known.label },
            fetched: known.fetched,
            zone: known.zone,
        };
        let has_fetched = known.fetched && known.progress.is_complete() && !self.is_known_seeder(found);
        let is_in = match found {
            Some((share, place)) => {
                let member = &self.shares[share].roster.members()[place];
                let is_newer = member.has_secret(known.secret) && member.seen <= seen;
                if is_newer {
                    self.renew(&announce, share, place, peer);
                }
                is_newer
            }
            None => {
                // At one address and port there is one peer, and that is the one that announced last.
                let twin = share.and_then(|share| {
                    let roster = &self.shares[share].roster;
                    roster.find_at(&peer).map(|twin| roster.members()[twin].seen)
                });
                twin.is_none_or(|twin| twin <= seen) && self.register(share, &announce, peer).is_ok()
            }
        };
        if is_in {
            self.note_oldest(seen);
            if has_fetched {
                self.finishers.add(&known.infohash, known.ip, announce.label);
            }
        }
        is_in
    }

    /// Ends a registration that its peer ended at another tracker, unless it was renewed here after that. If the peer had renewed it instead,
    /// it would last for `remaining`.
    pub fn forget(&mut self, known: &Registration, remaining: Duration, now: Instant) -> bool {
        let ended = self.seen(remaining, now);
        let Some(share) = self.live_share(&known.infohash, now) else { return false };
        let Some(place) = self.find(share, known.peer_id) else { return false };
        let member = &self.shares[share].roster.members()[place];
        let is_theirs = member.has_secret(known.secret) && member.seen <= ended;
        if is_theirs {
            // It may have fetched the last of the share just before it left.
            let has_fetched = known.fetched && known.progress.is_complete();
            if has_fetched && !self.is_known_seeder(Some((share, place))) {
                self.finishers.add(&known.infohash, known.ip, known.label);
            }
            self.end(share, place, || What::Left);
        }
        is_theirs
    }

    /// What is known of the peer that is about to announce from `source`.
    pub fn standing<N>(&mut self, announce: &Announce<N>, source: IpAddr, now: Instant) -> Option<Standing> {
        let share = self.live_share(&announce.infohash, now)?;
        let place = self.find(share, announce.peer_id)?;
        let roster = &self.shares[share].roster;
        let ids = (announce.peer_id, announce.secret);
        let peer = Peer::new(ids, source, announce.port, announce.progress, self.clock.tick(now));
        let seen = self.clock.time_of(roster.members()[place].seen);
        Some(Standing {
            seen,
            is_seeder: roster.peer(place).contact.is_seeder(),
            is_there: roster.is_at(place, &peer),
        })
    }

    /// Gives out the live peers of the share at `position`, each with how long it lasts. Returns how many there are; `None` after the last
    /// share.
    pub fn export(
        &self,
        position: usize,
        now: Instant,
        mut each: impl FnMut(Registration, Duration),
    ) -> Option<usize> {
        let (head, Share { size, roster }) = self.shares.at(position)?;
        let oldest_live = self.clock.oldest_live(now);
        for place in 0..roster.len() {
            let Some(name) = roster.name_at(head, place) else { continue };
            let peer = roster.peer(place);
            if peer.member.seen < oldest_live {
                continue;
            }
            let age =
                self.clock.tick(now).since_beginning().saturating_sub(peer.member.seen.since_beginning());
            let label = self.labels.of(peer.member.id);
            let known = Registration {
                infohash: *head.infohash(),
                peer_id: peer.member.id,
                secret: peer.member.secret(),
                ip: peer.address(),
                port: peer.port(),
                progress: peer.contact.completion(),
                name,
                size: *size,
                label,
                fetched: self.finishers.has(head.infohash(), peer.address(), label),
                zone: roster.zone_at(place),
            };
            // Rounded down, so that no registration lasts longer because it was exchanged.
            each(known, self.rules.expire.saturating_sub(age + TICK));
        }
        Some(roster.len())
    }

    /// Gives out the peers of one share, as [`Registry::export`] does.
    pub fn export_share(&self, infohash: &InfoHash, now: Instant, each: impl FnMut(Registration, Duration)) {
        if let Some(position) = self.shares.find(infohash) {
            self.export(position, now, each);
        }
    }

    /// Lets the clock of this registry, which must be empty, begin so early that it has times for peers that other trackers saw before.
    pub fn predate(&mut self) {
        if self.shares.is_empty() {
            self.clock.predate();
        }
    }

    /// The time that everybody who was registered before needs to come back.
    pub fn settling_time(&self) -> Duration {
        self.rules.settles_after()
    }

    /// Everybody is known from `after` on, because the peers that other trackers know have been taken in.
    pub fn settle(&mut self, after: Duration, now: Instant) {
        self.clock.settle(after, now);
    }

    /// When a peer was last seen whose registration lasts for `remaining`.
    fn seen(&self, remaining: Duration, now: Instant) -> Tick {
        let age = self.rules.expire.saturating_sub(remaining);
        self.clock.tick(now.checked_sub(age).unwrap_or(now))
    }

    /// A round of sweeping that is under way knows of everybody who came meanwhile.
    fn note_oldest(&mut self, seen: Tick) {
        if let Some(round) = &mut self.round {
            round.oldest = round.oldest.min(seen);
        }
    }

    /// Time between two announces of a peer, and after which a silent one is gone.
    pub fn times(&self) -> (Duration, Duration) {
        (self.rules.heartbeat, self.rules.expire)
    }
}
