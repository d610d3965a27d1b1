//! Answers that two readers have understood differently, and requests that make them.

use std::future::IntoFuture;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::recorder::{self, Recorder};
use crate::support::*;
use crate::table::PLAIN;

/// Routes that put a request's own words into heads, of answers and of requests.
const ECHOES: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = "{a}"
    [[route]]
    path = "/to"
    redirect = "https://b.example{path}?{query}"
    [[route]]
    path = "/next"
    redirect = "/x?next={query:x}&in={header:x-in}&c={cookie:c}"
    [[route]]
    path = "~ ^/caught/(.*)$"
    redirect = "/$1"
    [[route]]
    path = "/said"
    respond = { body = "{path} {query} {query:x} {header:x-in} {cookie:c} {host}" }
    [route.response_headers]
    set = { x-path = "{path}", x-query = "{query}", x-param = "{query:x}", x-header = "{header:x-in}", x-cookie = "{cookie:c}" }
    [[route]]
    path = "/up"
    pool = "app"
    [route.request_headers]
    set = { x-path = "{path}", x-query = "{query}", x-param = "{query:x}", x-header = "{header:x-in}", x-cookie = "{cookie:c}" }
    [route.response_headers]
    set = { x-path = "{path}", x-param = "{query:x}" }
    [[route]]
    path = "~ ^/rewritten/(.*)$"
    pool = "app"
    rewrite = { path = "/$1?{query:x}" }
"#;

/// Line ends as they have been hidden in targets.
const LINE_ENDS: [&str; 14] = [
    "%0d%0a",
    "%0D%0A",
    "%0a",
    "%0d",
    "%250d%250a",
    "%25%30%64%25%30%61",
    "%c4%8d%c4%8a",
    "%e5%98%8d%e5%98%8a",
    "%u000d%u000a",
    "\\r\\n",
    "%5cr%5cn",
    "%00%0d%0a",
    "%0d%0a%20",
    "%e2%80%a8",
];

#[tokio::test]
async fn what_is_asked_for_splits_no_head() {
    let a = Recorder::start().await;
    let proxy = proxy(ECHOES).with("a", &a).start().await;
    let mut asked = 0;
    for end in LINE_ENDS {
        let bait = format!("{end}Injected:%20yes{end}{end}HTTP/1.1%20200%20OK{end}GET%20/smuggled%20HTTP/1.1");
        for target in [
            format!("/to/{bait}"),
            format!("/to?{bait}"),
            format!("/next?x={bait}"),
            format!("/caught/{bait}"),
            format!("/said/{bait}?x={bait}"),
            format!("/up/{bait}?x={bait}"),
            format!("/rewritten/{bait}?x={bait}"),
        ] {
            let head = format!("Host: a\r\nX-In: {bait}\r\nCookie: c={bait}\r\nConnection: close");
            let mut raw = raw_client(proxy.address("web")).await;
            raw.send(format!("GET {target} HTTP/1.1\r\n{head}\r\n\r\n")).await;
            let (bytes, _) = raw.rest().await;
            let text = String::from_utf8_lossy(&bytes);
            let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{target}: no answer but {text:?}"));
            assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{target}: {head:?}");
            assert!(!head.to_lowercase().contains("\r\ninjected"), "{target}: {head:?}");
            asked += 1;
        }
    }
    assert_eq!(proxy.client().get("/up/last").await.status, 200);
    let record = a.record();
    assert!(record.wrong.is_empty(), "{:#?}", record.wrong);
    for request in &record.requests {
        assert!(["/up/", "/Injected", "/%", "/\\"].iter().any(|start| request.line.contains(start)), "{request:?}");
        assert!(!request.names().contains(&"injected".to_owned()) && request.body.is_empty(), "{request:?}");
    }
    let most = LINE_ENDS.len() * 2 + 1;
    assert!((1..=most).contains(&record.requests.len()), "{} of {asked} arrived", record.requests.len());
}

