//! The test backend does what the tests and the demo rely on.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn it_tells_what_came() {
    let a = upstream().named("a").start().await;
    let answer = client(a.socket_address()).get("/x/y?q=1").header("X-One", "1").await;
    assert_eq!(answer.upstream(), "a");
    assert_eq!(answer.json()["path"], "/x/y");
    assert_eq!(answer.json()["query"], "q=1");
    assert_eq!(answer.upstream_saw("x-one"), ["1"]);
}

#[tokio::test]
async fn it_speaks_both_versions_and_keeps_connections() {
    let a = upstream().start().await;
    for client in [client(a.socket_address()), client(a.socket_address()).http2()] {
        let before = a.stats().connections();
        for _ in 0..3 {
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!(a.stats().connections(), before + 1);
    }
}

#[tokio::test]
async fn bodies_and_trailers_come_back_in_both_versions() {
    let a = upstream().start().await;
    for client in [client(a.socket_address()), client(a.socket_address()).http2()] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let frames =
            [Ok(Frame::data(Bytes::from("one"))), Ok(Frame::data(Bytes::from("two"))), Ok(Frame::trailers(trailers))];
        let call = client.post("/echo", "").header("Trailer", "x-sum").header("TE", "trailers");
        let answer = call.streaming(stream::iter(frames)).await;
        assert_eq!(answer.text(), "onetwo");
        assert_eq!(answer.trailers["x-sum"], "7");
        assert_eq!(client.get("/bytes/100KiB").await.body.len(), 102_400);
        let answer = client.post("/upload", "abc").await;
        assert_eq!(answer.json()["bytes"], 3);
    }
    assert_eq!(a.stats().cancelled(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_counted() {
    let a = upstream().start().await;
    let mut events = client(a.socket_address()).get("/sse?interval=10ms").open().await;
    assert!(events.text().await.starts_with("id: 0\nevent: tick\n"));
    assert_eq!(a.stats().in_flight(), 1);
    drop(events);
    eventually("the stream is cancelled", || a.stats().cancelled() == 1 && a.stats().in_flight() == 0).await;
}

#[tokio::test]
async fn it_fails_as_told() {
    let a = upstream().start().await;
    let http = client(a.socket_address());
    assert!(http.get("/fail").attempt().await.is_err());
    assert_eq!(http.get("/status/418").await.status, 418);
    a.fails(1.0);
    assert_eq!(http.get("/").await.status, 500);
    a.becomes_sick();
    assert_eq!(http.get("/health").await.status, 503);

    let mut raw = raw_client(a.socket_address()).await;
    a.fails(0.0);
    raw.send("GET /drop-mid-body HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!((answer.body.len(), answer.end), (1000, End::Broken));
}

#[tokio::test]
async fn a_killed_one_comes_back_on_its_address() {
    let mut a = upstream().start().await;
    let http = client(a.socket_address());
    let mut events = http.get("/sse?interval=10ms").open().await;
    a.kill().await;
    while let Some(Ok(_)) = events.next().await {}
    assert!(http.get("/").attempt().await.is_err());
    a.restart().await;
    assert_eq!(http.get("/").await.status, 200);
}

#[tokio::test]
async fn tunnels_echo() {
    let a = upstream().start().await;
    let call = client(a.socket_address()).get("/ws").header("Connection", "upgrade").header("Upgrade", "echo");
    let Ok(mut tunnel) = call.upgrade().await else { panic!("no tunnel") };
    tunnel.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn websockets_echo() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let a = upstream().start().await;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", a.address())).await.unwrap();
    for text in ["short".to_owned(), "x".repeat(1000), "y".repeat(100_000)] {
        socket.send(Message::text(&text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().to_text().unwrap(), text);
    }
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn sessions_belong_to_the_one_that_minted_them() {
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let minted = client(a.socket_address()).post("/mcp", "{}").await;
    let id = minted.header("mcp-session-id").unwrap();
    assert_eq!(client(a.socket_address()).post("/mcp", "{}").header("mcp-session-id", id).await.status, 200);
    assert_eq!(client(b.socket_address()).post("/mcp", "{}").header("mcp-session-id", id).await.status, 404);
}

#[tokio::test]
async fn scripts_say_and_hear_exact_bytes() {
    let script = scripted()
        .reads_request()
        .sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")
        .next_connection()
        .reads_until("\r\n\r\n")
        .pauses(Duration::from_millis(1))
        .cuts()
        .start()
        .await;
    let mut raw = raw_client(script.socket_address()).await;
    raw.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n").await.send("ab").await;
    let answer = raw.response().await;
    assert_eq!((answer.text().as_str(), answer.end), ("hello", End::Complete));
    assert_eq!(answer.trailers, [("X-T".to_owned(), "1".to_owned())]);
    raw.closed().await;
    assert!(script.received(0).ends_with("\r\n\r\nab"));
    assert_eq!(script.request(0).header("HOST"), Some("x"));

    let mut raw = raw_client(script.socket_address()).await;
    raw.send("GET / HTTP/1.1\r\n\r\n").await;
    let (rest, orderly) = raw.rest().await;
    assert!(rest.is_empty() && !orderly);
    assert_eq!(script.connections(), 2);
}
