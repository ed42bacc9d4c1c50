//! What the fuzzer chooses.

use arbitrary::Arbitrary;

#[derive(Debug, Arbitrary)]
pub enum Step {
    Request { asker: u8, chunk: u8 },
    RequestAll { asker: u8 },
    Cancel { asker: u8, chunk: u8 },
    Leave { asker: u8 },
    Take { asker: u8, part: u8 },
    Finish { asker: u8 },
    Reject { asker: u8 },
    Pass { ms: u16 },
    PassToTimeout,
}
