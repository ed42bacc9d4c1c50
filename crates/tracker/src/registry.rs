//! The memory of which peer has which share.
//!
//! Pure and deterministic: time and randomness are arguments, nothing here waits, and no answer depends on the order of a
//! hash map. The caller has checked that the source address is genuine.
//!
//! Invariants:
//! - A peer is gone `expire` after its last announce, at most [`TICK`] later. From then on it is in no answer and in no
//!   count of a share, even before it is swept. Every access to a share first drops its expired peers.
//! - A share exists as long as it has peers. Its first peer gave its size. It is listed under each name that one of its peers gave
//!   when it registered, [`MAX_NAMES`](names::MAX_NAMES) at most, and nowhere else.
//! - [`Registry::sweep`] only frees memory: it drops expired peers of shares that nobody accesses. A peer that expired and
//!   is not swept yet still counts for [`Limits`] and in [`Stats`].
//! - Nothing is logged here: see [`Journal`].
//!
//! No call takes long, even in a full registry. An access to a share scans its peers only when one of them may have expired,
//! so at most once a [`TICK`], and a share has at most `peers_per_share`. A page of the list of shares drops at most
//! [`MAX_DROPPED`] of them on its way.

mod census;
mod clock;
mod crowd;
mod crowded;
mod directory;
mod eviction;
mod finishers;
mod head;
mod hosts;
mod journal;
mod merging;
mod names;
mod pages;
mod peer;
mod preload;
mod room;
mod roster;
mod rules;
mod sample;
mod slots;
mod table;
mod tick;
mod viewing;
mod votes;

use std::{
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    InfoHash, Zone,
    tracker::{Announce, Announced, ErrorCode, Event, PeerEntry, Peers, message::MAX_PEERS},
};
use rand::Rng;

use crate::admission::Admission;
use census::Census;
use clock::Clock;
use crowd::{Title, places};
use directory::{Directory, Entries};
use finishers::{Finishers, Labels};
use head::Head;
use journal::What;
use peer::{Peer, Requester};
use preload::Ahead;
use roster::Roster;
use table::Table;
use tick::Tick;
use votes::Votes;

pub use eviction::Eviction;
pub use journal::{FREQUENT, Journal};
pub use merging::{Registration, Standing as PeerStanding};
pub use pages::MAX_DROPPED;
pub use rules::{Caps, Limits, Past, Rules};
pub use tick::TICK;
pub use viewing::{Host, Summary, place};

/// The table of shares gives memory back when it has room for this many times as many as there are. That takes a few
/// milliseconds for each 100,000 that are left, so it must not happen often.
const SPARE_SHARES: usize = 8;

/// A list or table that gives memory back keeps room for this many times what is left in it, so it does not grow again at once.
const KEPT_ROOM: usize = 2;

/// A table with room for this many shares is small enough to keep.
const MIN_SHARES: usize = 1_024;

/// Lookups that a peer should make between two of its announces. With 30 s between announces, a leecher learns of a new peer
/// after at most 10 s.
const LOOKUPS_PER_HEARTBEAT: u16 = 3;

/// The current counts of a registry. Expired peers count until they are swept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Shares with peers.
    pub shares: usize,
    /// Registrations of peers that have all of their share.
    pub seeders: usize,
    /// Registrations of peers that have part of it.
    pub leechers: usize,
}

/// Who asks for peers.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Where it is.
    pub ip: IpAddr,
    /// Where in a network that is. More of the answer comes from this zone.
    pub zone: Zone,
}

/// Which peer has which share.
pub struct Registry {
    rules: Rules,
    /// `None` if every share is allowed.
    admission: Option<Arc<Admission>>,
    clock: Clock,
    shares: Table,
    directory: Directory,
    votes: Votes,
    census: Census,
    labels: Labels,
    finishers: Finishers,
    journal: Journal,
    /// The current round of sweeping.
    round: Option<Round>,
    ahead: Ahead,
}

