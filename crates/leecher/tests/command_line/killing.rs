//! Leechers that are killed (`kill -9`) at any moment, and started again until they are done.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proto::{Bitfield, ChunkIndex};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{Content, Shared};

use crate::{
    leecher,
    network::{Network, link},
    program::{Place, Running},
};

/// Kills in a run of the tests. `SHOAL_TEST_KILLS` sets another number: 1,000 take some minutes.
const KILLS: u32 = 30;

/// Random numbers come from this seed, unless `SHOAL_TEST_SEED` sets another. The moments still differ from run to run.
const SEED: u64 = 9;

/// Leechers at a time. Most of them wait for their download limit.
const AT_A_TIME: u32 = 40;

/// A transfer is killed this often at most; then it may end.
const KILLS_OF_A_TRANSFER: u32 = 6;

/// A transfer with a limit takes this long. Every 5 s a leecher claims what is durable.
const SLOW: Duration = Duration::from_secs(8);

/// A transfer without a limit takes about this long.
const FAST: Duration = Duration::from_millis(300);

/// What `--overwrite` replaces.
const OLD: &[u8] = b"what was there before";

/// A share with a seeder of its own.
struct Subject {
    shared: Arc<Shared>,
    /// Paths in the share, and contents. A share of one file has it under the empty path.
    files: BTreeMap<PathBuf, Vec<u8>>,
    link: String,
}

/// When to kill a leecher.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This long after its start.
    After(Duration),
    /// This long after it claimed something.
    AfterClaim(Duration),
    /// This long after it began to make the whole share durable.
    AtTheEnd(Duration),
}

/// What all transfers together saw.
#[derive(Default)]
struct Tally {
    kills: AtomicU32,
    transfers: AtomicU32,
    /// Starts that found claims, and the bytes of the claimed chunks.
    resumed: AtomicU32,
    claimed: AtomicU64,
}

#[test]
fn a_leecher_that_is_killed_has_no_wrong_byte_and_fetches_nothing_durable_again() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u32>().unwrap());
    let kills = number("SHOAL_TEST_KILLS").unwrap_or(KILLS);
    let seed = number("SHOAL_TEST_SEED").map_or(SEED, u64::from);
    let network = Network::start();
    let mut rng = StdRng::seed_from_u64(seed);
    let subjects = subjects(&network, &mut rng);
    let tally = Tally::default();
    thread::scope(|scope| {
        for worker in 0..AT_A_TIME.min(kills.div_ceil(4)) {
            let (subjects, tally) = (&subjects, &tally);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed << 32 | u64::from(worker));
                while tally.kills.load(Ordering::Relaxed) < kills {
                    let subject = &subjects[rng.random_range(0..subjects.len())];
                    Transfer::new(subject, &mut rng).run(tally, &mut rng);
                }
            });
        }
    });
    println!(
        "{} kills of {} transfers; {} starts found claims, of {} bytes in all",
        tally.kills.into_inner(),
        tally.transfers.into_inner(),
        tally.resumed.load(Ordering::Relaxed),
        tally.claimed.into_inner()
    );
    assert!(tally.resumed.into_inner() > 0);
}

/// Files and directories of many sizes.
fn subjects(network: &Network, rng: &mut StdRng) -> Vec<Subject> {
    let mut bytes = |len: usize| {
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes[..]);
        bytes
    };
    let mut shares: Vec<Vec<(String, Vec<u8>)>> =
        [0, 700, (512 << 10) - 1, 512 << 10, (3 << 20) + 5, 12 << 20, (20 << 20) + 1]
            .into_iter()
            .map(|len| vec![(String::new(), bytes(len))])
            .collect();
    for (small, middle, large) in [(2, 1, 1), (60, 3, 2), (300, 20, 6)] {
        let lens = [(small, 5_000), (middle, 70_000), (large, (1 << 20) + 7), (1, 0)];
        let lens = lens.into_iter().flat_map(|(count, len)| std::iter::repeat_n(len, count));
        let name = |number: usize| format!("{}file{number}", ["", "sub/", "sub/deeper/"][number % 3]);
        shares.push(lens.enumerate().map(|(number, len)| (name(number), bytes(len))).collect());
    }
    let share = |(number, files): (usize, Vec<(String, Vec<u8>)>)| {
        let parts: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        let shared = network.directory(&format!("share{number}"), &parts);
        let port = network.seed(shared.clone());
        let link = link(&*shared, &[], &[format!("127.0.0.1:{port}")]);
        let files = files.into_iter().map(|(path, bytes)| (path.into(), bytes)).collect();
        Subject { shared, files, link }
    };
    shares.into_iter().enumerate().map(share).collect()
}

