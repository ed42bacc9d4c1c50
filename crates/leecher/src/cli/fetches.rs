//! Fetching all shares of a command line, and those that are added over HTTP.

use std::sync::Arc;

use leecher::{
    Checked, Config, DEFAULT_STALL_TIMEOUT, Description, Destination, Fetched, MaxPeers, Replace, Target,
};
use peer::{acceptor::Acceptor, task::task_output};
use startup::{ExitCode, Failure, Output};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use web::Server;

use super::{
    flags::Args,
    meaning::{
        destination, discovers, known_names, link_endpoints, needs_default, own_label, proofs, stay, staying,
        style, trackers, warn_of_missing_sources,
    },
};
use crate::{
    checking,
    explain::explain,
    file_list,
    looking::{self, Transfer},
    report::{self, Reporter, Subject},
    screen::Screen,
    seen::{Limits, MAX_ORDERS, Order, Seen, SeenTransfer},
    served::ServedLine,
};

const FETCH: Transfer<Fetched> = |config, on_event, stop| Box::pin(leecher::fetch(config, on_event, stop));
const CHECK: Transfer<Checked> = |config, on_event, stop| Box::pin(leecher::check(config, on_event, stop));
const DESCRIBE: Transfer<Description> =
    |config, on_event, stop| Box::pin(leecher::describe(config, on_event, stop));

/// TCP port of `--http`, if the user names none: any free one, because a machine may run several leechers.
const HTTP_PORT: u16 = 0;

/// Fetches all shares that the user named. If one fails, the others continue.
pub(super) async fn fetch_shares(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for target in args.targets.iter().cloned().chain(args.file.clone().map(Target::Name)) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        targets.push(Target::Only);
    }
    if targets.len() > 1 && args.output.is_some() {
        let error = format!("-o names one file, and there are {} shares to save", targets.len());
        return Err(Failure::new(ExitCode::Usage, error).hint("save them into a directory with -d DIR"));
    }
    let destination = destination(&args)?;
    warn_of_missing_sources(&args);
    let tasks = TaskTracker::new();
    let acceptor = match args.no_serve || args.list_files || args.check {
        true => None,
        false => Some(Acceptor::bind(args.bind, args.port, &tasks).map_err(|error| explain(error.into()))?),
    };
    let config = Config {
        peers: args.peers.clone(),
        destination,
        replace: match () {
            () if args.update => Replace::Version,
            () if args.overwrite => Replace::File,
            () => Replace::Nothing,
        },
        from: args.from.clone(),
        proofs: proofs(&args),
        only: args.only.clone(),
        times: args.times,
        sparse: !args.no_sparse,
        max_peers: MaxPeers::new(args.max_peers),
        stall_timeout: args.timeout.unwrap_or(DEFAULT_STALL_TIMEOUT),
        wait: args.wait.unwrap_or_default(),
        known_names: known_names(&args),
        label: args.label.unwrap_or_else(own_label),
        zone: args.zone.unwrap_or_default(),
        bind: args.bind,
        acceptor,
        stay: stay(&args),
        upload_limit: args.upload_limit.clone().unwrap_or_default(),
        download_limit: args.download_limit.clone().unwrap_or_default(),
        ..Config::new(Target::Only)
    };
    let limits = Limits {
        upload: config.upload_limit.clone(),
        download: config.download_limit.clone(),
        max_peers: config.max_peers.clone(),
    };
    let listens = config.acceptor.as_ref().map(Acceptor::local_addr);
    let (orders_in, mut orders) = mpsc::channel(MAX_ORDERS);
    let additions = if args.check || args.list_files { None } else { Some(orders_in) };
    let seen = Arc::new(Seen::new(listens, limits, additions, shutdown.clone()));
    let stop_http = shutdown.child_token();
    if let Some(http) = Server::bind(&args.http, HTTP_PORT)? {
        report::print_http(style(&args), &http.url());
        tasks.spawn(http.run(Arc::clone(&seen) as _, stop_http.clone()));
    }
    let (mut looking, found) = looking::start(discovers(&args, &targets).then_some((&args).into()), &tasks);
    let mut fetches =
        Fetches { args: &args, config, found, screen: Screen::default(), running: JoinSet::new() };
    for (number, target) in targets.iter().enumerate() {
        let subject = Subject::one_of(&targets, number, target);
        fetches.start(target, (number, subject), seen.begin(target.to_string()));
    }
    let (mut all, mut failures) = (targets.len(), Vec::new());
    loop {
        // An order that was accepted before the last transfer ended counts.
        tokio::select! {
            biased;
            Some(Order { target, seen }) = orders.recv() => {
                fetches.add(&target, all, seen);
                all += 1;
            }
            ended = fetches.running.join_next() => match ended {
                Some(result) => failures.extend(task_output(result).err()),
                None => break,
            },
        }
    }
    drop((fetches, orders));
    looking.shutdown().await;
    stop_http.cancel();
    tasks.close();
    tasks.wait().await;
    match (all, failures.len()) {
        (_, 0) => Ok(()),
        (1, _) => Err(failures.remove(0)),
        (all, failed) => {
            let code = failures[0].code();
            let code =
                if failures.iter().all(|failure| failure.code() == code) { code } else { ExitCode::Other };
            Err(Failure::new(code, format!("{failed} of {all} shares could not be fetched")))
        }
    }
}

