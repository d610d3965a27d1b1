//! What the service manager is told (sd_notify(3)). Where there is none, or it does not listen, nothing happens.

use sd_notify::NotifyState;

/// The configuration is being read again; [`ready`] follows, whatever the verdict.
pub(super) fn reloading() {
    // Without the time systemd does not believe a `Type=notify-reload` service.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Connections are accepted, with the configuration that is in force.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// What runs is being finished.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody to tell is no error.
    let _ = sd_notify::notify(states);
}
