//! Serving received chunks to others, and announcing them to trackers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use peer::{
    announcer::{Own, announce},
    faults::Faults,
    have_log::HaveLog,
    tracker_client::{TrackerClient, TrackerError},
    upload_hub::UploadHub,
};
use proto::tracker::{Announced, Completion};
use store::{Content, Download, OpenChunkError};
use swarm::uploads::DEFAULT_SLOTS;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::context::Serving;

/// Maximum time to end the registrations with the trackers.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// The tasks that serve.
pub(super) struct Service {
    hub: JoinSet<()>,
    announcers: TaskTracker,
    stop_announcing: CancellationToken,
    progress: watch::Sender<Completion>,
    /// Hosts that have fetched the share, as the tracker counts them that knows most.
    completions: Arc<AtomicU32>,
    /// Why a received file cannot be served to others. Set when serving starts.
    fault: Option<watch::Receiver<Option<Arc<OpenChunkError>>>>,
}

impl Service {
    pub(super) fn new() -> Service {
        Service {
            hub: JoinSet::new(),
            announcers: TaskTracker::new(),
            stop_announcing: CancellationToken::new(),
            progress: watch::channel(Completion::of(0, 1)).0,
            completions: Arc::default(),
            fault: None,
        }
    }

    /// Starts to serve, and announces this peer to the trackers.
    pub(super) fn start(
        &mut self,
        download: &Arc<Download>,
        own: Own,
        trackers: &[TrackerClient],
    ) -> Serving {
        let space = download.metainfo().chunk_space();
        let uploads = UploadHub::new(space.chunk_count(), space.chunk_len(), DEFAULT_SLOTS);
        let (report, fault) = watch::channel(None);
        let faults = Faults::new(move |error| _ = report.send_replace(Some(Arc::new(error))));
        self.fault = Some(fault);
        let serving = Serving { uploads: Arc::clone(&uploads), have_log: HaveLog::default(), faults };
        self.hub.spawn(async move { uploads.run().await });
        let have = download.have();
        self.announce(Completion::of(have.count(), have.len()));
        for tracker in trackers {
            let (tracker, download) = (tracker.clone(), Arc::clone(download));
            let (progress, stop) = (self.progress.subscribe(), self.stop_announcing.clone());
            let completions = Arc::clone(&self.completions);
            self.announcers.spawn(async move {
                let on_result = |result: Result<Announced, TrackerError>| match result {
                    Ok(announced) => {
                        tracing::debug!(?announced);
                        completions.fetch_max(announced.completed, Ordering::Relaxed);
                    }
                    Err(error) => tracing::debug!("not announced: {error}"),
                };
                announce(tracker, own, download.metainfo(), progress, stop, on_result).await;
            });
        }
        serving
    }

    /// Announces to the trackers how much this peer has.
    pub(super) fn announce(&self, progress: Completion) {
        self.progress.send_replace(progress);
    }

    /// Hosts that have fetched the share, as far as a tracker knows.
    pub(super) fn completions(&self) -> u32 {
        self.completions.load(Ordering::Relaxed)
    }

    /// Why a received file cannot be served, if that was not reported before.
    pub(super) fn new_fault(&mut self) -> Option<Arc<OpenChunkError>> {
        let fault = self.fault.as_mut().filter(|fault| fault.has_changed().unwrap_or(false))?;
        fault.borrow_and_update().clone()
    }

    /// Waits until the registrations are ended, and ends serving.
    pub(super) async fn stop(&mut self) {
        self.announcers.close();
        if timeout(DEREGISTER_TIMEOUT, self.announcers.wait()).await.is_err() {
            tracing::debug!("a tracker did not confirm the end of the registration");
        }
        self.hub.shutdown().await;
    }

    /// Starts to end the registrations with the trackers.
    pub(super) fn stop_announcing(&self) {
        self.stop_announcing.cancel();
    }
}
