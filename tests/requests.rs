//! What becomes of a request on its way to an upstream, and of the answer on its way back.

mod support;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use http_body::Frame;
use support::*;

/// One upstream behind a route for everything; `web` believes nobody, `inner` believes 127.0.0.2.
const PLAIN: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [listener.inner]
    bind = "127.0.0.1:0"
    trusted_proxies = ["127.0.0.2", "10.0.0.0/8"]
    forwarded = "both"
    [pool.app]
    upstreams = "{a}"
    [[route]]
    pool = "app"
"#;

async fn plain() -> (Upstream, Proxy) {
    let a = upstream().named("a").start().await;
    let proxy = proxy(PLAIN).with("a", &a).start().await;
    (a, proxy)
}

/// A proxy in front of an upstream that answers every request with these bytes.
async fn before_script(script: Script) -> (Scripted, Proxy) {
    let a = script.start().await;
    let proxy = proxy(PLAIN).with("a", &a).start().await;
    (a, proxy)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A route that leaves headers alone, one that does not, and each of them without the fast lane.
#[tokio::test]
async fn a_request_is_the_same_whether_anybody_reads_its_headers_or_not() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\nSet-Cookie: a\r\nset-cookie:  b\r\n\r\nhello",
        "HTTP/1.1 200 Fine\r\ncontent-length: 0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: x-b\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nProxy-Authenticate: Basic\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold",
    ];
    let requests = [
        ("GET", "Accept: */*\r\nX-Two: 1\r\nx-two:2 \r\n", ""),
        (
            "GET",
            "Via: 1.0 a\r\nvia: 1.1 b\r\nX-Request-Id: mine\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n",
            "",
        ),
        ("POST", "Content-Length: 4\r\nX_Odd: 1\r\nConnection: keep-alive\r\nForwarded: for=1.2.3.4\r\n", "body"),
        ("PUT", "Content-Length: 0\r\nKeep-Alive: 5\r\nProxy-Authorization: Basic x\r\n", ""),
        ("HEAD", "X-Request-Id: not clean\r\nCookie: a=b\r\n", ""),
    ];
    for answer in answers {
        let a = scripted().reads_request().sends(answer).start().await;
        let text = r#"
            [listener.web]
            bind = "127.0.0.1:0"
            [listener.hyper]
            bind = "127.0.0.1:0"
            fast_lane = false
            [pool.app]
            upstreams = "{a}"
            idle_connections = 0
            [[route]]
            path = "/as-is"
            pool = "app"
            [[route]]
            path = "/edited"
            pool = "app"
            request_headers = { remove = ["x-none"] }
            response_headers = { remove = ["x-none"] }
        "#;
        let proxy = proxy(text).with("a", &a).start().await;
        let mut before = Vec::new();
        for (method, lines, body) in &requests {
            let mut all = Vec::new();
            for (listener, path) in [("web", "/as-is"), ("web", "/edited"), ("hyper", "/as-is"), ("hyper", "/edited")] {
                let mut client = raw_client(proxy.address(listener)).await;
                let head = format!("{method} {path}?q HTTP/1.1\r\nHost: A.example\r\n{lines}Connection2: x\r\n\r\n");
                client.send(head + body).await;
                let said = if *method == "HEAD" { client.response_to_head().await } else { client.response().await };
                let own = |line: &&str| !line.starts_with("date: ") || answer.contains("Date");
                let headers: String = said.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let told = sorted(&format!("{}\r\n{headers}\r\n{}", said.first_line, said.text()), own);
                let received: Vec<String> = (0..a.connections()).map(|connection| a.received(connection)).collect();
                before.resize(received.len(), 0);
                let new: String = received.iter().zip(&before).map(|(all, known)| &all[*known..]).collect();
                before = received.iter().map(String::len).collect();
                let seen = sorted(&new.replace(path, "/"), |line| {
                    // Ours, and new each time.
                    !line.starts_with("x-request-id: ") || line.ends_with(": mine")
                });
                assert!(seen.iter().filter(|line| line.starts_with("x-request-id")).count() <= 1);
                all.push((told, seen));
            }
            assert!(all[0].1[0].starts_with(method), "{all:?}");
            assert!(all[1..].iter().all(|other| *other == all[0]), "{method} {lines:?} {answer:?}: {all:#?}");
        }
    }
}

/// A message's lines, those of one name in their order; the first and what follows the head as they are.
fn sorted(text: &str, keep: impl Fn(&&str) -> bool) -> Vec<String> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let mut fields: Vec<String> = lines.filter(keep).map(str::to_owned).collect();
    fields.sort_by_key(|line| line.split(':').next().map(str::to_owned));
    [vec![first], fields, vec![body.to_owned()]].concat()
}

// ---- routes

