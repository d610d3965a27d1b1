//! Connections: used again, replaced, closed, timed.

use std::cell::Cell;

use super::*;

#[tokio::test(flavor = "local")]
async fn one_connection_carries_request_after_request() {
    let accepted = Rc::new(Cell::new(0));
    let count = accepted.clone();
    let target = upstream(move |mut stream, number| {
        count.set(number + 1);
        async move {
            while let Some(head) = head(&mut stream).await {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let side = side();
    for _ in 0..100 {
        let (_, body) = outcome(get("/a?b=c").over(&side, &target).await).await.unwrap();
        assert_eq!(body, "GET /a?b=c HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    assert_eq!((accepted.get(), side.connections.len()), (1, 1));
}

#[tokio::test(flavor = "local")]
async fn the_framing_of_a_request_follows_its_body() {
    let target = upstream(|mut stream, _| async move {
        let mut seen = head(&mut stream).await.unwrap();
        if seen.contains("chunked") {
            seen += &until(&mut stream, "0\r\n\r\n").await.unwrap();
        } else if seen.contains("content-length: 5") {
            seen += &until(&mut stream, "hello").await.unwrap();
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{seen}").as_bytes()).await.unwrap();
    })
    .await;
    let side = side();
    let chunks = || Sent::chunks(&["hel", "lo"]);
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let sized = "content-length: 5\r\n\r\nhello";
    let none = "host: shop.test\r\n\r\n";
    let cases = [
        (get("/"), none),
        (post("/", Sent::default()), none),
        (post("/", Sent::default()).with("content-length", "0"), "content-length: 0\r\n\r\n"),
        (get("/").with("content-length", "7"), "content-length: 0\r\n\r\n"),
        (get("/").with("transfer-encoding", "chunked"), none),
        (post("/", Sent::of("hello")), sized),
        (post("/", Sent::of("hello")).with("content-length", "7"), sized),
        (post("/", Sent::of("hello")).with("content-length", "5").with("content-length", "5"), sized),
        (post("/", Sent::of("hello")).with("transfer-encoding", "gzip, chunked"), sized),
        (post("/", chunks()), chunked),
        (post("/", chunks()).method(Method::GET), chunked),
        (post("/", chunks()).with("content-length", "5"), sized),
    ];
    for (number, (ask, expected)) in cases.into_iter().enumerate() {
        let (_, seen) = outcome(ask.over(&side, &target).await).await.unwrap();
        assert!(seen.ends_with(expected), "case {number}: {seen:?}");
    }
    let (_, seen) = outcome(get("*").method(Method::OPTIONS).over(&side, &target).await).await.unwrap();
    assert!(seen.starts_with("OPTIONS * HTTP/1.1\r\n"), "{seen}");
    let (_, seen) = outcome(get("?q").over(&side, &target).await).await.unwrap();
    assert!(seen.starts_with("GET /?q HTTP/1.1\r\n"), "{seen}");
}

#[tokio::test(flavor = "local")]
async fn request_trailers_that_were_announced_go_out() {
    let target = upstream(|mut stream, _| async move {
        let seen = until(&mut stream, "0\r\nsum: 5\r\n\r\n").await.unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{}", seen.len()).as_bytes()).await.unwrap();
    })
    .await;
    let mut body = Sent::chunks(&["hello"]);
    body.pieces.push_back(Ok(Frame::trailers(HeaderMap::from_iter([(
        HeaderName::from_static("sum"),
        HeaderValue::from_static("5"),
    )]))));
    let side = side();
    assert!(outcome(post("/", body).with("trailer", "sum").over(&side, &target).await).await.is_ok());
}

#[tokio::test(flavor = "local")]
async fn a_stale_connection_is_replaced_without_anybody_noticing() {
    let side = side();
    // Each connection is closed behind its first answer, which nobody is told before.
    let target = answering_once(OK).await;
    for settled in [true, false, true, false] {
        assert_eq!(outcome(post("/", Sent::of("hello")).over(&side, &target).await).await, ok());
        if settled {
            settle().await;
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_lost_while_it_is_used_again_says_so() {
    let target = upstream(|mut stream, number| async move {
        head(&mut stream).await;
        if number == 0 {
            stream.write_all(OK.as_bytes()).await.unwrap();
            head(&mut stream).await;
        }
    })
    .await;
    let side = side();
    assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
    for reused in [true, false] {
        let error = get("/").over(&side, &target).await.unwrap_err();
        assert_eq!((error.kind, error.delivered, error.reused), (SendErrorKind::ClosedEarly, true, reused));
    }
}

#[tokio::test(flavor = "local")]
async fn nobody_there_has_seen_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap(), Pool::default());
    drop(listener);
    let failure = post("/", Sent::of("hello")).over(&side(), &target).await.unwrap_err();
    assert_eq!((failure.kind, failure.delivered), (SendErrorKind::Refused, false));
    assert_eq!(failure.to_string(), "connection refused: Connection refused (os error 111)");
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_closes_at_once_says_so() {
    let target = upstream(|stream, _| async move { drop(stream) }).await;
    let error = post("/", Sent::of("hello")).over(&side(), &target).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::ClosedEarly | SendErrorKind::Reset), "{error}");
}

#[tokio::test(flavor = "local")]
async fn an_answer_dropped_early_closes_its_connection_at_once() {
    let (closed, mut told) = mpsc::unbounded_channel();
    let target = upstream(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nso far").await.unwrap();
            let _ = stream.read_u8().await.unwrap_err();
            closed.send(()).unwrap();
        }
    })
    .await;
    let side = side();
    let answer = get("/").over(&side, &target).await.unwrap();
    drop(answer);
    tokio::time::timeout(Duration::from_secs(1), told.recv()).await.unwrap();

    // The same before the answer, and while waiting for more of it.
    let mut answer = get("/").over(&side, &target).await.unwrap();
    answer.response.body_mut().frame().await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_millis(20), answer.response.body_mut().frame()).await.unwrap_err();
    drop(answer);
    tokio::time::timeout(Duration::from_secs(1), told.recv()).await.unwrap();
    assert!(side.connections.is_empty());
}

#[tokio::test(flavor = "local")]
async fn a_request_given_up_closes_its_connection_at_once() {
    let (closed, mut told) = mpsc::unbounded_channel();
    let target = upstream(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            head(&mut stream).await;
            let _ = stream.read_u8().await.unwrap_err();
            closed.send(()).unwrap();
        }
    })
    .await;
    let side = side();
    let waiting = get("/").over(&side, &target);
    tokio::time::timeout(Duration::from_millis(20), waiting).await.unwrap_err();
    tokio::time::timeout(Duration::from_secs(1), told.recv()).await.unwrap();
    assert!(side.connections.is_empty());
}

#[tokio::test(flavor = "local")]
async fn idle_connections_age_and_are_counted() {
    let target = answering(OK).await;
    let side = side();
    let held: Vec<_> = futures_util::future::join_all((0..5).map(|_| get("/").over(&side, &target))).await;
    assert_eq!(counts(&target), [5, 5, 0, 0]);
    futures_util::future::join_all(held.into_iter().map(outcome)).await;
    assert_eq!(side.connections.len(), 5);
    assert_eq!(counts(&target), [5, 5, 5, 0]);
    side.connections.sweep(side.sweep.now() + Duration::from_secs(59));
    assert_eq!(side.connections.len(), 5);
    side.connections.sweep(side.sweep.now() + Duration::from_secs(61));
    assert_eq!(side.connections.len(), 0);
    assert_eq!(counts(&target), [5, 0, 0, 0]);

    outcome(get("/").over(&side, &target).await).await.unwrap();
    side.connections.retain(|id| id == target.id);
    assert_eq!(side.connections.len(), 1);
    let running = get("/").over(&side, &target).await;
    side.connections.retain(|_| false);
    assert_eq!(outcome(running).await, ok(), "what runs goes on");
    assert_eq!(side.connections.len(), 0, "and its connection is not kept");
    assert_eq!(counts(&target), [6, 0, 0, 0]);
}

#[tokio::test(flavor = "local")]
async fn no_more_idle_connections_than_allowed() {
    let target = target(address(&*answering(OK).await), Pool { idle_connections: 2, ..Pool::default() });
    let side = side();
    let held: Vec<_> = futures_util::future::join_all((0..5).map(|_| get("/").over(&side, &target))).await;
    futures_util::future::join_all(held.into_iter().map(outcome)).await;
    assert_eq!(side.connections.len(), 2);
}

#[tokio::test(flavor = "local")]
async fn connections_that_upstreams_close_do_not_stay() {
    let target = answering_once(OK).await;
    let side = side();
    outcome(get("/").over(&side, &target).await).await.unwrap();
    settle().await;
    side.connections.sweep(side.sweep.now());
    assert_eq!(side.connections.len(), 0);
}

#[tokio::test(flavor = "local")]
async fn an_upstream_that_never_answers_is_given_up() {
    let target = upstream(|mut stream, _| async move { while head(&mut stream).await.is_some() {} }).await;
    let ask = Ask { first_byte: Some(Duration::from_millis(50)), ..get("/") };
    let failure = ask.over(&side(), &target).await.unwrap_err();
    assert_eq!((failure.kind, failure.delivered), (SendErrorKind::FirstByteTimeout, true));
}

#[tokio::test(flavor = "local")]
async fn a_slow_client_is_not_a_slow_upstream() {
    let target = upstream(|mut stream, _| async move {
        until(&mut stream, "0\r\n\r\n").await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let (more, body) = Sent::flowing();
    tokio::task::spawn_local(async move {
        for text in ["a", "b", "c"] {
            tokio::time::sleep(Duration::from_millis(300)).await;
            more.send(text).unwrap();
        }
    });
    let ask = Ask { first_byte: Some(Duration::from_millis(50)), ..post("/", body) };
    assert_eq!(outcome(ask.over(&side(), &target).await).await, ok());
}

#[tokio::test(flavor = "local")]
async fn an_upstream_that_takes_nothing_is_given_up() {
    let target = upstream(|mut stream, _| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let piece: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let body = Sent::chunks(&[piece; 32]);
    let ask = Ask { first_byte: Some(Duration::from_millis(50)), ..post("/", body) };
    let failure = ask.over(&side(), &target).await.unwrap_err();
    assert_eq!((failure.kind, failure.delivered), (SendErrorKind::SendTimeout, true));
}

#[tokio::test(flavor = "local")]
async fn a_silent_body_is_given_up_and_a_living_one_is_not() {
    let target = upstream(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            stream.write_all(b".").await.unwrap();
        }
        let _ = stream.read_u8().await;
    })
    .await;
    let ask = Ask { idle: Some(Duration::from_millis(200)), ..get("/") };
    let mut body = ask.over(&side(), &target).await.unwrap().response.into_body();
    let mut dots = 0;
    let error = loop {
        match body.frame().await.unwrap() {
            Ok(frame) => dots += frame.into_data().unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!((dots, error.kind), (5, BodyErrorKind::IdleTimeout));
    assert!(body.frame().await.is_none());
}

#[tokio::test(flavor = "local")]
async fn a_request_body_that_breaks_is_the_clients_fault() {
    let target = upstream(|mut stream, _| async move { while head(&mut stream).await.is_some() {} }).await;
    let mut body = Sent::chunks(&["hello"]);
    body.pieces.push_back(Err(std::io::Error::other("the client left")));
    let failure = post("/", body).over(&side(), &target).await.unwrap_err();
    assert_eq!(failure.kind, SendErrorKind::RequestBody);
    assert_eq!(failure.to_string(), "the request's body ended early: the client left");
}

#[tokio::test(flavor = "local")]
async fn an_answer_may_come_before_the_request_is_complete() {
    let target = upstream(|mut stream, _| async move {
        loop {
            if head(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(OK.as_bytes()).await.unwrap();
            until(&mut stream, "0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let side = side();
    let (more, body) = Sent::flowing();
    assert_eq!(outcome(post("/", body).over(&side, &target).await).await, ok());
    assert_eq!(side.connections.len(), 0, "the request still runs");
    more.send("late").unwrap();
    drop(more);
    settle().await;
    assert_eq!(side.connections.len(), 1, "it is complete now");
}

#[tokio::test(flavor = "local")]
async fn the_rest_of_a_request_behind_its_answer_may_not_stall() {
    let (closed, mut told) = mpsc::unbounded_channel();
    let target = upstream(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            let _ = stream.read_u8().await.unwrap_err();
            closed.send(()).unwrap();
        }
    })
    .await;
    let side = side();
    let (_more, body) = Sent::flowing();
    assert_eq!(outcome(post("/", body).over(&side, &target).await).await, ok());
    settle().await;
    assert!(told.try_recv().is_err());
    side.sweep.tick(side.sweep.now() + Duration::from_secs(31));
    tokio::time::timeout(Duration::from_secs(1), told.recv()).await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn an_upstream_of_old_gets_whole_bodies_too() {
    let target = upstream(|mut stream, _| async move {
        until(&mut stream, "0\r\n\r\n").await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let side = side();
    for _ in 0..2 {
        assert_eq!(outcome(post("/", Sent::chunks(&["hello"])).over(&side, &target).await).await, ok());
        assert!(side.connections.is_empty());
    }
}

#[tokio::test(flavor = "local")]
async fn unix_sockets_are_upstreams_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 1000];
        while stream.read(&mut seen).await.unwrap() > 0 {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    let settings = Settings::of(&Pool::default(), None);
    let at = |path: &std::path::Path| {
        Arc::new(Target::new("pool", "unix", Place::Unix(path.into()), "localhost", &settings).unwrap())
    };
    let side = side();
    for _ in 0..2 {
        assert_eq!(outcome(get("/").over(&side, &at(&path)).await).await, ok());
    }
    let failure = get("/").over(&side, &at(&folder.path().join("absent.sock"))).await.unwrap_err();
    assert_eq!(failure.kind, SendErrorKind::Unreachable);
}

#[test]
fn a_request_under_way_is_small() {
    let connections = Connections::<Sent>::new(Sweep::new(), Lane::worker(0));
    let target = target(([127, 0, 0, 1], 1).into(), Pool::default());
    let (ask, path) = (get("/"), PathAndQuery::from_static("/"));
    let outgoing = Outgoing {
        method: &ask.method,
        target: &path,
        headers: &ask.headers,
        lines: None,
        answer_in_lines: false,
        upgrade: false,
        first_byte: None,
        idle: None,
    };
    let sending = connections.send(&target, outgoing, ask.body);
    assert!(size_of_val(&sending) <= 2048, "{}", size_of_val(&sending));
    assert!(size_of::<UpstreamBody<Sent>>() <= 168, "{}", size_of::<UpstreamBody<Sent>>());
}
