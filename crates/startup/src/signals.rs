//! Ctrl-C and SIGTERM.

use std::{io, process};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::ExitCode;

/// Cancels `token` at the first Ctrl-C or SIGTERM and ends the process at the second. The task that waits
/// lives as long as the runtime does.
pub(crate) fn cancel_on_signal(token: CancellationToken) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                tracing::info!("stopping; once more to stop at once");
                token.cancel();
            }
        }
        process::exit(ExitCode::Interrupted as i32);
    });
    Ok(())
}