#[tokio::test]
async fn a_route_is_for_requests_that_meet_all_its_conditions() {
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [listener.side]
        bind = "127.0.0.1:0"
        [[route]]
        host = "a.example"
        respond = { body = "host" }
        [[route]]
        host = "*.wild.example"
        respond = { body = "wildcard" }
        [[route]]
        path = "/method"
        method = ["PUT", "POST"]
        respond = { body = "method" }
        [[route]]
        path = "/header"
        header = { x-env = "beta", x-id = { regex = "^[0-9]+$" }, x-old = { present = false } }
        respond = { body = "header" }
        [[route]]
        path = "/query"
        query = { version = { prefix = "2." } }
        respond = { body = "query" }
        [[route]]
        path = "/cookie"
        cookie = { group = "canary" }
        respond = { body = "cookie" }
        [[route]]
        path = "/from"
        from = "127.0.0.2/32"
        respond = { body = "from" }
        [[route]]
        path = "/listener"
        listener = "side"
        respond = { body = "listener" }
        [[route]]
        path = "/except"
        except = { method = "DELETE" }
        respond = { body = "except" }
        "#,
    )
    .start()
    .await;
    let client = proxy.client();
    assert_eq!(client.get("/").header("host", "A.Example:8080").await.text(), "host");
    assert_eq!(client.get("/").header("host", "deep.b.wild.example").await.text(), "wildcard");
    assert_eq!(client.get("/").header("host", "wild.example").await.status, 404);
    assert_eq!(client.post("/method/x", "").await.text(), "method");
    assert_eq!(client.get("/method/x").await.status, 404);
    assert_eq!(client.get("/header").header("x-env", "beta").header("x-id", "42").await.text(), "header");
    assert_eq!(client.get("/header").header("x-env", "beta").header("x-id", "4x").await.status, 404);
    let old = client.get("/header").header("x-env", "beta").header("x-id", "42").header("x-old", "");
    assert_eq!(old.await.status, 404);
    assert_eq!(client.get("/query?a=1&version=2.7").await.text(), "query");
    assert_eq!(client.get("/query?version=3").await.status, 404);
    assert_eq!(client.get("/cookie").header("cookie", "a=1; group=canary").await.text(), "cookie");
    assert_eq!(client.get("/cookie").header("cookie", "group=stable").await.status, 404);
    assert_eq!(proxy.client().from("127.0.0.2:0".parse().unwrap()).get("/from").await.text(), "from");
    assert_eq!(client.get("/from").await.status, 404);
    assert_eq!(support::client(proxy.address("side")).get("/listener").await.text(), "listener");
    assert_eq!(client.get("/listener").await.status, 404);
    assert_eq!(client.get("/except").await.text(), "except");
    assert_eq!(client.call(Method::DELETE, "/except").await.status, 404);
}

#[tokio::test]
async fn the_more_specific_route_goes_first_wherever_it_stands() {
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [[route]]
        respond = { body = "any" }
        [[route]]
        path = "/api"
        respond = { body = "prefix" }
        [[route]]
        path = "/api/long"
        respond = { body = "longer" }
        [[route]]
        path = "~ ^/api/[a-z]+/x$"
        respond = { body = "regex" }
        [[route]]
        path = "~ /x$"
        respond = { body = "later regex" }
        [[route]]
        path = "^~ /api/static"
        respond = { body = "prefix before regex" }
        [[route]]
        path = "= /api/exact/x"
        respond = { body = "exact" }
        [[route]]
        path = "raw /raw"
        respond = { body = "raw" }
        [[route]]
        path = "/api/long"
        header = { x-a = "1" }
        respond = { body = "one condition" }
        [[route]]
        path = "/api/long"
        header = { x-a = "1", x-b = "1" }
        respond = { body = "two conditions" }
        [[route]]
        host = "*.example.com"
        respond = { body = "wildcard host" }
        [[route]]
        host = "www.example.com"
        respond = { body = "exact host" }
        [[route]]
        path = "/first"
        priority = 5
        respond = { body = "priority" }
        "#,
    )
    .start()
    .await;
    let client = proxy.client();
    let table = [
        ("/", "any"),
        ("/apis", "any"),
        ("/api", "prefix"),
        ("/api/other", "prefix"),
        ("/api/long/er", "longer"),
        ("/api/long/x", "regex"),
        ("/elsewhere/x", "later regex"),
        ("/api/static/x", "prefix before regex"),
        ("/api/exact/x", "exact"),
        ("/rawhide", "raw"),
        ("/first", "priority"),
    ];
    for (path, body) in table {
        assert_eq!(client.get(path).await.text(), body, "{path}");
    }
    assert_eq!(client.get("/api/long").header("x-a", "1").await.text(), "one condition");
    assert_eq!(client.get("/api/long").header("x-a", "1").header("x-b", "1").await.text(), "two conditions");
    assert_eq!(client.get("/api").header("host", "a.example.com").await.text(), "wildcard host");
    assert_eq!(client.get("/api").header("host", "www.example.com").await.text(), "exact host");
    assert_eq!(client.get("/first").header("host", "www.example.com").await.text(), "priority");
}

#[tokio::test]
async fn redirects_and_fixed_answers_need_no_upstream() {
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [[route]]
        path = "/old"
        redirect = "https://{host}{uri}"
        [[route]]
        path = "~ ^/item/([0-9]+)$"
        redirect = { to = "/thing?id=$1", status = 302 }
        [[route]]
        path = "/teapot"
        respond = { status = 418, body = '{{"method":"{method}"}}', content_type = "application/json" }
        response_headers = { set = { x-route = "{route}" } }
        name = "tea"
        [[route]]
        path = "/nothing"
        respond = 204
        "#,
    )
    .start()
    .await;
    let client = proxy.client();
    let answer = client.get("/old/x?y=1").header("host", "a.example").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (308, Some("https://a.example/old/x?y=1")));
    let answer = client.get("/item/17").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, Some("/thing?id=17")));
    let answer = client.post("/teapot", "water").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (418, r#"{"method":"POST"}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-route"), Some("tea"));
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("HEAD /teapot HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = raw.response_to_head().await;
    assert_eq!((head.status, head.header("content-length")), (418, Some("17")));
    let nothing = raw.response().await;
    assert_eq!((nothing.status, nothing.header("content-length")), (204, None));
}

#[tokio::test]
async fn no_request_turns_a_redirect_towards_another_host() {
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [[route]]
        redirect = "{path}/"
        [[route]]
        path = "~ ^/old(.*)$"
        redirect = "/$1"
        [[route]]
        path = "/there"
        redirect = "//b.example{path}"
        "#,
    )
    .start()
    .await;
    let client = proxy.client();
    let location = async |path: &str| client.get(path).await.header("location").unwrap().to_owned();
    assert_eq!(location("//evil.example").await, "/evil.example/");
    assert_eq!(location("///evil.example").await, "/evil.example/");
    assert_eq!(location("/old/evil.example").await, "/evil.example");
    assert_eq!(location("/there").await, "//b.example/there");
}

