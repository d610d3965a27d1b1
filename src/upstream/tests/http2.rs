//! HTTP/2: shared connections, streams that are refused, reset or cut.

use std::cell::Cell;

use futures_util::future::join_all;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};

use super::*;
use crate::config::model::Protocol;

type Received = (http::Request<RecvStream>, SendResponse<Bytes>);

/// An HTTP/2 upstream that treats each request as `serve` says, and the number of its connections.
async fn h2_upstream<F>(
    builder: Builder,
    serve: impl Fn(Received, usize) -> F + 'static,
) -> (Arc<Target>, Rc<Cell<usize>>)
where
    F: Future<Output = ()> + 'static,
{
    let (accepted, serve) = (Rc::new(Cell::new(0)), Rc::new(serve));
    let count = accepted.clone();
    let plain = upstream(move |stream, number| {
        count.set(number + 1);
        let (builder, serve) = (builder.clone(), serve.clone());
        async move {
            let mut connection = builder.handshake(stream).await.unwrap();
            while let Some(Ok(received)) = connection.accept().await {
                tokio::task::spawn_local(serve(received, number));
            }
        }
    })
    .await;
    (target(address(&plain), Pool { protocol: Protocol::Http2, ..Pool::default() }), accepted)
}

fn respond(answer: &mut SendResponse<Bytes>, text: &'static str) {
    let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
    stream.send_data(text.into(), true).unwrap();
}

#[tokio::test(flavor = "local")]
async fn many_requests_share_one_connection_that_is_made_once() {
    let (target, accepted) = h2_upstream(Builder::new(), |(request, mut answer), _| async move {
        assert_eq!(request.uri(), "http://shop.test/a?b=c");
        assert!(!request.headers().contains_key("host"));
        assert_eq!(request.headers()["te"], "trailers");
        tokio::task::yield_now().await;
        respond(&mut answer, "ok");
    })
    .await;
    let side = side();
    for _ in 0..3 {
        let asks =
            (0..50).map(|_| async { outcome(get("/a?b=c").with("te", "trailers").over(&side, &target).await).await });
        assert!(join_all(asks).await.iter().all(|outcome| *outcome == ok()));
    }
    assert_eq!((accepted.get(), side.connections.len()), (1, 1));
    assert_eq!(counts(&target), [1, 1, 1, 0]);
    let running = get("/a?b=c").with("te", "trailers").over(&side, &target).await;
    assert_eq!(counts(&target), [1, 1, 0, 0]);
    drop(running);
    side.connections.sweep(side.sweep.now() + Duration::from_secs(61));
    assert_eq!(side.connections.len(), 0);
    assert_eq!(counts(&target), [1, 0, 0, 0]);
}

#[tokio::test(flavor = "local")]
async fn more_requests_than_streams_take_more_connections() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let (target, accepted) = h2_upstream(builder, |(_, mut answer), _| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        respond(&mut answer, "ok");
    })
    .await;
    let side = side();
    assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
    let asks = (0..6).map(|_| async { outcome(get("/").over(&side, &target).await).await });
    assert!(join_all(asks).await.iter().all(|outcome| *outcome == ok()));
    assert!(accepted.get() >= 2, "{}", accepted.get());
}

#[tokio::test(flavor = "local")]
async fn bodies_and_trailers_go_both_ways() {
    let (target, _) = h2_upstream(Builder::new(), |(request, mut answer), _| async move {
        let mut body = request.into_body();
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        while let Some(bytes) = body.data().await {
            stream.send_data(bytes.unwrap(), false).unwrap();
        }
        stream.send_trailers(body.trailers().await.unwrap().unwrap()).unwrap();
    })
    .await;
    let mut body = Sent::chunks(&["hel", "lo"]);
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("sum"), HeaderValue::from_static("5"))]);
    body.pieces.push_back(Ok(Frame::trailers(trailers)));
    let answer = post("/", body).over(&side(), &target).await.unwrap();
    let body = answer.response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["sum"], "5");
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test(flavor = "local")]
async fn lengths_agree_with_bodies() {
    let (target, _) = h2_upstream(Builder::new(), |(request, mut answer), _| async move {
        let length = request.headers().get("content-length").map_or("none", |value| value.to_str().unwrap());
        respond(&mut answer, Box::leak(length.to_owned().into_boxed_str()));
    })
    .await;
    let side = side();
    let cases = [
        (get("/"), "none"),
        (get("/").with("content-length", "7"), "0"),
        (post("/", Sent::of("hello")).with("content-length", "7"), "5"),
        (post("/", Sent::of("hello")), "5"),
        (post("/", Sent::chunks(&["hello"])).with("transfer-encoding", "chunked"), "none"),
    ];
    for (ask, length) in cases {
        assert_eq!(outcome(ask.over(&side, &target).await).await, Ok((200, length.to_owned())));
    }
}

