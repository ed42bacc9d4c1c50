//! Seeders that are far away: what they are asked for takes a round trip at least.

use super::*;

const ROUND_TRIP: Duration = Duration::from_millis(200);

/// Time between two looks at what has arrived.
const STEP: Duration = Duration::from_millis(2);

/// Far seeders that send at rates of their own.
struct Link {
    bench: Bench,
    /// In bytes a second.
    rates: Vec<f64>,
    /// When each request was made.
    asked_at: BTreeMap<(PeerKey, ChunkIndex), Instant>,
    /// When the last chunk of each peer arrived.
    last: BTreeMap<PeerKey, Instant>,
    /// The most chunks that were asked for at two peers at a time.
    most_twice: usize,
}

impl Link {
    fn new(chunks: u32, rates: &[f64]) -> Link {
        let mut bench = Bench::new(chunks, 1);
        for key in 0..rates.len() as u64 {
            bench.join(key, Have::All);
        }
        let (rates, last) = (rates.to_vec(), BTreeMap::new());
        Link { bench, rates, asked_at: BTreeMap::new(), last, most_twice: 0 }
    }

    fn missing(&self) -> u32 {
        self.bench.scheduler.unstored
    }

    /// Fetches until no more chunks than these are missing. Returns the time that it took.
    fn fetch_until(&mut self, missing: u32) -> Duration {
        let begun = self.bench.now;
        while self.missing() > missing {
            self.step();
            assert!(self.bench.now < begun + Duration::from_secs(60), "{} are missing", self.missing());
        }
        self.bench.now - begun
    }

    fn step(&mut self) {
        self.bench.advance(STEP);
        let now = self.bench.now;
        for (&key, waiting) in &self.bench.waiting {
            for &chunk in waiting {
                self.asked_at.entry((key, chunk)).or_insert(now);
            }
        }
        for (key, rate) in (0..).map(PeerKey).zip(self.rates.clone()) {
            let taken = Duration::from_secs_f64((f64::from(SMALL_CHUNK_LEN) / rate).min(1_000.0));
            while let Some(&chunk) = self.bench.waiting[&key].first() {
                let Some(&asked_at) = self.asked_at.get(&(key, chunk)) else { break };
                let sent =
                    self.last.get(&key).map_or(asked_at, |&last| last.max(asked_at + ROUND_TRIP - taken));
                let arrives = (sent + taken).max(asked_at + ROUND_TRIP);
                if arrives > now {
                    break;
                }
                self.bench.scheduler.arriving(key, chunk, now);
                self.bench.deliver(key);
                self.asked_at.remove(&(key, chunk));
                self.last.insert(key, arrives);
            }
        }
        let twice = self.bench.scheduler.asked.values().filter(|asked| asked.askers.len() > 1).count();
        self.most_twice = self.most_twice.max(twice);
    }
}

/// Another peer could not send within a round trip what is on its way. Requests that move for less cost each of the peers time.
#[test]
fn what_is_on_its_way_from_a_far_peer_is_not_asked_for_at_others() {
    let mut link = Link::new(100, &[50e6, 50e6, 50e6]);
    let took = link.fetch_until(0);
    assert_eq!((link.most_twice, link.bench.duplicates), (0, 0));
    // In the time of this model: 860 ms, or 1,010 if the round trip of a new request does not count.
    assert!(took < Duration::from_millis(900), "{took:?}");
}

/// While it begins, its window says little about its rate.
#[test]
fn a_slow_far_peer_is_asked_for_no_more_than_it_sends_until_the_others_are_done() {
    let mut link = Link::new(400, &[50e6, 5e6]);
    while !link.bench.scheduler.missing.is_empty() {
        link.step();
    }
    let [fast, slow] = [0, 1].map(|key| link.bench.asked(PeerKey(key)));
    assert!(10 * slow <= 2 * fast + 10, "{slow} beside {fast}");
    link.fetch_until(0);
    assert_eq!(link.bench.duplicates, 0);
}

#[test]
fn what_waits_at_a_far_peer_that_becomes_slow_is_taken_back_and_comes_once() {
    let mut link = Link::new(400, &[50e6, 50e6]);
    while !link.bench.scheduler.missing.is_empty() {
        link.step();
    }
    let left = link.missing();
    link.rates[1] = 5e6;
    let took = link.fetch_until(0);
    let alone = Duration::from_secs_f64(f64::from(left) * f64::from(SMALL_CHUNK_LEN) / 50e6);
    // By itself the slow one would need five times as long. That it is slow is known after some of its chunks.
    assert!(took <= 2 * alone, "{took:?} for {left} chunks, which the other sends in {alone:?}");
    assert_eq!(link.bench.duplicates, 0);
}

/// Each of them would take longer than both together.
#[test]
fn a_last_chunk_that_a_far_peer_does_not_send_is_asked_for_at_another_that_has_nothing_to_do() {
    let mut link = Link::new(100, &[50e6, 50e6]);
    link.fetch_until(1);
    let waiting = std::mem::take(&mut link.bench.waiting);
    for (&key, chunks) in &waiting {
        link.bench.waiting.insert(key, Vec::new());
        for &chunk in chunks {
            link.bench.wish(key, chunk);
            assert!(link.bench.scheduler.busy(key, chunk, link.bench.now + ROUND_TRIP));
        }
    }
    link.fetch_until(0);
}

/// What it sent waits behind what was lost, and comes all at once.
#[test]
fn few_chunks_of_a_far_peer_that_stops_for_a_moment_come_twice() {
    let mut link = Link::new(400, &[50e6, 50e6]);
    link.bench.on_cancel = OnCancel::TooLate;
    while !link.bench.scheduler.missing.is_empty() {
        link.step();
    }
    link.rates[1] = 1.0;
    let stopped = link.bench.now;
    while link.bench.now < stopped + 6 * ROUND_TRIP {
        link.step();
    }
    let again = link.bench.crossed.len();
    assert!((1..=4).contains(&again), "{again} of 400 chunks");
}
