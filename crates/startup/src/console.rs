//! The user's console: lines that stay and, below them on a terminal, a few lines that change in place.
//!
//! All output of a program goes through this file, log messages too. So lines that stay never appear in the middle of those
//! that change, and all names are escaped.
//!
//! While the changing lines are shown, the cursor is at the start of the first of them. So the `^C` that a terminal echoes
//! appears there and is overwritten. (indicatif leaves the cursor behind its last line. The echo then moves it to another
//! line, and the bar is erased at the wrong place.)

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use console::{Term, measure_text_width, truncate_str};

use crate::escape::{escape, escape_json};

/// Size of a terminal that does not report one.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// The lines that change in place, as they are shown now.
static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Writes a line to stdout. Names in it may come from strangers, so invisible characters are escaped. A closed stdout (`… |
/// head`) is no failure.
pub fn print_line(line: impl fmt::Display) {
    write_stdout(&format!("{}\n", escape(&line.to_string())));
}

/// Writes a line of JSON to stdout, with JSON's own escapes.
pub fn print_json_line(json: &str) {
    write_stdout(&format!("{}\n", escape_json(json)));
}

/// Writes a line to stderr, escaped in the same way.
pub fn eprint_line(line: impl fmt::Display) {
    write_stderr(format!("{}\n", escape(&line.to_string())).as_bytes());
}

/// Whether stderr is a terminal on which lines can change in place. A `dumb` one is not.
pub fn is_interactive() -> bool {
    io::stderr().is_terminal() && !console::is_dumb()
}

/// Whether log messages on stderr are coloured.
pub(crate) fn has_colors() -> bool {
    // https://no-color.org: set, and not empty.
    is_interactive() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns that a line may fill. The last ones stay free, because a full line may wrap.
pub fn width() -> usize {
    usize::from(size().1).saturating_sub(2)
}

/// Columns of stdout, if it is a terminal.
pub fn stdout_width() -> Option<usize> {
    let is_terminal = io::stdout().is_terminal();
    let (_, columns) = Term::stdout().size_checked().filter(|_| is_terminal).unwrap_or(DEFAULT_SIZE);
    is_terminal.then(|| usize::from(columns))
}

/// Shows `lines` below everything else, in place of the previous ones.
pub fn show(lines: Vec<String>) {
    let lines = lines.iter().map(|line| escape(line).into_owned()).collect::<Vec<_>>();
    let mut shown = shown();
    *shown = lines;
    write_all(&paint(&shown, size()));
}

/// Removes these lines.
pub fn hide() {
    let mut shown = shown();
    if !shown.is_empty() {
        shown.clear();
        write_all(ERASE);
    }
}

/// Stderr for log messages.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        write_stderr(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Erases from the start of the line to the end of the screen, in two steps: this line, then everything from the next line
/// on. If it were one step on the first line, tmux would consider the screen cleared and keep a copy of it.
const ERASE: &str = "\r\x1b7\x1b[K\x1b[B\x1b[J\x1b8";

fn write_stdout(text: &str) {
    let write = || {
        let mut stdout = io::stdout().lock();
        // Nothing can be done about a console that is gone.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    };
    // A pipe with a slow reader delays nobody else.
    if io::stdout().is_terminal() { above(write) } else { write() }
}

fn write_stderr(text: &[u8]) {
    above(|| _ = io::stderr().write_all(text));
}

/// Prints above the lines that change.
fn above(print: impl FnOnce()) {
    let shown = shown();
    if shown.is_empty() {
        return print();
    }
    write_all(ERASE);
    print();
    write_all(&paint(&shown, size()));
}

/// The bytes that show `lines` from the cursor's line on, on a terminal of `rows` and `columns` with any content.
fn paint(lines: &[String], (rows, columns): (u16, u16)) -> String {
    let columns = usize::from(columns).saturating_sub(1);
    // More lines than rows would scroll out of reach, and could not be overwritten.
    let lines = &lines[..lines.len().min(usize::from(rows).saturating_sub(1))];
    let mut text = String::from(ERASE);
    for (row, line) in lines.iter().enumerate() {
        if row > 0 {
            text.push('\n');
        }
        text.push_str(&truncate_str(line, columns, "…"));
    }
    if lines.len() > 1 {
        text.push_str(&format!("\x1b[{}A", lines.len() - 1));
    }
    text.push('\r');
    text
}

fn write_all(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn shown() -> MutexGuard<'static, Vec<String>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows and columns of the terminal.
fn size() -> (u16, u16) {
    Term::stderr().size_checked().filter(|&(rows, columns)| rows > 0 && columns > 0).unwrap_or(DEFAULT_SIZE)
}

/// Columns of a text on a terminal.
pub fn columns(text: &str) -> usize {
    measure_text_width(text)
}

/// The start of a text, cut to this number of columns. A text that is cut ends with an ellipsis.
pub fn cut(text: &str, columns: usize) -> String {
    truncate_str(text, columns, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The screen of a terminal after some output.
    fn screen(terminal: &vt100::Parser) -> Vec<String> {
        let (_, columns) = terminal.screen().size();
        let lines = terminal.screen().rows(0, columns).map(|line| line.trim_end().to_owned());
        let lines: Vec<String> = lines.collect();
        let len = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
        lines[..len].to_vec()
    }

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// A terminal driver turns a line feed into a carriage return and a line feed.
    fn send(terminal: &mut vt100::Parser, text: &str) {
        terminal.process(text.replace('\n', "\r\n").as_bytes());
    }

    #[test]
    fn lines_change_in_place_though_the_terminal_echoes_what_is_typed() {
        let size = (6, 40);
        let mut terminal = vt100::Parser::new(size.0, size.1, 0);
        send(&mut terminal, "$ leecher\n");
        send(&mut terminal, &paint(&lines(&["half", "peer one", "peer two"]), size));
        assert_eq!(screen(&terminal), ["$ leecher", "half", "peer one", "peer two"]);
        send(&mut terminal, "^C");
        send(&mut terminal, &paint(&lines(&["whole", "peer two"]), size));
        assert_eq!(screen(&terminal), ["$ leecher", "whole", "peer two"]);
        send(&mut terminal, "^C");
        send(&mut terminal, ERASE);
        send(&mut terminal, "error: interrupted\n");
        assert_eq!(screen(&terminal), ["$ leecher", "error: interrupted"]);
    }

    #[test]
    fn long_lines_do_not_wrap_and_many_do_not_scroll() {
        let size = (4, 10);
        let mut terminal = vt100::Parser::new(size.0, size.1, 9);
        for _ in 0..2 {
            let text = paint(&lines(&["データデータデータ", "b", "c", "d", "e"]), size);
            send(&mut terminal, &text);
            assert_eq!(screen(&terminal), ["データデ…", "b", "c"]);
        }
    }
}
