//! Upgrades: WebSocket over both versions, other protocols, and what is none.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use crate::http2::session;
use crate::support::*;

const APP: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = ["{a}"]
    [[route]]
    pool = "app"
"#;

async fn app(text: &str) -> (Upstream, Proxy) {
    let a = upstream().named("a").start().await;
    let proxy = proxy(text).with("a", &a).start().await;
    (a, proxy)
}

async fn websocket(proxy: &Proxy) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(proxy.address("web")).await.unwrap();
    let (socket, response) = soon("101", tokio_tungstenite::client_async("ws://app.test/ws", stream)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    socket
}

#[tokio::test]
async fn a_websocket_works_with_all_its_frames() {
    let (a, proxy) = app(APP).await;
    let mut socket = websocket(&proxy).await;
    let big = Bytes::from(vec![7; 1 << 20]);
    for frame in [Frame::text("hello"), Frame::binary(vec![0, 1, 2]), Frame::binary(big), Frame::text("")] {
        socket.send(frame.clone()).await.unwrap();
        assert_eq!(soon("an echo", socket.next()).await.unwrap().unwrap(), frame);
    }
    socket.send(Frame::Ping(Bytes::from("p"))).await.unwrap();
    assert_eq!(soon("a pong", socket.next()).await.unwrap().unwrap(), Frame::Pong(Bytes::from("p")));
    let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from("done") };
    socket.send(Frame::Close(Some(close.clone()))).await.unwrap();
    assert_eq!(soon("the close", socket.next()).await.unwrap().unwrap(), Frame::Close(Some(close)));
    assert!(soon("the end", socket.next()).await.is_none());
    eventually("the upstream is free again", || a.stats().in_flight() == 0).await;
    assert_eq!(a.stats().cancelled(), 0);
    drop(socket);
    until("the request is counted as 101 and its bytes with it", async || {
        let counted = proxy.metric("tidegate_listener_requests_total{listener=\"web\",class=\"1xx\"}").await?;
        let sent = proxy.metric("tidegate_listener_sent_bytes_total{listener=\"web\"}").await?;
        (counted == 1.0 && sent > 1048576.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn bytes_right_behind_a_handshake_are_not_lost_on_either_side() {
    let (_a, proxy) = app(APP).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nright behind").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    assert_eq!(raw.read_until("right behind").await, b"right behind");

    let eager = scripted()
        .reads_request()
        .sends("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome");
    let eager = eager.reads_until("bye").start().await;
    let proxy = self::proxy(APP).with("a", &eager).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 101);
    assert_eq!(raw.read_until("welcome").await, b"welcome");
    raw.send("bye").await.closed().await;
}

fn proxy(text: &str) -> ProxyBuilder {
    crate::support::proxy(text)
}

#[tokio::test]
async fn a_side_that_has_said_all_still_hears_the_other() {
    let last_word = scripted()
        .reads_request()
        .sends("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        .holds()
        .sends("the last word")
        .start()
        .await;
    let proxy = proxy(APP).with("a", &last_word).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 101);
    raw.send("all I have to say").await.half_close().await;
    assert_eq!(raw.rest().await, (b"the last word".to_vec(), true));
    assert!(last_word.received(0).ends_with("all I have to say"));
}

#[tokio::test]
async fn a_silent_tunnel_ends_and_a_talking_one_does_not() {
    let text = APP.replace("[[route]]", "timeout = { idle = \"400ms\" }\n[[route]]");
    let (a, proxy) = app(&text).await;
    let (mut silent, mut talking) = (websocket(&proxy).await, websocket(&proxy).await);
    let began = Instant::now();
    let ended = tokio::spawn(async move { soon("the end", silent.next()).await.is_none_or(|frame| frame.is_err()) });
    while !ended.is_finished() || began.elapsed() < Duration::from_millis(1200) {
        talking.send(Frame::text("I am here")).await.unwrap();
        assert_eq!(soon("an echo", talking.next()).await.unwrap().unwrap(), Frame::text("I am here"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ended.await.unwrap());
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(a.stats().in_flight(), 1);
}

#[tokio::test]
async fn an_upgrade_to_http2_is_ignored() {
    let (a, proxy) = app(APP).await;
    for upgrade in ["h2c", "h2c, x"] {
        let mut raw = raw_client(proxy.address("web")).await;
        let head = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\nUpgrade: {upgrade}\r\n\r\n")).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 200);
        let seen = answer.text().to_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
    }
    assert_eq!(a.requests(), 2);
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_bad_answer() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let a = scripted().reads_request().sends(switching).holds().start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    ] {
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send(request).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 502, "{request}");
        assert_eq!(answer.header("proxy-status"), Some("tidegate; error=http_protocol_error"));
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer_on_a_kept_connection() {
    let a = scripted().answers("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
    }
}

#[tokio::test]
async fn a_tunnel_ends_when_either_side_breaks() {
    let (a, proxy) = app(APP).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 101);
    raw.reset();
    eventually("the upstream's side is closed", || a.stats().in_flight() == 0).await;

    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let breaking = scripted().reads_request().sends(switching).reads_some().cuts().start().await;
    let proxy = self::proxy(APP).with("a", &breaking).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 101);
    raw.send("?").await.closed().await;
}

#[tokio::test]
async fn a_websocket_that_is_upgraded_gets_the_pools_cookie_too() {
    let text = APP.replace(
        "[[route]]",
        "sticky = { cookie = \"HOME\" }\n[[route]]\nresponse_headers = { set = { x-by = \"tidegate\" } }",
    );
    let (_a, proxy) = app(&text).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!(answer.status, 101);
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.starts_with("HOME=")), "{answer:?}");
    assert_eq!(answer.header("x-by"), Some("tidegate"));
}

