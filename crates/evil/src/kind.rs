//! The ways in which a peer can misbehave.

use std::{fmt, str::FromStr};

/// What becomes of a peer that misbehaves like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing: it does nothing wrong.
    Useful,
    /// It is of no use, and no rule says that it must be dropped.
    Idle,
    /// It violates the protocol, and is dropped.
    Dropped,
    /// It sends something that is proved wrong, and is banned.
    Lied,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $name:literal $fate:ident,)*) => {
        /// A way to misbehave.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        /// All kinds.
        pub const KINDS: &[Kind] = &[$(Kind::$variant,)*];

        impl Kind {
            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$variant => $name,)*
                }
            }

            /// What becomes of it when a leecher relies on it.
            pub fn fate(self) -> Fate {
                match self {
                    $(Kind::$variant => Fate::$fate,)*
                }
            }
        }
    };
}

kinds! {
    /// It does nothing wrong. The others are compared with it.
    Honest "honest" Useful,
    /// It accepts the connection and sends nothing.
    Silent "silent" Idle,
    /// It sends its `Hello` at one byte a second.
    TrickledHello "trickled-hello" Idle,
    /// It closes the connection at once.
    Closes "closes" Idle,
    /// It resets the connection at once.
    Resets "resets" Idle,
    /// It answers as a web server.
    OtherProtocol "other-protocol" Dropped,
    /// It closes the connection in the middle of its `Hello`.
    CutHello "cut-hello" Idle,
    /// It begins with a frame of 4 GiB.
    HugeFrameFirst "huge-frame-first" Dropped,
    /// It begins with another message than `Hello`.
    NoHello "no-hello" Dropped,
    /// Its `Hello` names another share.
    OtherShare "other-share" Dropped,
    /// It sends everything back, so the leecher sees its own `Hello`.
    Echo "echo" Idle,
    /// It sends nothing after `Hello`.
    Mute "mute" Idle,
    /// A byte of its metainfo is wrong.
    WrongMetainfo "wrong-metainfo" Lied,
    /// Its metainfo is that of another share.
    OtherMetainfo "other-metainfo" Lied,
    /// It promises 32 MiB of metainfo and sends random bytes.
    EndlessMetainfo "endless-metainfo" Lied,
    /// The same, at 1 MiB a second.
    SlowEndlessMetainfo "slow-endless-metainfo" Idle,
    /// It promises 32 MiB of metainfo and keeps the last byte.
    StuckMetainfo "stuck-metainfo" Idle,
    /// It promises 2^63 bytes of metainfo.
    HugeMetainfo "huge-metainfo" Dropped,
    /// It promises 4 GiB of metainfo, which fits the field and not the limit.
    LongMetainfo "long-metainfo" Dropped,
    /// It sends the metainfo at one byte a second.
    TrickledMetainfo "trickled-metainfo" Idle,
    /// It closes the connection in the middle of the metainfo.
    CutMetainfo "cut-metainfo" Idle,
    /// It sends a part of the metainfo that was not requested.
    ShiftedMetainfo "shifted-metainfo" Dropped,
    /// Its metainfo has one wrong hash, and its outline and sections are those of that metainfo.
    OtherOutline "other-outline" Lied,
    /// Each part of its outline promises more parts.
    EndlessOutline "endless-outline" Dropped,
    /// A byte of its chunk hashes is wrong.
    WrongHashes "wrong-hashes" Lied,
    /// It has chunks of its own, and the right hashes for them.
    OwnHashes "own-hashes" Lied,
    /// It sends the hashes of other chunks than were requested.
    ShiftedHashes "shifted-hashes" Dropped,
    /// It sends the chunk hashes at one byte a second.
    TrickledHashes "trickled-hashes" Idle,
    /// It closes the connection in the middle of the chunk hashes.
    CutHashes "cut-hashes" Idle,
    /// Its chunks are random bytes.
    WrongBytes "wrong-bytes" Lied,
    /// The last byte of each of its chunks is wrong.
    WrongByte "wrong-byte" Lied,
    /// Its chunks are zeros.
    Zeros "zeros" Lied,
    /// It sends the right bytes of another chunk under the number that was requested.
    OtherChunk "other-chunk" Lied,
    /// It sends a wrong chunk and closes the connection.
    WrongAndAway "wrong-and-away" Lied,
    /// Its first chunks are right, and the others wrong.
    HonestThenWrong "honest-then-wrong" Lied,
    /// Its hashes of blocks are right, and its blocks are wrong. So are its chunks.
    WrongBlocks "wrong-blocks" Lied,
    /// Its chunks are 64 bytes: the two nodes below the chunk hash.
    ChildHashes "child-hashes" Dropped,
    /// It sends a right chunk that was not requested, under its right number.
    OtherNumber "other-number" Dropped,
    /// It sends chunks before it is asked for any.
    Unasked "unasked" Dropped,
    /// It sends each chunk twice.
    Twice "twice" Dropped,
    /// Its chunks are a byte shorter than they should be.
    Short "short" Dropped,
    /// Its chunks are a byte longer than they should be.
    Long "long" Dropped,
    /// After each chunk it sends a byte that belongs to no message.
    Overflowing "overflowing" Dropped,
    /// It announces a chunk of 4 GiB.
    HugeChunk "huge-chunk" Dropped,
    /// It answers with a frame of 4 GiB.
    HugeFrame "huge-frame" Dropped,
    /// It sends a chunk that the share does not have.
    NoSuchChunk "no-such-chunk" Dropped,
    /// It chooses to send a chunk that the share does not have.
    NoSuchChoice "no-such-choice" Dropped,
    /// It chooses what to send twice.
    TwoChoices "two-choices" Dropped,
    /// It closes the connection in the middle of a chunk.
    CutChunk "cut-chunk" Idle,
    /// It resets the connection in the middle of a chunk.
    ResetChunk "reset-chunk" Idle,
    /// It closes the connection in the middle of a frame.
    CutFrame "cut-frame" Idle,
    /// It sends the header of a chunk and closes the connection.
    HeaderAndAway "header-and-away" Idle,
    /// It sends part of a chunk and then nothing.
    StopsInChunk "stops-in-chunk" Idle,
    /// It sends a chunk at one byte a second.
    TrickledChunk "trickled-chunk" Idle,
    /// It answers no request, and sends keep-alives.
    KeepsWaiting "keeps-waiting" Idle,
    /// It answers each request with `Busy`.
    AlwaysBusy "always-busy" Idle,
    /// It answers each request with `Busy` for 49 days.
    AlwaysBusyLong "always-busy-long" Idle,
    /// It answers each request with `NotHave`.
    HasNothing "has-nothing" Idle,
    /// It answers each request with `Gone`.
    AllGone "all-gone" Idle,
    /// It confirms cancellations that were not sent.
    CancelsAll "cancels-all" Dropped,
    /// Its bitfield is a byte too short.
    ShortBitfield "short-bitfield" Dropped,
    /// Its bitfield is a byte too long.
    LongBitfield "long-bitfield" Dropped,
    /// The spare bits of its bitfield are set.
    SpareBits "spare-bits" Dropped,
    /// It sends its bitfield twice.
    TwoBitfields "two-bitfields" Dropped,
    /// It has a chunk that the share does not have.
    HaveOutOfRange "have-out-of-range" Dropped,
    /// It says hello a second time.
    SecondHello "second-hello" Dropped,
    /// It reports the same chunk without end.
    FloodsHave "floods-have" Dropped,
    /// It reports without end that it is idle.
    FloodsIdle "floods-idle" Dropped,
    /// It sends keep-alives without end.
    FloodsKeepAlive "floods-keep-alive" Dropped,
    /// It cancels without end a request that it did not make.
    FloodsCancel "floods-cancel" Dropped,
    /// It rejects without end a request that it did not receive.
    FloodsReject "floods-reject" Dropped,
    /// It answers `Busy` without end to a request that it did not receive.
    FloodsBusy "floods-busy" Dropped,
    /// It requests the same chunk without end, and reads what it gets.
    FloodsRequest "floods-request" Dropped,
    /// It requests the metainfo without end, and reads what it gets.
    FloodsDescription "floods-description" Dropped,
    /// It sends keep-alives without end, from its `Hello` on.
    FloodsEarly "floods-early" Idle,
    /// It makes requests without end, and reads nothing.
    AsksAndReadsNothing "asks-and-reads-nothing" Dropped,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        let kind = KINDS.iter().copied().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("no kind is called {name}"))
    }
}