/// A round of sweeping, from the last share to the first.
struct Round {
    /// Shares from this place on have been swept in this round, or are new.
    swept_from: usize,
    /// No peer that was checked in this round, or came during it, was last seen before this time.
    oldest: Tick,
}

/// What a call of [`Registry::sweep`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Peers that it checked.
    pub looked: usize,
    /// At the end of a round: the time before which nobody will expire.
    pub nobody_before: Option<Instant>,
}

struct Share {
    size: u64,
    roster: Roster,
}

impl Stats {
    /// Registrations in all.
    pub fn peers(&self) -> usize {
        self.seeders + self.leechers
    }
}

impl From<IpAddr> for Asker {
    fn from(ip: IpAddr) -> Asker {
        Asker { ip, zone: Zone::NONE }
    }
}

impl Registry {
    /// An empty registry.
    pub fn new(rules: Rules, now: Instant) -> Registry {
        let census = Census::new(rules.limits.crowded_from);
        Registry {
            clock: Clock::new(&rules, now),
            rules,
            admission: None,
            shares: Table::default(),
            directory: Directory::default(),
            votes: Votes::default(),
            census,
            labels: Labels::default(),
            finishers: Finishers::default(),
            journal: Journal::default(),
            round: None,
            ahead: Ahead::default(),
        }
    }

