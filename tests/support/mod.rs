//! What the tests are written with: upstreams, clients and a proxy, as sentences.
//!
//! ```text
//! let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
//! let proxy = proxy(r#"
//!     [listener.web]
//!     bind = "127.0.0.1:0"
//!     [pool.app]
//!     upstreams = ["{a}", "{b}"]
//!     [[route]]
//!     pool = "app"
//! "#).with("a", &a).with("b", &b).start().await;
//! let answer = client(proxy.address("web")).get("/").await;
//! assert_eq!(answer.status, 200);
//! ```
//!
//! Conditions are awaited ([`eventually`], [`until`]), never slept for.
#![allow(dead_code, unreachable_pub, unused_imports)] // Every test file takes what it needs of this.

mod client;
pub mod frames;
mod gate;
mod proxy;
mod script;
mod tls;
mod upstream;
mod wire;

use std::time::{Duration, Instant};

pub use client::{Answer, Call, Client, Opened, client};
pub use gate::{Gate, free_address, gate, gate_on};
pub use proxy::{Addressed, Finished, Proxy, ProxyBuilder, proxy, tidegate};
pub use script::{Script, Scripted, scripted};
pub use tls::{Authority, Shown, Signed, handshake};
pub use upstream::{Upstream, UpstreamBuilder, upstream};
pub use wire::{End, Message, RawClient, raw_client, raw_client_from};

/// Longer than anything here takes on a busy machine; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(10);

/// Returns once `holds` is true; panics with `what` if it does not become so.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, async || holds().then_some(())).await;
}

/// Returns the first thing that `look` finds; panics with `what` if it finds none.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// The output of `future`; panics with `what` if it takes longer than anything should.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Resident memory of a process, KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether there is a Python; where everything is to be tested, there has to be.
pub fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok_and(|done| done.status.success());
    if !found {
        let all = std::env::var_os("TIDEGATE_TEST_ALL").is_some_and(|all| all == "1");
        assert!(!all, "there is no python3 here: install it, or unset TIDEGATE_TEST_ALL");
        eprintln!("SKIPPED: there is no python3 here, which scripted MCP servers are run with");
    }
    found
}
