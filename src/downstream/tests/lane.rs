//! The fast lane on sockets: what it serves, and what it hands on.

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n";
const CLOSE: &str = "connection: close\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn last(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{CLOSE}")
}

/// All that comes back for `text`, when it is sent in two pieces.
async fn in_two(site: &Site, text: &str, cut: usize) -> String {
    let mut stream = site.connect().await;
    stream.set_nodelay(true).unwrap();
    let (first, second) = text.as_bytes().split_at(cut);
    stream.write_all(first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ = stream.write_all(second).await;
    let _ = stream.shutdown().await;
    text_of(&read_all(&mut stream).await)
}

#[tokio::test(flavor = "local")]
async fn answers_are_the_same_byte_by_byte_as_hypers() {
    let post = "POST /mirror HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-b:  2 \r\nX-A:3\r\nContent-Length: 5\r\n\r\nhello";
    for text in [
        [get("/a"), get("/b"), last("/c")].concat(),
        [post, post, &last("/mirror?a=b")].concat(),
        [post, "POST /mirror HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", post]
            .concat(),
        format!("HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n{}", get("/status/204")),
        format!("HEAD /drip/2 HTTP/1.1\r\nhost: x\r\n\r\n{}", get("/status/304")),
        format!("HEAD /ten/10 HTTP/1.1\r\nhost: x\r\n\r\nHEAD /status/304 HTTP/1.1\r\nhost: x\r\n{CLOSE}"),
        [get("/status/404"), get("/status/599"), last("/status/200")].concat(),
        [get("/drip/3"), last("/big/3")].concat(),
        [get("/trailers"), get("/dated"), get("/close"), get("/never")].concat(),
        [get("/ten/10"), last("/a")].concat(),
        "GET /a HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n".to_owned(),
        ["GET /trailers HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n", GET].concat(),
        "GET /a HTTP/1.0\r\nhost: x\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\n\r\n".to_owned(),
        [GET, "\r\n\r\n", GET, "GET /b HTTP/1.1\n\r\n", GET].concat(),
        [post, "GET /b HTTP/1.1\r\nhost : x\r\n\r\n", GET].concat(),
        [GET, "GET /b HT"].concat(),
    ] {
        // A busy machine is no slow client.
        let patience = Duration::from_secs(30);
        let (header_timeout, keepalive_timeout) = (patience, patience);
        let patient = Listener { half_close: true, header_timeout, keepalive_timeout, ..settings() };
        let [lane, hyper] = [true, false].map(|fast_lane| site(&Listener { fast_lane, ..patient.clone() }));
        let expected = in_two(&hyper, &text, 0).await;
        let cuts = (0..text.len()).map(async |cut| {
            let found = in_two(&lane, &text, cut).await;
            assert_eq!(found, expected, "{text:?} cut at {cut}");
        });
        futures_util::future::join_all(cuts).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_that_is_not_plain_goes_to_hyper_with_all_that_follows_it() {
    let site = site(&settings());
    let chunked = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let bad = "GET /b HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n";
    let all = site.exchange(&[&get("/sleep/20"), chunked, GET, bad, GET].concat()).await;
    assert_eq!(statuses(&all), ["200", "200", "200", "400"], "{all}");
    assert!(all.contains("slept") && all.contains("abc") && all.ends_with("ours"), "{all}");
    assert_eq!(site.heard(), ["refused: several Content-Length lines"]);

    // Some time later, on a connection that was idle.
    let mut stream = site.connect().await;
    for (sent, end) in [(get("/a"), "hello /a"), (chunked.to_owned(), "abc"), (get("/b"), "hello /b")] {
        stream.write_all(sent.as_bytes()).await.unwrap();
        read_until(&mut stream, end).await;
    }
    let upgrade = "GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    assert_eq!(statuses(&read_until(&mut stream, "early\n").await), ["101"]);
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "last");
    site.closed(&[Closed::Error, Closed::Client]).await;
}

#[tokio::test(flavor = "local")]
async fn a_body_comes_in_as_it_is_taken_and_ends_where_it_ends() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    let body = "0123456789".repeat(50_000);
    let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let sent = [&head, &body, GET].concat();
    let (mut reader, mut writer) = stream.split();
    let (written, all) = tokio::join!(writer.write_all(sent.as_bytes()), read_until(&mut reader, "hello /a"));
    written.unwrap();
    assert!(all.contains(&body), "{}", all.len());
    assert_eq!(statuses(&all), ["200", "200"]);
}

#[tokio::test(flavor = "local")]
async fn a_body_may_be_read_on_another_task_behind_the_answer() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n").await.unwrap();
    let head = read_until(&mut stream, "early").await;
    assert!(!head.contains("connection: close"), "{head}");
    stream.write_all(&[b'x'; 300_000]).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(statuses(&read_until(&mut stream, "hello /a").await), ["200"]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(site.heard(), ["read 300000"]);

    // And breaks off where its client does.
    stream.write_all(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\nx").await.unwrap();
    read_until(&mut stream, "early").await;
    drop(stream);
    site.closed(&[Closed::Client]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(site.heard().len(), 2);
    assert!(site.heard()[1].contains("ended in the middle"), "{:?}", site.heard());
}

#[tokio::test(flavor = "local")]
async fn what_is_left_of_a_small_body_is_skipped_and_a_large_one_ends_the_connection() {
    let site = site(&settings());
    let post = format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(1000));
    let all = site.exchange(&[&post, &*last("/b")].concat()).await;
    assert_eq!(statuses(&all), ["413", "200"], "{all}");
    let mut stream = site.connect().await;
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nx").await.unwrap();
    let head = read_until(&mut stream, "too much").await;
    assert!(head.contains("connection: close"), "{head}");
    // Still listened to, so that the answer is not lost, but not for ever.
    stream.write_all(&[b'x'; 500_000]).await.unwrap();
    assert_eq!(read_all(&mut stream).await, "");
    drop(stream);
    site.closed(&[Closed::Client, Closed::Client]).await;
}

#[tokio::test(flavor = "local")]
async fn a_client_that_leaves_cancels_what_it_has_asked_for() {
    let site = site(&settings());
    let mut waiting = site.connect().await;
    waiting.write_all(get("/sleep/5000").as_bytes()).await.unwrap();
    let mut streaming = site.connect().await;
    streaming.write_all(get("/drip/1000").as_bytes()).await.unwrap();
    read_until(&mut streaming, "xxxxxxxxxx").await;
    drop((waiting, streaming));
    site.closed(&[Closed::Client, Closed::Client]).await;
    assert_eq!(site.app.cancelled.get(), 1);
    assert_eq!(site.app.room.get(), u32::MAX);
}

#[tokio::test(flavor = "local")]
async fn lengths_that_do_not_agree_break_the_connection_and_nothing_follows() {
    let site = site(&settings());
    let short = site.exchange(&[get("/ten/4"), get("/a")].concat()).await;
    assert!(statuses(&short) == ["200"] && short.contains("xxxx"), "{short}");
    let long = site.exchange(&[get("/ten/14"), get("/a")].concat()).await;
    assert!(statuses(&long) == ["200"] && long.ends_with("\r\n\r\nxxxxxxxxxx"), "{long}");
    let no_answer = site.exchange(&[get("/status/102"), get("/a")].concat()).await;
    assert_eq!(no_answer, "");
    site.closed(&[Closed::Error, Closed::Error, Closed::Error]).await;
}

#[tokio::test(flavor = "local")]
async fn what_was_said_before_a_body_broke_reaches_the_client() {
    let site = site(&settings());
    let all = site.exchange(&get("/broken")).await;
    assert!(all.ends_with("\r\n\r\n4\r\npart\r\n"), "{all}");
    site.closed(&[Closed::Error]).await;
}

#[tokio::test(flavor = "local")]
async fn an_answer_has_one_date_that_is_right() {
    let site = site(&settings());
    let before = std::time::SystemTime::now();
    let all = site.exchange(&last("/a")).await;
    let dates: Vec<_> = all.lines().filter_map(|line| line.strip_prefix("date: ")).collect();
    let [date] = dates[..] else { panic!("{all}") };
    let date = httpdate::parse_http_date(date).unwrap();
    let off = date.duration_since(before).unwrap_or_else(|error| error.duration());
    assert!(off <= Duration::from_secs(2), "{off:?}");
    assert_eq!(site.exchange(&[get("/dated"), last("/dated")].concat()).await.matches("date: long ago").count(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_drain_is_said_and_a_partial_head_waits_in_its_bounds() {
    let site = site(&settings());
    let mut busy = site.connect().await;
    busy.write_all([get("/sleep/300"), get("/b")].concat().as_bytes()).await.unwrap();
    let mut partial = site.connect().await;
    partial.write_all([GET, "GET /b HTTP/1.1\r\nho"].concat().as_bytes()).await.unwrap();
    read_until(&mut partial, "hello /a").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.drain(Duration::from_secs(5));
    assert_eq!(statuses(&read_all(&mut partial).await), ["408"]);
    let all = read_all(&mut busy).await;
    assert!(statuses(&all) == ["200"] && all.contains("connection: close"), "{all}");
    site.door.emptied().await;
}
