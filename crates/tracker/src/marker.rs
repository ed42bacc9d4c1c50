//! A file that exists while a tracker has peers.
//!
//! A tracker keeps no registration over a restart. So after one, the first who comes back may be a stranger, and his share the only
//! one of a name. The file tells a tracker that starts whether others may come back: it was written at the first registration, and
//! is removed when nobody is registered any more. Leechers that ask by name then wait until everybody had time to come back
//! ([`Past`]). A tracker without such a file never makes its first users wait.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{registry::Past, worker::Shared};

/// The file is removed when nobody has been registered for this long. So somebody who comes and goes does not make the tracker
/// write all the time.
const CLEAR_AFTER: Duration = Duration::from_secs(10);

/// What the file says to people.
const TEXT: &str =
    "This Shoal tracker has peers. If it finds this file when it starts, they may come back.\n";

/// The file of a tracker.
pub(crate) struct Marker {
    path: PathBuf,
    exists: bool,
    /// From this time on, nobody will come back who was here before the start.
    settled_at: Instant,
}

impl Marker {
    /// The file at `path` for a tracker that has settled at `settled_at`, and what it says about the past.
    pub(crate) fn open(path: PathBuf, settled_at: Instant) -> (Marker, Past) {
        let exists = path.exists();
        let (past, settled_at) =
            if exists { (Past::Peers, settled_at) } else { (Past::NoPeers, Instant::now()) };
        (Marker { path, exists, settled_at }, past)
    }

    /// Keeps the file in step with the tracker until `stop`.
    pub(crate) async fn keep(mut self, shared: &Shared, stop: &CancellationToken) -> Marker {
        loop {
            let changed = shared.occupancy_changed();
            match (shared.is_occupied(), self.exists) {
                (true, false) => self = self.set(true).await,
                (false, true) => {
                    let clear_at = self.settled_at.max(Instant::now() + CLEAR_AFTER);
                    tokio::select! {
                        () = stop.cancelled() => return self,
                        () = changed => {}
                        () = sleep_until(clear_at.into()) => self = self.set(false).await,
                    }
                }
                (true, true) | (false, false) => tokio::select! {
                    () = stop.cancelled() => return self,
                    () = changed => {}
                },
            }
        }
    }

    /// Leaves the file as the tracker ends: with peers or without.
    pub(crate) async fn close(self, is_occupied: bool) {
        // Who has not come back yet may still come back to the next run.
        let may_come_back = self.exists && Instant::now() < self.settled_at;
        if self.exists != (is_occupied || may_come_back) {
            self.set(is_occupied).await;
        }
    }

    /// Writes the file, or removes it. A failure is reported, and not repeated until the next change.
    async fn set(self, exists: bool) -> Marker {
        let path = self.path.clone();
        let change = move || if exists { write(&path) } else { remove(&path) };
        let result = spawn_blocking(change).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = result {
            tracing::warn!(
                "cannot remember in {} whether this tracker has peers: {error}. After a restart, leechers that ask by name \
                 will not wait for those who have not come back",
                self.path.display()
            );
        }
        Marker { exists, ..self }
    }
}

/// Writes the file so that a power cut does not lose it.
fn write(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = File::create(path)?;
    file.write_all(TEXT.as_bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use tokio::time::sleep;

    use super::*;
    use crate::{handler::Handler, registry::Rules};

    /// Seconds until a tracker without peers that found its file removes it.
    async fn cleared_after_s(settles_in_s: u64) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marker");
        write(&path).unwrap();
        let now = Instant::now();
        let (marker, past) = Marker::open(path.clone(), now + Duration::from_secs(settles_in_s));
        assert_eq!(past, Past::Peers);
        let handler = Handler::new(Rules::default(), now, &mut StdRng::seed_from_u64(1));
        let (shared, stop) = (Shared::new(handler, None), CancellationToken::new());
        let (keeping, began) = (marker.keep(&shared, &stop), tokio::time::Instant::now());
        tokio::pin!(keeping);
        while path.exists() {
            tokio::select! {
                _ = &mut keeping => panic!("it keeps the file until it is stopped"),
                () = sleep(Duration::from_secs(1)) => {}
            }
            assert!(began.elapsed() < Duration::from_secs(300), "the file is never removed");
        }
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_goes_when_no_peer_has_been_there_for_a_while() {
        let cleared = cleared_after_s(0).await;
        assert!((9..=12).contains(&cleared), "{cleared} s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_stays_until_peers_had_time_to_come_back() {
        let cleared = cleared_after_s(45).await;
        assert!((43..=47).contains(&cleared), "{cleared} s");
    }
}