#[tokio::test]
async fn a_rewrite_changes_the_path_that_the_upstream_sees() {
    let a = upstream().start().await;
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = "{a}"
        [[route]]
        path = "/api"
        pool = "app"
        rewrite = { prefix = "/v1" }
        [[route]]
        path = "/whole"
        pool = "app"
        rewrite = { path = "/for/{client}?was={path}" }
        [[route]]
        path = "~ ^/user/(?<name>[a-z]+)/(.*)$"
        pool = "app"
        rewrite = { path = "/u/${name}/$2" }
        [[route]]
        path = "/blog"
        pool = "app"
        rewrite = { regex = "/([0-9]{4})/([^/]+)$", to = "/post-$2-of-$1" }
        "#,
    )
    .with("a", &a)
    .start()
    .await;
    let client = proxy.client();
    let seen = async |target: &str| {
        let seen = client.get(target).await.json();
        format!("{}?{}", seen["path"].as_str().unwrap(), seen["query"].as_str().unwrap_or("-"))
    };
    assert_eq!(seen("/api/users?x=1").await, "/v1/users?x=1");
    assert_eq!(seen("/api").await, "/v1?-");
    assert_eq!(seen("/whole/thing").await, "/for/127.0.0.1?was=/whole/thing");
    assert_eq!(seen("/user/ann/a/b?q").await, "/u/ann/a/b?q");
    assert_eq!(seen("/blog/2024/hello?q=1").await, "/blog/post-hello-of-2024?q=1");
    assert_eq!(seen("/blog/other").await, "/blog/other?-");
}

#[tokio::test]
async fn headers_are_edited_both_ways_with_variables() {
    let a = upstream().start().await;
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = "{a}"
        [[route]]
        name = "edited"
        pool = "app"
        [route.request_headers]
        remove = "x-secret"
        set = { x-who = "{client} {scheme} {host} {method} {listener} {route}", x-id = "{request_id}", x-key = "{header:authorization}|{cookie:sid}|{query:q}" }
        add = { x-more = "2" }
        [route.response_headers]
        remove = ["x-powered-by"]
        set = { x-served = "{pool} {upstream} {status}", cache-control = "no-store" }
        add = { x-from = "proxy" }
        "#,
    )
    .with("a", &a)
    .start()
    .await;
    let answer = proxy
        .client()
        .get("/headers?x-powered-by=magic&x-from=upstream&q=7")
        .header("host", "a.example:81")
        .header("x-secret", "1")
        .header("x-who", "me")
        .header("x-more", "1")
        .header("authorization", "Bearer k")
        .header("cookie", "sid=s1")
        .header("x-request-id", "r-1")
        .await;
    assert_eq!(answer.upstream_saw("x-secret"), Vec::<String>::new());
    assert_eq!(answer.upstream_saw("x-who"), ["127.0.0.1 http a.example GET web edited"]);
    assert_eq!(answer.upstream_saw("x-id"), ["r-1"]);
    assert_eq!(answer.upstream_saw("x-key"), ["Bearer k|s1|7"]);
    assert_eq!(answer.upstream_saw("x-more"), ["1", "2"]);
    assert_eq!(answer.header("x-powered-by"), None);
    assert_eq!(answer.header("x-served"), Some(format!("app {} 200", a.address()).as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let from: Vec<_> = answer.headers.get_all("x-from").iter().collect();
    assert_eq!(from, ["upstream", "proxy"]);
}

#[tokio::test]
async fn a_split_shares_requests_by_weight() {
    let (stable, canary) = (upstream().named("stable").start().await, upstream().named("canary").start().await);
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.stable]
        upstreams = "{stable}"
        [pool.canary]
        upstreams = "{canary}"
        [[route]]
        split = [{ pool = "stable", weight = 80 }, { pool = "canary", weight = 20 }]
        "#,
    )
    .with("stable", &stable)
    .with("canary", &canary)
    .start()
    .await;
    let client = proxy.client();
    for _ in 0..600 {
        assert_eq!(client.get("/status/200").await.status, 200);
    }
    // 120 are expected, with a standard deviation below 10.
    assert!((60..=180).contains(&canary.requests()), "{}", canary.requests());
    assert_eq!(stable.requests() + canary.requests(), 600);
}

#[tokio::test]
async fn error_pages_dress_our_own_answers_and_upstreams_where_asked_to() {
    let a = upstream().start().await;
    let proxy = proxy(
        r#"
        error_pages = { "404" = "lost.html", "5xx" = "sorry.txt" }
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = "{a}"
        [pool.none]
        [[route]]
        path = "/plain"
        pool = "app"
        rewrite = { prefix = "/status" }
        [[route]]
        path = "/dressed"
        pool = "app"
        rewrite = { prefix = "/status" }
        intercept_errors = true
        [[route]]
        path = "/none"
        pool = "none"
        error_pages = { "503" = "none.json" }
        "#,
    )
    .file("lost.html", "<h1>lost</h1>")
    .file("sorry.txt", "sorry")
    .file("none.json", "{}")
    .with("a", &a)
    .start()
    .await;
    let client = proxy.client();
    let lost = client.get("/nowhere").await;
    assert_eq!((lost.status.as_u16(), lost.text().as_str()), (404, "<h1>lost</h1>"));
    assert_eq!(lost.header("content-type"), Some("text/html; charset=utf-8"));
    let none = client.get("/none").await;
    assert_eq!((none.status.as_u16(), none.text().as_str()), (503, "{}"));
    assert_eq!(none.header("content-type"), Some("application/json"));
    assert!(client.get("/plain/500").await.text().contains("answers 500"));
    assert_eq!(client.get("/dressed/500").await.text(), "sorry");
    assert_eq!(client.get("/dressed/404").await.text(), "<h1>lost</h1>");
    assert!(client.get("/dressed/403").await.text().contains("answers 403"));
    assert!(client.get("/dressed/200").await.text().contains("answers 200"));
}

