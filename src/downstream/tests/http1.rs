use super::*;
use crate::downstream::attend::{Arrival, attend};
use crate::downstream::stock::Stock;
use crate::socket::Socket;

const CLOSE: &str = "connection: close\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn requests_are_answered_one_after_the_other_on_one_connection() {
    let site = site(&settings());
    let all = site.exchange(&format!("GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n{CLOSE}")).await;
    assert_eq!(statuses(&all), ["200", "200"], "{all}");
    assert!(all.contains("hello /a") && all.ends_with("hello /b"), "{all}");
    site.closed(&[Closed::Client]).await;
    assert_eq!((site.door.connections(), site.seats.taken()), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_connection_knows_where_it_came_from() {
    let site = site(&settings());
    let all = site.exchange(&format!("GET /facts HTTP/1.1\r\nhost: x\r\n{CLOSE}")).await;
    assert!(all.ends_with(&format!("7 http 127.0.0.1 {} false ", site.address)), "{all}");
}

#[tokio::test(flavor = "local")]
async fn bodies_come_through_however_they_are_framed_and_cut() {
    let site = site(&settings());
    let sized = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    let chunked =
        "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
    let last = format!("GET /end HTTP/1.1\r\nhost: x\r\n{CLOSE}");
    let all = site.exchange(&[sized, chunked, &last].concat()).await;
    assert!(all.contains("\r\n\r\nhello") && all.contains("\r\n\r\nabcde") && all.ends_with("hello /end"), "{all}");

    let mut stream = site.connect().await;
    for byte in [sized, chunked, &last].concat().bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let all = read_all(&mut stream).await;
    assert_eq!(statuses(&all), ["200", "200", "200"], "{all}");
}

#[tokio::test(flavor = "local")]
async fn http2_with_prior_knowledge_is_seen_by_its_first_bytes() {
    let site = site(&settings());
    let stream = hyper_util::rt::TokioIo::new(site.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), stream).await.unwrap();
    let driving = spawn_local(connection);
    let request = Request::get("http://x/facts").body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!("7 http 127.0.0.1 {} true ", site.address));
    drop(sender);
    driving.await.unwrap().unwrap();
    site.closed(&[Closed::Client]).await;
}

#[tokio::test(flavor = "local")]
async fn what_is_ambiguous_gets_our_own_400_behind_earlier_answers_and_the_connection_closes() {
    for (text, objection) in [
        ("GET / HTTP/1.1\nhost: x\r\n\r\n", Objection::BareLineFeed),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Objection::LengthAndEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            Objection::SeveralLengths,
        ),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Objection::Encoding),
        ("GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n", Objection::Folded),
    ] {
        let site = site(&settings());
        let all =
            site.exchange(&format!("GET /sleep/20 HTTP/1.1\r\nhost: x\r\n\r\n{text}GET /after HTTP/1.1\r\n\r\n")).await;
        assert_eq!(statuses(&all), ["200", "400"], "{text:?} {all}");
        assert!(all.contains("slept") && all.contains("connection: close") && all.ends_with("ours"), "{all}");
        assert_eq!(site.heard(), [format!("refused: {objection}")]);
        site.closed(&[Closed::Error]).await;
    }
}

#[tokio::test(flavor = "local")]
async fn what_hyper_would_refuse_is_refused_in_our_words() {
    let site = site(&settings());
    let all = site.exchange("GET / HTTP/1.1\r\nhost : x\r\n\r\n").await;
    assert_eq!(statuses(&all), ["400"], "{all}");
    site.closed(&[Closed::Error]).await;
    assert_eq!(site.heard(), ["refused: a header line that is none"]);
}

#[tokio::test(flavor = "local")]
async fn bounds_of_the_head_are_414_and_431() {
    let site = site(&settings());
    let uri = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(16 << 10));
    assert_eq!(statuses(&site.exchange(&uri).await), ["414"]);
    let endless = "a".repeat(200 << 10);
    assert_eq!(statuses(&site.exchange(&endless).await), ["414"]);
    let size = format!("GET / HTTP/1.1\r\nhost: x\r\na: {endless}\r\n\r\n");
    assert_eq!(statuses(&site.exchange(&size).await), ["431"]);
    let count = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(statuses(&site.exchange(&count).await), ["431"]);
    let most = format!("GET / HTTP/1.1\r\n{}connection: close\r\n\r\n", "a: b\r\n".repeat(99));
    assert_eq!(statuses(&site.exchange(&most).await), ["200"]);
}

