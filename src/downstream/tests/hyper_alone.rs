//! What hyper does by itself, without the guard: the knowledge that the guard is built on. A hyper that begins to refuse what it
//! accepts today makes a part of the guard needless; one that begins to accept what it refuses today makes a hole.

use super::*;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// The statuses of hyper's answers to `text`.
async fn alone(text: &str) -> String {
    statuses(&answers(text).await).join(" ")
}

/// hyper's answers to `text`.
pub(super) async fn answers(text: &str) -> String {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    spawn_local(async move {
        let answer = |request: Request<Incoming>| async move {
            let length = request.into_body().collect().await.map_or(-1, |body| body.to_bytes().len() as i64);
            Ok::<_, std::convert::Infallible>(Response::new(format!("body {length}")))
        };
        let mut builder = Builder::new();
        let _ = builder
            .half_close(true)
            .max_header_size(4096)
            .serve_connection(TokioIo::new(server), service_fn(answer))
            .await;
    });
    client.write_all(text.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    read_all(&mut client).await
}

#[tokio::test(flavor = "local")]
async fn hyper_refuses_these_by_itself() {
    for text in [
        "GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\0y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\ry\r\n\r\n",
        "GET / HTTP/1.1\r\nho\tst: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        "G(T / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nhost: x\r\n\r\n",
        "GET / HTTP/3.0\r\nhost: x\r\n\r\n",
        "GET /\r\nhost: x\r\n\r\n",
        "\rGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length:\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(alone(text).await, "400", "{text:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(5000));
    assert_eq!(alone(&long).await, "431");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(alone(&many).await, "431");
}

#[tokio::test(flavor = "local")]
async fn hyper_accepts_these_so_the_guard_must_not() {
    for text in [
        "GET / HTTP/1.1\nhost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\n",
        "\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: ,chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(alone(text).await, "200", "{text:?}");
    }
}
