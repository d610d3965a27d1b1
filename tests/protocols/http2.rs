//! HTTP/2 from clients, and gRPC through both sides.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

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

/// One HTTP/2 connection.
pub(crate) async fn session(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // Before the proxy has said how many streams it takes, no more are begun than anybody takes.
    let builder = h2::client::Builder::new().initial_max_send_streams(100).clone();
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    soon("a session", sender.ready()).await.unwrap()
}

async fn whole(response: h2::client::ResponseFuture) -> Result<(Response<()>, Vec<u8>), h2::Error> {
    let (head, mut body) = soon("an answer", response).await?.into_parts();
    let mut all = Vec::new();
    while let Some(piece) = soon("a piece", body.data()).await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((Response::from_parts(head, ()), all))
}

#[tokio::test]
async fn many_streams_share_one_connection() {
    let (a, proxy) = app(APP).await;
    let session = session(proxy.address("web")).await;
    let calls = (0..300).map(|number| {
        let mut session = session.clone();
        async move {
            session = session.ready().await.unwrap();
            let request = Request::get(format!("http://app.test/{number}")).body(()).unwrap();
            let (response, _) = session.send_request(request, true).unwrap();
            let (head, body) = whole(response).await.unwrap();
            assert_eq!(head.status(), 200);
            let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(seen["path"], format!("/{number}"));
        }
    });
    join_all(calls).await;
    assert_eq!(a.requests(), 300);
    let accepted = "tidegate_listener_connections_accepted_total{listener=\"web\"}";
    assert_eq!(proxy.metric(accepted).await, Some(1.0));
}

