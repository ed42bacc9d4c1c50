//! What people call a host.

use std::{array, fmt};

use serde::{Deserialize, Serialize};

/// Maximum bytes of a label. Names of machines seldom have more, and so it needs no memory of its own.
pub const MAX_LABEL_LEN: usize = 32;

/// What people call the host of a peer: at most [`MAX_LABEL_LEN`] bytes of UTF-8 without control characters. It may be empty.
///
/// It is the peer's word. It is shown to people, and identifies nobody.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]", into = "[u8; 32]")]
pub struct Label([u8; MAX_LABEL_LEN]);

/// Why something is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not UTF-8.
    #[error("a label is UTF-8")]
    NotUtf8,
    /// It has a control character.
    #[error("a label has no control character")]
    Control,
}

impl Label {
    /// No label.
    pub const NONE: Label = Label([0; MAX_LABEL_LEN]);

    /// This text, or as much of it as fits.
    pub fn cut(text: &str) -> Result<Label, LabelError> {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        let text = &text[..ends.take_while(|&end| end <= MAX_LABEL_LEN).last().unwrap_or(0)];
        if text.chars().any(char::is_control) {
            return Err(LabelError::Control);
        }
        let mut bytes = [0; MAX_LABEL_LEN];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Label(bytes))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(MAX_LABEL_LEN);
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    #[cold]
    fn check(bytes: [u8; MAX_LABEL_LEN]) -> Result<Label, LabelError> {
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(MAX_LABEL_LEN);
        let (text, rest) = bytes.split_at(len);
        let text = std::str::from_utf8(text).map_err(|_| LabelError::NotUtf8)?;
        if text.chars().any(char::is_control) || rest.iter().any(|&byte| byte != 0) {
            return Err(LabelError::Control);
        }
        Ok(Label(bytes))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl TryFrom<[u8; MAX_LABEL_LEN]> for Label {
    type Error = LabelError;

    /// Zeros follow the text.
    #[inline]
    fn try_from(bytes: [u8; MAX_LABEL_LEN]) -> Result<Label, LabelError> {
        // The usual cases without a look at each character.
        if is_short_and_printable(&bytes) { Ok(Label(bytes)) } else { Label::check(bytes) }
    }
}

/// Whether the bytes are zeros after at most 16 bytes of printable ASCII. It looks at all of them at once, as a number.
fn is_short_and_printable(bytes: &[u8; MAX_LABEL_LEN]) -> bool {
    /// One in each byte.
    const ONES: u128 = u128::MAX / 0xff;
    const TOP_BITS: u128 = 0x80 * ONES;
    let halves: [[u8; 16]; 2] = [0, 16].map(|start| array::from_fn(|at| bytes[start + at]));
    let [text, rest] = halves.map(u128::from_le_bytes);
    // Spaces in place of the zeros behind the last byte that is not zero.
    let text_bits = u128::BITS - text.leading_zeros() / u8::BITS * u8::BITS;
    let text = text | (0x20 * ONES).checked_shl(text_bits).unwrap_or(0);
    // A byte is at most 0x7f if it has no top bit, at most 0x7e if it has none with one added, and at least 0x20 if it gets one when 0x60
    // is added. Then no addition carries into the next byte.
    let is_ascii = (text | text.wrapping_add(ONES)) & TOP_BITS == 0;
    rest == 0 && is_ascii && text.wrapping_add(0x60 * ONES) & TOP_BITS == TOP_BITS
}

impl From<Label> for [u8; MAX_LABEL_LEN] {
    fn from(label: Label) -> [u8; MAX_LABEL_LEN] {
        label.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(Label::cut("node7").unwrap().as_str(), "node7");
        assert_eq!(Label::cut(&"ä".repeat(40)).unwrap().as_str(), "ä".repeat(16));
        assert_eq!(
            Label::cut(&format!("a{}", "ä".repeat(40))).unwrap().as_str(),
            format!("a{}", "ä".repeat(15))
        );
        assert_eq!(Label::cut(&"n".repeat(32)).unwrap().as_str(), "n".repeat(32));
        assert!(Label::cut("").unwrap().is_empty() && Label::cut("").unwrap() == Label::NONE);
        assert_eq!(Label::cut("a\nb"), Err(LabelError::Control));
    }

    #[test]
    fn a_byte_is_a_label_wherever_it_is_if_it_is_printable() {
        for len in [1, 2, 15, 16, 17, 32] {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut bytes = [0; MAX_LABEL_LEN];
                    bytes[..len].fill(b'x');
                    bytes[at] = byte;
                    let is_end = byte == 0 && at + 1 == len;
                    assert_eq!(
                        Label::try_from(bytes).is_ok(),
                        matches!(byte, b' '..=b'~') || is_end,
                        "{bytes:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn bytes_are_a_label_only_if_a_text_makes_the_same() {
        for text in ["", "node7", "ä🐟", &"n".repeat(32)] {
            let label = Label::cut(text).unwrap();
            assert_eq!(Label::try_from(<[u8; 32]>::from(label)), Ok(label));
        }
        let mut bytes = [0; 32];
        bytes[5] = b'x';
        assert_eq!(Label::try_from(bytes), Err(LabelError::Control));
        assert_eq!(Label::try_from([0xff; 32]), Err(LabelError::NotUtf8));
        assert_eq!(Label::try_from([0x1b; 32]), Err(LabelError::Control));
    }
}
