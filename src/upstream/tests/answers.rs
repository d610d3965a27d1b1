//! What upstreams may answer, byte for byte.

use super::*;

#[tokio::test(flavor = "local")]
async fn a_doubtful_head_is_a_bad_response() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", "both"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "other than"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "other than"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "other than"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", "other than"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok", "other than"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "other than"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "an invalid Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", "an invalid Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "an invalid Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", "an invalid Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", "an invalid Content-Length"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", "bare line feed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok", "bare line feed"),
        ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 99 Low\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("HTTP/1.1 2000 High\r\nContent-Length: 2\r\n\r\nok", "not readable"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "not readable"),
        ("ok\r\n\r\n", "not readable"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "unasked 101"),
    ];
    let side = side();
    for (answer, expected) in cases {
        let target = answering_once(answer).await;
        let failure = get("/").over(&side, &target).await.expect_err(answer);
        assert!(matches!(failure.kind, SendErrorKind::BadResponse(_)), "{answer:?}: {}", failure);
        let text = failure.kind.to_string();
        assert!(text.contains(expected), "{answer:?}: {text}");
        assert!(failure.delivered, "{answer:?}");
    }
    assert!(side.connections.is_empty());
}

#[tokio::test(flavor = "local")]
async fn a_head_that_is_too_large_is_a_bad_response() {
    let many = "A: b\r\n".repeat(101);
    let long = format!("A: {}\r\n", "b".repeat(64 << 10));
    let side = side();
    for headers in [many, long] {
        let target = upstream(move |mut stream, _| {
            let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok");
            async move {
                head(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let failure = get("/").over(&side, &target).await.unwrap_err();
        assert_eq!(failure.kind, SendErrorKind::BadResponse(BadResponse::HeadTooLarge));
    }
}

#[tokio::test(flavor = "local")]
async fn an_odd_but_clear_head_is_fine() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 299 Fine, so to speak\r\nContent-Length: 2\r\n\r\nok", 299),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0\r\nA: b\r\n\r\n", 200),
        ("HTTP/1.0 200 OK\r\n\r\nok", 200),
        ("HTTP/1.1 200 OK\r\n\r\nok", 200),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
    ];
    let side = side();
    for (answer, status) in cases {
        let target = answering_once(answer).await;
        assert_eq!(outcome(get("/").over(&side, &target).await).await, Ok((status, "ok".to_owned())), "{answer:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn framing_headers_stay_behind_and_lengths_are_settled() {
    let side = side();
    let target = answering_once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    let answer = get("/").over(&side, &target).await.unwrap();
    assert!(answer.response.headers().is_empty());
    let target = answering_once("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok").await;
    let answer = get("/").over(&side, &target).await.unwrap();
    assert_eq!(answer.response.headers()["content-length"], "2");
}

#[tokio::test(flavor = "local")]
async fn answers_without_a_body_free_their_connection_at_once() {
    let cases = [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    for (method, text) in cases {
        let side = side();
        let target = answering(text).await;
        for _ in 0..3 {
            let answer = get("/").method(method.clone()).over(&side, &target).await.unwrap();
            assert!(answer.response.body().is_end_stream());
            assert_eq!(side.connections.len(), 1, "{text:?}");
        }
    }
}

#[tokio::test(flavor = "local")]
async fn bytes_behind_an_answer_spoil_the_connection_and_no_other_answer() {
    let target = upstream(|mut stream, number| async move {
        while head(&mut stream).await.is_some() {
            let answer = if number == 0 { "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nstray" } else { OK };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let side = side();
    let answer = get("/").over(&side, &target).await.unwrap();
    assert_eq!((answer.response.status().as_u16(), answer.response.headers().len()), (204, 0));
    assert_eq!(counts(&target), [1, 0, 0, 1]);
    for _ in 0..2 {
        assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
    }
    assert_eq!(counts(&target), [2, 1, 1, 1]);
}

#[tokio::test(flavor = "local")]
async fn an_answer_before_its_request_is_nobodys() {
    for ask in [get("/"), post("/", Sent::of("hello"))] {
        let (speak, spoken) = (Rc::new(tokio::sync::Notify::new()), Rc::new(tokio::sync::Notify::new()));
        let (heard, said) = (speak.clone(), spoken.clone());
        let target = upstream(move |mut stream, number| {
            let (heard, said) = (heard.clone(), said.clone());
            async move {
                head(&mut stream).await;
                if number > 0 {
                    until(&mut stream, "hello").await;
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
                if number == 0 {
                    heard.notified().await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged").await;
                    said.notify_one();
                    let _ = stream.read_u8().await;
                }
            }
        })
        .await;
        let side = side();
        assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
        assert_eq!(counts(&target), [1, 1, 1, 0]);
        speak.notify_one();
        spoken.notified().await;
        let body = Sent::of("hello");
        let ask = Ask { body, ..ask };
        let running = ask.over(&side, &target).await;
        assert_eq!(counts(&target), [2, 1, 0, 1], "the first connection is closed, and it is counted why");
        assert_eq!(outcome(running).await, ok());
        assert_eq!(counts(&target), [2, 1, 1, 1]);
    }
}

#[tokio::test(flavor = "local")]
async fn a_cut_body_is_never_a_complete_one() {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok",
    ];
    let side = side();
    for answer in cases {
        let target = answering_once(answer).await;
        let outcome = outcome(get("/").over(&side, &target).await).await;
        assert_eq!(outcome, Err("the answer's body was cut".to_owned()), "{answer:?}");
    }
    let target = answering_once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n").await;
    assert_eq!(outcome(get("/").over(&side, &target).await).await, Err("the answer's body is malformed".to_owned()));
    assert!(side.connections.is_empty());
}

#[tokio::test(flavor = "local")]
async fn trailers_come_through() {
    let side = side();
    let target =
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n").await;
    for _ in 0..2 {
        let answer = get("/").over(&side, &target).await.unwrap();
        let body = answer.response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(side.connections.len(), 1);
    }
}
