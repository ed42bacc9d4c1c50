//! What the program prints of what it shares.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use peer::outside;
use proto::{Endpoint, InfoHash, Link, Metainfo};
use startup::{
    HumanBytes, Output, command_for,
    json::{self, Event, print_event},
    print_line,
};

/// Prints each share, with the links that fetch it.
pub(super) struct Printer {
    output: Output,
    port: u16,
    /// Where other machines find this one.
    own_address: Option<IpAddr>,
    /// The trackers that links name.
    trackers: Vec<Endpoint>,
    printed: Vec<(PathBuf, Metainfo)>,
}

impl Printer {
    /// A printer whose links name these trackers.
    pub(super) fn new(
        output: Output,
        port: u16,
        own_address: Option<IpAddr>,
        trackers: Vec<Endpoint>,
    ) -> Printer {
        Printer { output, port, own_address, trackers, printed: Vec::new() }
    }

    /// This is shared.
    pub(super) fn print(&mut self, path: &Path, metainfo: &Metainfo) {
        if self.output == Output::Text {
            describe(path, metainfo, self.port);
        }
        self.print_link(path, metainfo);
        self.printed.push((path.to_owned(), metainfo.clone()));
    }

    /// This is shared no longer.
    pub(super) fn forget(&mut self, infohash: &InfoHash) {
        self.printed.retain(|(_, printed)| printed.infohash() != *infohash);
    }

    /// Another tracker was found, which links name from now on. Those that were printed before are printed again.
    pub(super) fn found(&mut self, tracker: Endpoint) {
        self.trackers = vec![tracker];
        self.printed.iter().for_each(|(path, metainfo)| self.print_link(path, metainfo));
    }

    /// Prints a warning if the links are of no use to other machines.
    pub(super) fn warn_if_unreachable(&self) {
        if self.own_address.is_none() && self.trackers.iter().any(outside::is_loopback) {
            print_line("The links work on this machine only: no other machine can reach this seeder");
        }
    }

    fn print_link(&self, path: &Path, metainfo: &Metainfo) {
        let link = Link {
            infohash: metainfo.infohash(),
            name: Some(metainfo.name().clone()),
            trackers: self.trackers.clone(),
            peers: Vec::new(),
        };
        match self.output {
            Output::Text => print_links(&link, self.own_address),
            Output::Json => print_shared(path, metainfo, &link, self.own_address),
        }
    }
}

/// Prints what is shared.
pub(super) fn describe(path: &Path, metainfo: &Metainfo, port: u16) {
    print_line(format_args!("Seeder running on port {port} for file {}", path.display()));
    print_line(format_args!("  name      {}", metainfo.name()));
    print_line(format_args!("  infohash  {}", metainfo.infohash()));
    print_line(format_args!(
        "  size      {} in {}, {}",
        HumanBytes(metainfo.chunk_space().total_len()),
        count(metainfo.files().len(), "file"),
        count(metainfo.chunk_space().chunk_count() as usize, "chunk")
    ));
}

/// Reports what is shared.
pub(super) fn print_shared(path: &Path, metainfo: &Metainfo, link: &Link, own_address: Option<IpAddr>) {
    print_event(&Event::Shared(json::Shared {
        infohash: metainfo.infohash().to_string(),
        name: metainfo.name().as_str(),
        path: path.display().to_string(),
        size: metainfo.chunk_space().total_len(),
        files: metainfo.files().len(),
        chunks: metainfo.chunk_space().chunk_count(),
        link: elsewhere(link, own_address).to_string(),
        link_here: link.to_string(),
    }));
}

/// A link as other machines can use it.
pub(super) fn elsewhere(here: &Link, own_address: Option<IpAddr>) -> Link {
    let trackers = match own_address {
        Some(own) => outside::seen_from_elsewhere(&here.trackers, own),
        None => here.trackers.clone(),
    };
    Link { trackers, ..here.clone() }
}

/// Prints the command that fetches a share: for other machines and, if it differs, for this one.
pub(super) fn print_links(here: &Link, own_address: Option<IpAddr>) {
    let link = &elsewhere(here, own_address);
    let leecher = command_for("leecher", "seeder");
    print_line(format_args!("  link      {link}"));
    print_line(format_args!("  fetch it  {leecher} '{link}'"));
    if link != here {
        print_line(format_args!("  or here   {leecher} '{here}'"));
    }
}

/// Formats a number of things: "1 file", "2 files".
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
