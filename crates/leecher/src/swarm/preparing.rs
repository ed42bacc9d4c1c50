//! What comes before the transfer: learning what the share is, opening the output, and beginning to serve.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use peer::{announcer::announce, faults::Faults, have_log::HaveLog, upload_hub::UploadHub};
use proto::Metainfo;
use store::{Content, Download, DownloadError, Output};
use swarm::{
    describers::{Describers, Turn},
    uploads::DEFAULT_SLOTS,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{PROGRESS_INTERVAL, Swarm, transfer::started};
use crate::{
    description::{Description, Known},
    error::FetchError,
    event::{FetchEvent, LeaveReason},
    fetch::WAITING_INTERVAL,
    joined,
    session::{Serving, SessionEvent},
};

/// Peers that send the metainfo at a time: each may send 32 MiB before it is proved.
const METAINFO_PLACES: usize = 4;

/// Memory for chunk hashes that are not proved yet. Where those of a share are larger than half of this, two peers send them
/// at a time all the same, or one that trickles would hold up everybody.
const HASHES_MEMORY: u64 = 128 * 1024 * 1024;

impl<F: FnMut(FetchEvent)> Swarm<F> {
    /// Waits until a peer has described the share. Gives up when nothing of a description came for as long as the user
    /// allows.
    pub(crate) async fn describe(&mut self, stop: &CancellationToken) -> Result<Description, FetchError> {
        let mut describers = Describers::new(METAINFO_PLACES);
        let mut last_progress = self.clock.now();
        let patience = self.config.stall_timeout.max(self.config.wait);
        let mut waiting = interval(WAITING_INTERVAL);
        waiting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        waiting.reset();
        loop {
            let now = self.clock.now();
            self.peers.dial(now, &mut self.rng);
            if let Known::Metainfo(metainfo) = &*self.context.known.borrow() {
                describers.set_places(hashes_places(metainfo));
            }
            while let Some(turn) = describers.poll(self.peers.book.has_due(now), now) {
                match turn {
                    Turn::Begin(key) => self.peers.ask_description(key),
                    Turn::Cut(key) => self.peers.end(key, LeaveReason::TooSlow),
                }
            }
            if let Some(error) = self.sources.hopeless(&self.config, &self.peers) {
                return Err(error);
            }
            let give_up = last_progress + patience;
            if now >= give_up {
                return Err(self.sources.no_peer(&self.config, &self.peers));
            }
            let timeouts = [self.peers.book.next_timeout(now), describers.next_timeout(now)];
            let wake = timeouts.into_iter().flatten().fold(give_up, Instant::min);
            tokio::select! {
                Some((key, event)) = self.events.recv() => match event {
                    SessionEvent::Described(description) => {
                        self.context.known.send_replace(Known::All);
                        return Ok(description);
                    }
                    SessionEvent::BadShare(error) => return Err(FetchError::BadShare(error)),
                    SessionEvent::Ready { answers_in } if self.peers.is_welcome(key) => {
                        describers.ready(key, answers_in);
                    }
                    SessionEvent::Describing { received, total } => {
                        let more = describers.progress(key, received, total, now);
                        last_progress = if more { now } else { last_progress };
                    }
                    // Nothing else comes before there is a download.
                    _ => {}
                },
                Some((id, discovery)) = self.discoveries.recv() => {
                    self.sources.heard(id, discovery, &mut self.peers, now);
                }
                Some(ended) = self.peers.next_ended() => {
                    if let Some(key) = self.session_ended(ended) {
                        describers.left(key);
                    }
                }
                _ = waiting.tick() => {
                    let what = self.sources.waited_for(&self.config, &self.peers);
                    (self.on_event)(FetchEvent::Waiting(what));
                }
                () = sleep_until(self.clock.on_system(wake).into()) => {}
                () = stop.cancelled() => return Err(FetchError::Interrupted { part: None }),
            }
        }
    }

    /// Prepares the output for the share, proving what an earlier run left.
    pub(crate) async fn open(
        &mut self,
        description: Description,
        output: Output,
        stop: &CancellationToken,
    ) -> Result<Arc<Download>, FetchError> {
        let Description { metainfo, hashes } = description;
        let total = metainfo.chunk_space().total_len();
        let (proved, mut proving) = watch::channel(0_u64);
        let stopping = stop.clone();
        let part = output.part_path();
        let mut opening = tokio::task::spawn_blocking(move || {
            let progress = |bytes| {
                proved.send_modify(|done| *done += bytes);
                if stopping.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            Download::open(metainfo, hashes, output, &progress)
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
        let Some(port) = self.door.port() else { return };
        let uploads = UploadHub::new(download.metainfo().chunk_space().chunk_count(), DEFAULT_SLOTS);
        let (told, fault) = watch::channel(None);
        let faults = Faults::new(move |error| _ = told.send_replace(Some(error.to_string())));
        self.fault = Some(fault);
        let serving = Serving { uploads: Arc::clone(&uploads), have_log: HaveLog::default(), faults };
        // Set once only: a swarm has one download.
        let _ = self.context.serving.set(serving);
        self.background.spawn(async move { uploads.run().await });
        self.tell_progress(download);
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

/// Peers that send the chunk hashes at a time.
fn hashes_places(metainfo: &Metainfo) -> usize {
    let len = 32 * u64::from(metainfo.chunk_space().chunk_count().max(1));
    usize::try_from(HASHES_MEMORY / len).unwrap_or(usize::MAX).clamp(2, METAINFO_PLACES)
}
