//! `tracker-load expiry`: whether answers are late while a tracker forgets every peer.

use std::time::{Duration, Instant};

use anyhow::ensure;
use startup::eprint_line;
use tokio_util::sync::CancellationToken;

use crate::{
    drive::{self, Mix, Pace},
    load::Load,
    register,
    report::Report,
};

/// This long after a peer expired, a tracker has forgotten it and freed its memory.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// Lookups only, because an announce would renew a registration.
const QUESTIONS: Mix = Mix { connect: 20, announce: 0, lookup: 60, search: 20 };

/// Registers every peer. Then sends `rate` lookups a second until the peers have expired, `expire` later, and are forgotten.
pub(crate) fn run(
    mut load: Load,
    fill_rate: Option<u32>,
    rate: u32,
    expire: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let mut rng = rand::rng();
    let began = Instant::now();
    register::fill(&mut load, fill_rate, stop)?;
    let filled = Instant::now();
    ensure!(
        filled + Duration::from_secs(1) < began + expire,
        "registering took {:.0} s, so the first have expired: give the tracker a longer --expire",
        (filled - began).as_secs_f64()
    );
    let mut report = Report::default();
    report.add("peers", load.writer().population.peers);
    report.add("shares", load.writer().population.shares);
    report.add_rounded("registering_s", (filled - began).as_secs_f64());
    let phases = [("alive_", began + expire), ("expiring_", filled + expire + FORGOTTEN)];
    let mut pace = Pace::new(Some(rate));
    for (name, end) in phases {
        eprint_line(format_args!(
            "Asking for {:.0} s",
            end.saturating_duration_since(Instant::now()).as_secs_f64()
        ));
        load.reset()?;
        let phase_began = Instant::now();
        drive::mix(&mut load, QUESTIONS, &mut pace, end, &mut rng, stop)?;
        report.add_tally(name, &load.reset()?, phase_began.elapsed().as_secs_f64());
    }
    Ok(report)
}
