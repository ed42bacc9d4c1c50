//! `seeder --watch`: what the program prints of a directory whose entries it shares.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use peer::outside;
use proto::Link;
use startup::{
    ExitCode, Failure, HumanBytes, Output, human_time,
    json::{Event, print_event},
    print_line,
};
use store::Content;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Args, cache, config, elsewhere, print_shared, report, rules, show, show_status};
use crate::{
    Seeder,
    registration_report::RegistrationReport,
    seen::{Additions, Seen},
    trackers::Trackers,
    watch::{Watch, WatchEvent},
};

/// Shares the entries of a directory until `shutdown`.
pub(super) async fn run(args: Args, dir: PathBuf, shutdown: CancellationToken) -> Result<(), Failure> {
    let is_dir = fs::metadata(&dir).map(|found| found.is_dir());
    let is_dir =
        is_dir.map_err(|error| Failure::io(error, format_args!("cannot watch {}", dir.display())))?;
    if !is_dir {
        let error = format!("cannot watch {}: it is not a directory", dir.display());
        return Err(Failure::new(ExitCode::Usage, error));
    }
    let (tasks, output) = (TaskTracker::new(), Output::of(args.json));
    let seeder = Seeder::bind(config(&args), &tasks)?;
    let port = seeder.local_addr().port();
    let seen = Arc::new(Seen::new(seeder.clone(), Additions::ByWatching, shutdown.clone()));
    if output == Output::Json {
        print_event(&Event::Listening { address: seeder.local_addr() });
    }
    let stop_http = shutdown.child_token();
    show(&args, &seen, &tasks, &stop_http)?;
    let mut trackers = Trackers::new(args.trackers.clone(), !args.no_discovery, args.bind, output, &tasks);
    let watch = Watch { rules: rules(&args), cache: cache(&args), ..Watch::new(dir.clone()) };
    let own_address = outside::own_address(args.bind);
    let _ = shutdown.run_until_cancelled(trackers.first_round()).await;
    let named = trackers.for_links();
    if output == Output::Text {
        print_line(format_args!(
            "Watching '{}' on port {port}: each entry is shared when it has not changed for {}",
            dir.display(),
            human_time(watch.quiet)
        ));
        print_line("Press Ctrl+C to stop");
    }
    let answers = shutdown.child_token();
    let registrations = Arc::new(Mutex::new(RegistrationReport::new(HashMap::new())));
    let on_share =
        report(Arc::clone(&registrations), trackers.spare(), answers.clone(), Arc::clone(&seen), output);
    let on_event = {
        let seen = Arc::clone(&seen);
        move |event| match event {
            WatchEvent::Shared { path, content } => {
                let metainfo = content.metainfo();
                let (infohash, name) = (metainfo.infohash(), metainfo.name().clone());
                seen.share(metainfo);
                lock(&registrations).add(infohash, name.clone());
                let link = Link { infohash, name: Some(name), trackers: named.clone(), peers: Vec::new() };
                if output == Output::Json {
                    return print_shared(&path, metainfo, &link, own_address);
                }
                let size = HumanBytes(metainfo.chunk_space().total_len());
                print_line(format_args!("Sharing '{}' ({size})", path.display()));
                print_line(format_args!("  link      {}", elsewhere(&link, own_address)));
            }
            WatchEvent::Ended { path, infohash, fault } => {
                seen.end(&infohash);
                let name = lock(&registrations).name(&infohash);
                lock(&registrations).remove(&infohash);
                let why =
                    fault.map_or("changed or is gone".to_owned(), |fault| format!("cannot be read: {fault}"));
                let message = format!("'{}' {why}: {infohash} is no longer shared", path.display());
                let infohash = infohash.to_string();
                match output {
                    Output::Text => print_line(message),
                    Output::Json => print_event(&Event::Withdrawn { infohash, name: &name, message }),
                }
            }
            WatchEvent::Failed { path, error } => {
                let why = Failure::new(ExitCode::Io, error);
                let message = format!(
                    "'{}' is not shared: {why}; trying again when it changes, and from time to time",
                    path.display()
                );
                tracing::warn!("{message}");
                if output == Output::Json {
                    print_event(&Event::Warning { kind: "not_shared", message });
                }
            }
            WatchEvent::Trouble(error) => {
                let message = format!(
                    "cannot watch '{}': {error}; looking at all of it from time to time",
                    dir.display()
                );
                tracing::warn!("{message}");
                if output == Output::Json {
                    print_event(&Event::Warning { kind: "watch", message });
                }
            }
            WatchEvent::Share(event) => on_share(event),
        }
    };
    let (sent, _, _) = tokio::join!(
        watch.run(&seeder, on_event, &shutdown),
        answers.run_until_cancelled(trackers.register(&seeder, |_| {})),
        shutdown.run_until_cancelled(show_status(&seen, output))
    );
    stop_http.cancel();
    // They hold the port.
    drop((seeder, seen));
    tasks.close();
    tasks.wait().await;
    match output {
        Output::Text => print_line(format_args!("Seeder stopped after sending {}", HumanBytes(sent))),
        Output::Json => print_event(&Event::Left { uploaded: sent }),
    }
    Ok(())
}

fn lock(report: &Mutex<RegistrationReport>) -> MutexGuard<'_, RegistrationReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
