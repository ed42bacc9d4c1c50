//! What a user sees on a terminal: a pseudo terminal, and an emulator that keeps its screen.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use proto::ChunkIndex;
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    content::{Withheld, bytes},
    leecher,
    network::Network,
    program::{PATIENCE, Place},
};

/// A program on a terminal. It is killed when the test is done with it or fails.
struct OnTerminal {
    child: Child,
    keyboard: File,
    output: mpsc::Receiver<Vec<u8>>,
    terminal: vt100::Parser,
}

impl OnTerminal {
    fn start(mut command: Command, columns: u16) -> OnTerminal {
        const ROWS: u16 = 24;
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let screen: OwnedFd = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen, size).unwrap();
        command.stdin(screen.try_clone().unwrap()).stdout(screen.try_clone().unwrap()).stderr(screen);
        let child = command.spawn().unwrap();
        // The command holds the terminal open, and would keep its output from ending.
        drop(command);
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, receiver) = mpsc::channel();
        // Ends when the program has ended: then reading fails.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = output.read(&mut buffer)
                && len > 0
                && sender.send(buffer[..len].to_vec()).is_ok()
            {}
        });
        OnTerminal { child, keyboard, output: receiver, terminal: vt100::Parser::new(ROWS, columns, 0) }
    }

    /// Waits until the screen shows what is asked for.
    fn wait_for(&mut self, what: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if what(&screen) {
                return screen;
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.terminal.process(&bytes),
                Err(error) => panic!("{error}; the screen shows {screen:#?}"),
            }
        }
    }

    /// Waits for the end, and returns all that is on the screen then.
    fn end(mut self) -> Vec<String> {
        while let Ok(bytes) = self.output.recv_timeout(PATIENCE) {
            self.terminal.process(&bytes);
        }
        self.child.wait().unwrap();
        self.screen()
    }

    /// The lines of the screen, down to the last that is not empty.
    fn screen(&self) -> Vec<String> {
        let columns = self.terminal.screen().size().1;
        let rows = self.terminal.screen().rows(0, columns).map(|row| row.trim_end().to_owned());
        let mut rows: Vec<String> = rows.collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
        kill_process(Pid::from_child(&leecher.child), Signal::INT).unwrap();
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
    leecher.wait_for(|screen| screen.iter().any(|line| line.contains("50% (1.00 MiB of 2.00 MiB)")));
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
