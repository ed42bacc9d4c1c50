//! `tracker-load register`: fills a tracker with peers, and reports the memory that each takes.

use std::time::Instant;

use anyhow::ensure;
use startup::eprint_line;
use tokio_util::sync::CancellationToken;

use crate::{
    dialect::Kind,
    drive::{self, Pace},
    load::Load,
    process::Process,
    report::Report,
};

/// Registers every peer of the population once. They expire by themselves.
pub(crate) fn run(
    mut load: Load,
    rate: Option<u32>,
    process: Option<Process>,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let before = process.map(Process::resident).transpose()?;
    let mut report = Report::default();
    let began = Instant::now();
    fill(&mut load, rate, stop)?;
    let peers = load.writer().population.peers;
    report.add("peers", peers);
    report.add("shares", load.writer().population.shares);
    report.add("addresses", load.writer().population.addresses);
    report.add_rounded("seconds", began.elapsed().as_secs_f64());
    if let (Some(process), Some(before)) = (process, before) {
        let after = process.resident()?;
        report.add("resident_before_bytes", before);
        report.add("resident_after_bytes", after);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        report.add_rounded("bytes_per_peer", after.saturating_sub(before) as f64 / f64::from(peers));
    }
    Ok(report)
}

/// Connects from every address and registers every peer.
pub(crate) fn fill(load: &mut Load, rate: Option<u32>, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut pace = Pace::new(rate);
    drive::connect(load, &mut pace, stop)?;
    let peers = load.writer().population.peers;
    eprint_line(format_args!("Connected from all addresses; registering {peers} peers"));
    let everyone = drive::everyone(load, Kind::Announce);
    let completed = drive::complete(load, everyone, &mut pace, stop)?;
    ensure!(
        completed.refused == 0,
        "the tracker refused {} of {peers} peers: it is full, or holds no more from one address (try more --addresses)",
        completed.refused
    );
    Ok(())
}
