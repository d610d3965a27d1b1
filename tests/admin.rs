//! The admin API on real sockets, and what it does to real traffic.

mod support;

use std::time::Duration;

use support::*;

const APP: &str = r#"
    admin = { bind = "127.0.0.1:0" }
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = ["{a}", "{b}"]
    [[route]]
    pool = "app"
"#;

async fn running() -> (Upstream, Upstream, Proxy) {
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let proxy = proxy(APP).with("a", &a).with("b", &b).start().await;
    (a, b, proxy)
}

/// Streams open on both upstreams; that of `a` first.
async fn streams(proxy: &Proxy) -> (Opened, Opened) {
    let mut first = proxy.client().get("/sse?interval=10ms").open().await;
    let mut second = proxy.client().get("/sse?interval=10ms").open().await;
    let from_a = first.text().await.contains("a says");
    assert_eq!(second.text().await.contains("b says"), from_a);
    if from_a { (first, second) } else { (second, first) }
}

#[tokio::test]
async fn a_draining_upstream_finishes_what_it_has_and_takes_nothing_new() {
    let (a, b, proxy) = running().await;
    let (mut on_a, _on_b) = streams(&proxy).await;
    let after = proxy.operate("app", &a.address(), "drain").await;
    assert_eq!(after.state.word(), "draining");
    assert_eq!(after.in_flight, 1);
    let before = b.requests();
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.upstream(), "b");
    }
    assert_eq!(b.requests(), before + 10);
    assert!(on_a.text().await.contains("a says"), "its stream goes on");
    drop(on_a);
    proxy.until_state("app", &a.address(), "drained").await;
    proxy.operate("app", &a.address(), "undrain").await;
    until("a answers again", async || (proxy.client().get("/").await.upstream() == "a").then_some(())).await;
}

#[tokio::test]
async fn what_still_runs_at_the_deadline_is_cut_and_seen_to_be_broken() {
    let (a, _b, proxy) = running().await;
    let (mut on_a, mut on_b) = streams(&proxy).await;
    // The answer comes only when the upstream is empty.
    let after = proxy.operate("app", &a.address(), "drain?deadline=200ms&wait").await;
    assert_eq!(after.state.word(), "drained");
    let cut = loop {
        match on_a.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(cut, Some(Err(_))), "a cut stream must not look complete");
    assert!(on_b.text().await.contains("b says"), "others go on");
    eventually("the upstream sees it too", || a.stats().cancelled() == 1).await;
}

#[tokio::test]
async fn maintenance_takes_out_of_use_until_told_otherwise() {
    let (a, b, proxy) = running().await;
    proxy.operate("app", &a.address(), "maintenance").await;
    proxy.operate("app", &b.address(), "maintenance").await;
    let refused = proxy.client().get("/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("proxy-status").is_some_and(|status| status.contains("destination_unavailable")));
    // A reload does not bring it back: an operator said so.
    assert!(proxy.reload().await.accepted);
    assert_eq!(proxy.client().get("/").await.status, 503);
    proxy.operate("app", &b.address(), "ready").await;
    assert_eq!(proxy.client().get("/").await.upstream(), "b");
}

#[tokio::test]
async fn a_weight_counts_from_the_next_request() {
    let (a, b, proxy) = running().await;
    proxy.operate("app", &a.address(), "weight?value=3").await;
    let client = proxy.client();
    for _ in 0..40 {
        client.get("/").await;
    }
    assert_eq!((a.requests(), b.requests()), (30, 10));
    let after = proxy.operate("app", &a.address(), "weight").await;
    assert_eq!(after.configured_weight, 1);
}

#[tokio::test]
async fn a_reload_is_in_force_when_it_is_answered_or_refused_with_the_reason() {
    let (_a, _b, proxy) = running().await;
    let client = proxy.client();
    assert_eq!(client.get("/").await.status, 200);
    let before = proxy.status().await;
    let verdict = proxy.edit(&APP.replace("pool = \"app\"", "respond = 204")).await;
    assert!(verdict.accepted, "{}", verdict.problems);
    assert_eq!(client.get("/").await.status, 204);

    proxy.save(&APP.replace("pool = \"app\"", "pool = \"ap\""));
    let answer = proxy.admin().post("/reload", "").await;
    assert_eq!(answer.status, 422);
    let verdict: tidegate::admin::model::Verdict = answer.parsed();
    assert!(!verdict.accepted && verdict.problems.contains("`app`"), "{}", verdict.problems);
    assert_eq!(client.get("/").await.status, 204, "nothing has changed");
    let after = proxy.status().await;
    assert_eq!(after.reloads_accepted, before.reloads_accepted + 1);
    // The file watch may have seen the bad file as well.
    assert!(after.reloads_refused > before.reloads_refused);
    assert!(after.generation > before.generation);
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let text = r#"
        admin = { bind = "127.0.0.1:0", token = "a-secret-of-some-length" }
        [listener.web]
        bind = "127.0.0.1:0"
        [[route]]
        respond = 204
        response_headers = { set = { x-api-key = "another-secret" } }
    "#;
    let proxy = proxy(text).start().await;
    let asked = |target: &str| proxy.admin().get(target);
    assert_eq!(asked("/config").await.status, 401);
    assert_eq!(asked("/config").header("authorization", "Bearer wrong").await.status, 401);
    let answer = asked("/config").header("authorization", "Bearer a-secret-of-some-length").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("[listener.web]") && !answer.text().contains("secret-of"), "{}", answer.text());
    assert!(!answer.text().contains("another-secret"), "{}", answer.text());
    assert_eq!(asked("/healthz").await.status, 200);
}

