//! What comes before the transfer: learning what the share is, opening the output, and beginning to serve.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use seeder::{
    announcer::announce, faults::Faults, have_log::HaveLog, upload_hub::UploadHub, uploads::DEFAULT_SLOTS,
};
use store::{Content, Download, DownloadError, Output};
use tokio::{
    sync::watch,
    time::{interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{PROGRESS_INTERVAL, Swarm, transfer::started};
use crate::{
    description::Description, error::FetchError, event::FetchEvent, fetch::WAITING_INTERVAL, joined,
    session::Serving,
};

/// The share's description has to be here within this time, or there is nobody to ask.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(9);

impl<F: FnMut(FetchEvent)> Swarm<F> {
    /// Waits until a peer has described the share.
    pub(crate) async fn describe(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Arc<Description>, FetchError> {
        let mut described = self.context.described.subscribe();
        let deadline = Instant::now() + DESCRIBE_TIMEOUT;
        let mut waiting = interval(WAITING_INTERVAL);
        waiting.reset();
        loop {
            self.peers.dial(&mut self.rng);
            if let Some(error) = self.sources.hopeless(&self.config, &self.peers, &self.last_trouble) {
                return Err(error);
            }
            let wake = self.peers.book.next_timeout(Instant::now()).map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                described = described.wait_for(Option::is_some) => {
                    if let Ok(Some(description)) = described.as_deref() {
                        return Ok(Arc::clone(description));
                    }
                }
                Some((id, discovery)) = self.discoveries.recv() => self.sources.heard(id, discovery, &mut self.peers.book),
                Some(ended) = self.peers.next_ended() => { self.session_ended(ended); }
                _ = waiting.tick() => {
                    let what = match self.peers.book.len() {
                        0 => "Asking the tracker for peers …".to_owned(),
                        1 => "Connecting to a peer …".to_owned(),
                        many => format!("Connecting to {many} peers …"),
                    };
                    (self.on_event)(FetchEvent::Waiting(what));
                }
                () = sleep_until(wake.into()) => {
                    if Instant::now() >= deadline {
                        return Err(self.sources.no_peer(&self.config, &self.peers, &self.last_trouble));
                    }
                }
                () = stop.cancelled() => return Err(FetchError::Interrupted { part: None }),
            }
        }
    }

    /// Prepares the output for the share, proving what an earlier run left.
    pub(crate) async fn open(
        &mut self,
        description: Arc<Description>,
        output: Output,
        stop: &CancellationToken,
    ) -> Result<Arc<Download>, FetchError> {
        let total = description.metainfo.chunk_space().total_len();
        let (proved, mut proving) = watch::channel(0_u64);
        let stopping = stop.clone();
        let part = output.part_path();
        let mut opening = tokio::task::spawn_blocking(move || {
            let progress = |bytes| {
                proved.send_modify(|done| *done += bytes);
                if stopping.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let metainfo = Arc::new(description.metainfo.clone());
            Download::open(metainfo, description.hashes.clone(), output, &progress)
        });
        let mut tick = interval(PROGRESS_INTERVAL);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                _ = tick.tick() => {
                    let done = *proving.borrow_and_update();
                    if done > 0 {
                        (self.on_event)(FetchEvent::Proving { done, total });
                    }
                }
            }
        };
        let (download, resumed) = match joined(opened) {
            Ok(opened) => opened,
            Err(DownloadError::Stopped(_)) => {
                return Err(FetchError::Interrupted { part: Some(part) });
            }
            Err(error) => return Err(error.into()),
        };
        let download = Arc::new(download);
        if let Some(trouble) = self.sources.trouble() {
            // Others knew more, or it would be the error.
            (self.on_event)(FetchEvent::TrackerTrouble(trouble.to_owned()));
        }
        (self.on_event)(FetchEvent::Started(started(&download, resumed)));
        self.start_serving(&download);
        self.download.send_replace(Some(Arc::clone(&download)));
        Ok(download)
    }

    /// Lets others fetch from this peer, and tells the trackers so.
    fn start_serving(&mut self, download: &Arc<Download>) {
        let Some(listener) = &self.config.listener else { return };
        let uploads = UploadHub::new(download.metainfo().chunk_space().chunk_count(), DEFAULT_SLOTS);
        let faults = Faults::new(|error| tracing::warn!("part of what is here cannot be served: {error}"));
        let serving = Serving { uploads: Arc::clone(&uploads), have_log: HaveLog::default(), faults };
        // Set once only: a swarm has one download.
        let _ = self.context.serving.set(serving);
        self.background.spawn(async move { uploads.run().await });
        self.tell_progress(download);
        let port = listener.local_addr().ok().and_then(|address| address.port().try_into().ok());
        let Some(port) = port else { return };
        for tracker in &self.config.trackers {
            let (tracker, download) = (tracker.clone(), Arc::clone(download));
            let (progress, stop) = (self.progress.subscribe(), self.stop_announcing.clone());
            self.announcers.spawn(async move {
                let log = |result| match result {
                    Ok(announced) => tracing::debug!(?announced),
                    Err(error) => tracing::debug!("not announced: {error}"),
                };
                announce(tracker, port, download.metainfo(), progress, stop, log).await;
            });
        }
    }
}