/// What an upstream answers, and what its client may get: 502, or this body.
const ANSWERS: &[(&str, Option<&str>)] = &[
    // Framing.
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n folded\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    // Lines.
    ("HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nX: y\rContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nX: y\r\n\tfolded\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\nX: y\0\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 2O0 OK\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
    ("HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok", None),
    ("ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
    ("ok\r\n\r\n", None),
    // In order, with another answer behind it that nobody has asked for.
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled", Some("ok")),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        Some("ok"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        Some("ok"),
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled", Some("")),
    (
        "HTTP/1.1 204 No Content\r\nContent-Length: 50\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        Some(""),
    ),
    ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nsmuggled\r\n0\r\n\r\n", Some("")),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nsmuggled", Some("")),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        Some("ok"),
    ),
    ("HTTP/1.1 103 Early Hints\r\nContent-Length: 8\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some("ok")),
    ("HTTP/1.1 200 OK\r\nConnection: content-length, x-drop\r\nX-Drop: 1\r\nContent-Length: 2\r\n\r\nok", Some("ok")),
    (
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        Some("ok"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 8\r\nTransfer-Encoding: x\r\nX-Drop: 1\r\n\r\n",
        Some("ok"),
    ),
];

#[tokio::test]
async fn an_answer_is_one_answer_and_the_next_request_gets_its_own() {
    let mut problems = Vec::new();
    for (bytes, body) in ANSWERS {
        let own = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";
        let a = scripted().reads_request().sends(bytes).reads_request().sends(own).holds();
        let a = a.next_connection().answers(own).start().await;
        let proxy = proxy(&format!("workers = 1\n{PLAIN}")).with("a", &a).start().await;
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let Ok(first) = timeout(PATIENCE / 4, raw.response()).await else {
            problems.push(format!("{bytes:?}: no answer"));
            continue;
        };
        let is_good = match body {
            None => first.status == 502,
            Some(body) => first.status < 400 && first.text() == *body && first.header("x-drop").is_none(),
        };
        let framings = first.header_lines("content-length").len() + first.header_lines("transfer-encoding").len();
        if !is_good || framings > 1 || first.end != End::Complete {
            problems.push(format!("{bytes:?}: {first:?}"));
        }
        raw.send("GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let Ok((rest, _)) = timeout(PATIENCE / 4, raw.rest()).await else {
            problems.push(format!("{bytes:?}: no answer to the second request"));
            continue;
        };
        let rest = String::from_utf8_lossy(&rest);
        if !rest.starts_with("HTTP/1.1 200 OK\r\n") || !rest.ends_with("\r\n\r\nown") || rest.contains("smuggled") {
            problems.push(format!("{bytes:?}: then {rest:?}"));
        }
    }
    println!("{} rows", ANSWERS.len());
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[tokio::test]
async fn bodies_behind_an_answer_to_head_are_nobodys_answer() {
    let a = scripted()
        .reads_request()
        .sends("HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled")
        .holds();
    let a = a.next_connection().answers("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").start().await;
    let proxy = proxy(&format!("workers = 1\n{PLAIN}")).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.response_to_head().await.header("content-length"), Some("51"));
    raw.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.response().await.text(), "own");
}

/// Sends these bytes again and again on each connection, once it has heard something.
async fn babbling(bytes: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                let _ = stream.read(&mut piece).await;
                while stream.write_all(bytes.as_bytes()).await.is_ok() {}
            });
        }
    });
    address
}

// The babbling must not keep this side from reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_without_end_are_cut_in_time() {
    let interim = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 199 Whatever\r\nX: y\r\n\r\n",
    ];
    for bytes in interim {
        let a = babbling(bytes).await;
        let text = PLAIN
            .replace("[[route]]", "timeout = { first_byte = \"500ms\" }\nretry = { attempts = 1 }\n[[route]]\npath = \"/other\"\nrespond = 204\n[[route]]");
        let mut proxy = proxy(&text).with("a", &a).spawn().await;
        let web = proxy.address_of("web").await;
        let before = resident(proxy.pid());
        let (one, two) = (client(web), client(web).http2());
        let others = async {
            for _ in 0..20 {
                assert_eq!(client(web).get("/other").await.status, 204, "{bytes:?}");
            }
        };
        let answers = tokio::join!(one.get("/").attempt(), two.get("/").attempt(), others);
        for answer in [answers.0, answers.1] {
            let status = answer.expect("an answer").status;
            assert!(status == 502 || status == 504, "{bytes:?}: {status}");
        }
        let grown = resident(proxy.pid()).saturating_sub(before);
        assert!(grown < 32 << 10, "{bytes:?}: {grown} KiB more");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_without_end_to_a_health_check_stop_nobody_but_their_upstream() {
    let good = Recorder::start().await;
    let bad = babbling("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    let health = "health = { path = \"/health\", interval = \"200ms\", timeout = \"500ms\", fall = 1 }";
    let text = PLAIN.replace("upstreams = \"{a}\"", &format!("upstreams = [\"{{a}}\", \"{{b}}\"]\n{health}"));
    let proxy = proxy(&text).with("a", &good).with("b", &bad).start().await;
    // The API runs on the thread that checks.
    proxy.until_state("app", &bad.to_string(), "down").await;
    proxy.until_state("app", &good.address_text(), "ready").await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_has_asked_for_is_nobodys() {
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // Said before there is a request, or behind the answer to one.
    for before in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = proxy(&format!("workers = 1\n{PLAIN}")).with("a", &address).start().await;
        let client = proxy.client();
        let asking = tokio::spawn(client.get("/first").into_future());
        let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
        let mut piece = [0; 4096];
        if before {
            stream.write_all(answer("early").as_bytes()).await.unwrap();
            let _ = stream.read(&mut piece).await;
            // It may have closed already.
            let _ = stream.write_all(answer("late").as_bytes()).await;
        } else {
            soon("a request", stream.read(&mut piece)).await.unwrap();
            stream.write_all(answer("first").as_bytes()).await.unwrap();
        }
        // To a request that fails in this way another upstream would be tried, and there is this one alone.
        let retried = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut piece = [0; 4096];
                    while stream.read(&mut piece).await.is_ok_and(|length| length > 0) {
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown").await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let first = asking.await.unwrap();
        assert!(first.status == 502 || ["early", "first", "own"].contains(&first.text().as_str()), "{first:?}");
        if !before {
            stream.write_all(answer("late").as_bytes()).await.unwrap();
        }
        // What has said too much is not listened to any more.
        while soon("the end of that connection", stream.read(&mut piece)).await.is_ok_and(|length| length > 0) {}
        for _ in 0..3 {
            assert_eq!(client.get("/next").await.text(), "own");
        }
        retried.abort();
    }
}

#[tokio::test]
async fn the_strict_reader_reads_strictly() {
    // Otherwise nothing above would mean much.
    for bad in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n",
    ] {
        assert!(recorder::read(bad.as_bytes()).is_err(), "{bad:?}");
    }
    let good = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nGET";
    let (request, length) = recorder::read(good.as_bytes()).unwrap().unwrap();
    assert_eq!((&request.body[..], length), (&b"hello"[..], good.len() - 3));
}
