//! `tracker-load run`: answers a second, loss and times under a mix of requests.

use std::time::{Duration, Instant};

use startup::eprint_line;
use tokio_util::sync::CancellationToken;

use crate::{
    dialect::{Dialect, Kind},
    drive::{self, Mix, Pace},
    load::Load,
    process::Process,
    report::Report,
};

/// The settings of a measurement.
pub(crate) struct Plan {
    pub(crate) mix: Mix,
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    pub(crate) rate: Option<u32>,
    pub(crate) process: Option<Process>,
    /// Whether the peers stay registered until they expire.
    pub(crate) keep: bool,
}

/// Measures.
pub(crate) fn run(mut load: Load, plan: &Plan, stop: &CancellationToken) -> anyhow::Result<Report> {
    let mut rng = rand::rng();
    let mut pace = Pace::new(plan.rate);
    drive::connect(&mut load, &mut pace, stop)?;
    eprint_line(format_args!("Connected; warming up for {} s", plan.warm_up.as_secs()));
    let mut pace = Pace::new(plan.rate);
    drive::mix(&mut load, plan.mix, &mut pace, Instant::now() + plan.warm_up, &mut rng, stop)?;
    eprint_line(format_args!("Measuring for {} s", plan.time.as_secs()));
    load.reset()?;
    let cpu_before = plan.process.map(Process::cpu).transpose()?;
    let began = Instant::now();
    drive::mix(&mut load, plan.mix, &mut pace, began + plan.time, &mut rng, stop)?;
    let seconds = began.elapsed().as_secs_f64();
    let tally = load.reset()?;
    let mut report = Report::default();
    report.add_rounded("seconds", seconds);
    report.add_tally("", &tally, seconds);
    if let (Some(process), Some(before)) = (plan.process, cpu_before) {
        let cpu_s = (process.cpu()?.saturating_sub(before)).as_secs_f64();
        report.add_rounded("cpu_used", cpu_s / seconds);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        report.add_rounded("cpu_us_per_response", cpu_s * 1e6 / tally.replies().max(1) as f64);
        report.add("resident_bytes", process.resident()?);
    }
    if !plan.keep && load.writer().dialect != Dialect::Echo {
        eprint_line("Ending the registrations");
        let mut pace = Pace::new(plan.rate);
        drive::connect(&mut load, &mut pace, stop)?;
        let peers = drive::everyone(&load, Kind::Stop);
        drive::complete(&mut load, peers, &mut pace, stop)?;
    }
    Ok(report)
}
