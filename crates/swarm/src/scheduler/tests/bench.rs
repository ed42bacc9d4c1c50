//! The bench of the scheduler's tests.

use proto::{CHUNK_LEN, SMALL_CHUNK_LEN, chunk::SMALL_SHARE_LEN, peer::BlockSet};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::super::*;

pub(in crate::scheduler) fn space(chunks: u32) -> ChunkSpace {
    let is_small = u64::from(chunks) * u64::from(SMALL_CHUNK_LEN) < SMALL_SHARE_LEN;
    let chunk_len = if is_small { SMALL_CHUNK_LEN } else { CHUNK_LEN };
    ChunkSpace::new([u64::from(chunks) * u64::from(chunk_len)]).unwrap()
}

pub(in crate::scheduler) fn field(len: u32, chunks: &[u32]) -> Bitfield {
    let mut field = Bitfield::empty(len);
    chunks.iter().for_each(|&chunk| _ = field.insert(ChunkIndex(chunk)));
    field
}

/// What a peer does when a waiting request is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnCancel {
    /// It confirms the cancellation, as it should.
    Answer,
    /// It has started to send the chunk, which will arrive.
    TooLate,
    /// It sends nothing.
    Silence,
}

/// A scheduler, its time, and the requests that wait at each peer.
pub(super) struct Bench {
    pub(super) scheduler: Scheduler,
    pub(super) now: Instant,
    pub(super) rng: StdRng,
    pub(super) waiting: BTreeMap<PeerKey, Vec<ChunkIndex>>,
    /// What each peer was asked for of a chunk and has not answered, oldest first.
    pub(super) forms: BTreeMap<(PeerKey, ChunkIndex), VecDeque<Form>>,
    /// What arrived of chunks that are fetched in parts.
    pub(super) in_parts: Vec<(ChunkIndex, Form)>,
    pub(super) on_cancel: OnCancel,
    /// Chunks that arrive although they were cancelled.
    pub(super) crossed: Vec<(PeerKey, ChunkIndex)>,
    pub(super) stored: Vec<ChunkIndex>,
    pub(super) dropped: Vec<PeerKey>,
    pub(super) duplicates: usize,
    /// Peers that join are trusted at once.
    pub(super) trusts: bool,
}

impl Bench {
    pub(super) fn new(chunks: u32, seed: u64) -> Bench {
        Bench::of(space(chunks), seed)
    }

    pub(super) fn of(space: ChunkSpace, seed: u64) -> Bench {
        let have = Bitfield::empty(space.chunk_count());
        Bench {
            scheduler: Scheduler::new(space, &Bitfield::full(have.len()), &have),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            waiting: BTreeMap::new(),
            forms: BTreeMap::new(),
            in_parts: Vec::new(),
            on_cancel: OnCancel::Answer,
            crossed: Vec::new(),
            stored: Vec::new(),
            dropped: Vec::new(),
            duplicates: 0,
            trusts: true,
        }
    }

    pub(super) fn join(&mut self, key: u64, have: Have) -> PeerKey {
        let key = PeerKey(key);
        self.scheduler.add_peer(key, have, self.now);
        if self.trusts {
            self.scheduler.peers.get_mut(&key).unwrap().trust();
        }
        self.waiting.insert(key, Vec::new());
        self.fill();
        key
    }

    pub(super) fn leave(&mut self, key: PeerKey) {
        self.scheduler.remove_peer(key, self.now);
        self.waiting.remove(&key);
        self.fill();
    }

    /// Makes requests, and lets peers answer cancellations, until there are no more commands.
    pub(super) fn fill(&mut self) {
        loop {
            let cancelled = self.run_commands();
            for &(key, chunk) in &cancelled {
                assert!(
                    self.scheduler.cancelled(key, chunk, self.now),
                    "{key:?} was told to cancel {chunk:?}"
                );
            }
            if cancelled.is_empty() {
                break;
            }
        }
    }

