//! Streams: each piece passes when it is there, in both directions, however large the whole is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::*;

const APP: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    max_body = "off"
    [pool.app]
    upstreams = ["{a}"]
    [[route]]
    pool = "app"
"#;

/// A body whose pieces are said one by one.
fn spoken() -> (mpsc::UnboundedSender<Bytes>, impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send) {
    let (say, said) = mpsc::unbounded_channel::<Bytes>();
    (say, unfold(said, |mut said| async { said.recv().await.map(|piece| (Ok(Frame::data(piece)), said)) }))
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (next, mut told) = mpsc::unbounded_channel::<u32>();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await.unwrap();
            let lead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(lead.as_bytes()).await.unwrap();
            while let Some(number @ 1..) = told.recv().await {
                let event = format!("data: {number}\n\n");
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    });
    let proxy = proxy(APP).with("a", &address).start().await;
    for client in [proxy.client(), proxy.client().http2()] {
        let mut events = client.get("/events").open().await;
        assert_eq!(events.headers["content-type"], "text/event-stream");
        for number in 1..=20 {
            next.send(number).unwrap();
            assert_eq!(events.text().await, format!("data: {number}\n\n"));
        }
        next.send(0).unwrap();
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn events_of_every_100_ms_arrive_every_100_ms() {
    let a = upstream().start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    let mut events = proxy.client().get("/sse?interval=100ms&events=12").open().await;
    let mut gaps = Vec::new();
    let mut last = Instant::now();
    while let Some(event) = events.next().await {
        event.unwrap();
        gaps.push(last.elapsed());
        last = Instant::now();
    }
    assert_eq!(gaps.len(), 12);
    // The machine may be busy for a moment; a proxy that gathers is late each time.
    gaps[1..].sort();
    assert!(gaps[6] < Duration::from_millis(150), "{gaps:?}");
}

#[tokio::test]
async fn both_directions_stream_at_the_same_time() {
    for version in ["http/1.1", "h2"] {
        let a = upstream().start().await;
        let text = APP.replace("[[route]]", &format!("protocol = \"{version}\"\n[[route]]"));
        let proxy = proxy(&text).with("a", &a).start().await;
        for client in [proxy.client(), proxy.client().http2()] {
            let (say, frames) = spoken();
            say.send(Bytes::from("first")).unwrap();
            let mut echo = client.post("/echo", "").streaming(frames).open().await;
            assert_eq!(echo.text().await, "first");
            for number in 0..20 {
                let piece = format!("piece {number}");
                say.send(Bytes::from(piece.clone())).unwrap();
                assert_eq!(echo.text().await, piece);
            }
            drop(say);
            assert!(echo.next().await.is_none());
        }
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_complete() {
    for version in ["http/1.1", "h2"] {
        let a = upstream().start().await;
        let text = APP.replace("[[route]]", &format!("protocol = \"{version}\"\n[[route]]"));
        let proxy = proxy(&text).with("a", &a).start().await;
        for client in [proxy.client(), proxy.client().http2()] {
            let (say, frames) = spoken();
            let mut answer = client.post("/early", "").streaming(frames).open().await;
            assert_eq!(answer.text().await, "early\n");
            say.send(Bytes::from("12345")).unwrap();
            drop(say);
            assert_eq!(answer.text().await, "5 bytes came\n");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_answers_and_closes_early_is_heard() {
    let refusing = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
    let a = scripted().reads_until("\r\n\r\n").sends(refusing).half_closes().holds().start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    for client in [proxy.client(), proxy.client().http2()] {
        let (say, frames) = spoken();
        say.send(Bytes::from("a beginning")).unwrap();
        let mut answer = client.post("/", "").streaming(frames).open().await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.text().await, "no\n");
    }
}

#[tokio::test]
async fn big_bodies_pass_both_ways_in_flat_memory() {
    const PIECE: usize = 256 << 10;
    const PIECES: usize = 256; // 64 MiB
    let a = upstream().start().await;
    let mut process = proxy(APP).with("a", &a).spawn().await;
    let http = client(process.address_of("web").await);
    let warm = http.get("/bytes/8MiB").await;
    assert_eq!(warm.body.len(), 8 << 20);
    let before = resident(process.pid());
    for client in [http.clone(), http.clone().http2()] {
        let mut down = client.get("/bytes/64MiB").open().await;
        let mut received = 0;
        while let Some(piece) = down.next().await {
            received += piece.unwrap().len();
        }
        assert_eq!(received, PIECE * PIECES);
        let piece = Bytes::from(vec![b'u'; PIECE]);
        let frames = unfold(0, move |sent| {
            let piece = piece.clone();
            async move { (sent < PIECES).then(|| (Ok(Frame::data(piece)), sent + 1)) }
        });
        let up = client.post("/upload", "").streaming(frames).await;
        assert_eq!(up.json()["bytes"], PIECE * PIECES);
    }
    let grown = resident(process.pid()).saturating_sub(before);
    println!("64 MiB down and up, over HTTP/1.1 and HTTP/2: {grown} KiB more than before");
    assert!(grown < 12 << 10, "{grown} KiB more than before");
    process.stop().await;
}

/// The most memory a process has ever had, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_its_upstream_back() {
    let a = upstream().start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    let mut slow = proxy.client().get("/chunks/100000?size=10000").open().await;
    slow.next().await.unwrap().unwrap();
    // The upstream has a gigabyte to say; what is on the way is bounded by buffers, so it cannot have said all.
    let sent = until("nothing moves any more", async || {
        let before = proxy.metric("tidegate_listener_sent_bytes_total{listener=\"web\"}").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (before == proxy.metric("tidegate_listener_sent_bytes_total{listener=\"web\"}").await).then_some(())
    });
    sent.await;
    assert_eq!(a.stats().in_flight(), 1);
    drop(slow);
    eventually("the upstream is told that the client has left", || a.stats().cancelled() == 1).await;
}

#[tokio::test]
async fn interim_answers_are_as_they_should_be() {
    let a = upstream().start().await;
    let proxy = proxy(&APP.replace("[[route]]", "[[route]]\npath = \"/upload\"")).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 100);
    raw.send("12345").await;
    assert_eq!(raw.response().await.status, 200);
    // What is refused anyway is not asked for its body.
    raw.send("POST /other HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 404);
}

#[tokio::test]
async fn answers_without_bodies_have_none() {
    let a = scripted().reads_request().sends("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n");
    let a = a.reads_request().sends("HTTP/1.1 204 No Content\r\n\r\n");
    let a = a.reads_request().sends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let a = a.reads_request().sends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").start().await;
    let proxy = proxy(&format!("workers = 1\n{APP}")).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    for (method, status, length) in
        // A 304 may tell the length or not (RFC 9110 §15.4.5); hyper never does.
        [("GET", 304, None), ("GET", 204, None), ("HEAD", 200, Some("5")), ("GET", 200, Some("5"))]
    {
        raw.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = if method == "HEAD" { raw.response_to_head().await } else { raw.response().await };
        assert_eq!((answer.status, answer.header("content-length")), (status, length));
    }
    assert_eq!(a.connections(), 1);
}
