//! Reports to a service manager (systemd, with `Type=notify`) when a program serves, and when it stops. Without a manager, nothing
//! happens. A message that cannot be sent is no failure of the program; the manager has a time limit of its own.

use std::{env, fmt::Display};

use sd_notify::NotifyState;

use crate::escape::escape;

/// Reports that the program serves now, and what it serves: `systemctl status` shows that.
pub fn report_ready(status: impl Display) {
    let status = status.to_string();
    // A line break would begin another message.
    notify(&[NotifyState::Ready, NotifyState::Status(&escape(&status))]);
}

/// Whether a service manager waits for these reports.
pub fn is_service() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Reports that the program reads its files again. [`report_reloaded`] has to follow.
pub fn report_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("the service manager was not notified: {error}"),
    }
}

/// Reports that the program has read its files again.
pub fn report_reloaded() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the program was asked to stop.
pub fn report_stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager was not notified: {error}");
    }
}
