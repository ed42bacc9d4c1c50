//! Hashing a path before it is shared.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_stream::{Stream, wrappers::WatchStream};
use tokio_util::sync::DropGuard;

use crate::{
    resources::Resources,
    share::{self, Hashed, Share, ShareError, ShareHandle},
    task_output,
};

/// A path that is being hashed. Await this to get the [`ShareHandle`]; drop it to stop hashing.
///
/// ```no_run
/// # async fn example(node: shoal::Node) -> Result<(), shoal::ShareError> {
/// use shoal::StreamExt;
///
/// let mut hashing = node.share("disk.img");
/// while let Some(hashed) = hashing.progress().next().await {
///     println!("{} of {} bytes", hashed.done, hashed.total);
/// }
/// let share = hashing.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "hashing ends when this is dropped"]
pub struct Hashing {
    progress: WatchStream<Hashed>,
    task: JoinHandle<Result<ShareHandle, ShareError>>,
    /// `None` once there is a [`ShareHandle`], which then stops the share.
    stop: Option<DropGuard>,
}

impl Hashing {
    pub(crate) fn start(node: &Arc<Resources>, share: Share) -> Hashing {
        let (report, progress) = watch::channel(Hashed::default());
        let stop = node.stop.child_token();
        let starting = share::start(Arc::clone(node), share, report, stop.clone());
        Hashing {
            progress: WatchStream::from_changes(progress),
            task: node.tasks.spawn(starting),
            stop: Some(stop.drop_guard()),
        }
    }

    /// How much is hashed. Gives the latest value each time it has changed, and ends when hashing ends.
    pub fn progress(&mut self) -> impl Stream<Item = Hashed> + Unpin + '_ {
        &mut self.progress
    }
}

impl Future for Hashing {
    type Output = Result<ShareHandle, ShareError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = task_output(ready!(Pin::new(&mut self.task).poll(cx)));
        if let Some(stop) = self.stop.take() {
            stop.disarm();
        }
        Poll::Ready(result)
    }
}
