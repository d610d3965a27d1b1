//! What the scaler keeps, asks and tells outside of this process: its folder, elections, signals from elsewhere, hooks, systemd.
//!
//! Redis and systemd are the real ones where they are installed; `TIDEGATE_TEST_ALL=1` makes their absence a failure.

#[path = "scaler_outside/store.rs"]
mod store;

/// Says that something is not tested because a part is missing; fails where everything has to be there.
fn skipped(what: &str, why: &str) {
    assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none_or(|all| all != "1"), "{what}: {why}");
    println!("SKIPPED: {what}: {why}");
}