#[tokio::test(flavor = "local")]
async fn wider_bounds_than_hypers_own_hold() {
    let mut settings = settings();
    (settings.max_headers, settings.max_header_size) = (5000, crate::types::Size(2 << 20));
    let site = site(&settings);
    let many = format!("GET / HTTP/1.1\r\n{}{CLOSE}", "a: b\r\n".repeat(4000));
    assert_eq!(statuses(&site.exchange(&many).await), ["200"]);
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n{CLOSE}", "x".repeat(1 << 20));
    assert_eq!(statuses(&site.exchange(&long).await), ["200"]);
    let too_long = format!("GET / HTTP/1.1\r\na: {}\r\n{CLOSE}", "x".repeat(2 << 20));
    assert_eq!(statuses(&site.exchange(&too_long).await), ["431"]);
}

#[tokio::test(flavor = "local")]
async fn a_head_that_does_not_end_is_408_however_it_drips() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "hello /a").await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET /b HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let dripping = spawn_local(async move {
        while writer.write_all(b"a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let all = read_all(&mut reader).await;
    assert_eq!(statuses(&all), ["408"], "{all}");
    dripping.abort();
    site.closed(&[Closed::Timeout]).await;
}

#[tokio::test(flavor = "local")]
async fn silence_is_closed_silently() {
    let site = site(&settings());
    let mut fresh = site.connect().await;
    let mut idle = site.connect().await;
    idle.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut idle, "hello /a").await;
    // Empty lines are no request, and do not keep it open.
    for _ in 0..5 {
        let _ = idle.write_all(b"\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(read_all(&mut fresh).await, "");
    assert_eq!(read_all(&mut idle).await, "");
    site.closed(&[Closed::Timeout, Closed::Idle]).await;
}

#[tokio::test(flavor = "local")]
async fn a_long_request_is_not_idle_and_a_quiet_answer_is_not_slow() {
    let site = site(&settings());
    let all = site.exchange(&format!("GET /sleep/700 HTTP/1.1\r\nhost: x\r\n{CLOSE}")).await;
    assert!(all.ends_with("slept"), "{all}");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_takes_nothing_is_cut_and_one_that_is_slow_is_not() {
    let site = site(&settings());
    let mut stuck = site.connect().await;
    stuck.write_all(b"GET /big/400 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut slow = site.connect().await;
    slow.write_all(b"GET /big/100 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let (mut total, mut buffer) = (0, vec![0; 512 << 10]);
    loop {
        match slow.read(&mut buffer).await.unwrap() {
            0 => break,
            read => total += read,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(total > 100 * (64 << 10), "{total}");
    site.closed(&[Closed::Timeout, Closed::Client]).await;
    assert!(read_all(&mut stuck).await.ends_with("!ConnectionReset"));
}

#[tokio::test(flavor = "local")]
async fn a_client_that_leaves_cancels_its_request_unless_half_closing_is_allowed() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /sleep/500 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stream);
    site.closed(&[Closed::Client]).await;
    assert_eq!(site.app.cancelled.get(), 1);

    let mut settings = settings();
    settings.half_close = true;
    let site = super::site(&settings);
    let mut stream = site.connect().await;
    stream.write_all(b"GET /sleep/300 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("slept"));
    assert_eq!(site.app.cancelled.get(), 0);
}

#[tokio::test(flavor = "local")]
async fn an_answer_before_the_body_reaches_a_client_that_is_still_sending() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = spawn_local(async move {
        let mut sent = 0;
        while sent < 8_000_000 && writer.write_all(&[b'x'; 50_000]).await.is_ok() {
            sent += 50_000;
            tokio::task::yield_now().await;
        }
        sent
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let all = read_all(&mut reader).await;
    assert!(statuses(&all) == ["413"] && all.ends_with("too much"), "{all}");
    assert_eq!(sending.await.unwrap(), 8_000_000);
}

#[tokio::test(flavor = "local")]
async fn a_panic_costs_its_own_request_and_is_heard_of() {
    let site = site(&settings());
    let all =
        site.exchange(&format!("GET /panic HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n{CLOSE}")).await;
    assert_eq!(statuses(&all), ["500", "200"], "{all}");
    let all = site.exchange("GET /late-panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!all.contains("\r\n0\r\n"), "{all}");
    assert_eq!(
        site.heard(),
        ["panic: on request", "refused: a panic while the request was answered", "panic: in the body"]
    );
    site.closed(&[Closed::Client, Closed::Error]).await;
    assert_eq!(site.app.room.get(), u32::MAX);
}

#[tokio::test(flavor = "local")]
async fn a_broken_answer_never_looks_whole() {
    let site = site(&settings());
    let all = site.exchange("GET /broken HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!all.contains("\r\n0\r\n"), "{all}");
    // HTTP/1.0 knows only the connection's end.
    let all = site.exchange("GET /broken HTTP/1.0\r\nhost: x\r\n\r\n").await;
    assert!(all.ends_with("!ConnectionReset"), "{all}");
    site.closed(&[Closed::Error, Closed::Error]).await;
}

#[tokio::test(flavor = "local")]
async fn a_broken_chunked_body_hides_no_second_request() {
    let site = site(&settings());
    let text = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
    let all = site.exchange(text).await;
    assert_eq!(statuses(&all), ["400"], "{all}");
}

#[tokio::test(flavor = "local")]
async fn a_tunnel_loses_no_byte_and_closes_in_halves() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly\n").await.unwrap();
    let head = read_until(&mut stream, "early\n").await;
    assert_eq!(statuses(&head), ["200", "101"], "{head}");
    stream.write_all(b"GET \n\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "GET \n\n").await, "GET \n\n");
    // Longer than any timeout of the listener.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(site.door.connections(), 1);
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "last");
    site.closed(&[Closed::Client]).await;
}

#[tokio::test(flavor = "local")]
async fn behind_an_upgrade_that_was_not_taken_requests_are_guarded_again() {
    let site = site(&settings());
    let upgrade = "GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let began = std::time::Instant::now();
    let all = site.exchange(&format!("{upgrade}GET /b HTTP/1.1\r\nhost: x\r\n\r\nGET /c HTTP/1.1\n\r\n")).await;
    assert_eq!(statuses(&all), ["200", "200", "400"], "{all}");
    assert_eq!(site.heard(), ["refused: a bare line feed in the request's head"]);
    assert!(began.elapsed() < Duration::from_millis(200));
}

#[tokio::test(flavor = "local")]
async fn an_upgrade_answered_before_its_body_has_come_holds_nothing_up() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    let head = "POST /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"body").await.unwrap();
    read_until(&mut stream, "hello /a").await;
    let began = std::time::Instant::now();
    stream.write_all(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello /b").await;
    assert!(began.elapsed() < Duration::from_millis(200));
}

#[tokio::test(flavor = "local")]
async fn an_upgrade_that_was_not_taken_does_not_change_how_the_connection_closes() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    let head = "GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    for _ in 0..20 {
        writer.write_all(&[b'x'; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(read_all(&mut reader).await.ends_with("too much"));
}

#[tokio::test(flavor = "local")]
async fn expectations_and_heads_without_bodies_are_right() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\nhi").await.starts_with("HTTP/1.1 200"));
    stream.write_all(format!("HEAD /a HTTP/1.1\r\nhost: x\r\n{CLOSE}").as_bytes()).await.unwrap();
    let all = read_all(&mut stream).await;
    assert!(all.contains("content-length: 8") && all.ends_with("\r\n\r\n"), "{all}");
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_a_small_future() {
    let site = site(&settings());
    let client = site.connect().await;
    let roster: Rc<crate::downstream::roster::Roster> = Rc::default();
    let arrival = Arrival {
        accepted: Share::among(1).remove(0).keep(Socket::Tcp(client), Peer::Unix, site.seats.take(1).unwrap()),
        local: None,
        terms: site.app.terms(),
        entry: roster.enter(),
    };
    let size = size_of_val(&attend(site.app.clone(), Stock::new(), Sweep::new(), arrival));
    println!("{size}");
    assert!(size <= 2048, "{size}");
}
