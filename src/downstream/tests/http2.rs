use super::*;
use http::{Method, StatusCode, Version};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

type Sender = SendRequest<Full<Bytes>>;

async fn open(site: &Site) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(site.connect().await);
    let (sender, connection) = Builder::new(TokioExecutor::new()).handshake(stream).await.unwrap();
    (sender, spawn_local(connection))
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://x{path}")).body(Full::default()).unwrap()
}

async fn body(response: Response<Incoming>) -> Result<String, hyper::Error> {
    Ok(String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()).into_owned())
}

#[tokio::test(flavor = "local")]
async fn many_requests_run_at_once_and_one_that_panics_harms_no_other() {
    let site = site(&settings());
    let (mut sender, _driving) = open(&site).await;
    let slow = sender.send_request(get("/sleep/200"));
    let late = sender.send_request(get("/late-panic"));
    let panic = sender.send_request(get("/panic"));
    assert_eq!(panic.await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body(late.await.unwrap()).await.is_err());
    assert_eq!(body(slow.await.unwrap()).await.unwrap(), "slept");
    assert_eq!(body(sender.send_request(get("/a")).await.unwrap()).await.unwrap(), "hello /a");
    assert_eq!(site.heard().iter().filter(|text| text.starts_with("panic")).count(), 2);
}