#[tokio::test]
async fn timeouts_and_body_bounds_are_a_routes_own() {
    let a = upstream().start().await;
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        max_body = "1KiB"
        [pool.app]
        upstreams = "{a}"
        [[route]]
        pool = "app"
        [[route]]
        path = "/hang"
        pool = "app"
        timeout = { first_byte = "200ms" }
        [[route]]
        path = "/slow"
        pool = "app"
        timeout = { request = "200ms" }
        [[route]]
        path = "/sse"
        pool = "app"
        timeout = { idle = "200ms" }
        [[route]]
        path = "/chunks"
        pool = "app"
        timeout = { request = "200ms" }
        [[route]]
        path = "/upload"
        pool = "app"
        max_body = "off"
        "#,
    )
    .with("a", &a)
    .start()
    .await;
    let client = proxy.client();
    let late = client.get("/hang").await;
    assert_eq!(late.status, 504);
    assert_eq!(late.header("proxy-status"), Some("tidegate; error=http_response_timeout"));
    let late = client.get("/slow/30s").await;
    assert_eq!(late.status, 504);
    let mut silent = client.get("/sse?interval=1h").open().await;
    silent.text().await;
    assert!(silent.next().await.expect("no end").is_err(), "a silent stream is cut, not ended");
    let mut long = client.get("/chunks/1000?interval=20ms").open().await;
    let end = loop {
        match long.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_some(), "an answer that takes too long is cut, not ended");
    eventually("the upstream is left", || a.stats().in_flight() == 0).await;
    assert_eq!(client.post("/echo", vec![b'x'; 1024]).await.body.len(), 1024);
    let large = client.post("/echo", vec![b'x'; 1025]).await;
    assert_eq!(large.status, 413);
    assert_eq!(large.header("proxy-status"), Some("tidegate; error=http_request_error"));
    assert_eq!(client.post("/upload", vec![b'x'; 100_000]).await.json()["bytes"], 100_000);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_refused_once_it_is_too_long() {
    let a = upstream().start().await;
    let proxy = proxy(&PLAIN.replacen("bind", "max_body = \"1KiB\"\nbind", 1)).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    raw.send(format!("800\r\n{}\r\n", "x".repeat(0x800))).await;
    let answer = raw.final_response().await;
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    raw.closed().await;
    eventually("the upstream is left", || a.stats().in_flight() == 0).await;
}

#[tokio::test]
async fn what_is_not_for_us_is_answered_with_its_own_status() {
    let (a, proxy) = before_script(scripted().answers(OK)).await;
    let many = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect::<String>();
    let table = [
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n".to_owned(), 405, "http_request_denied"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(17 << 10)), 414, "http_request_error"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "h".repeat(65 << 10)), 431, "http_request_error"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431, "http_request_error"),
    ];
    for (request, status, token) in table {
        let mut raw = raw_client(proxy.address("web")).await;
        let _ = raw.try_send(&request).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, status, "{:.40}", request);
        assert_eq!(answer.header("proxy-status"), Some(format!("tidegate; error={token}").as_str()));
        raw.closed().await;
    }
    assert_eq!(a.connections(), 0);
}

#[tokio::test]
async fn a_request_without_a_route_is_404_and_the_connection_stays() {
    let proxy =
        proxy("[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npath = \"/here\"\nrespond = 200").start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    for _ in 0..2 {
        raw.send("GET /there HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.text().as_str()), (404, "404 Not found\n"));
        assert_eq!(answer.header("proxy-status"), Some("tidegate; error=destination_not_found"));
    }
}

#[tokio::test]
async fn every_answer_of_our_own_says_why() {
    let (a, mut gone) = (upstream().start().await, upstream().start().await);
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.full]
        upstreams = { address = "{a}", max_connections = 1 }
        [pool.empty]
        [pool.gone]
        upstreams = "{gone}"
        [pool.secret]
        upstreams = "{a}"
        tls = { verify = false }
        [[route]]
        path = "/full"
        pool = "full"
        rewrite = { path = "/sse?interval=1h" }
        [[route]]
        path = "/empty"
        pool = "empty"
        [[route]]
        path = "/gone"
        pool = "gone"
        [[route]]
        path = "/secret"
        pool = "secret"
    "#;
    let proxy = proxy(text).with("a", &a).with("gone", &gone).start().await;
    gone.kill().await;
    let client = proxy.client();
    let mut only = client.get("/full").open().await;
    only.text().await;
    let table = [
        ("/full", 503, "connection_limit_reached", "upstreams_full"),
        ("/empty", 503, "destination_unavailable", "no_upstream"),
        ("/gone", 502, "connection_refused", "connect_failed"),
        ("/secret", 502, "tls_protocol_error", "tls_failed"),
        ("/nowhere", 404, "destination_not_found", "no_route"),
    ];
    for two in [false, true] {
        let client = if two { proxy.client().http2() } else { proxy.client() };
        for (path, status, token, reason) in table {
            let answer = client.get(path).await;
            let signed = format!("tidegate; error={token}");
            assert_eq!(
                (answer.status.as_u16(), answer.header("proxy-status")),
                (status, Some(signed.as_str())),
                "{path}"
            );
            let head = client.call(Method::HEAD, path).await;
            assert_eq!((head.status.as_u16(), head.body.len()), (status, 0), "{path}");
            let series = format!("tidegate_refusals_total{{reason=\"{reason}\"}}");
            let count = if two { 4.0 } else { 2.0 };
            until("it is counted", async || (proxy.metric(&series).await == Some(count)).then_some(())).await;
        }
    }
}

// ---- what upstreams are told

