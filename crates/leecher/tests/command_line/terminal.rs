//! What a user sees on a terminal.

use std::{io::Write, sync::Arc};

use proto::ChunkIndex;
use rustix::process::Signal;

use crate::{
    content::{Withheld, bytes},
    leecher,
    network::Network,
    on_terminal::OnTerminal,
    program::{Place, run},
};

/// A transfer that stands still after two of four chunks.
fn half() -> (Place, Network) {
    let network = Network::start();
    let shared = network.file("data.bin", &bytes(4));
    network.seed(Arc::new(Withheld { shared, from: ChunkIndex(2) }));
    (Place::new(), network)
}

fn on_terminal(
    place: &Place,
    network: &Network,
    columns: u16,
    more: &[&str],
    variables: &[(&str, &str)],
) -> OnTerminal {
    let mut command = leecher(place, &[&["data.bin", "--tracker", &network.tracker()], more].concat());
    command.env("TERM", "xterm").envs(variables.iter().copied());
    OnTerminal::start(command, columns)
}

fn is_bar(line: &str) -> bool {
    line.contains(['█', '░'])
}

#[test]
fn a_bar_fits_the_terminal_and_ctrl_c_leaves_nothing_of_it() {
    for columns in [80, 40] {
        let (place, network) = half();
        let mut leecher = on_terminal(&place, &network, columns, &["-v"], &[]);
        let screen =
            leecher.wait_for(|screen| screen.iter().any(|line| is_bar(line) && line.contains("50%")));
        let bars: Vec<_> = screen.iter().filter(|line| is_bar(line)).collect();
        assert_eq!(bars.len(), 1, "{screen:#?}");
        assert!(bars[0].matches(['█', '░']).count() >= 20, "{screen:#?}");
        // The terminal echoes what is typed wherever the cursor is.
        leecher.keyboard.write_all(b"\x03").unwrap();
        leecher.wait_for(|screen| screen.iter().any(|line| line.contains("^C")));
        leecher.wait_for(|screen| !screen.iter().any(|line| line.contains("^C")));
        leecher.signal(Signal::INT);
        let screen = leecher.end();
        assert!(!screen.iter().any(|line| is_bar(line) || line.contains("^C")), "{screen:#?}");
        assert!(screen.iter().any(|line| line == "error: interrupted"), "{screen:#?}");
        assert!(screen.iter().any(|line| line.contains("INFO peer joined")), "{screen:#?}");
    }
}

#[test]
fn a_dumb_terminal_gets_lines_without_colours() {
    let (place, network) = half();
    let mut leecher = on_terminal(&place, &network, 80, &["-v"], &[("TERM", "dumb")]);
    leecher.wait_for(|screen| screen.iter().any(|line| line.contains("50% (256.00 KiB of 512.00 KiB)")));
    let screen = leecher.terminal.screen().contents_formatted();
    let screen = String::from_utf8_lossy(&screen);
    assert!(!screen.contains("\x1b[3") && !screen.contains(['█', '░']), "{screen:?}");
}

#[test]
fn no_color_means_no_colour() {
    let has_colors = |variables: &[(&str, &str)]| {
        let (place, network) = half();
        let mut leecher = on_terminal(&place, &network, 80, &["-v"], variables);
        leecher.wait_for(|screen| screen.iter().any(|line| line.contains("INFO peer joined")));
        let screen = leecher.terminal.screen();
        let (rows, columns) = screen.size();
        (0..rows).any(|row| {
            (0..columns).any(|column| {
                screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
            })
        })
    };
    assert!(has_colors(&[]));
    assert!(!has_colors(&[("NO_COLOR", "1")]));
}

#[test]
fn several_shares_have_a_bar_each_and_the_bars_are_in_line() {
    let network = Network::start();
    for name in ["a.bin", "a longer name.bin"] {
        let shared = network.file(name, &bytes(4));
        network.seed(Arc::new(Withheld { shared, from: ChunkIndex(2) }));
    }
    let place = Place::new();
    let args = ["a.bin", "a longer name.bin", "--tracker", &network.tracker()];
    let mut command = leecher(&place, &args);
    command.env("TERM", "xterm");
    let mut leecher = OnTerminal::start(command, 80);
    let is_half = |line: &&String| is_bar(line) && line.contains("50%");
    let screen = leecher.wait_for(|screen| screen.iter().filter(is_half).count() == 2);
    let bars: Vec<_> = screen.iter().filter(is_half).collect();
    assert!(bars[0].starts_with("a.bin: ") && bars[1].starts_with("a longer name.bin: "), "{screen:#?}");
    let begins = |line: &str| line.chars().position(|c| c == '█');
    assert_eq!(begins(bars[0]), begins(bars[1]), "{screen:#?}");
}

#[test]
fn a_leecher_that_stays_shows_that_it_serves() {
    let network = Network::start();
    network.seed(network.file("data.bin", &bytes(4)));
    let place = Place::new();
    let mut first = on_terminal(&place, &network, 80, &["--seed", "-o", "one"], &[]);
    first.wait_for_line("Seeding data.bin: no peers, 0 B/s, 0.00 copies sent");
    let other = Place::new();
    let fetched = run(leecher(&other, &["data.bin", "--tracker", &network.tracker(), "-o", "two"]));
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    first.signal(Signal::TERM);
    let screen = first.end();
    assert!(!screen.iter().any(|line| line.contains("Seeding")), "{screen:#?}");
    assert!(screen.iter().any(|line| line.starts_with("Leecher stopped after sending")), "{screen:#?}");
}

#[test]
fn a_resumed_transfer_shows_how_much_is_checked_and_counts_what_it_fetches() {
    let (place, network) = half();
    let mut leecher = on_terminal(&place, &network, 80, &["-o", "copy"], &[]);
    leecher.wait_for(|screen| screen.iter().any(|line| is_bar(line) && line.contains("50%")));
    leecher.signal(Signal::TERM);
    leecher.end();
    network.seed(network.file("data.bin", &bytes(4)));
    let screen = on_terminal(&place, &network, 80, &["-o", "copy"], &[]).end();
    assert!(
        screen.iter().any(|line| line.contains("256.00 KiB are here from an earlier run")),
        "{screen:#?}"
    );
    assert!(screen.iter().any(|line| line.starts_with("Saved 512.00 KiB to copy in")), "{screen:#?}");
    assert!(screen.iter().any(|line| line.contains("fetched 256.00 KiB")), "{screen:#?}");
}