    /// The rules, which the owner may change.
    pub(crate) fn rules(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// Registers, renews or ends the registration of a peer whose datagrams come from `source`. The token is not checked.
    ///
    /// Repeating an announce changes nothing, so a client may repeat one whose answer was lost. This includes the end of a
    /// registration that does not exist.
    pub fn announce<N: AsRef<str>>(
        &mut self,
        announce: &Announce<N>,
        source: IpAddr,
        now: Instant,
    ) -> Result<Announced, ErrorCode> {
        let share = self.live_share(&announce.infohash, now);
        let ids = (announce.peer_id, announce.secret);
        let peer = Peer::new(ids, source, announce.port, announce.progress, self.clock.tick(now));
        let known = share.and_then(|share| Some((share, self.find(share, announce.peer_id)?)));
        if let Some((share, place)) = known
            && !self.shares[share].roster.members()[place].has_secret(announce.secret)
        {
            return Err(ErrorCode::NotYours);
        }
        if self.admission.is_some() {
            self.admit(announce, known)?;
        }
        let has_fetched = announce.fetched && announce.progress.is_complete();
        if has_fetched && share.is_some() && !self.is_known_seeder(known) {
            self.finishers.add(&announce.infohash, source.to_canonical(), announce.label);
        }
        let (seeders, leechers) = match (known, announce.event) {
            (Some((share, place)), Event::Stopped) => {
                self.end(share, place, || What::Left);
                self.counts(&announce.infohash)
            }
            (Some((share, place)), Event::Started | Event::Heartbeat | Event::Completed) => {
                self.renew(announce, share, place, peer);
                // The usual case, which looks the share up only once.
                self.shares[share].roster.counts()
            }
            (None, Event::Stopped) => self.counts(&announce.infohash),
            (None, Event::Started | Event::Heartbeat | Event::Completed) => {
                self.register(share, announce, peer)?;
                if has_fetched {
                    // The share may have begun with it.
                    self.finishers.add(&announce.infohash, source.to_canonical(), announce.label);
                }
                self.counts(&announce.infohash)
            }
        };
        let completed = self.finishers.count(&announce.infohash);
        Ok(Announced { interval_s: self.interval_s(), seeders, leechers, completed })
    }

    /// A random sample of at most `want` peers of a share.
    pub fn peers(
        &mut self,
        infohash: &InfoHash,
        want: u8,
        asker: impl Into<Asker>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Peers, ErrorCode> {
        self.peers_into(&mut Vec::new(), infohash, want, &asker.into(), now, rng)
    }

    /// [`Registry::peers`] in the memory of `spare`, which the answer takes.
    pub(crate) fn peers_into(
        &mut self,
        spare: &mut Vec<PeerEntry>,
        infohash: &InfoHash,
        want: u8,
        asker: &Asker,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Peers, ErrorCode> {
        let settles_in_s = self.clock.settles_in_s(now);
        let share = self.live_share(infohash, now).ok_or(ErrorCode::UnknownShare { settles_in_s })?;
        let roster = &mut self.shares[share].roster;
        let (seeders, leechers) = roster.counts();
        let mut entries = mem::take(spare);
        entries.clear();
        let mut all = [0; MAX_PEERS];
        let to = (Requester::from(asker.ip), &asker.zone);
        roster.name(places(&mut all, want), to, &mut entries, rng);
        let (interval_s, completed) = (self.lookup_interval_s(), self.finishers.count(infohash));
        Ok(Peers { interval_s, settles_in_s, seeders, leechers, completed, peers: entries })
    }

    /// Drops expired peers and the shares that become empty. Checks about `budget` peers at most, continues where the last
    /// call stopped, and stops at the end of a round through all shares.
    pub fn sweep(&mut self, now: Instant, budget: usize) -> Sweep {
        let (all, tick) = (self.shares.len(), self.clock.tick(now));
        let mut round = self.round.take().unwrap_or(Round { swept_from: all, oldest: tick });
        let mut looked = 0;
        while looked < budget {
            // The round goes down, so a share that fills the gap of a dropped one has been swept already.
            let Some(share) = round.swept_from.min(self.shares.len()).checked_sub(1) else {
                self.give_memory_back();
                return Sweep { looked, nobody_before: Some(self.clock.expiry_of(round.oldest)) };
            };
            round.swept_from = share;
            looked += self.drop_expired(share, now);
            if let Some((_, Share { roster, .. })) = self.shares.at(share) {
                round.oldest = round.oldest.min(roster.oldest());
            }
        }
        self.round = Some(round);
        Sweep { looked, nobody_before: None }
    }

    /// From now on, only these shares are allowed. [`Registry::evict`] ends registrations of others.
    pub fn set_admission(&mut self, admission: Option<Arc<Admission>>) {
        self.admission = admission;
    }

    /// Which shares are allowed; `None` if all are.
    pub fn admission(&self) -> Option<&Admission> {
        self.admission.as_deref()
    }

    /// From now on, collects changes of registrations.
    pub fn keep_journal(&mut self) {
        self.journal = Journal::kept();
    }

    /// Changes of registrations since the last call.
    pub fn take_journal(&mut self) -> Journal {
        self.journal.take()
    }

    /// The current counts.
    pub fn stats(&self) -> Stats {
        Stats { shares: self.shares.len(), seeders: self.census.seeders(), leechers: self.census.leechers() }
    }

    /// Refuses an announce of a share that is not allowed, and ends its registration. Few trackers have lists, so it is kept out of the
    /// way of the others.
    #[cold]
    #[inline(never)]
    fn admit<N: AsRef<str>>(
        &mut self,
        announce: &Announce<N>,
        known: Option<(usize, usize)>,
    ) -> Result<(), ErrorCode> {
        if announce.event == Event::Stopped || self.allows(&announce.infohash, announce.name.as_ref()) {
            return Ok(());
        }
        if let Some((share, place)) = known {
            self.end(share, place, || What::NotAllowed);
        }
        Err(ErrorCode::NotAllowed)
    }

    fn allows(&self, infohash: &InfoHash, name: &str) -> bool {
        self.admission.as_ref().is_none_or(|admission| admission.allows(infohash, name))
    }

    fn register<N: AsRef<str>>(
        &mut self,
        share: Option<usize>,
        announce: &Announce<N>,
        peer: Peer,
    ) -> Result<(), ErrorCode> {
        if let Some(share) = share
            && let Some(twin) = self.shares[share].roster.find_at(&peer)
        {
            self.restart(announce, share, twin, peer);
            return Ok(());
        }
        let share = self.make_room(share, announce, &peer)?;
        self.note_registered(announce, &peer);
        self.labels.set(announce.peer_id, announce.label);
        let share = match share {
            Some(share) => {
                let title = title(announce);
                self.change(share, |head, roster, votes| roster.insert(head, peer, title, votes));
                share
            }
            None => self.found(announce, peer),
        };
        self.enter(share, &peer);
        Ok(())
    }

    /// A peer registers where another one is. At one address and port there is one peer: this one, started again.
    fn restart<N: AsRef<str>>(&mut self, announce: &Announce<N>, share: usize, twin: usize, peer: Peer) {
        let title = title(announce);
        let old = self.change(share, |head, roster, votes| {
            if roster.is_called(head, twin, title.name) {
                return roster.replace(head, twin, peer, title, votes);
            }
            let old = roster.remove(head, twin, votes);
            roster.insert(head, peer, title, votes);
            old
        });
        self.labels.take(old.member.id);
        self.labels.set(announce.peer_id, announce.label);
        self.recount(share, &old, &peer);
        self.journal.note(&announce.infohash, &old, || What::Displaced);
        self.note_registered(announce, &peer);
    }

    /// Changes the peers of a share, and after that the entries of the share in the list.
    fn change<R>(&mut self, share: usize, change: impl FnOnce(&Head, &mut Roster, &mut Votes) -> R) -> R {
        let (head, Share { roster, .. }) = self.shares.at_mut(share).expect("a share");
        let before = roster.listed(head);
        let result = change(head, roster, &mut self.votes);
        let after = roster.listed(head);
        self.directory.update(&before, after);
        result
    }

    fn note_registered<N: AsRef<str>>(&mut self, announce: &Announce<N>, peer: &Peer) {
        self.journal.note(&announce.infohash, peer, || What::Registered {
            name: announce.name.as_ref().to_owned(),
            progress: announce.progress,
        });
    }

    /// Renews the registration at `place` of a share.
    fn renew<N: AsRef<str>>(&mut self, announce: &Announce<N>, share: usize, mut place: usize, peer: Peer) {
        let (infohash, title) = (&announce.infohash, title(announce));
        let roster = &mut self.shares[share].roster;
        if !roster.is_at(place, &peer)
            && let Some(twin) = roster.find_at(&peer)
        {
            // It has moved to where another was.
            let twin = self.change(share, |head, roster, votes| roster.remove(head, twin, votes));
            self.leave(&twin);
            self.journal.note(infohash, &twin, || What::Displaced);
            let found = self.shares[share].roster.find(peer.member.id);
            place = found.expect("it is not the one that was removed");
        }
        let roster = &mut self.shares[share].roster;
        roster.locate(place, title.zone);
        if roster.refresh(place, &peer) {
            if roster.lacks() {
                self.change(share, |head, roster, votes| roster.catch_up(head, place, title, votes));
            }
            return;
        }
        let old = self.change(share, |head, roster, votes| roster.replace(head, place, peer, title, votes));
        self.recount(share, &old, &peer);
    }

    /// Counts a new registration.
    fn enter(&mut self, share: usize, peer: &Peer) {
        let (head, _) = self.shares.at(share).expect("a share");
        self.census.enter(peer, head);
    }

    /// Whether this peer is known to have all of its share.
    fn is_known_seeder(&self, known: Option<(usize, usize)>) -> bool {
        known.is_some_and(|(share, place)| self.shares[share].roster.peer(place).contact.is_seeder())
    }

    /// Counts a registration that ended.
    fn leave(&mut self, peer: &Peer) {
        self.labels.take(peer.member.id);
        self.uncount(peer);
    }

    fn uncount(&mut self, peer: &Peer) {
        self.census.leave(peer);
        let (site, shares) = (peer.site(), &self.shares);
        let count = self.census.registrations_from(site);
        let is_in =
            |infohash: &InfoHash| shares.get(infohash).is_some_and(|share| share.roster.has_site(site));
        self.census.crowded_mut().tidy(site, count, is_in);
    }

    /// Counts a change of a registration's address or completion.
    fn recount(&mut self, share: usize, old: &Peer, new: &Peer) {
        if old.site() != new.site() {
            // It only moved.
            self.uncount(old);
            self.enter(share, new);
        } else if old.contact.is_seeder() != new.contact.is_seeder() {
            self.census.complete(old, new);
        }
    }

    /// Seeders and leechers of a share; zero if there is no such share.
    fn counts(&self, infohash: &InfoHash) -> (u32, u32) {
        self.shares.get(infohash).map_or((0, 0), |share| share.roster.counts())
    }

    /// Begins a share with its first peer, and returns its position.
    fn found<N: AsRef<str>>(&mut self, announce: &Announce<N>, peer: Peer) -> usize {
        let head = Head::new(announce.infohash, announce.name.as_ref());
        let roster = Roster::new(peer, &head, &mut self.votes);
        self.directory.update(&Entries::default(), roster.listed(&head));
        self.shares.insert(head, Share { size: announce.size, roster })
    }

    /// Ends a registration, and its share when it was the last.
    fn end(&mut self, share: usize, place: usize, why: impl FnOnce() -> What) {
        let (infohash, peer) =
            self.change(share, |head, roster, votes| (*head.infohash(), roster.remove(head, place, votes)));
        self.leave(&peer);
        self.journal.note(&infohash, &peer, why);
        self.drop_if_empty(share);
    }

    /// The position of the share, if one of its peers is live.
    fn live_share(&mut self, infohash: &InfoHash, now: Instant) -> Option<usize> {
        let share = self.locate(infohash)?;
        let shares = self.shares.len();
        self.drop_expired(share, now);
        (self.shares.len() == shares).then_some(share)
    }

    /// Drops expired peers of one share, and the share if none is left. Returns how many peers it checked, at least one.
    fn drop_expired(&mut self, share: usize, now: Instant) -> usize {
        let oldest_live = self.clock.oldest_live(now);
        let roster = &self.shares[share].roster;
        if roster.oldest() >= oldest_live {
            return 1;
        }
        let looked = roster.len();
        let mut expired = Vec::new();
        let infohash = self.change(share, |head, roster, votes| {
            roster.expire(head, oldest_live, votes, |peer| expired.push(peer));
            *head.infohash()
        });
        for peer in expired {
            self.leave(&peer);
            self.journal.note(&infohash, &peer, || What::Expired);
        }
        self.drop_if_empty(share);
        looked
    }

    /// Drops a share without peers. It is in the list no more.
    fn drop_if_empty(&mut self, share: usize) {
        if self.shares[share].roster.is_empty()
            && let Some((head, _)) = self.shares.swap_remove(share)
        {
            self.finishers.forget(head.infohash());
        }
    }

    /// Frees memory after many shares went at once.
    fn give_memory_back(&mut self) {
        let (room, shares) = (self.shares.capacity(), self.shares.len());
        if room > MIN_SHARES && room / SPARE_SHARES >= shares {
            self.shares.shrink_to(KEPT_ROOM * shares);
        }
    }

    fn interval_s(&self) -> u16 {
        whole_seconds(self.rules.heartbeat)
    }

    /// Peers come and go more often than each of them announces.
    fn lookup_interval_s(&self) -> u16 {
        self.interval_s().div_ceil(LOOKUPS_PER_HEARTBEAT)
    }
}

fn title<N: AsRef<str>>(announce: &Announce<N>) -> Title<'_> {
    Title { infohash: &announce.infohash, name: announce.name.as_ref(), zone: &announce.zone }
}

/// Seconds, rounded up. It needs no division, because every answer has such a number.
fn whole_seconds(time: Duration) -> u16 {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