#[tokio::test]
async fn upstreams_are_told_who_asks_and_spoofed_tales_are_replaced() {
    let (_a, proxy) = plain().await;
    let answer = proxy
        .client()
        .get("/")
        .header("host", "a.example")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-port", "1")
        .header("x-real-ip", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6")
        .await;
    assert_eq!(answer.upstream_saw("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(answer.upstream_saw("x-forwarded-proto"), ["http"]);
    assert_eq!(answer.upstream_saw("x-forwarded-host"), ["a.example"]);
    assert_eq!(answer.upstream_saw("x-forwarded-port"), Vec::<String>::new());
    assert_eq!(answer.upstream_saw("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(answer.upstream_saw("forwarded"), Vec::<String>::new());
    assert_eq!(answer.upstream_saw("via"), ["1.1 tidegate"]);
    assert_eq!(answer.upstream_saw("host"), ["a.example"]);
}

#[tokio::test]
async fn trusted_proxies_are_believed_and_others_are_not() {
    let (_a, proxy) = plain().await;
    let ask = |source: &str| {
        let client = client(proxy.address("inner")).from(source.parse().unwrap());
        client
            .get("/")
            .header("host", "a.example")
            .header("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.1.1.1")
            .header("x-forwarded-proto", "https")
            .header("forwarded", "for=198.51.100.7")
    };
    let believed = ask("127.0.0.2:0").await;
    assert_eq!(believed.upstream_saw("x-forwarded-for"), ["6.6.6.6, 198.51.100.7, 10.1.1.1, 127.0.0.2"]);
    assert_eq!(believed.upstream_saw("x-real-ip"), ["198.51.100.7"]);
    assert_eq!(believed.upstream_saw("x-forwarded-proto"), ["https"]);
    assert_eq!(believed.upstream_saw("forwarded"), ["for=198.51.100.7, for=127.0.0.2;host=\"a.example\";proto=http"]);
    let not = ask("127.0.0.3:0").await;
    assert_eq!(not.upstream_saw("x-forwarded-for"), ["127.0.0.3"]);
    assert_eq!(not.upstream_saw("x-real-ip"), ["127.0.0.3"]);
    assert_eq!(not.upstream_saw("x-forwarded-proto"), ["http"]);
    assert_eq!(not.upstream_saw("forwarded"), ["for=127.0.0.3;host=\"a.example\";proto=http"]);
}

#[tokio::test]
async fn forwarding_headers_can_be_chosen_and_left_out() {
    let a = upstream().start().await;
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        forwarded = "off"
        via = false
        request_id = "off"
        [listener.standard]
        bind = "127.0.0.1:0"
        forwarded = "forwarded"
        request_id = "always"
        [pool.app]
        upstreams = "{a}"
        [[route]]
        pool = "app"
        "#,
    )
    .with("a", &a)
    .start()
    .await;
    let off = proxy.client().get("/").header("x-forwarded-for", "6.6.6.6").header("forwarded", "for=6.6.6.6").await;
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded", "via", "x-request-id"] {
        assert_eq!(off.upstream_saw(name), Vec::<String>::new(), "{name}");
    }
    let standard = client(proxy.address("standard"));
    let answer =
        standard.get("/").header("host", "b").header("x-real-ip", "6.6.6.6").header("x-request-id", "mine").await;
    assert_eq!(answer.upstream_saw("forwarded"), ["for=127.0.0.1;host=\"b\";proto=http"]);
    assert_eq!(answer.upstream_saw("x-real-ip"), Vec::<String>::new());
    assert_ne!(answer.upstream_saw("x-request-id"), ["mine"]);
}

#[tokio::test]
async fn a_request_has_one_id_its_own_or_a_new_one() {
    let (_a, proxy) = plain().await;
    let client = proxy.client();
    assert_eq!(client.get("/").header("x-request-id", "mine-1").await.upstream_saw("x-request-id"), ["mine-1"]);
    let (first, second) = (client.get("/").await, client.get("/").await);
    let (first, second) = (first.upstream_saw("x-request-id"), second.upstream_saw("x-request-id"));
    assert_eq!(first[0].len(), 32);
    assert_ne!(first, second);
}

#[tokio::test]
async fn via_is_added_to() {
    let (_a, proxy) = plain().await;
    let answer = proxy.client().get("/").header("via", "1.0 fred").await;
    assert_eq!(answer.upstream_saw("via"), ["1.0 fred, 1.1 tidegate"]);
}

#[tokio::test]
async fn the_host_is_kept_or_the_upstreams_or_a_literal() {
    let a = upstream().start().await;
    let pools = ["preserve", "upstream", "literal.example:8443"]
        .map(|host| {
            let name = &host[..7];
            format!("[pool.{name}]\nupstreams = \"{{a}}\"\nhost = \"{host}\"\n[[route]]\npath = \"/{name}\"\npool = \"{name}\"\n")
        })
        .concat();
    let proxy = proxy(&format!("[listener.web]\nbind = \"127.0.0.1:0\"\n{pools}")).with("a", &a).start().await;
    let client = proxy.client();
    let host = async |path: &str| client.get(path).header("host", "a.example:81").await.upstream_saw("host");
    assert_eq!(host("/preserv").await, ["a.example:81"]);
    assert_eq!(host("/upstrea").await, [a.address()]);
    assert_eq!(host("/literal").await, ["literal.example:8443"]);
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let (a, proxy) = before_script(scripted().answers(OK)).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET http://b.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 200);
    let request = a.request(0);
    assert_eq!(request.first_line, "GET /x?y HTTP/1.1");
    assert_eq!(request.header_lines("host"), ["b.example"]);
    assert_eq!(request.header("x-forwarded-host"), Some("b.example"));
}

#[tokio::test]
async fn options_of_the_server_itself_go_through() {
    let (a, proxy) = before_script(scripted().answers(OK)).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 200);
    assert_eq!(a.request(0).first_line, "OPTIONS * HTTP/1.1");
}

// ---- hop by hop

#[tokio::test]
async fn hop_by_hop_headers_go_no_further_than_us() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-up, keep-alive\r\nX-Up: 1\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Stays: 1\r\n\r\nok";
    let (a, proxy) = before_script(scripted().answers(answer)).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Down, keep-alive\r\nX-Down: 1\r\nKeep-Alive: 5\r\nTE: gzip, trailers\r\n\
        Proxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\nUpgrade: foo\r\nX-Stays: 1\r\n\r\n",
    )
    .await;
    let answer = raw.response().await;
    assert_eq!(answer.status, 200);
    for name in ["connection", "x-up", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name} of the answer");
    }
    assert_eq!(answer.header("x-stays"), Some("1"));
    let request = a.request(0);
    for name in ["connection", "x-down", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade"] {
        assert_eq!(request.header(name), None, "{name} of the request");
    }
    assert_eq!(request.header_lines("te"), ["trailers"]);
    assert_eq!(request.header("x-stays"), Some("1"));
}

