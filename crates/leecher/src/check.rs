//! Comparing a copy of a share with the share, without changing it.

use std::{ops::ControlFlow, path::PathBuf};

use proto::ShareName;
use store::{Differences, DownloadError, Wanted};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    description::Description,
    error::FetchError,
    event::FetchEvent,
    fetch::{Config, describe},
    task_output,
};

/// A copy of a share that was read and compared with the share.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Checked {
    /// The share's name.
    pub name: ShareName,
    /// The copy.
    pub path: PathBuf,
    /// Bytes in the files that had to be there.
    pub wanted: u64,
    /// How the copy differs; nothing if it is right.
    pub differences: Differences,
}

/// Fetches the description of a share, and compares with it the copy that the configuration names: the files that [`fetch()`] would
/// save have to be there, and everything that is there has to be right. Nothing is changed. `on_event` receives what is waited for, and
/// how many bytes were read.
///
/// [`fetch()`]: crate::fetch()
pub async fn check(
    config: Config,
    mut on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Checked, FetchError> {
    let Description { metainfo, hashes } = describe(config.clone(), &mut on_event, stop.clone()).await?;
    let output = config.destination.output(metainfo.name(), config.replace);
    let wanted = Wanted::of(&metainfo, &config.only)?;
    let (name, path) = (metainfo.name().clone(), output.path().to_owned());
    let (len, total) = (wanted.total_len(metainfo.chunk_space()), metainfo.chunk_space().total_len());
    let (proving, mut proved) = watch::channel(0);
    let (stopped, copy) = (stop.clone(), path.clone());
    let mut checking = spawn_blocking(move || {
        let progress = |bytes: u64| {
            proving.send_modify(|done| *done += bytes);
            if stopped.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store::check(&metainfo, &hashes, &copy, &wanted, &progress)
    });
    let checked = loop {
        tokio::select! {
            // The last progress first: a small copy is read before anybody looks.
            biased;
            Ok(()) = proved.changed() => {
                let done = *proved.borrow_and_update();
                on_event(FetchEvent::Proving { done, total });
            }
            checked = &mut checking => break task_output(checked),
        }
    };
    match checked {
        Ok(differences) => Ok(Checked { name, path, wanted: len, differences }),
        Err(DownloadError::Stopped(_)) => Err(FetchError::Interrupted { part: None }),
        Err(error) => Err(error.into()),
    }
}