#[tokio::test(flavor = "local")]
async fn a_refused_stream_was_not_delivered_and_a_reset_one_may_have_been() {
    let (target, _) = h2_upstream(Builder::new(), |(request, mut answer), _| async move {
        let refused = request.uri().path() == "/refused";
        answer.send_reset(if refused { Reason::REFUSED_STREAM } else { Reason::INTERNAL_ERROR });
    })
    .await;
    let side = side();
    let error = get("/refused").over(&side, &target).await.unwrap_err();
    assert_eq!((error.kind, error.delivered), (SendErrorKind::Reset, false));
    let error = get("/reset").over(&side, &target).await.unwrap_err();
    assert_eq!((error.kind, error.delivered), (SendErrorKind::Reset, true));
}

#[tokio::test(flavor = "local")]
async fn an_upstream_that_says_goodbye_is_connected_to_again() {
    let accepted = Rc::new(Cell::new(0));
    let count = accepted.clone();
    let plain = upstream(move |stream, number| {
        count.set(number + 1);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut answer))) = connection.accept().await {
                respond(&mut answer, "ok");
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let target = target(address(&plain), Pool { protocol: Protocol::Http2, ..Pool::default() });
    let side = side();
    for settled in [true, false, true] {
        assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
        if settled {
            settle().await;
        }
    }
    assert!(accepted.get() >= 2, "{}", accepted.get());
    side.connections.sweep(side.sweep.now());
    assert!(side.connections.len() <= 1);
}

#[tokio::test(flavor = "local")]
async fn a_body_reset_without_an_error_is_still_cut() {
    let (target, _) = h2_upstream(Builder::new(), |(_, mut answer), _| async move {
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        stream.send_data("so far".into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send_reset(Reason::NO_ERROR);
    })
    .await;
    let outcome = outcome(get("/").over(&side(), &target).await).await;
    assert_eq!(outcome, Err("the answer's body was cut".to_owned()));
}

#[tokio::test(flavor = "local")]
async fn what_is_dropped_is_cancelled_and_the_connection_stays() {
    let (told, mut cancelled) = mpsc::unbounded_channel();
    let (target, accepted) = h2_upstream(Builder::new(), move |(request, mut answer), _| {
        let told = told.clone();
        async move {
            if request.uri().path() == "/ok" {
                return respond(&mut answer, "ok");
            }
            if request.uri().path() == "/body" {
                let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
                stream.send_data("so far".into(), false).unwrap();
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
                return told.send(reason).unwrap();
            }
            told.send(std::future::poll_fn(|cx| answer.poll_reset(cx)).await.unwrap()).unwrap();
        }
    })
    .await;
    let side = side();
    tokio::time::timeout(Duration::from_millis(20), get("/head").over(&side, &target)).await.unwrap_err();
    assert_eq!(cancelled.recv().await, Some(Reason::CANCEL));
    drop(get("/body").over(&side, &target).await.unwrap());
    assert_eq!(cancelled.recv().await, Some(Reason::CANCEL));
    assert_eq!(outcome(get("/ok").over(&side, &target).await).await, ok());
    assert_eq!(accepted.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn after_silence_the_next_request_gets_another_connection() {
    let (target, accepted) = h2_upstream(Builder::new(), |(_, mut answer), number| async move {
        if number == 0 {
            std::future::pending::<()>().await;
        }
        respond(&mut answer, "ok");
    })
    .await;
    let side = side();
    let ask = Ask { first_byte: Some(Duration::from_millis(50)), ..get("/") };
    let error = ask.over(&side, &target).await.unwrap_err();
    assert_eq!((error.kind, error.delivered), (SendErrorKind::FirstByteTimeout, true));
    assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
    assert_eq!(accepted.get(), 2);
}

#[tokio::test(flavor = "local")]
async fn all_who_wait_for_a_connection_learn_that_there_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap(), Pool { protocol: Protocol::Http2, ..Pool::default() });
    drop(listener);
    let side = side();
    let asks = (0..10).map(|_| async { post("/", Sent::of("hello")).over(&side, &target).await.unwrap_err() });
    for failure in join_all(asks).await {
        assert_eq!((failure.kind, failure.delivered), (SendErrorKind::Refused, false));
    }
}

#[tokio::test(flavor = "local")]
async fn an_upstream_that_speaks_http1_is_a_bad_response() {
    let plain = answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let target = target(address(&plain), Pool { protocol: Protocol::Http2, ..Pool::default() });
    let error = get("/").over(&side(), &target).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::BadResponse(BadResponse::Malformed), "{error}");
}
