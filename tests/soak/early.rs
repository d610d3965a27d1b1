//! What long runs have found, in small.

use crate::support::*;

const TEXT: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = ["{a}"]
    eject = { failures = 0 }
    [[route]]
    path = "/app"
    pool = "app"
"#;

/// A client that was not told would send its next request into a connection that is about to be closed.
#[tokio::test]
async fn a_refusal_ahead_of_the_rest_of_a_body_says_that_the_connection_ends() {
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let cuts = scripted().reads_until("\r\n\r\n").cuts().start().await;
        let proxy = proxy(TEXT).with("a", &cuts).start().await;
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send(format!("POST /app HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n")).await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.header("connection")), (502, Some("close")), "{framing}");
        raw.closed().await;
    }
}

#[tokio::test]
async fn a_refusal_behind_a_whole_body_keeps_the_connection() {
    let cuts = scripted().reads_request().cuts().next_connection().reads_request().cuts().start().await;
    let proxy = proxy(TEXT).with("a", &cuts).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    for _ in 0..2 {
        raw.send("POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.header("connection")), (502, None));
    }
}

/// Nobody has taken the body, but all of it is there.
#[tokio::test]
async fn a_refusal_of_a_whole_body_that_nobody_took_keeps_the_connection() {
    let proxy = proxy(TEXT).with("a", &free_address()).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    for _ in 0..3 {
        raw.send("POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.header("connection")), (502, None));
    }
}

#[tokio::test]
async fn so_does_one_that_no_upstream_was_asked_for() {
    let proxy = proxy(TEXT).with("a", "127.0.0.1:1").start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    raw.closed().await;
}
