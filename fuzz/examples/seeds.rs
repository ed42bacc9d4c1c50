//! Writes inputs for the targets `swarm` and `uploads` that reach far into a transfer: `cargo run --example seeds -- fuzz/corpus`.
//!
//! A fuzzer hardly finds the way to the end of a transfer by itself. Each scenario here is a list of steps, which a target would
//! decode from the bytes that are written. Steps that do not fit the state of the target do nothing there, so a scenario need not know
//! that state.

#![expect(dead_code, reason = "what the targets read is only decoded here")]

#[path = "../fuzz_targets/swarm/input.rs"]
mod input;
#[path = "../fuzz_targets/uploads/input.rs"]
mod uploads;

use std::{env, fmt::Debug, fs, path::Path};

use arbitrary::{Arbitrary, Unstructured};

/// A step as the derived decoder reads it: the variant, then the fields.
struct Encoder<T> {
    /// The names of the variants, in their order.
    names: Vec<String>,
    decodes: std::marker::PhantomData<T>,
}

impl<T: Debug + for<'a> Arbitrary<'a>> Encoder<T> {
    /// Learns the variants from the decoder itself.
    fn new() -> Encoder<T> {
        let mut names: Vec<String> = Vec::new();
        for variant in 0..=u16::MAX {
            let mut bytes = vec![0; 64];
            bytes[2..4].copy_from_slice(&variant.to_le_bytes());
            let step = T::arbitrary(&mut Unstructured::new(&bytes)).expect("enough bytes");
            let name = name(&step);
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
        Encoder { names, decodes: std::marker::PhantomData }
    }

    fn bytes(&self, wanted: &str, fields: &[u8]) -> Vec<u8> {
        let at = self.names.iter().position(|name| name == wanted).unwrap_or_else(|| panic!("no {wanted}"));
        let count = self.names.len() as u64;
        // The decoder takes `variant * count >> 32`.
        let variant = u32::try_from(((at as u64) << 32).div_ceil(count)).expect("below 2^32");
        let bytes = [&variant.to_le_bytes()[..], fields].concat();
        let padded = [&bytes[..], &[0; 64]].concat();
        let step = T::arbitrary(&mut Unstructured::new(&padded)).expect("enough bytes");
        assert_eq!(name(&step), wanted);
        bytes
    }
}

fn name(step: &impl Debug) -> String {
    let text = format!("{step:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// A transfer: its setting, and steps.
struct Scenario {
    name: &'static str,
    max_peers: u8,
    files: [u8; 3],
    is_described: bool,
    stays: bool,
    have: u32,
    steps: Vec<Vec<u8>>,
    step: Encoder<input::Step>,
    leaving: Encoder<input::Leaving>,
    reason: Encoder<input::Reason>,
    answer: Encoder<input::TrackerAnswer>,
    then: Encoder<input::Then>,
    staying: Encoder<input::Staying>,
}

/// Seven chunks in two files.
const FILES: [u8; 3] = [12, 9, 0];

impl Scenario {
    fn new(name: &'static str) -> Scenario {
        Scenario {
            name,
            max_peers: 4,
            files: FILES,
            is_described: true,
            stays: false,
            have: 0,
            steps: Vec::new(),
            step: Encoder::new(),
            leaving: Encoder::new(),
            reason: Encoder::new(),
            answer: Encoder::new(),
            then: Encoder::new(),
            staying: Encoder::new(),
        }
    }

    fn step(&mut self, name: &str, fields: &[u8]) -> &mut Scenario {
        let step = [self.step.bytes(name, fields), self.then.bytes("Poll", &[])].concat();
        self.steps.push(step);
        self
    }

    /// A tracker names peers.
    fn peers(&mut self, first: u8, count: u8) -> &mut Scenario {
        // An interval of 3 s.
        let answer = self.answer.bytes("Peers", &[first, count, 1, 3, 0]);
        self.step("Answer", &[&[0], &answer[..]].concat())
    }

    /// So many peers become active. They have everything, or these chunks.
    fn active(&mut self, count: u8, have: Option<u32>) -> &mut Scenario {
        for id in 0..count {
            let have = have.map_or(vec![0], |bits| [&[1][..], &bits.to_le_bytes()].concat());
            self.step("Active", &[&[0, id, 0][..], &have].concat());
        }
        self
    }

    fn closed(&mut self, peer: u8, why: &str) -> &mut Scenario {
        let why = self.leaving.bytes(why, &[0; 4][..if why == "Full" { 4 } else { 0 }]);
        self.step("Closed", &[&[peer], &why[..]].concat())
    }

    fn rejected(&mut self, peer: u8, why: &str) -> &mut Scenario {
        let why = self.reason.bytes(why, &[0; 4][..if why == "Busy" { 4 } else { 0 }]);
        self.step("Reject", &[&[peer, 0], &why[..]].concat())
    }

    /// A chunk arrives in parts, and is proved.
    fn chunk(&mut self, peer: u8, is_right: bool) -> &mut Scenario {
        self.step("Arriving", &[peer, 0]).step("Pass", &[40]);
        self.step("Deliver", &[peer, 0]).step("Prove", &[0, is_right.into()])
    }

    fn bytes(&self) -> Vec<u8> {
        let staying = if self.stays { "WhileNeeded" } else { "No" };
        let mut bytes = 7_u64.to_le_bytes().to_vec();
        bytes.push(self.max_peers);
        bytes.extend(self.files);
        // A tracker, and no named peer.
        bytes.extend([1, 0]);
        bytes.extend(self.have.to_le_bytes());
        bytes.extend(self.staying.bytes(staying, &[]));
        bytes.extend([0, 0, self.is_described.into()]);
        for step in &self.steps {
            bytes.push(1);
            bytes.extend(step);
        }
        let input = input::Input::arbitrary_take_rest(Unstructured::new(&bytes)).expect("an input");
        assert_eq!(input.steps.len(), self.steps.len(), "{}", self.name);
        assert_eq!(input.setting.is_described, self.is_described, "{}", self.name);
        bytes
    }
}

/// The transfers.
fn transfers() -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |name, build: &dyn Fn(&mut Scenario)| {
        let mut scenario = Scenario::new(name);
        build(&mut scenario);
        all.push(scenario);
    };
    add("whole", &|s| {
        s.peers(0, 3).active(3, None);
        (0..8).for_each(|at| _ = s.chunk(at % 3, true));
        s.step("Finished", &[]);
    });
    add("described", &|s| {
        s.is_described = false;
        s.peers(0, 3);
        (0..3).for_each(|peer| _ = s.step("Ready", &[peer, 5]));
        s.step("Describing", &[0, 9, 0, 20, 0]).step("Pass", &[255]).step("Describing", &[1, 20, 0, 20, 0]);
        s.step("Described", &[1]).step("Opened", &[]).active(3, None);
        (0..4).for_each(|at| _ = s.chunk(at % 3, true));
        s.step("Overtaken", &[0]);
    });
    add("endgame", &|s| {
        s.have = 0b11_1100;
        s.peers(0, 3).active(3, None).chunk(0, true).chunk(1, true);
        (0..3).for_each(|peer| _ = s.step("Arriving", &[peer, 0]).step("Progress", &[peer, 0, 4, 0, 0]));
        (0..6).for_each(|_| _ = s.step("Pass", &[255]));
        (0..3).for_each(|peer| _ = s.step("Deliver", &[peer, 0]));
        s.step("Prove", &[0, 1]).step("Prove", &[0, 1]);
    });
    add("ban", &|s| {
        s.peers(0, 3).active(3, None).chunk(0, true).chunk(1, false).chunk(2, true).chunk(1, true);
        s.closed(2, "Disconnected").closed(1, "Banned").peers(0, 3);
        (0..4).for_each(|_| _ = s.step("Sleep", &[60]).peers(0, 3).active(2, None).chunk(0, true));
    });
    add("caller-lies", &|s| {
        s.step("Accept", &[1, 1]).step("Accept", &[2, 2]).active(2, None).chunk(0, false).chunk(0, true);
        s.closed(0, "Disconnected").closed(0, "Disconnected");
        (0..3).for_each(|port| _ = s.step("Accept", &[1, port]).active(1, None).chunk(0, true));
    });
    add("gone-before-it-is-proved", &|s| {
        s.peers(0, 2).active(2, None);
        s.step("Deliver", &[0, 0]).step("Deliver", &[1, 0]);
        s.closed(0, "Disconnected").closed(0, "Disconnected");
        (0..3).for_each(|_| _ = s.step("Sleep", &[30]).peers(0, 2));
        s.step("Prove", &[0, 0]).step("Prove", &[0, 1]);
        (0..2).for_each(|_| _ = s.step("Sleep", &[120]).peers(0, 2).active(2, None).chunk(0, true));
    });
    add("two-before-it-is-proved", &|s| {
        s.have = 1;
        s.peers(0, 2).active(2, None).step("Deliver", &[0, 0]);
        s.step("Pass", &[255]).step("Deliver", &[0, 0]).step("DeliverAny", &[1, 3]);
        s.step("Prove", &[0, 1]).step("Pass", &[255]).step("Deliver", &[0, 0]).step("Deliver", &[0, 0]);
        s.step("Prove", &[0, 1]).step("Prove", &[0, 1]);
    });
    add("stall", &|s| {
        s.peers(0, 3).active(3, None).chunk(0, true).chunk(1, true).chunk(2, true);
        s.step("Arriving", &[0, 0]).step("Progress", &[0, 0, 1, 0, 0]);
        s.step("Sleep", &[3]).step("Idle", &[1]).step("Pass", &[255]).step("Idle", &[2]).step("Pass", &[255]);
        s.rejected(1, "Cancelled").rejected(0, "Busy").rejected(2, "NotHave").step("Sleep", &[40]);
        s.step("Deliver", &[0, 0]).step("Prove", &[0, 1]).step("Sleep", &[100]);
    });
    add("leechers", &|s| {
        s.stays = true;
        s.peers(0, 2).active(1, None).active(1, Some(0b101));
        (0..3).for_each(|host| _ = s.step("Accept", &[host, host]).active(1, Some(0)));
        s.step("Bitfield", &[2, 0b11, 0, 0, 0]).step("Have", &[3, 4]).step("Haves", &[1, 0, 9]);
        (0..8).for_each(|at| _ = s.chunk(at % 5, true).step("Have", &[at % 5, at]));
        s.step("Deaf", &[1]).step("Deaf", &[2]).step("Pass", &[255]);
        (0..3).for_each(|_| _ = s.step("Finished", &[]).step("Uploaded", &[9]).step("Sleep", &[9]));
    });
    add("twins", &|s| {
        s.peers(0, 3).active(2, None);
        (0..3).for_each(|host| {
            s.step("Accept", &[host, 9]).step("Active", &[0, host, 200, 0]).chunk(0, true);
        });
        s.closed(0, "Duplicate").step("Pass", &[255]).closed(1, "Full").step("Sleep", &[9]).chunk(0, true);
    });
    add("crowd", &|s| {
        s.max_peers = 2;
        (0..14).for_each(|port| _ = s.step("Accept", &[port, port]));
        s.active(12, None).peers(0, 9).active(3, None).chunk(0, true).chunk(1, false).chunk(2, true);
        s.step("Pass", &[255]).peers(4, 9).step("Sleep", &[20]).chunk(1, true);
    });
    all
}

/// Requests at a seeder.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let step = Encoder::<uploads::Step>::new();
    let scenario = |slots: u8, steps: &[(&str, &[u8])]| {
        let mut bytes = vec![slots];
        for (name, fields) in steps {
            bytes.push(1);
            bytes.extend(step.bytes(name, fields));
        }
        let (_, decoded) =
            <(u8, Vec<uploads::Step>)>::arbitrary_take_rest(Unstructured::new(&bytes)).expect("steps");
        assert_eq!(decoded.len(), steps.len());
        bytes
    };
    let all = |asker: u8| ("RequestAll", vec![asker]);
    let turns = scenario(
        1,
        &[
            ("Request", &[0, 1]),
            ("Request", &[1, 1]),
            ("Request", &[2, 2]),
            ("Finish", &[0]),
            ("Finish", &[1]),
            ("Finish", &[2]),
        ],
    );
    let leave = scenario(
        0,
        &[
            ("Request", &[0, 1]),
            ("Request", &[1, 2]),
            ("Leave", &[0]),
            ("Request", &[2, 3]),
            ("Leave", &[1]),
            ("Leave", &[2]),
            ("Request", &[3, 3]),
            ("Pass", &[9, 0]),
            ("Leave", &[3]),
            ("Request", &[4, 3]),
            ("Finish", &[4]),
        ],
    );
    let cancel = scenario(
        1,
        &[
            ("Request", &[0, 1]),
            ("Request", &[0, 2]),
            ("Request", &[1, 3]),
            ("Request", &[1, 4]),
            ("Request", &[2, 5]),
            ("Cancel", &[2, 5]),
            ("Cancel", &[1, 4]),
            ("Cancel", &[0, 2]),
            ("Finish", &[0]),
            ("Finish", &[1]),
            ("PassToTimeout", &[]),
        ],
    );
    let slow = scenario(
        7,
        &[
            ("Request", &[0, 1]),
            ("Request", &[1, 1]),
            ("Request", &[2, 2]),
            ("Request", &[3, 2]),
            ("Pass", &[0, 4]),
            ("Take", &[0, 200]),
            ("PassToTimeout", &[]),
            ("Pass", &[0, 4]),
            ("Finish", &[0]),
            ("Request", &[0, 4]),
            ("PassToTimeout", &[]),
            ("Reject", &[1]),
        ],
    );
    let (first, second) = (all(0), all(1));
    let full = scenario(
        3,
        &[(first.0, &first.1), (second.0, &second.1), ("Finish", &[0]), ("Leave", &[1]), ("Finish", &[0])],
    );
    vec![("turns", turns), ("leave", leave), ("cancel", cancel), ("slow", slow), ("full", full)]
}

fn main() {
    let corpus = env::args().nth(1).expect("the directory of the corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let directory = Path::new(&corpus).join(target);
        fs::create_dir_all(&directory).expect("the directory of a target");
        fs::write(directory.join(format!("scenario-{name}")), bytes).expect("an input");
    };
    for scenario in transfers() {
        write("swarm", scenario.name, &scenario.bytes());
    }
    for (name, bytes) in requests() {
        write("uploads", name, &bytes);
    }
}