#[tokio::test]
async fn what_http2_splits_http1_gets_whole() {
    let (_a, proxy) = app(APP).await;
    let mut session = session(proxy.address("web")).await;
    let request = Request::get("http://app.test:81/x?y=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3")
        .header("te", "trailers");
    let (response, _) = session.send_request(request.body(()).unwrap(), true).unwrap();
    let (head, body) = whole(response).await.unwrap();
    assert_eq!(head.status(), 200);
    let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let values = |name: &str| -> Vec<String> {
        let lines = seen["headers"].as_array().unwrap().iter();
        lines.filter(|line| line[0] == name).map(|line| line[1].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(seen["version"], "HTTP/1.1");
    assert_eq!(values("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(values("host"), ["app.test:81"]);
    assert_eq!(values("te"), ["trailers"]);
    assert!(values("via")[0].starts_with("2 "), "{:?}", values("via"));
}

#[tokio::test]
async fn an_authority_and_a_host_that_disagree_are_refused() {
    let (a, proxy) = app(APP).await;
    let session = session(proxy.address("web")).await;
    for (host, expected) in [(&["app.test"][..], 200), (&["other.test"], 400), (&["app.test", "app.test"], 400)] {
        let mut request = Request::get("http://app.test/");
        for host in host {
            request = request.header("host", *host);
        }
        let mut session = session.clone();
        let (response, _) = session.send_request(request.body(()).unwrap(), true).unwrap();
        match whole(response).await {
            Ok((head, _)) => assert_eq!(head.status(), expected, "{host:?}"),
            Err(error) => assert!(expected != 200 && error.is_reset(), "{host:?}: {error}"),
        }
    }
    assert_eq!(a.requests(), 1);
}

#[tokio::test]
async fn one_broken_stream_leaves_the_others_alone() {
    let (_a, proxy) = app(APP).await;
    let session = session(proxy.address("web")).await;
    let get = async |target: &str| {
        let mut session = session.clone();
        let request = Request::get(format!("http://app.test{target}")).body(()).unwrap();
        whole(session.send_request(request, true).unwrap().0).await
    };
    let (broken, good) = tokio::join!(get("/drop-mid-body?chunked"), get("/chunks/20?interval=5ms"));
    assert!(broken.is_err_and(|error| error.is_reset()));
    assert_eq!(good.unwrap().1.len(), 2000);
    assert!(get("/drop-mid-body").await.unwrap_err().is_reset());
    assert_eq!(get("/").await.unwrap().0.status(), 200);
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_cancelled_at_the_upstream() {
    for version in ["http/1.1", "h2"] {
        let text = APP.replace("[[route]]", &format!("protocol = \"{version}\"\n[[route]]"));
        let (a, proxy) = app(&text).await;
        let session = session(proxy.address("web")).await;
        let mut events = session.clone();
        let request = Request::get("http://app.test/sse?interval=10ms").body(()).unwrap();
        let response = soon("an answer", events.send_request(request, true).unwrap().0).await.unwrap();
        let mut body = response.into_body();
        soon("an event", body.data()).await.unwrap().unwrap();
        assert_eq!(a.stats().in_flight(), 1);
        drop(body);
        eventually("the upstream is told", || a.stats().cancelled() == 1).await;
        let hang = Request::get("http://app.test/hang").body(()).unwrap();
        let (hanging, mut stream) = session.clone().send_request(hang, true).unwrap();
        eventually("the request is there", || a.stats().in_flight() == 1).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(hanging);
        eventually("the upstream is told", || a.stats().cancelled() == 2).await;
    }
}

#[tokio::test]
async fn trailers_pass_both_ways_whatever_the_sides_speak() {
    for version in ["http/1.1", "h2"] {
        let text = APP.replace("[[route]]", &format!("protocol = \"{version}\"\n[[route]]"));
        let (_a, proxy) = app(&text).await;
        for client in [proxy.client(), proxy.client().http2()] {
            let answer = client.get("/trailers").header("TE", "trailers").await;
            assert_eq!(answer.trailers["x-checksum"], "42", "{version} {:?}", answer.version);
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
            let frames = [Ok(Frame::data(Bytes::from("body"))), Ok(Frame::trailers(trailers))];
            let call = client.post("/upload", "").header("TE", "trailers").header("Trailer", "x-sum");
            let answer = call.streaming(futures_util::stream::iter(frames)).await;
            assert_eq!(answer.json()["trailers"][0][1], "7", "{version} {:?}", answer.version);
        }
    }
}

/// A gRPC message: not compressed, its length, its bytes.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

#[tokio::test]
async fn grpc_calls_and_streams_work_with_their_trailers() {
    let text = APP.replace("[[route]]", "protocol = \"h2\"\n[[route]]");
    let (_a, proxy) = app(&text).await;
    let client = proxy.client().http2();
    let call = || {
        client.call(Method::POST, "/echo.Echo/Say").header("content-type", "application/grpc").header("te", "trailers")
    };
    let answer = call().body(message("one")).await;
    assert_eq!(
        (answer.body.clone(), &answer.trailers["grpc-status"]),
        (message("one"), &HeaderValue::from_static("0"))
    );

    // A conversation: the next message is sent only when the last one has come back.
    let (say, said) = mpsc::unbounded_channel::<Bytes>();
    let frames = futures_util::stream::unfold(said, |mut said| async {
        said.recv().await.map(|piece| (Ok(Frame::data(piece)), said))
    });
    say.send(message("zero")).unwrap();
    let mut opened = call().streaming(frames.boxed()).open().await;
    assert_eq!(opened.next().await.unwrap().unwrap(), message("zero"));
    for number in 0..20 {
        let text = format!("message {number}");
        say.send(message(&text)).unwrap();
        assert_eq!(opened.next().await.unwrap().unwrap(), message(&text));
    }
    drop(say);
    let rest = opened.answer().await.unwrap();
    assert_eq!(rest.trailers["grpc-status"], "0");
}

#[tokio::test]
async fn an_answer_without_a_body_carries_its_grpc_status_in_its_head() {
    let text = APP.replace("[[route]]", "protocol = \"h2\"\n[[route]]");
    let (_a, proxy) = app(&text).await;
    let call = proxy.client().http2().call(Method::POST, "/echo.Echo/Say").header("content-type", "application/grpc");
    let answer = call.await;
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn a_listener_can_be_for_one_version_alone() {
    let only = |version: &str| APP.replace("[pool.app]", &format!("protocols = [\"{version}\"]\n[pool.app]"));
    let (_a, new) = app(&only("h2")).await;
    assert_eq!(new.client().http2().get("/").await.status, 200);
    assert!(new.client().get("/").attempt().await.is_err());
    let (_b, old) = app(&only("http/1.1")).await;
    assert_eq!(old.client().get("/").await.status, 200);
    assert!(old.client().http2().get("/").attempt().await.is_err());
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_finish() {
    let (a, proxy) = app(APP).await;
    let mut session = session(proxy.address("web")).await;
    let request = Request::get("http://app.test/slow/400ms").body(()).unwrap();
    let (response, _) = session.send_request(request, true).unwrap();
    eventually("the request is there", || a.stats().in_flight() == 1).await;
    let (stopped, answer) = tokio::join!(proxy.stop(), whole(response));
    let () = stopped;
    assert_eq!(answer.unwrap().0.status(), 200);
    assert!(session.ready().await.is_err());
}

#[tokio::test]
async fn a_body_that_stops_coming_or_is_too_long_ends_its_own_stream() {
    let limits = "body_timeout = \"300ms\"\nmax_body = \"1KiB\"\n[pool.app]";
    let (a, proxy) = app(&APP.replace("[pool.app]", limits)).await;
    let session = session(proxy.address("web")).await;
    let post = |body: Bytes| {
        let mut session = session.clone();
        async move {
            let request = Request::post("http://app.test/upload").body(()).unwrap();
            let (response, mut stream) = session.send_request(request, false).unwrap();
            stream.send_data(body, false).unwrap();
            let answer = whole(response).await;
            drop(stream);
            answer
        }
    };
    assert_eq!(post(Bytes::from("beginning")).await.unwrap().0.status(), 408);
    assert_eq!(post(Bytes::from(vec![b'x'; 5000])).await.unwrap().0.status(), 413);
    eventually("the upstream is told", || a.stats().in_flight() == 0).await;
    let request = Request::get("http://app.test/").body(()).unwrap();
    let (response, _) = session.clone().send_request(request, true).unwrap();
    assert_eq!(whole(response).await.unwrap().0.status(), 200);
}

#[tokio::test]
async fn an_http2_upstream_that_dies_breaks_what_it_had_begun_and_nothing_else() {
    let (mut a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let text = APP.replace("\"{a}\"", "\"{a}\", \"{b}\"").replace("[[route]]", "protocol = \"h2\"\n[[route]]");
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    let http = proxy.client();
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut events = proxy.client().get("/sse?interval=5ms").open().await;
        let ours = events.text().await.contains("a says");
        streams.push((events, ours));
    }
    a.kill().await;
    for (events, ours) in &mut streams {
        if *ours {
            while let Some(piece) = events.next().await {
                if piece.is_err() {
                    *ours = false;
                    break;
                }
            }
            assert!(!*ours, "a broken stream must not look whole");
        } else {
            events.text().await;
        }
    }
    for _ in 0..20 {
        assert_eq!(http.get("/").await.upstream(), "b");
    }
}
