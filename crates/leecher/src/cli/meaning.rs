//! What the flags of `leecher` mean together.

use std::path::PathBuf;

use etcetera::{BaseStrategy, choose_base_strategy};
use leecher::{Destination, Stay, Target};
use proto::{Endpoint, Label, link::MAX_ENDPOINTS};
use startup::{
    ExitCode, Failure, eprint_line, human_time,
    json::{Event, print_event},
};
use store::ProofCache;

use super::flags::Args;
use crate::{
    looking::{self, Look},
    report::Style,
};

/// A path to take chunks from need not be there: the first run of a command that runs again and again has none.
pub(super) fn warn_of_missing_sources(args: &Args) {
    if args.quiet {
        return;
    }
    for path in &args.from {
        if let Err(error) = path.metadata() {
            let message = format!("--from {}: {error}", path.display());
            eprint_line(format_args!("warning: {message}"));
            if args.json {
                print_event(&Event::Warning { kind: "source", message });
            }
        }
    }
}

/// Where to save, or the reason why nothing can be saved there.
pub(super) fn destination(args: &Args) -> Result<Destination, Failure> {
    let destination = match (args.output.clone(), args.dir.clone()) {
        (Some(path), _) if path.as_os_str() == "-" => {
            let error = "-o - cannot write to stdout, because chunks arrive in any order";
            return Err(Failure::new(ExitCode::Usage, error)
                .hint("save to a file with -o PATH; for a file called -, use -o ./-"));
        }
        (Some(path), _) if path.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) => {
            let dir = path.parent().unwrap_or(&path);
            if dir.exists() {
                return Err(Failure::new(ExitCode::Io, format!("{} is not a directory", dir.display()))
                    .hint("name another path with -o"));
            }
            return Err(Failure::new(
                ExitCode::Io,
                format!("the directory {} does not exist", dir.display()),
            )
            .hint("create it, or use -d, which creates the directory"));
        }
        (Some(path), _) => Destination::Path(path),
        (None, dir) => Destination::Directory(dir.unwrap_or_default()),
    };
    if let Destination::Directory(dir) = &destination
        && dir.exists()
        && !dir.is_dir()
    {
        return Err(Failure::new(ExitCode::Io, format!("{} is not a directory", dir.display()))
            .hint("name another with -d"));
    }
    Ok(destination)
}

/// The name of this machine, if it can be a label.
pub(super) fn own_label() -> Label {
    Label::cut(&web::machine_name()).unwrap_or_default()
}

pub(super) fn known_names(args: &Args) -> Option<PathBuf> {
    match &args.known_names {
        Some(none) if none.as_os_str() == "none" => None,
        Some(path) => Some(path.clone()),
        None => Some(choose_base_strategy().ok()?.state_dir()?.join("shoal").join("known-names")),
    }
}

/// Where to remember what was proved.
pub(super) fn proofs(args: &Args) -> Option<ProofCache> {
    if args.no_cache {
        return None;
    }
    let chosen = || Some(choose_base_strategy().ok()?.cache_dir().join("shoal").join("proofs"));
    args.cache_dir.clone().or_else(chosen).map(ProofCache::new)
}

pub(super) fn style(args: &Args) -> Style {
    match () {
        () if args.json => Style::Json,
        () if args.quiet => Style::Quiet,
        () if args.no_progress => Style::Plain,
        () => Style::Progress,
    }
}

pub(super) fn stay(args: &Args) -> Stay {
    if let Some(hosts) = args.stay_until_hosts {
        return Stay::Hosts(hosts);
    }
    match (args.seed, args.seed_for, args.seed_ratio) {
        (true, _, _) => Stay::Forever,
        (_, Some(time), _) => Stay::For(time),
        (_, _, Some(ratio)) => Stay::Ratio(ratio),
        (false, None, None) => Stay::WhileNeeded,
    }
}

/// What the leecher does after a transfer, if it does not leave.
pub(super) fn staying(stay: Stay) -> Option<String> {
    match stay {
        Stay::Forever => Some("Serving other leechers; press Ctrl+C to stop".to_owned()),
        Stay::For(time) => Some(format!("Serving other leechers for {}", human_time(time))),
        Stay::Ratio(ratio) => {
            Some(format!("Serving other leechers until {ratio} × the size of the share is uploaded"))
        }
        Stay::Hosts(hosts) => {
            Some(format!("Serving other leechers until {hosts} hosts have all of the share"))
        }
        Stay::WhileNeeded => None,
    }
}

/// The trackers to ask: those that the user named, or those of the link, or the default ones. None is asked if peers are
/// named and no tracker is needed.
pub(super) fn trackers(args: &Args, target: &Target, defaults: &[Endpoint]) -> Vec<Endpoint> {
    if needs_default(args, target) { defaults.to_vec() } else { args.trackers.clone() }
}

/// Whether a tracker is needed and none is named.
pub(super) fn needs_default(args: &Args, target: &Target) -> bool {
    let needless = match target {
        Target::Link(link) => !(link.trackers.is_empty() && link.peers.is_empty() && args.peers.is_empty()),
        Target::InfoHash(_) => !args.peers.is_empty(),
        Target::Name(_) | Target::Only => false,
    };
    args.trackers.is_empty() && !needless
}

/// Whether to look for trackers in the local network. No other host can be reached from loopback.
pub(super) fn discovers(args: &Args, targets: &[Target]) -> bool {
    let on_loopback = args.bind.is_some_and(|bind| bind.is_loopback());
    !args.no_discovery && !on_loopback && targets.iter().any(|target| needs_default(args, target))
}

impl From<&Args> for Look {
    fn from(args: &Args) -> Look {
        let report = match (args.json, args.quiet) {
            (true, _) => looking::Report::Json,
            (_, true) => looking::Report::Nothing,
            _ => looking::Report::Line,
        };
        Look { bind: args.bind, report }
    }
}

/// The trackers and peers of the link that is printed: those of the user's link, then those that the user named.
pub(crate) fn link_endpoints(
    target: &Target,
    trackers: &[Endpoint],
    peers: &[Endpoint],
) -> (Vec<Endpoint>, Vec<Endpoint>) {
    let (from_link, more_from_link) = match target {
        Target::Link(link) => (&link.trackers[..], &link.peers[..]),
        Target::InfoHash(_) | Target::Name(_) | Target::Only => (&[][..], &[][..]),
    };
    let join = |first: &[Endpoint], more: &[Endpoint]| {
        let new = more.iter().filter(|endpoint| !first.contains(endpoint));
        first.iter().chain(new).take(MAX_ENDPOINTS).cloned().collect()
    };
    (join(from_link, trackers), join(more_from_link, peers))
}
