//! Everything at once, for long: clients of all kinds, while an upstream is killed and started again, another is drained and taken back,
//! and the file is edited, rightly and wrongly, and its log is rotated.
//!
//! Twenty seconds by default; the long form is
//!
//! ```text
//! SOAK=10m cargo test --locked --test soak -- --nocapture
//! ```
//!
//! Every request has a number, which its target carries into the access log. At the end all books must agree to the last request: what the
//! clients sent and saw, what the log says, what the metrics page counts and what the upstreams that were never killed have seen. A kill
//! explains the end of a stream and of an upload at the killed upstream at that moment, and nothing else; drains and edits explain nothing.

#![allow(unreachable_pub)] // Modules of one program.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod clients;
mod early;
mod faults;
mod ledger;
mod measure;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::types::parse_duration;

use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::support::*;

/// The configuration, of which edits change the number, a weight, and whether `b` is a member.
fn text(number: u64, with_b: bool) -> String {
    let (weight, b) = (number % 3 + 1, if with_b { ", \"{b}\"" } else { "" });
    format!(
        r#"
        access_log = {{ target = "access.log", format = "json" }}
        [listener.web]
        bind = "127.0.0.1:0"
        [listener.secure]
        bind = "127.0.0.1:0"
        tls = {{ certificate = "soak.pem", key = "soak.key" }}
        [pool.app]
        upstreams = [{{ address = "{{a}}", weight = {weight} }}, "{{killed}}", "{{drained}}"{b}]
        health = {{ path = "/health", interval = "200ms", timeout = "5s", rise = 1, fall = 2 }}
        [[route]]
        name = "edition"
        path = "/edition"
        respond = {{ status = 200, body = "{number}" }}
        [[route]]
        name = "all"
        pool = "app"
        "#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_logged_and_counted_once_whatever_happens() {
    let length = std::env::var("SOAK").unwrap_or("20s".to_owned());
    let length = parse_duration(&length).expect("SOAK is how long, such as 10m");
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let drained = upstream().named("drained").start().await;
    // A socket that only holds the port, so that nobody is given it while the upstream is dead.
    let (place, _holds) = faults::held_port();
    let killed = upstream().named("killed").on(place).start().await;
    let proxy = proxy(&text(0, true)).with("a", &a).with("b", &b).with("killed", &killed).with("drained", &drained);
    let (authority, name) = (Authority::new(), "soak.test");
    let pair = authority.signs(name);
    let mut proxy = proxy.file("soak.pem", &pair.certificate).file("soak.key", &pair.key).spawn().await;
    proxy.settled().await;
    let (web, secure) = (proxy.address_of("web").await, proxy.address_of("secure").await);
    let mut meter = measure::Meter::of(proxy.pid());
    let before = meter.now();

    let ledger = Arc::new(Ledger::default());
    let mut clients =
        clients::start(clients::World { web, secure, authority: Arc::new(authority), name, ledger: ledger.clone() });
    let began = Instant::now();
    let ends = ledger.clone();
    let timer = async move {
        tokio::time::sleep_until((began + length).into()).await;
        ends.end();
    };
    let mut faults = Faults {
        proxy: &proxy,
        pid: meter.pid(),
        ledger: &ledger,
        b: &b,
        drained,
        killed,
        done: faults::Done::default(),
    };
    let watched = meter.watch(&ledger, length);
    // A client that panics ends the test at once; its fellows otherwise end only when the ledger says so.
    let broken = async {
        while let Some(ended) = clients.join_next().await {
            ended.expect("no client panics");
        }
    };
    let ((), (), (), ()) = tokio::join!(timer, faults.run(), watched, broken);
    let traffic = began.elapsed();

    let Faults { drained, killed, done, .. } = faults;
    let records = ledger.take();
    println!(
        "{} requests in {traffic:.1?}, {:.0} a second; {done}",
        records.len(),
        records.len() as f64 / traffic.as_secs_f64()
    );
    meter.tell();
    accounts::settle(&proxy, &records, &done, &accounts::Upstreams { a: &a, drained: &drained, killed: &killed }).await;
    meter.assert_flat();
    for mut upstream in [a, b, drained, killed] {
        upstream.kill().await;
    }
    // With nobody left on either side nothing of all that traffic may be open any more.
    let end = Instant::now() + PATIENCE;
    while meter.now().descriptors > before.descriptors {
        assert!(
            Instant::now() < end,
            "more is open than the {} of the beginning: {:#?} {:#?} {:#?}",
            before.descriptors,
            meter.open(),
            meter.connections(),
            proxy.admin().get("/metrics").await.text()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("open: {} at the beginning, {} at the end", before.descriptors, meter.now().descriptors);
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
    proxy.stop().await;
}
