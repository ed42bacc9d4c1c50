//! The line that says what a tracker knows and does now.

use std::time::{Duration, Instant};

use startup::{
    Output, STATUS_EVERY, StatusLine,
    console::cut,
    json::{Event, Status, print_event},
};
use tokio::time::{MissedTickBehavior, interval};
use tracker::{Counters, Stats, View};
use web::Meter;

/// Time between two lines where no line changes in place: peers announce themselves for as long as the tracker runs.
const LONGEST: Duration = Duration::from_secs(600);

/// How much a tracker does in ten seconds.
#[derive(Debug, Clone, Copy)]
struct Load {
    announces: u64,
    answers: u64,
}

/// Shows the line, or reports events. Does not return.
pub(crate) async fn show(view: &View, output: Output) {
    let mut status = match output {
        Output::Text => StatusLine::new(LONGEST),
        Output::Json => StatusLine::none(),
    };
    let mut reported = None;
    let mut ticks = interval(STATUS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut meter, mut before) = (Meter::default(), 0);
    loop {
        ticks.tick().await;
        let (counters, stats) = view.load();
        let (now, answers) = (Instant::now(), answers(&counters));
        let load = Load {
            announces: meter.rate("announces", counters.announces * 10, now),
            answers: meter.rate("answers", answers * 10, now),
        };
        status.update(answers > before, |width| cut(&line(stats, load), width));
        before = answers;
        let now = event(stats, &counters);
        if output == Output::Json && reported.as_ref() != Some(&now) {
            print_event(&Event::Status(now.clone()));
            reported = Some(now);
        }
    }
}

fn event(stats: Stats, counters: &Counters) -> Status {
    let Stats { shares, seeders, leechers } = stats;
    let Counters { announces, lookups, .. } = *counters;
    Status { shares, seeders, leechers, announces, lookups, answers: answers(counters) }
}

/// Requests that were answered, with a refusal too.
fn answers(counters: &Counters) -> u64 {
    let Counters { connects, announces, lookups, tokens_refused, withheld, put_off, .. } = counters;
    (connects + announces + lookups + tokens_refused).saturating_sub(withheld + put_off)
}

fn line(Stats { shares, seeders, leechers }: Stats, Load { announces, answers }: Load) -> String {
    let count = |number: usize, what| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let per_second = |tenths: u64| format!("{}.{}", tenths / 10, tenths % 10);
    format!(
        "{}, {} ({}), {} announces/s, {} answers/s",
        count(shares, "share"),
        count(seeders + leechers, "peer"),
        count(seeders, "seeder"),
        per_second(announces),
        per_second(answers)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_numbers_of_what_is_there_and_of_a_second() {
        let stats = Stats { shares: 1, seeders: 1, leechers: 50 };
        let load = Load { announces: 17, answers: 123_456 };
        assert_eq!(line(stats, load), "1 share, 51 peers (1 seeder), 1.7 announces/s, 12345.6 answers/s");
    }
}
