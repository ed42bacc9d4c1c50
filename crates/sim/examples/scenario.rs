//! Runs scenarios and prints their figures:
//! `scenario NAME... [--seed N] [--seeds COUNT] [--up MBIT] [--down MBIT] [--latency MS] [--work MS] [--news MS] [--start MS]
//! [--max-peers N] [--mib N]`. All from `--up` on change what a scenario says of itself; `--up` gives the origin the same uplink too.

use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let names: Vec<_> = arguments.iter().take_while(|argument| !argument.starts_with("--")).collect();
    if names.is_empty() {
        eprintln!(
            "usage: scenario NAME... [--seed N] [--seeds COUNT]\nscenarios: {}",
            sim::scenario::NAMES.join(" ")
        );
        std::process::exit(2);
    }
    let first = number("--seed").unwrap_or(1);
    for name in names {
        let Some(mut scenario) = sim::scenario::named(name) else {
            eprintln!("no scenario is called {name}");
            std::process::exit(2);
        };
        if let Some(mbit) = number("--down") {
            scenario.leechers.iter_mut().for_each(|leecher| leecher.link.down = mbit as f64 * 1e6);
        }
        if let Some(mbit) = number("--up") {
            scenario.origin.up = mbit as f64 * 1e6;
            scenario.leechers.iter_mut().for_each(|leecher| leecher.link.up = mbit as f64 * 1e6);
        }
        if let Some(ms) = number("--latency") {
            scenario.latency = Duration::from_millis(ms);
        }
        if let Some(ms) = number("--work") {
            scenario.work_interval = Duration::from_millis(ms);
        }
        if let Some(ms) = number("--news") {
            scenario.news_interval = Duration::from_millis(ms);
        }
        if let Some(ms) = number("--start") {
            scenario.start_time = Duration::from_millis(ms);
        }
        if let Some(most) = number("--max-peers") {
            scenario.max_peers = most as usize;
        }
        if let Some(mib) = number("--mib") {
            scenario.mib = mib as u32;
        }
        for seed in first..first + number("--seeds").unwrap_or(1) {
            let start = Instant::now();
            let report = sim::run(&scenario, seed);
            println!("{report}  [{:.1} s]", start.elapsed().as_secs_f64());
            let tenths =
                (0..=10).filter_map(|tenth| report.durations.get((report.durations.len() - 1) * tenth / 10));
            println!("    durations by tenths: {:.1?}", tenths.collect::<Vec<_>>());
            let part = |thousandths: usize| report.durations.len() * thousandths / 1_000;
            let parts = [500, 990, 999].map(|thousandths| report.durations.get(part(thousandths)));
            println!("    p50, p99, p99.9: {parts:.3?}");
        }
    }
}
