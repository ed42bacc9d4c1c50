//! What a leecher shows while it serves others after its transfer.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use leecher::Target;
use startup::{
    Pace, STATUS_EVERY, Served, console, eprint_line,
    json::{Event, print_event, print_event_of},
    serving_line,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    report::Style,
    screen::{Block, Screen},
    seen::SeenTransfer,
};

/// Time between two lines, where no line changes in place: a leecher may serve for days.
const LONGEST: Duration = Duration::from_secs(60);

/// Shows what is served of one share.
pub(crate) struct ServedLine {
    display: Display,
    /// Bytes that were sent when this was shown last.
    sent: u64,
}

enum Display {
    InPlace { screen: Screen, number: usize, block: Option<Block> },
    Lines(Pace),
    Events { target: Option<String>, last: Option<Served> },
    Nothing,
}

impl ServedLine {
    /// A line in the place of the transfer with this number, or events about `target`, if that is one of several.
    pub(crate) fn new(style: Style, screen: &Screen, number: usize, target: Option<&Target>) -> ServedLine {
        let display = match style {
            Style::Progress if console::is_interactive() => {
                Display::InPlace { screen: screen.clone(), number, block: None }
            }
            Style::Progress => Display::Lines(Pace::new(LONGEST)),
            Style::Json => Display::Events { target: target.map(Target::to_string), last: None },
            Style::Plain | Style::Quiet => Display::Nothing,
        };
        ServedLine { display, sent: 0 }
    }

    /// Runs a transfer. Once it is done, and until it has left the swarm, shows what is served.
    pub(crate) async fn beside<T>(mut self, transfer: impl Future<Output = T>, seen: &SeenTransfer) -> T {
        let mut transfer = pin!(transfer);
        let mut ticks = interval(STATUS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut transfer => return done,
                _ = ticks.tick() => {
                    if let Some(served) = seen.served() {
                        self.update(&served);
                    }
                }
            }
        }
    }

    fn update(&mut self, served: &Served) {
        let line = |width| serving_line(width, std::slice::from_ref(served));
        match &mut self.display {
            Display::InPlace { screen, number, block } => {
                block.get_or_insert_with(|| screen.block(*number)).show(vec![line(console::width())]);
            }
            Display::Lines(pace) => {
                if pace.is_due(served.sent > self.sent, Instant::now()) {
                    eprint_line(line(usize::MAX));
                }
            }
            Display::Events { target, last } => {
                if last.as_ref() != Some(served) {
                    match target {
                        Some(target) => print_event_of(target, &Event::Serving(served)),
                        None => print_event(&Event::Serving(served)),
                    }
                    *last = Some(served.clone());
                }
            }
            Display::Nothing => {}
        }
        self.sent = served.sent;
    }
}
