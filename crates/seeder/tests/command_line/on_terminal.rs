//! A pseudo terminal, and an emulator that keeps its screen.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal. It is killed when the test is done with it or fails.
pub(crate) struct OnTerminal {
    child: Child,
    /// What is typed.
    pub(crate) keyboard: File,
    output: mpsc::Receiver<Vec<u8>>,
    pub(crate) terminal: vt100::Parser,
}

impl OnTerminal {
    pub(crate) fn start(mut command: Command, columns: u16) -> OnTerminal {
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
    pub(crate) fn wait_for(&mut self, what: impl Fn(&[String]) -> bool) -> Vec<String> {
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

    /// Waits until a line of the screen has this.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        let screen = self.wait_for(|screen| screen.iter().any(|line| line.contains(text)));
        screen.into_iter().rfind(|line| line.contains(text)).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, and returns all that is on the screen then.
    pub(crate) fn end(mut self) -> Vec<String> {
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
