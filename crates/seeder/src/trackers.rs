//! The trackers of the program: those that the user named, or else the one on this host and those that are found in the local
//! network.
//!
//! The search begins while files are being hashed. It goes on for as long as no tracker on this host answers, because a tracker may
//! start later than its seeders.

use std::net::IpAddr;

use crate::Seeder;
use discovery::{FoundTracker, LOCAL_TIMEOUT, Search};
use peer::tracker_client::TrackerClient;
use proto::{Endpoint, tracker::DEFAULT_PORT};
use startup::{
    Output,
    json::{Event, print_event},
    print_line,
};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// The trackers to register with.
pub(crate) struct Trackers {
    /// Those that the user named, or the one on this host.
    named: Vec<TrackerClient>,
    found: Vec<TrackerClient>,
    /// The first round of the search, if there is one.
    first_round: JoinSet<(Search, Vec<FoundTracker>)>,
    search: Option<Search>,
    bind: Option<IpAddr>,
    output: Output,
    tasks: TaskTracker,
}

impl Trackers {
    /// The trackers that the user named. Begins to look for others if there are none, and `discover`.
    pub(crate) fn new(
        named: Vec<Endpoint>,
        discover: bool,
        bind: Option<IpAddr>,
        output: Output,
        tasks: &TaskTracker,
    ) -> Trackers {
        let client = |endpoint| TrackerClient::spawn(endpoint, bind, tasks);
        let mut first_round = JoinSet::new();
        let named = if named.is_empty() {
            let local = client(local());
            // No other host can reach a seeder on loopback.
            if discover && bind.is_none_or(|bind| !bind.is_loopback()) {
                first_round.spawn(look(local.clone()));
            }
            vec![local]
        } else {
            named.into_iter().map(client).collect()
        };
        Trackers { named, found: Vec::new(), first_round, search: None, bind, output, tasks: tasks.clone() }
    }

    /// Waits until the tracker on this host has answered, or others were looked for.
    pub(crate) async fn first_round(&mut self) {
        let Some(Ok((search, found))) = self.first_round.join_next().await else { return };
        for tracker in found {
            report(&tracker, self.output);
            self.found.push(TrackerClient::spawn(tracker.endpoint, self.bind, &self.tasks));
        }
        self.search = Some(search);
    }

    /// The trackers for a link: those that were found, if there are any, because the one on this host did not answer then.
    pub(crate) fn for_links(&self) -> Vec<Endpoint> {
        let trackers = if self.found.is_empty() { &self.named } else { &self.found };
        trackers.iter().map(|tracker| tracker.endpoint().clone()).collect()
    }

    /// A tracker that the user did not name, and whose silence matters to nobody.
    pub(crate) fn spare(&self) -> Option<Endpoint> {
        (!self.found.is_empty()).then(local)
    }

    /// Registers the shares of `seeder`, and goes on looking. `on_found` receives trackers that are found later. Does not return.
    pub(crate) async fn register(self, seeder: &Seeder, on_found: impl Fn(Endpoint)) {
        let Trackers { named, found, search, bind, output, tasks, .. } = self;
        named.into_iter().chain(found).for_each(|tracker| seeder.add_tracker(tracker));
        let Some(mut search) = search else { return std::future::pending().await };
        loop {
            for tracker in search.next_round().await {
                report(&tracker, output);
                on_found(tracker.endpoint.clone());
                seeder.add_tracker(TrackerClient::spawn(tracker.endpoint, bind, &tasks));
            }
        }
    }
}

/// The tracker on this host.
pub(crate) fn local() -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }
}

/// Looks for trackers in the network, unless the one on this host answers.
async fn look(local: TrackerClient) -> (Search, Vec<FoundTracker>) {
    let mut search = Search::default();
    let found = if local.answers(LOCAL_TIMEOUT).await { Vec::new() } else { search.round().await };
    (search, found)
}

fn report(tracker: &FoundTracker, output: Output) {
    match output {
        Output::Text => print_line(format_args!("Found a {tracker} by multicast DNS")),
        Output::Json => {
            let (endpoint, name) = (tracker.endpoint.to_string(), &tracker.name);
            print_event(&Event::TrackerFound { tracker: endpoint, name });
        }
    }
}