/// All transfers of the program.
struct Fetches<'a> {
    args: &'a Args,
    /// What all of them have in common.
    config: Config,
    found: looking::Found,
    screen: Screen,
    running: JoinSet<Result<(), Failure>>,
}

impl Fetches<'_> {
    /// Begins a transfer that was added. It fetches all files of the share, into the directory of the others.
    fn add(&mut self, target: &Target, number: usize, seen: Arc<SeenTransfer>) {
        self.config.only.clear();
        if let Destination::Path(path) = &self.config.destination {
            let dir = path.parent().map(ToOwned::to_owned).unwrap_or_default();
            self.config.destination = Destination::Directory(dir);
        }
        self.start(target, (number, Subject::added(number, target)), seen);
    }

    /// Begins a transfer.
    fn start(&mut self, target: &Target, (number, subject): (usize, Subject), seen: Arc<SeenTransfer>) {
        let Fetches { args, config, found, screen, running } = self;
        let trackers = trackers(args, target, &[looking::local()]);
        let named = link_endpoints(target, &trackers, &args.peers);
        let mut report =
            Reporter::new(style(args), subject, screen, named, args.explain, staying(config.stay));
        report.show_to(Arc::clone(&seen));
        let view = Some(seen.view());
        let config = Config { target: target.clone(), trackers, view, ..config.clone() };
        let found = needs_default(args, target).then(|| found.clone());
        let stop = seen.stop().clone();
        if args.check {
            running.spawn(async move {
                let checked = looking::among(CHECK, config, found, &mut report, stop).await.map_err(explain);
                let result = checked.and_then(|checked| checking::report(&checked, &report));
                report.failed(&result);
                result
            });
            return;
        }
        if args.list_files {
            let output = Output::of(args.json);
            running.spawn(async move {
                let only = config.only.clone();
                let described = looking::among(DESCRIBE, config, found, &mut report, stop).await;
                let target = report.target().map(Target::to_string);
                let result = described.and_then(|description| {
                    Ok(file_list::print(&description, &only, output, target.as_deref())?)
                });
                let result = result.map_err(explain);
                report.failed(&result);
                result
            });
            return;
        }
        let line = ServedLine::new(style(args), screen, number, report.target());
        running.spawn(async move {
            let fetching = looking::among(FETCH, config, found, &mut report, stop);
            let fetched = line.beside(fetching, &seen).await.map_err(explain);
            if let Err(failure) = &fetched {
                seen.failed(failure.message());
            }
            report.end(&fetched);
            fetched.map(|_| ())
        });
    }
}
