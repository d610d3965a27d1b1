//! The end of an upstream's drain, as those see it who still talk to it.

use crate::support::*;

const APP: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = ["{a}"]
    protocol = "PROTOCOL"
    timeout = { first_byte = "BOUND", idle = "BOUND" }
    [[route]]
    pool = "app"
"#;

#[tokio::test]
async fn whatever_still_runs_at_an_upstream_is_cut_at_its_drains_deadline_however_silent() {
    for (protocol, bound) in [("http/1.1", "1h"), ("http/1.1", "off"), ("h2", "1h"), ("h2", "off")] {
        let a = upstream().named("a").start().await;
        let text = APP.replace("PROTOCOL", protocol).replace("BOUND", bound);
        let proxy = proxy(&text).with("a", &a).start().await;
        let web = proxy.address("web");
        let mut events = client(web).get("/sse?interval=1h").open().await;
        events.text().await;
        let mut new = client(web).http2().get("/sse?interval=1h").open().await;
        new.text().await;
        let mut hanging = raw_client(web).await;
        hanging.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut tunnel = None;
        if protocol == "http/1.1" {
            let mut raw = raw_client(web).await;
            raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
            assert_eq!(raw.response().await.status, 101);
            tunnel = Some(raw);
        }
        eventually("all of them run", || a.stats().in_flight() == 3 + u64::from(tunnel.is_some())).await;
        proxy.operate("app", &a.address(), "drain?deadline=300ms").await;
        assert!(events.next().await.is_none_or(|piece| piece.is_err()), "{protocol} {bound}");
        assert!(new.next().await.is_none_or(|piece| piece.is_err()), "{protocol} {bound}");
        if let Some(mut tunnel) = tunnel {
            tunnel.closed().await;
        }
        let answer = hanging.response().await;
        assert_eq!(answer.status, 503, "{protocol} {bound}");
        assert_eq!(answer.header("proxy-status"), Some("tidegate; error=connection_terminated"));
        proxy.until_state("app", &a.address(), "drained").await;
        eventually("the upstream is left alone", || a.stats().in_flight() == 0).await;
        until("why is counted", async || {
            let cut = proxy.metric("tidegate_refusals_total{reason=\"drain_deadline\"}").await?;
            (cut >= 3.0).then_some(())
        })
        .await;
    }
}