#[tokio::test]
async fn an_answer_whose_connection_header_names_what_it_should_not_loses_its_hop_by_hop_headers_all_the_same() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: content-type, x-up\r\nContent-Type: a/b\r\nX-Up: 1\r\n\
        Keep-Alive: timeout=5\r\nUpgrade: h2c\r\n\r\nok";
    let (_a, proxy) = before_script(scripted().answers(answer)).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    for name in ["connection", "x-up", "keep-alive", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("content-type"), Some("a/b"));
}

#[tokio::test]
async fn trailers_come_through_both_ways() {
    let (_a, proxy) = plain().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send(
        "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
        2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\nGET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    )
    .await;
    let upload = raw.final_response().await;
    assert!(upload.text().contains(r#"[["x-sum","7"]]"#), "{}", upload.text());
    let answer = raw.final_response().await;
    assert_eq!(answer.trailers, [("x-checksum".to_owned(), "42".to_owned())]);
}

#[tokio::test]
async fn names_with_underscores_are_dropped_unless_allowed() {
    let a = upstream().start().await;
    let allowed = PLAIN.replacen("trusted_proxies", "underscores = true\ntrusted_proxies", 1);
    let proxy = proxy(&allowed).with("a", &a).start().await;
    let answer = proxy.client().get("/").header("x_user", "root").await;
    assert_eq!(answer.upstream_saw("x_user"), Vec::<String>::new());
    let answer = client(proxy.address("inner")).get("/").header("x_user", "root").await;
    assert_eq!(answer.upstream_saw("x_user"), ["root"]);
}

// ---- the shape of messages

#[tokio::test]
async fn an_expectation_is_met_once_and_only_when_the_body_is_wanted() {
    let (a, proxy) = before_script(scripted().answers(OK)).await;
    let mut raw = raw_client(proxy.address("web")).await;
    for _ in 0..2 {
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
        assert_eq!(raw.response().await.first_line, "HTTP/1.1 100 Continue");
        raw.send("hello").await;
        assert_eq!(raw.response().await.status, 200);
    }
    assert!(a.received(0).ends_with("\r\n\r\nhello"));
    assert_eq!(a.request(0).header("expect"), None);
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 500000000\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 413);
    raw.closed().await;
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let script = scripted()
        .reads_request()
        .sends("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-Is: head\r\n\r\n")
        .reads_request()
        .sends("HTTP/1.1 204 No Content\r\n\r\n")
        .reads_request()
        .sends("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n")
        .again();
    let (a, proxy) = before_script(script).await;
    let mut raw = raw_client_from("127.0.0.1:0".parse().unwrap(), proxy.address("web")).await;
    raw.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = raw.response_to_head().await;
    assert_eq!((head.status, head.header("content-length"), head.header("x-is")), (200, Some("12345"), Some("head")));
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let nothing = raw.response().await;
    assert_eq!(
        (nothing.status, nothing.header("content-length"), nothing.header("transfer-encoding")),
        (204, None, None)
    );
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n").await;
    let same = raw.response().await;
    assert_eq!((same.status, same.header("etag"), same.header("transfer-encoding")), (304, Some("\"x\""), None));
    raw.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.response_to_head().await.status, 200);
    assert_eq!(a.connections(), 1, "the upstream's connection is used again each time");
}

