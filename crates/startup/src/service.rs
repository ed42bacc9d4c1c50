//! Reports to a service manager (systemd, with `Type=notify`) when a program serves, and when it stops. Without a manager, nothing
//! happens. A message that cannot be sent is no failure of the program; the manager has a time limit of its own.

use std::fmt::Display;

use sd_notify::NotifyState;

use crate::escape::escape;

/// Reports that the program serves now, and what it serves: `systemctl status` shows that.
pub fn report_ready(status: impl Display) {
    let status = status.to_string();
    // A line break would begin another message.
    notify(&[NotifyState::Ready, NotifyState::Status(&escape(&status))]);
}

/// Reports that the program was asked to stop.
pub(crate) fn report_stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager was not notified: {error}");
    }
}