    /// Carries out the scheduler's commands. Returns the cancellations that peers confirm.
    pub(super) fn run_commands(&mut self) -> Vec<(PeerKey, ChunkIndex)> {
        let mut answers = Vec::new();
        self.scheduler.fill(self.now, &mut self.rng);
        while let Some(command) = self.scheduler.poll_command() {
            match command {
                Command::Request(key, Wish { chunk, form }) => {
                    self.forms.entry((key, chunk)).or_default().push_back(form);
                    assert!(self.scheduler.peers[&key].has(chunk), "{key:?} does not have {chunk:?}");
                    let waiting = self.waiting.get_mut(&key).expect("a request to a peer that left");
                    assert!(!waiting.contains(&chunk), "{chunk:?} asked twice of {key:?}");
                    assert!(!self.stored.contains(&chunk), "{chunk:?} is here already");
                    waiting.push(chunk);
                    self.assert_few_were_asked(key, chunk);
                }
                Command::Cancel(key, chunk) => {
                    let waiting = self.waiting.get_mut(&key).unwrap();
                    let Some(at) = waiting.iter().position(|&waiting| waiting == chunk) else { continue };
                    waiting.remove(at);
                    match self.on_cancel {
                        OnCancel::Answer => {
                            self.wish(key, chunk);
                            answers.push((key, chunk));
                        }
                        OnCancel::TooLate => self.crossed.push((key, chunk)),
                        OnCancel::Silence => {}
                    }
                }
                Command::Drop(key) => self.dropped.push(key),
            }
        }
        answers
    }

    /// Checks that a peer may be asked for a chunk in addition to those that were asked before. At most three proven peers are asked.
    /// Any other peer is one of two, or is new and tried with this chunk alone.
    pub(super) fn assert_few_were_asked(&self, key: PeerKey, chunk: ChunkIndex) {
        let (proven, unproven) = self.askers(chunk);
        let peer = &self.scheduler.peers[&key];
        let may_be_asked = if peer.is_proven() {
            proven <= 3
        } else {
            proven + unproven <= 2 || peer.oldest_wanted() == Some(chunk)
        };
        assert!(may_be_asked, "{proven} and {unproven} are asked for {chunk:?}, {key:?} last");
    }

    /// Number of proven and of unproven peers that are asked for a chunk.
    pub(super) fn askers(&self, chunk: ChunkIndex) -> (usize, usize) {
        let wanted = self.scheduler.asked.get(&chunk).map_or(&[][..], |asked| &asked.askers);
        // Only of the requests that are cancelled by now.
        let told = |key: &&PeerKey| self.waiting.get(key).is_some_and(|waiting| waiting.contains(&chunk));
        let proven = wanted.iter().filter(told).filter(|key| self.scheduler.is_proven(key)).count();
        (proven, wanted.iter().filter(told).count() - proven)
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.fill();
    }

    /// The peer sends a chunk of its choice when its turn comes.
    pub(super) fn choose(&mut self, key: PeerKey, chunk: ChunkIndex) {
        self.forms.entry((key, chunk)).or_default().push_back(Form::Whole);
        self.waiting.get_mut(&key).expect("a peer that is here").push(chunk);
        self.scheduler.chosen(key, chunk, self.now, self.now);
        self.fill();
    }

    /// The peer answers its oldest request with the right chunk.
    pub(super) fn deliver(&mut self, key: PeerKey) -> Option<ChunkIndex> {
        let waiting = self.waiting.get_mut(&key)?;
        if waiting.is_empty() {
            return None;
        }
        let chunk = waiting.remove(0);
        self.arrive(key, chunk);
        Some(chunk)
    }

    /// The oldest request for a chunk, which is answered now.
    pub(super) fn wish(&mut self, key: PeerKey, chunk: ChunkIndex) -> Wish {
        let form = self.forms.get_mut(&(key, chunk)).and_then(VecDeque::pop_front);
        Wish { chunk, form: form.unwrap_or(Form::Whole) }
    }

    pub(super) fn arrive(&mut self, key: PeerKey, chunk: ChunkIndex) {
        let wish = self.wish(key, chunk);
        match self.scheduler.received(key, wish, self.now) {
            Received::Verify if wish.form == Form::Leaves => {
                assert!(!self.in_parts.contains(&(chunk, Form::Leaves)), "the leaves of {chunk:?} twice");
                self.in_parts.push((chunk, wish.form));
                let blocks = BlockSet(self.rng.random());
                let many = blocks.is_empty() || blocks.count() > 16;
                self.scheduler.ask_again(chunk, if many { Form::Whole } else { Form::Blocks(blocks) });
            }
            Received::Verify => {
                assert!(!self.stored.contains(&chunk), "{chunk:?} stored twice");
                if let Form::Blocks(_) = wish.form {
                    self.in_parts.push((chunk, wish.form));
                }
                self.stored.push(chunk);
                self.scheduler.stored(chunk);
            }
            Received::Duplicate => self.duplicates += 1,
            Received::Unrequested => panic!("{chunk:?} was asked of {key:?}"),
        }
        self.fill();
    }

    pub(super) fn asked(&self, key: PeerKey) -> usize {
        self.waiting[&key].len()
    }
}