#[tokio::test]
async fn web_pages_of_others_cannot_use_it() {
    let (a, _b, proxy) = running().await;
    let rebound = proxy.admin().get("/status").header("host", "rebound.example").await;
    assert_eq!(rebound.status, 403);
    let address = a.address();
    let posted = proxy.admin().post(&format!("/pools/app/upstreams/{address}/maintenance"), "");
    assert_eq!(posted.header("origin", "http://evil.example").await.status, 403);
    assert_eq!(proxy.upstream("app", &address).await.unwrap().state.word(), "ready");
}

#[tokio::test]
async fn metrics_and_readiness_are_served() {
    let (_a, _b, proxy) = running().await;
    proxy.client().get("/").await;
    let page = proxy.admin().get("/metrics").await;
    assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(page.text().contains("tidegate_build_info"), "{}", page.text());
    assert_eq!(proxy.admin().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn an_edit_of_the_file_is_enough_and_a_removed_upstream_drains() {
    let (a, _b, proxy) = running().await;
    let (mut on_a, _on_b) = streams(&proxy).await;
    proxy.save(&APP.replace("\"{a}\", ", ""));
    until("only b is asked", async || {
        let answers = [proxy.client().get("/").await.upstream(), proxy.client().get("/").await.upstream()];
        (answers == ["b", "b"]).then_some(())
    })
    .await;
    let leaving = proxy.upstream("app", &a.address()).await.expect("it is still there");
    assert!(leaving.removed && leaving.state.word() == "draining", "{leaving:?}");
    assert!(on_a.text().await.contains("a says"));
    drop(on_a);
    until("it is gone", async || proxy.upstream("app", &a.address()).await.is_none().then_some(())).await;
}

#[tokio::test]
async fn stopping_waits_for_what_runs() {
    let (_a, _b, proxy) = running().await;
    let slow = tokio::spawn(proxy.client().get("/slow/300ms").into_future());
    until("it runs", async || (proxy.status().await.in_flight == 1).then_some(())).await;
    proxy.stop().await;
    assert_eq!(slow.await.unwrap().status, 200);
}

#[tokio::test]
async fn an_address_for_everybody_needs_a_token() {
    let text = "admin = { bind = \"0.0.0.0:0\" }\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
    let Err(error) = proxy(text).try_start().await else { panic!("it started") };
    let told = match error {
        tidegate::control::StartError::Config(problems) => tidegate::config::render(&problems, false),
        other => other.to_string(),
    };
    assert!(told.contains("token"), "{told}");
}

#[tokio::test]
async fn a_drain_that_nobody_waits_for_any_more_goes_on() {
    let (a, _b, proxy) = running().await;
    let (on_a, _on_b) = streams(&proxy).await;
    let address = a.address();
    let waiting = proxy.admin().post(&format!("/pools/app/upstreams/{address}/drain?wait"), "").into_future();
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting).await.is_err(), "it waits");
    assert_eq!(proxy.upstream("app", &address).await.unwrap().state.word(), "draining");
    drop(on_a);
    proxy.until_state("app", &address, "drained").await;
}