#[tokio::test]
async fn clients_of_http_1_0_get_answers_that_they_understand() {
    let (_a, proxy) = plain().await;
    let address = proxy.address("web");
    let mut raw = raw_client(address).await;
    raw.send("GET /chunks/3?size=4 HTTP/1.0\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    assert_eq!((answer.text().as_str(), answer.end), ("cccccccccccc", End::Close));
    let mut raw = raw_client(address).await;
    for _ in 0..2 {
        raw.send("GET /bytes/4 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = raw.response().await;
        assert_eq!((answer.body.len(), answer.end), (4, End::Complete));
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
    }
    raw.send("GET /bytes/4 HTTP/1.0\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 200);
    raw.closed().await;
}

#[tokio::test]
async fn a_client_that_asks_for_it_is_closed_behind_its_answer() {
    let (_a, proxy) = plain().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /bytes/4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    raw.closed().await;
}

#[tokio::test]
async fn answers_of_old_upstreams_become_ours() {
    let (_a, proxy) = before_script(scripted().reads_request().sends("HTTP/1.0 200 Fine\r\n\r\nuntil the end")).await;
    let mut raw = raw_client(proxy.address("web")).await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = raw.response().await;
        assert!(answer.first_line.starts_with("HTTP/1.1 200"), "{}", answer.first_line);
        assert_eq!((answer.header("transfer-encoding"), answer.text().as_str()), (Some("chunked"), "until the end"));
        assert_eq!(answer.end, End::Complete);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_a, proxy) = plain().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /slow/50ms HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwoGET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(raw.response().await.text().contains("/slow/50ms"));
    assert_eq!(raw.response().await.text(), "two");
    assert_eq!(raw.response().await.body.len(), 3);
}

#[tokio::test]
async fn streams_pass_piece_by_piece_both_ways() {
    let (_a, proxy) = plain().await;
    let mut sse = proxy.client().get("/sse?events=3&interval=10ms").open().await;
    for number in 0..3 {
        assert!(sse.text().await.contains(&format!("id: {number}\n")));
    }
    assert!(sse.next().await.is_none());
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let pieces = futures_util::stream::unfold(receive, |mut receive| async {
        let piece = receive.recv().await?;
        Some((Ok(Frame::data(piece)), receive))
    });
    send.send(Bytes::from_static(b"ping 0")).unwrap();
    let mut echo = proxy.client().call(Method::POST, "/echo").streaming(pieces.boxed()).open().await;
    for number in 1..4 {
        assert_eq!(echo.text().await, format!("ping {}", number - 1), "each piece comes back before the next is sent");
        send.send(Bytes::from(format!("ping {number}"))).unwrap();
    }
    drop(send);
    assert_eq!(echo.text().await, "ping 3");
    assert!(echo.next().await.is_none());
}

#[tokio::test]
async fn an_upstream_may_answer_before_it_has_the_body() {
    let (_a, proxy) = plain().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    raw.read_until("early\n").await;
    raw.send("world").await;
    raw.read_until("10 bytes came\n").await;
    raw.read_until("0\r\n\r\n").await;
    raw.send("GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.response().await.body.len(), 3);
}

#[tokio::test]
async fn an_upstream_that_refuses_a_body_before_it_has_it_all_is_heard() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let (_a, proxy) = before_script(scripted().reads_until("\r\n\r\n").sends(refusal)).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[tokio::test]
async fn a_half_closed_client_is_gone_or_still_there_as_configured() {
    let a = upstream().start().await;
    let waits = PLAIN.replacen("trusted_proxies", "half_close = true\ntrusted_proxies", 1);
    let proxy = proxy(&waits).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("inner")).await;
    raw.send("GET /slow/50ms HTTP/1.1\r\nHost: a\r\n\r\n").await.half_close().await;
    assert_eq!(raw.response().await.status, 200);
    raw.closed().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the upstream has it", || a.stats().in_flight() == 1).await;
    raw.half_close().await;
    raw.closed().await;
    eventually("the upstream's request is cancelled", || a.stats().cancelled() == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_at_once() {
    let (a, proxy) = plain().await;
    for (target, piece) in
        [("/hang", None), ("/sse?interval=1h", Some("id: 0")), ("/chunks/9?interval=1h", Some("ccc"))]
    {
        let before = a.stats().cancelled();
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        eventually("the upstream has it", || a.stats().in_flight() == 1).await;
        if let Some(piece) = piece {
            raw.read_until(piece).await;
        }
        raw.reset();
        eventually("it is cancelled", || a.stats().cancelled() == before + 1 && a.stats().in_flight() == 0).await;
    }
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf").await;
    eventually("the upstream has it", || a.stats().in_flight() == 1).await;
    drop(raw);
    eventually("it is cancelled", || a.stats().in_flight() == 0).await;
}

#[tokio::test]
async fn http_2_clients_are_served_alike() {
    let (a, proxy) = plain().await;
    let client = proxy.client().http2();
    let answer = client.get("/x?y=1").header("host", "b.example").header("cookie", "a=1").header("cookie", "b=2").await;
    assert_eq!(answer.version, http::Version::HTTP_2);
    assert_eq!(answer.json()["path"], "/x");
    assert_eq!(answer.upstream_saw("host"), ["b.example"]);
    assert_eq!(answer.upstream_saw("cookie"), ["a=1; b=2"]);
    assert_eq!(answer.upstream_saw("via"), ["2 tidegate"]);
    assert_eq!(client.post("/echo", vec![b'x'; 200_000]).await.body.len(), 200_000);
    assert_eq!(client.get("/trailers").header("te", "trailers").await.trailers["x-checksum"], "42");
    assert_eq!(client.call(Method::HEAD, "/bytes/10").await.header("content-length"), Some("10"));
    let mut stream = client.get("/sse?interval=1h").open().await;
    stream.text().await;
    drop(stream);
    eventually("a reset stream cancels its request", || a.stats().cancelled() == 1).await;
    assert_eq!(client.get("/bytes/1").await.status, 200);
}

// ---- what is written down

#[tokio::test]
async fn metrics_count_what_clients_counted() {
    let (a, proxy) = plain().await;
    let narrow = format!(
        "{}\n[[route]]\nname = \"gone\"\npath = \"/gone\"\nrespond = 410\n",
        PLAIN.replace("pool = \"app\"", "pool = \"app\"\nname = \"all\"\npath = \"/\"\nexcept = { path = \"/none\" }")
    );
    proxy.edit(&narrow).await;
    let client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/bytes/100").await.status, 200);
    }
    for (path, status, times) in
        [("/status/404", 404, 5), ("/status/503", 503, 4), ("/gone", 410, 3), ("/none", 404, 2)]
    {
        for _ in 0..times {
            assert_eq!(client.get(path).await.status, status, "{path}");
        }
    }
    assert_eq!(client.post("/upload", vec![b'x'; 1000]).await.status, 200);
    let mut stream = client.get("/sse?interval=1h").open().await;
    stream.text().await;
    let upstream = format!("pool=\"app\",upstream=\"{}\"", a.address());
    let table = [
        ("tidegate_listener_requests_total{listener=\"web\",class=\"2xx\"}".to_owned(), 11.0),
        ("tidegate_listener_requests_total{listener=\"web\",class=\"4xx\"}".to_owned(), 10.0),
        ("tidegate_listener_requests_total{listener=\"web\",class=\"5xx\"}".to_owned(), 4.0),
        ("tidegate_listener_requests_in_flight{listener=\"web\"}".to_owned(), 1.0),
        ("tidegate_listener_connections_open{listener=\"web\"}".to_owned(), 1.0),
        ("tidegate_route_requests_total{route=\"all\",class=\"2xx\"}".to_owned(), 11.0),
        ("tidegate_route_requests_total{route=\"all\",class=\"4xx\"}".to_owned(), 5.0),
        ("tidegate_route_requests_total{route=\"gone\",class=\"4xx\"}".to_owned(), 3.0),
        ("tidegate_route_requests_in_flight{route=\"all\"}".to_owned(), 1.0),
        ("tidegate_route_request_duration_seconds_count{route=\"all\"}".to_owned(), 20.0),
        ("tidegate_route_received_bytes_total{route=\"all\"}".to_owned(), 1000.0),
        (format!("tidegate_upstream_requests_total{{{upstream},class=\"2xx\"}}"), 12.0),
        (format!("tidegate_upstream_requests_total{{{upstream},class=\"5xx\"}}"), 4.0),
        (format!("tidegate_upstream_requests_in_flight{{{upstream}}}"), 1.0),
        (format!("tidegate_upstream_sent_bytes_total{{{upstream}}}"), 1000.0),
        // The event stream has the one that all requests before it went through.
        (format!("tidegate_upstream_connections_open{{{upstream}}}"), 1.0),
        (format!("tidegate_upstream_connections_idle{{{upstream}}}"), 0.0),
        ("tidegate_refusals_total{reason=\"no_route\"}".to_owned(), 2.0),
        ("tidegate_refusals_total{reason=\"client_closed\"}".to_owned(), 0.0),
    ];
    for (series, value) in table {
        assert_eq!(proxy.metric(&series).await, Some(value), "{series}");
    }
    drop(stream);
    until("the client that left is counted", async || {
        let left = proxy.metric("tidegate_refusals_total{reason=\"client_closed\"}").await;
        let open = proxy.metric("tidegate_listener_requests_in_flight{listener=\"web\"}").await;
        (left == Some(1.0) && open == Some(0.0)).then_some(())
    })
    .await;
    assert_eq!(proxy.metric("tidegate_route_requests_total{route=\"all\",class=\"2xx\"}").await, Some(12.0));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_counted_by_whose_fault_it_was() {
    let (a, proxy) = plain().await;
    let mut cut = proxy.client().get("/drop-mid-body?length=2000&sent=100").open().await;
    cut.text().await;
    assert!(cut.next().await.expect("no end").is_err());
    let count = async |reason: &str| proxy.metric(&format!("tidegate_refusals_total{{reason=\"{reason}\"}}")).await;
    until("the upstream's fault is counted", async || (count("upstream_closed").await == Some(1.0)).then_some(()))
        .await;
    let faults = format!("tidegate_upstream_faults_total{{pool=\"app\",upstream=\"{}\",fault=\"reset\"}}", a.address());
    assert_eq!(proxy.metric(&faults).await, Some(1.0));
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    raw.read_until("early\n").await;
    raw.send("no chunk\r\n").await;
    raw.rest().await;
    until("the client's fault is counted", async || {
        (count("body_broken").await.unwrap() + count("client_closed").await.unwrap() == 1.0).then_some(())
    })
    .await;
    assert_eq!((count("upstream_closed").await, proxy.metric(&faults).await), (Some(1.0), Some(1.0)));
}

/// A proxy with a log of this format; the closure gives the whole lines so far.
async fn logging(format: &str) -> (Upstream, Proxy, impl Fn() -> Vec<String>) {
    let a = upstream().start().await;
    let text = format!(
        "access_log = {{ target = \"access.log\", format = '{format}' }}\n{PLAIN}\n[[route]]\nname = \"quiet\"\npath = \"/quiet\"\nrespond = 200\naccess_log = false\n"
    );
    let proxy =
        proxy(&text.replacen("pool = \"app\"", "name = \"all\"\npool = \"app\"", 1)).with("a", &a).start().await;
    let file = proxy.folder().join("access.log");
    let lines = move || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| line.trim_end().to_owned()).collect()
    };
    (a, proxy, lines)
}

#[tokio::test]
async fn the_access_log_has_a_combined_line_for_each_request() {
    let (_a, proxy, lines) = logging("combined").await;
    let client = proxy.client();
    assert_eq!(client.get("/quiet").await.status, 200);
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /bytes/7?q=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\nReferer: http://b/\r\nUser-Agent: te\"st\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 200);
    eventually("its line is there", || lines().len() == 1).await;
    assert_eq!(client.post("/status/404", "x").await.status, 404);
    eventually("both lines are there", || lines().len() >= 2).await;
    let lines = lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("127.0.0.1 - ann ["), "{lines:?}");
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{lines:?}");
    assert!(lines[0].ends_with(r#"] "GET /bytes/7?q=1 HTTP/1.1" 200 7 "http://b/" "te\x22st""#), "{lines:?}");
    assert!(lines[1].contains(r#"] "POST /status/404 HTTP/1.1" 404 "#), "{lines:?}");
    assert!(lines[1].ends_with(r#" "-" "-""#), "{lines:?}");
}

#[tokio::test]
async fn the_access_log_in_json_tells_everything() {
    let (a, proxy, lines) = logging("json").await;
    let client = proxy.client();
    let answer = client.post("/upload?a=1", "hello").header("host", "b.example").header("x-request-id", "r-9").await;
    eventually("the line is there", || !lines().is_empty()).await;
    let line: serde_json::Value = serde_json::from_str(&lines()[0]).unwrap();
    let expected = serde_json::json!({
        "client": "127.0.0.1", "method": "POST", "target": "/upload?a=1", "host": "b.example", "scheme": "http",
        "status": 200, "bytes_in": 5, "bytes_out": answer.body.len(), "upstream_status": 200, "listener": "web",
        "route": "all", "pool": "app", "upstream": a.address(), "attempts": 1, "refusal": null, "request_id": "r-9",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} in {line}");
    }
    assert!(line["duration"].as_f64().unwrap() >= line["upstream_duration"].as_f64().unwrap());
}

#[tokio::test]
async fn the_access_log_by_a_template_tells_of_clients_that_left_and_of_refusals() {
    let (a, proxy, lines) = logging("{method} {path} {status} {refusal} {upstream_status} {attempts}").await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the upstream has it", || a.stats().in_flight() == 1).await;
    raw.reset();
    eventually("the line is there", || lines().len() == 1).await;
    assert_eq!(lines()[0], "GET /hang 499 client_closed - 1");
    let mut stream = proxy.client().get("/sse?interval=1h").open().await;
    stream.text().await;
    drop(stream);
    eventually("the line is there", || lines().len() == 2).await;
    assert_eq!(lines()[1], "GET /sse 200 client_closed 200 1");
    assert_eq!(proxy.client().get("/x%00").await.status, 400);
    eventually("the line is there", || lines().len() == 3).await;
    assert_eq!(lines()[2], "GET /x%00 400 bad_path - 0");
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("BAD\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 400);
    assert_eq!(proxy.client().get("/bytes/1").await.status, 200);
    eventually("both lines are there", || lines().len() == 5).await;
    let mut last = lines().split_off(3);
    last.sort();
    assert_eq!(last, ["- - 400 bad_request - 0", "GET /bytes/1 200 - 200 1"]);
}
