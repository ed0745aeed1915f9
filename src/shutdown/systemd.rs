//! The service manager's protocol: ready, stopping, still alive.
//!
//! Invariant: without a service manager (`NOTIFY_SOCKET` unset) nothing happens, and a service
//! manager that cannot be reached stops nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells that everything runs.
pub fn ready() {
    tell(&NotifyState::Ready);
}

/// Tells that the end has begun.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

/// Tells that the agent is alive.
pub fn alive() {
    tell(&NotifyState::Watchdog);
}

/// Returns how often [`alive`] is to be told: half of what `WATCHDOG_USEC` allows, as
/// `sd_watchdog_enabled(3)` recommends; `None` where nobody asks.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2).filter(|half| !half.is_zero())
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "the service manager did not take a notification");
    }
}
