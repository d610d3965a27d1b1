//! What the scaler keeps, asks and tells outside of this process: its folder, elections, signals from elsewhere, hooks, systemd.
//!
//! Redis and systemd are the real ones where they are installed; `TIDEGATE_TEST_ALL=1` makes their absence a failure.

#[path = "scaler_outside/election.rs"]
mod election;
#[path = "scaler_outside/hook.rs"]
mod hook;
#[path = "scaler_outside/http.rs"]
mod http;
#[path = "scaler_outside/notify.rs"]
mod notify;
#[path = "scaler_outside/signals.rs"]
mod signals;
#[path = "scaler_outside/store.rs"]
mod store;
#[path = "scaler_outside/systemd.rs"]
mod systemd;

/// Says that something is not tested because a part is missing; fails where everything has to be there.
fn skipped(what: &str, why: &str) {
    assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none_or(|all| all != "1"), "{what}: {why}");
    println!("SKIPPED: {what}: {why}");
}