impl Subject {
    fn size(&self) -> u64 {
        self.shared.metainfo().chunk_space().total_len()
    }

    fn bytes_of(&self, chunks: &Bitfield) -> u64 {
        let space = self.shared.metainfo().chunk_space();
        chunks.iter().filter_map(|chunk| space.span(chunk)).map(|span| u64::from(span.len)).sum()
    }
}

/// A transfer that is killed, once or several times.
struct Transfer<'a> {
    subject: &'a Subject,
    place: Place,
    is_slow: bool,
    overwrites: bool,
    /// What the resume file claimed when the leecher was killed last.
    claims: Bitfield,
}

impl<'a> Transfer<'a> {
    fn new(subject: &'a Subject, rng: &mut StdRng) -> Transfer<'a> {
        let place = Place::new();
        let overwrites = rng.random_bool(0.3);
        if overwrites {
            fs::write(place.path("out"), OLD).unwrap();
        }
        let is_slow = subject.size() > 2 << 20 && rng.random_bool(0.7);
        let claims = Bitfield::empty(subject.shared.metainfo().chunk_space().chunk_count());
        Transfer { subject, place, is_slow, overwrites, claims }
    }

    fn run(mut self, tally: &Tally, rng: &mut StdRng) {
        tally.transfers.fetch_add(1, Ordering::Relaxed);
        let kills = rng.random_range(1..=KILLS_OF_A_TRANSFER);
        for _ in 0..kills {
            let leecher = Running::start(self.command());
            let moment = self.moment(rng);
            let mut lines = self.wait_for(moment, &leecher);
            leecher.signal(Signal::KILL);
            let ended = leecher.end();
            lines.extend(ended.out);
            self.check_start(&lines);
            if ended.code.is_some() {
                assert_eq!(ended.code, Some(0), "{}", ended.err);
                return self.check_end(&lines);
            }
            tally.kills.fetch_add(1, Ordering::Relaxed);
            if self.check_left(moment) {
                return;
            }
            if !self.claims.is_empty() {
                tally.resumed.fetch_add(1, Ordering::Relaxed);
                tally.claimed.fetch_add(self.subject.bytes_of(&self.claims), Ordering::Relaxed);
            }
        }
        let ended = Running::start(self.command()).end();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        self.check_start(&ended.out);
        self.check_end(&ended.out);
    }

    fn command(&self) -> Command {
        let limit = (self.subject.size() / SLOW.as_secs()).max(1).to_string();
        let mut args = vec![self.subject.link.as_str(), "--json", "-o", "out", "--no-log-file"];
        if self.is_slow {
            args.extend(["--download-limit", &limit]);
        }
        if self.overwrites {
            args.push("--overwrite");
        }
        leecher(&self.place, &args)
    }

    fn moment(&self, rng: &mut StdRng) -> Moment {
        let time = if self.is_slow { SLOW } else { FAST };
        let within = |time: Duration, rng: &mut StdRng| time.mul_f64(rng.random::<f64>());
        match rng.random_range(0..10) {
            0..4 => Moment::After(within(time, rng)),
            4..6 => Moment::After(within(FAST, rng)),
            6..8 if self.is_slow => Moment::AfterClaim(within(time / 4, rng)),
            _ => Moment::AtTheEnd(within(Duration::from_millis(10), rng)),
        }
    }

    /// Waits for the moment, or until the leecher ends; returns what it printed meanwhile.
    fn wait_for(&self, moment: Moment, leecher: &Running) -> Vec<String> {
        let (wait, mut has_come) = match moment {
            Moment::After(wait) => (wait, true),
            Moment::AfterClaim(wait) | Moment::AtTheEnd(wait) => (wait, false),
        };
        let mut end = Instant::now() + if has_come { wait } else { SLOW * 6 };
        let mut lines = Vec::new();
        while let Ok(line) = leecher.line_before(end) {
            let comes = match moment {
                Moment::After(_) => false,
                Moment::AfterClaim(_) => self.claims_now().is_some_and(|claims| claims != self.claims),
                Moment::AtTheEnd(_) => line.contains(r#""event":"flushing""#),
            };
            lines.push(line);
            if comes && !has_come {
                has_come = true;
                end = Instant::now() + wait;
            }
        }
        lines
    }

    /// What was durable is here and was not fetched again.
    fn check_start(&self, lines: &[String]) {
        let Some(started) = event(lines, "started") else { return };
        let resumed = started["resumed"].as_u64().unwrap();
        let claimed = self.subject.bytes_of(&self.claims);
        assert!(resumed >= claimed, "{resumed} bytes are here, and {claimed} were durable");
        assert_eq!(started["lost_chunks"], 0);
    }

    /// The leecher ended well.
    fn check_end(&self, lines: &[String]) {
        let (started, finished) = (event(lines, "started").unwrap(), event(lines, "finished").unwrap());
        let peers = finished["peers"].as_array().unwrap();
        let fetched: u64 = peers.iter().map(|peer| peer["bytes"].as_u64().unwrap()).sum();
        assert_eq!(started["resumed"].as_u64().unwrap() + fetched, self.subject.size());
        self.check_output();
        assert_eq!(self.place.names(), ["out"]);
    }

    fn check_output(&self) {
        for (path, bytes) in &self.subject.files {
            assert!(fs::read(join(&self.place.path("out"), path)).unwrap() == *bytes, "{}", path.display());
        }
    }

    /// Checks what a leecher left that was killed. True if the share has its name.
    fn check_left(&mut self, moment: Moment) -> bool {
        let out = self.place.path("out");
        if out.exists() && !(self.overwrites && out.is_file() && fs::read(&out).unwrap() == OLD) {
            self.check_output();
            return true;
        }
        for (path, right) in &self.subject.files {
            // Not every file is there yet.
            let Ok(bytes) = fs::read(join(&self.place.path("out.part"), path)) else { continue };
            let is_right = |(byte, right): (&u8, &u8)| byte == right || *byte == 0;
            assert!(bytes.len() <= right.len() && bytes.iter().zip(right).all(is_right), "{moment:?}");
        }
        if let Some(claims) = self.claims_now() {
            assert!(self.claims.iter().all(|chunk| claims.contains(chunk)), "claims were taken back");
            for chunk in claims.iter() {
                assert!(self.is_in_part(chunk), "chunk {} is claimed and not there", chunk.0);
            }
            self.claims = claims;
        }
        false
    }

    fn is_in_part(&self, chunk: ChunkIndex) -> bool {
        let metainfo = self.subject.shared.metainfo();
        let span = metainfo.chunk_space().span(chunk).unwrap();
        let path: PathBuf = metainfo.files()[span.file].path.iter().map(|name| name.as_str()).collect();
        let range = span.offset as usize..span.offset as usize + span.len as usize;
        let part = fs::read(join(&self.place.path("out.part"), &path)).unwrap();
        part.get(range.clone()) == Some(&self.subject.files[&path][range])
    }

    /// What the resume file claims, if there is one.
    fn claims_now(&self) -> Option<Bitfield> {
        let bytes = fs::read(self.place.path("out.resume")).ok()?;
        let slots = bytes.chunks(bytes.len() / 2).filter_map(|slot| claims_of(slot, self.claims.len()));
        slots.max_by_key(|(sequence, _)| *sequence).map(|(_, claims)| claims)
    }
}

/// The number of a slot of a resume file and its claims, if it is intact.
fn claims_of(slot: &[u8], chunk_count: u32) -> Option<(u64, Bitfield)> {
    let head = 8 + 32 + 4;
    let body = head + 8 + Bitfield::byte_len(chunk_count);
    let is_intact = slot.starts_with(b"SHOALRS2") && slot[body..][..32] == Sha256::digest(&slot[..body])[..];
    is_intact.then(|| {
        let sequence = u64::from_be_bytes(slot[head..head + 8].try_into().unwrap());
        (sequence, Bitfield::from_bytes(&slot[head + 8..body], chunk_count).unwrap())
    })
}

/// The event of this name. The last line of a leecher that was killed may be cut off.
fn event(lines: &[String], name: &str) -> Option<Value> {
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.into_iter().find(|event| event["event"] == name)
}

/// The path of a file of a share; the share's own if it is one file.
fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}