/// A masked text frame.
fn masked(text: &str) -> Bytes {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    frame.into()
}

#[tokio::test]
async fn a_websocket_goes_over_an_http2_stream() {
    // The connection is not idle while a tunnel is on it.
    let text = APP.replace("[pool.app]", "keepalive_timeout = \"200ms\"\n[pool.app]");
    let (a, proxy) = app(&text).await;
    let mut session = session(proxy.address("web")).await;
    until("the proxy says that it takes extended CONNECTs", async || {
        session.is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    let mut request = Request::connect("http://app.test/ws").header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (response, mut say) = session.send_request(request, false).unwrap();
    let response = soon("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("sec-websocket-accept") && !response.headers().contains_key("upgrade"));
    let mut heard = response.into_body();
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        say.send_data(masked("hello"), false).unwrap();
        let mut echo = Vec::new();
        while echo.len() < 7 {
            let piece = soon("an echo", heard.data()).await.expect("the tunnel is open").unwrap();
            heard.flow_control().release_capacity(piece.len()).unwrap();
            echo.extend_from_slice(&piece);
        }
        assert_eq!(echo, b"\x81\x05hello");
        rounds += 1;
        // Longer than the connection may be idle.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!(rounds > 1);
    // Nor has it been told to go away.
    let request = Request::get("http://app.test/").body(()).unwrap();
    let mut another = soon("room for a stream", session.clone().ready()).await.expect("the connection takes more");
    assert_eq!(soon("an answer", another.send_request(request, true).unwrap().0).await.unwrap().status(), 200);
    say.send_data(Bytes::new(), true).unwrap();
    assert!(
        soon("the end", heard.data()).await.is_none_or(|piece| piece.is_err() || piece.is_ok_and(|p| p.is_empty()))
    );
    eventually("the upstream is free again", || a.stats().in_flight() == 0).await;
}

#[tokio::test]
async fn a_tunnel_carries_much_in_both_directions_at_once() {
    let (_a, proxy) = app(APP).await;
    let call = proxy.client().get("/t").header("Connection", "upgrade").header("Upgrade", "echo");
    let tunnel = call.upgrade().await.unwrap_or_else(|answer| panic!("{}", answer.status));
    let (mut heard, mut said) = tokio::io::split(tunnel);
    const MUCH: usize = 8 << 20;
    let saying = tokio::spawn(async move {
        let piece = vec![42; 64 << 10];
        for _ in 0..MUCH / piece.len() {
            said.write_all(&piece).await.unwrap();
        }
        said.shutdown().await.unwrap();
    });
    let mut all = Vec::new();
    soon("all of it back", heard.read_to_end(&mut all)).await.unwrap();
    saying.await.unwrap();
    assert_eq!(all.len(), MUCH);
    assert!(all.iter().all(|byte| *byte == 42));
}

#[tokio::test]
async fn a_websocket_goes_over_tls_on_both_sides() {
    let authority = Authority::new();
    let (own, a) =
        (authority.signs("app.test"), upstream().tls(authority.server("127.0.0.1", &["http/1.1"])).start().await);
    let text = APP
        .replace("[pool.app]", "tls = { certificate = \"own.pem\", key = \"own.key\" }\n[pool.app]")
        .replace("[[route]]", "tls = { ca = \"ca.pem\" }\n[[route]]");
    let builder = proxy(&text).with("a", &a).file("own.pem", &own.certificate).file("own.key", &own.key);
    let proxy = builder.file("ca.pem", &authority.pem).start().await;
    let http = client(proxy.address("web")).tls(authority.client(&["http/1.1"]), "app.test");
    let call = http.get("/ws").header("Connection", "upgrade").header("Upgrade", "echo");
    let mut tunnel = call.upgrade().await.unwrap_or_else(|answer| panic!("{}", answer.status));
    tunnel.write_all(b"over TLS").await.unwrap();
    let mut heard = [0; 8];
    soon("the echo", tunnel.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"over TLS");
    tunnel.shutdown().await.unwrap();
    assert_eq!(soon("the end", tunnel.read(&mut heard)).await.unwrap(), 0);
    eventually("the upstream is free again", || a.stats().in_flight() == 0).await;
}

#[tokio::test]
async fn an_upgrade_towards_http2_upstreams_is_an_ordinary_request() {
    let text = APP.replace("[[route]]", "protocol = \"h2\"\n[[route]]");
    let (a, proxy) = app(&text).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let answer = raw.response().await;
    // HTTP/2 has no upgrades; a server may ignore one (RFC 9110 §7.8), and so do we for it.
    assert_eq!(answer.status, 200);
    raw.send("GET /y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 200);
    assert_eq!(a.stats().in_flight(), 0);
}

#[tokio::test]
async fn over_http2_an_ordinary_success_is_never_taken_for_an_open_tunnel() {
    let ignoring = scripted().answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").start().await;
    let empty = scripted().answers("HTTP/1.1 204 No Content\r\n\r\n").start().await;
    let new = upstream().start().await;
    let routes = "[pool.new]\nupstreams = [\"{new}\"]\nprotocol = \"h2\"\n[pool.empty]\nupstreams = [\"{empty}\"]\n\
        [[route]]\npath = \"/new\"\npool = \"new\"\n[[route]]\npath = \"/empty\"\npool = \"empty\"\n\
        [[route]]\npath = \"/own\"\nrespond = 200\n[[route]]";
    let builder = proxy(&APP.replace("[[route]]", routes)).with("a", &ignoring).with("empty", &empty);
    let proxy = builder.with("new", &new).start().await;
    let mut session = session(proxy.address("web")).await;
    until("the proxy says that it takes extended CONNECTs", async || {
        session.is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    for (path, status) in [("/ws", 502), ("/empty", 502), ("/new", 502), ("/own", 405)] {
        let request = Request::connect(format!("http://app.test{path}")).header("sec-websocket-version", "13");
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        session = soon("room", session.ready()).await.unwrap();
        let (response, _say) = session.send_request(request, false).unwrap();
        assert_eq!(soon("an answer", response).await.unwrap().status(), status, "{path}");
    }
}

#[tokio::test]
async fn an_extended_connect_that_the_upstream_refuses_is_an_ordinary_answer() {
    let a = scripted().answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    let mut session = session(proxy.address("web")).await;
    until("the proxy says that it takes extended CONNECTs", async || {
        session.is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    for _ in 0..2 {
        let mut request =
            Request::connect("http://app.test/ws").header("sec-websocket-version", "13").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        session = soon("room", session.ready()).await.unwrap();
        let (response, _say) = session.send_request(request, false).unwrap();
        let response = soon("an answer", response).await.unwrap();
        assert_eq!(response.status(), 403);
        let mut body = response.into_body();
        assert_eq!(soon("its body", body.data()).await.unwrap().unwrap(), "no");
    }
    let seen = a.request(0);
    assert!(seen.first_line.starts_with("GET /ws "), "{seen:?}");
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert!(seen.header("content-length").is_none() && seen.header("transfer-encoding").is_none(), "{seen:?}");
}
