use super::*;

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
