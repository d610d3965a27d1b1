//! The fuzzer's targets without a fuzzer: every seed as it is, and seeded changes of them.
//!
//! `SEED=…` does it again; `FUZZ_CASES=1000000 cargo test --test fuzz_seeds path` takes its time.

#[path = "fuzz/targets.rs"]
mod targets;

#[path = "fuzz/changes.rs"]
mod changes;

/// Runs a target on its seeds and on so many changes of them.
fn survives(name: &str, cases: u32) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    changes::survives(name, *target, cases);
}

#[test]
fn configurations() {
    survives("config", 300);
}

#[test]
fn paths() {
    survives("path", 20_000);
}

#[test]
fn hosts() {
    survives("host", 20_000);
}

#[test]
fn forwarding_headers() {
    survives("forwarded", 3_000);
}

#[test]
fn messages() {
    survives("peek", 10_000);
}

#[test]
fn event_streams() {
    survives("events", 10_000);
}

#[test]
fn limits() {
    survives("limiter", 2_000);
}
