//! What the fuzzer chooses: the setting of a transfer, and what happens in it.

use arbitrary::Arbitrary;
use proto::peer::GoodbyeReason;
use swarm::{LeaveReason, Unreachable, Violation};

#[derive(Debug, Arbitrary)]
pub struct Input {
    pub seed: u64,
    pub setting: Setting,
    pub steps: Vec<(Step, Then)>,
}

#[derive(Debug, Arbitrary)]
pub struct Setting {
    pub max_peers: u8,
    /// File lengths, in units that give whole chunks, parts of chunks, and empty files.
    pub files: [u8; 3],
    pub trackers: u8,
    pub named_peers: u8,
    /// Bits of the chunks that are here at the start.
    pub have: u32,
    pub stay: Staying,
    pub is_impatient: bool,
    pub waits: bool,
    /// Begin when the description is known.
    pub is_described: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Staying {
    No,
    WhileNeeded,
    Forever,
    For(u8),
    Ratio(u8),
}

/// Whether the driver polls the core after a step. Several events of sessions may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Then {
    Poll,
    PollToo,
    Hold,
}

impl Step {
    /// Whether the driver polls the core after this event in any case.
    pub fn is_alone(&self) -> bool {
        matches!(
            self,
            Step::Answer { .. }
                | Step::Accept { .. }
                | Step::Opened
                | Step::Closed { .. }
                | Step::Finished
                | Step::Stop
        )
    }
}

/// A number of something that there is a list of, modulo its length.
pub type Nth = u8;

#[derive(Debug, Arbitrary)]
pub enum Step {
    /// Up to the next timeout, by this part of it.
    Pass {
        part: u8,
    },
    /// This time, with all timeouts in it.
    Sleep {
        seconds: u8,
    },
    Answer {
        lookup: Nth,
        answer: TrackerAnswer,
    },
    Accept {
        host: u8,
        port: u8,
    },
    Ready {
        peer: Nth,
        delay_ms: u8,
    },
    Describing {
        peer: Nth,
        received: u16,
        total: u16,
    },
    Overtaken {
        peer: Nth,
    },
    Described {
        peer: Nth,
    },
    BadShare {
        peer: Nth,
    },
    Opened,
    Active {
        peer: Nth,
        id: u8,
        port: u8,
        have: Option<u32>,
    },
    Bitfield {
        peer: Nth,
        have: u32,
    },
    Have {
        peer: Nth,
        chunk: Nth,
    },
    Haves {
        peer: Nth,
        from: Nth,
        count: u8,
    },
    Idle {
        peer: Nth,
    },
    Alive {
        peer: Nth,
    },
    Deaf {
        peer: Nth,
    },
    Arriving {
        peer: Nth,
        request: Nth,
    },
    ArrivingAny {
        peer: Nth,
        chunk: Nth,
    },
    Progress {
        peer: Nth,
        bytes: u32,
    },
    Deliver {
        peer: Nth,
        request: Nth,
    },
    DeliverAny {
        peer: Nth,
        chunk: Nth,
    },
    Reject {
        peer: Nth,
        request: Nth,
        reason: Reason,
    },
    RejectAny {
        peer: Nth,
        chunk: Nth,
        reason: Reason,
    },
    Prove {
        job: Nth,
        is_right: bool,
    },
    Closed {
        peer: Nth,
        reason: Leaving,
    },
    Finished,
    Spoilt,
    Uploaded {
        chunks: u8,
    },
    Limited {
        is_limited: bool,
    },
    Stop,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum TrackerAnswer {
    Peers {
        first: u8,
        count: u8,
        interval_s: Option<u16>,
    },
    /// More than a book can hold.
    Flood {
        net: u8,
    },
    Unknown {
        settled: bool,
    },
    Failed,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Reason {
    NotHave,
    Busy { retry_after_ms: u32 },
    Gone,
    Cancelled,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Leaving {
    Refused,
    Silent,
    Disconnected,
    Violation,
    TooSlow,
    Itself,
    ShuttingDown,
    Full { retry_after_ms: u32 },
    UnknownShare,
    Duplicate,
    Banned,
}

impl From<Leaving> for LeaveReason {
    fn from(leaving: Leaving) -> LeaveReason {
        match leaving {
            Leaving::Refused => LeaveReason::Unreachable(Unreachable::Os(111)),
            Leaving::Silent => LeaveReason::Unreachable(Unreachable::Silent),
            Leaving::Disconnected => LeaveReason::Disconnected,
            Leaving::Violation => LeaveReason::Protocol(Violation::Malformed),
            Leaving::TooSlow => LeaveReason::TooSlow,
            Leaving::Itself => LeaveReason::Itself,
            Leaving::ShuttingDown => LeaveReason::Goodbye(GoodbyeReason::ShuttingDown),
            Leaving::Full { retry_after_ms } => {
                LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms })
            }
            Leaving::UnknownShare => LeaveReason::Goodbye(GoodbyeReason::UnknownShare),
            Leaving::Duplicate => LeaveReason::Goodbye(GoodbyeReason::Duplicate),
            Leaving::Banned => LeaveReason::Goodbye(GoodbyeReason::Banned),
        }
    }
}
