//! Signals that stop a program, and some that do not.

use std::{
    fs, io,
    process::{self, Command, Stdio},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{console, exit::ExitCode, service};

/// What SIGHUP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHangup {
    /// It stops the program.
    Stop,
    /// The program reads its files again: see [`Hangups`].
    Reload,
}

/// The SIGHUPs that a program receives. Several that come together may count as one.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Those from now on.
    pub fn new() -> io::Result<Hangups> {
        Ok(Hangups(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Cancels `token` at the first Ctrl-C, SIGTERM or SIGHUP, and ends the process at the second Ctrl-C or SIGTERM. SIGHUP
/// counts only once, because a closing terminal may send it twice. A program that was started with SIGHUP ignored (`nohup`)
/// continues to ignore it, and [`OnHangup::Reload`] leaves it to the program. SIGUSR1 and SIGUSR2 do nothing.
///
/// The task that waits lives as long as the runtime does.
pub(crate) fn cancel_on_signal(token: CancellationToken, on_hangup: OnHangup) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = match on_hangup {
        OnHangup::Stop if hangup_is_ignored() => None,
        OnHangup::Stop => Some(signal(SignalKind::hangup())?),
        OnHangup::Reload => {
            // From now on it kills nothing.
            drop(signal(SignalKind::hangup())?);
            None
        }
    };
    for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // Tokio's handlers stay when nothing waits for them any more. Without a handler the signal would kill the program.
        drop(signal(ignored)?);
    }
    tokio::spawn(async move {
        let mut asked = 0;
        while asked < 2 {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => asked += 1,
                _ = terminate.recv() => asked += 1,
                _ = hung_up => {}
            }
            if !token.is_cancelled() {
                tracing::info!("stopping; once more to stop at once");
                service::report_stopping();
                token.cancel();
            }
        }
        console::hide();
        process::exit(ExitCode::Interrupted as i32);
    });
    Ok(())
}

/// Whether this process was started with SIGHUP ignored.
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status");
    status.ok().as_deref().and_then(ignored_by_status).unwrap_or_else(ignored_by_child)
}

/// The answer of Linux: a mask in which bit 0 is SIGHUP, signal 1.
fn ignored_by_status(status: &str) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok().map(|mask| mask & 1 == 1)
}

/// On other systems only unsafe code can ask. But children inherit it: a child that survives a SIGHUP ignores it.
fn ignored_by_child() -> bool {
    let mut child = Command::new("sh");
    child.args(["-c", "kill -HUP $$"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    child.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_whether_it_ignores_sighup() {
        assert_eq!(ignored_by_status("Name:\tx\nSigIgn:\t0000000000001001\n"), Some(true));
        assert_eq!(ignored_by_status("SigIgn:\t0000000000001000\n"), Some(false));
        assert_eq!(ignored_by_status("Name:\tx\n"), None);
        if let Some(known) =
            fs::read_to_string("/proc/self/status").ok().as_deref().and_then(ignored_by_status)
        {
            assert_eq!(ignored_by_child(), known);
        }
    }
}
