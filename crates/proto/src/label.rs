//! What people call a host.

use std::fmt;

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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl TryFrom<[u8; MAX_LABEL_LEN]> for Label {
    type Error = LabelError;

    /// Zeros follow the text.
    fn try_from(bytes: [u8; MAX_LABEL_LEN]) -> Result<Label, LabelError> {
        // The usual case without a look at each character.
        if bytes == Label::NONE.0 {
            return Ok(Label::NONE);
        }
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(MAX_LABEL_LEN);
        let (text, rest) = bytes.split_at(len);
        let text = std::str::from_utf8(text).map_err(|_| LabelError::NotUtf8)?;
        if text.chars().any(char::is_control) || rest.iter().any(|&byte| byte != 0) {
            return Err(LabelError::Control);
        }
        Ok(Label(bytes))
    }
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