#[tokio::test(flavor = "local")]
async fn bounds_of_the_head_hold() {
    let mut settings = settings();
    (settings.max_headers, settings.max_header_size) = (10, crate::types::Size(8 << 10));
    settings.max_uri = crate::types::Size(256);
    let site = site(&settings);
    let (mut sender, _driving) = open(&site).await;
    let long = sender.send_request(get(&format!("/{}", "a".repeat(256)))).await.unwrap();
    assert_eq!(long.status(), StatusCode::URI_TOO_LONG);
    let mut many = get("/a");
    for number in 0..11 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        many.headers_mut().insert(name, HeaderValue::from_static("v"));
    }
    let many = sender.send_request(many).await.unwrap();
    assert_eq!(many.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut large = get("/a");
    large.headers_mut().insert("x", HeaderValue::try_from("v".repeat(9 << 10)).unwrap());
    let large = sender.send_request(large).await;
    assert!(large.is_err() || large.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test(flavor = "local")]
async fn a_client_that_resets_its_stream_cancels_the_request() {
    let site = site(&settings());
    let (mut sender, _driving) = open(&site).await;
    let request = spawn_local(sender.send_request(get("/sleep/1000")));
    tokio::time::sleep(Duration::from_millis(50)).await;
    request.abort();
    assert_eq!(body(sender.send_request(get("/a")).await.unwrap()).await.unwrap(), "hello /a");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(site.app.cancelled.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_is_told_to_go_away_and_a_busy_one_is_not() {
    let site = site(&settings());
    let (mut sender, driving) = open(&site).await;
    assert_eq!(body(sender.send_request(get("/sleep/700")).await.unwrap()).await.unwrap(), "slept");
    tokio::time::timeout(Duration::from_secs(2), driving).await.unwrap().unwrap().unwrap();
    site.closed(&[Closed::Idle]).await;
}

#[tokio::test(flavor = "local")]
async fn silence_after_the_connection_is_made_is_closed() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let all = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
    assert!(all.is_ok());
    site.closed(&[Closed::Timeout]).await;
}

#[tokio::test(flavor = "local")]
async fn a_stream_whose_client_takes_nothing_is_reset_and_no_other() {
    let site = site(&settings());
    let stream = TokioIo::new(site.connect().await);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(64 << 10).initial_connection_window_size(1 << 20);
    let (mut sender, connection) = builder.handshake::<_, Full<Bytes>>(stream).await.unwrap();
    spawn_local(connection);
    let stuck = sender.send_request(get("/big/100")).await.unwrap();
    assert_eq!(site.app.room.get(), u32::MAX - 1);
    let quiet = sender.send_request(get("/sleep/900"));
    assert_eq!(body(quiet.await.unwrap()).await.unwrap(), "slept");
    let error = body(stuck).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("stream"), "{error:?}");
    assert_eq!(body(sender.send_request(get("/a")).await.unwrap()).await.unwrap(), "hello /a");
}

#[tokio::test(flavor = "local")]
async fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    let site = site(&settings());
    let (mut sender, driving) = open(&site).await;
    let slow = sender.send_request(get("/sleep/500"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.drain(Duration::from_secs(5));
    assert_eq!(body(slow.await.unwrap()).await.unwrap(), "slept");
    let _ = driving.await.unwrap();
    assert!(sender.send_request(get("/a")).await.is_err());
    site.door.emptied().await;
    site.closed(&[Closed::Drained]).await;
}

#[tokio::test(flavor = "local")]
async fn a_drains_deadline_cuts_streams() {
    let site = site(&settings());
    let (mut sender, _driving) = open(&site).await;
    let endless = sender.send_request(get("/drip/1000")).await.unwrap();
    site.drain(Duration::from_millis(300));
    assert!(body(endless).await.is_err());
    site.door.emptied().await;
    assert_eq!(site.app.room.get(), u32::MAX);
}

#[tokio::test(flavor = "local")]
async fn a_tunnel_through_a_stream_keeps_its_connection() {
    let site = site(&settings());
    let stream = site.connect().await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let mut connection = connection;
    let mut sender = sender;
    // The server's settings say that it knows extended CONNECT (RFC 8441).
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::select! {
            _ = &mut connection => panic!("closed"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    spawn_local(async move {
        let _ = connection.await;
    });
    let mut request = Request::builder().method(Method::CONNECT).version(Version::HTTP_2);
    request = request.uri("http://x/tunnel").extension(h2::ext::Protocol::from_static("websocket"));
    let (response, mut send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut receive = response.into_body();
    tokio::time::sleep(Duration::from_millis(700)).await;
    send.send_data(Bytes::from_static(b"hi"), true).unwrap();
    assert_eq!(receive.data().await.unwrap().unwrap(), "hi");
    let end = receive.data().await;
    assert!(matches!(&end, None | Some(Ok(_))), "{end:?}");
    site.closed(&[Closed::Idle]).await;
}

#[tokio::test(flavor = "local")]
async fn large_answers_share_a_connection_evenly_and_let_small_ones_through() {
    const PIECES: usize = 200;
    const WHOLE: usize = PIECES * (64 << 10);
    let site = site(&settings());
    let (sender, _driving) = open(&site).await;
    let come: Rc<RefCell<[usize; 4]>> = Rc::default();
    let mut large = Vec::new();
    for number in 0..4 {
        let (mut sender, come) = (sender.clone(), come.clone());
        large.push(spawn_local(async move {
            let mut body = sender.send_request(get(&format!("/big/{PIECES}"))).await.unwrap().into_body();
            while let Some(frame) = body.frame().await {
                come.borrow_mut()[number] += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            // The other three when this one is whole.
            *come.borrow()
        }));
    }
    while come.borrow().contains(&0) {
        tokio::task::yield_now().await;
    }
    let before: usize = come.borrow().iter().sum();
    let small = body(sender.clone().send_request(get("/a")).await.unwrap()).await.unwrap();
    let meanwhile = come.borrow().iter().sum::<usize>() - before;
    assert_eq!(small, "hello /a");
    assert!(meanwhile < WHOLE, "{meanwhile} bytes of the others came before it");
    let first = large.remove(0).await.unwrap();
    assert!(first.iter().all(|come| *come > WHOLE / 2), "{first:?} of {WHOLE}");
    for other in large {
        assert_eq!(other.await.unwrap().iter().max(), Some(&WHOLE));
    }
}

#[tokio::test(flavor = "local")]
async fn an_upload_that_nobody_reads_leaves_the_connection_to_the_others() {
    let site = site(&settings());
    let (mut sender, _driving) = open(&site).await;
    let post =
        |path: &str, size: usize| Request::post(format!("http://x{path}")).body(Full::from(vec![b'x'; size])).unwrap();
    let unread = spawn_local(sender.send_request(post("/sleep/3000", 32 << 20)));
    let echo = sender.send_request(post("/echo", 1 << 20)).await.unwrap();
    assert_eq!(body(echo).await.unwrap().len(), 1 << 20);
    assert!(!unread.is_finished(), "it had to wait for the other one's end");
}
