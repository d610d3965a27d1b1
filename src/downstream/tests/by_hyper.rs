//! The same with the fast lane switched off: what is handed on to hyper is served as it always was.

#[allow(unused_imports, reason = "the tests below take all of it")]
use super::*;

/// [`super::settings`] without the fast lane.
fn settings() -> Listener {
    Listener { fast_lane: false, ..super::settings() }
}

#[path = "agreement.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
mod agreement;
#[path = "drain.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
mod drain;
#[path = "http1.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
mod http1;
#[path = "tls.rs"]
#[expect(clippy::duplicate_mod, reason = "that is the point")]
mod tls;
