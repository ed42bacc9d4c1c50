//! Text from strangers made safe to print.
//!
//! Names, links, peers' messages and paths can hold control characters, which move the cursor or clear the screen. They can
//! also hold characters that are invisible or change the direction of text, which make a name look like another. On output
//! all these appear as `\u{…}`. On disk and on the wire names do not change.

use std::{borrow::Cow, fmt};

use tracing_subscriber::{
    field::MakeExt,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
};

/// Text in which every character is visible. Line breaks are escaped too.
pub fn escape(text: &str) -> Cow<'_, str> {
    replace(text, is_hidden, |c| c.escape_default().to_string())
}

/// The same, but line breaks stay.
pub(crate) fn escape_lines(text: &str) -> Cow<'_, str> {
    replace(text, |c| is_hidden(c) && c != '\n', |c| c.escape_default().to_string())
}

/// JSON in which every character is visible. Its meaning does not change: outside of strings the only such characters of
/// JSON are white space, which stays.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    let escape = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    replace(json, |c| is_hidden(c) && !c.is_ascii_whitespace(), escape)
}

/// Formats the fields of a log event with [`escape`].
pub(crate) fn escaped_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    let format = |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => writer.write_str(&escape(&value)),
            name => write!(writer, "{name}={}", escape(&value)),
        }
    };
    debug_fn(format).delimited(" ")
}

fn replace(text: &str, which: impl Fn(char) -> bool, with: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&which) {
        return text.into();
    }
    let mut replaced = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if which(c) { replaced.push_str(&with(c)) } else { replaced.push(c) }
    }
    replaced.into()
}

/// Whether a terminal shows nothing for the character, or obeys it. These are control characters, line and paragraph
/// separators, interlinear annotations, and Unicode 16's `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt`), which
/// includes all bidirectional controls and zero-width characters.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_language_stay_as_they_are() {
        for name in
            ["large_text_file.txt", "データ　2026.bin", "cafe\u{301}", "مرحبا.txt", "🐟", "a b", r"a\b"]
        {
            assert_eq!(escape(name), name);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        for (name, shown) in [
            ("\x1b[2J\u{9b}m\x7f", r"\u{1b}[2J\u{9b}m\u{7f}"),
            ("gpj\u{202e}exe.bat", r"gpj\u{202e}exe.bat"),
            ("\u{2067}a\u{2069}\u{200e}\u{61c}", r"\u{2067}a\u{2069}\u{200e}\u{61c}"),
            ("a\u{200b}\u{200d}\u{feff}\u{ad}\u{3164}", r"a\u{200b}\u{200d}\u{feff}\u{ad}\u{3164}"),
            ("a\u{2028}\u{fe0f}\u{e0041}", r"a\u{2028}\u{fe0f}\u{e0041}"),
            ("two\nlines", r"two\nlines"),
        ] {
            assert_eq!(escape(name), shown);
        }
        assert_eq!(escape_lines("a\u{202e}\nb\r"), "a\\u{202e}\nb\\r");
    }

    #[test]
    fn json_keeps_its_meaning() {
        assert_eq!(
            escape_json("{\"a\":\n\"\u{202e}\u{7f}\u{e0041}é\"}"),
            "{\"a\":\n\"\\u202e\\u007f\\udb40\\udc41é\"}"
        );
    }
}
