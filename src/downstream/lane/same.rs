//! What the fast lane takes it reads as hyper does, whatever becomes of the bytes of plain requests, and what it writes is what hyper
//! writes.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::answer::{Asked, Framing, Size, write_head};
use super::plain;
use crate::downstream::tests::{read_all, settings, site, text_of};
use crate::types::{Lines, Marks};

/// Requests that are plain, or nearly.
fn seeds() -> impl Strategy<Value = String> {
    let first = prop_oneof![
        3 => Just("GET /mirror HTTP/1.1"),
        3 => Just("POST /mirror?a=b%20c HTTP/1.1"),
        1 => Just("OPTIONS /mirror/x;y HTTP/1.1"),
        1 => Just("GET http://x/mirror HTTP/1.1"),
        1 => Just("GET /mirror HTTP/1.0"),
    ];
    let line = prop_oneof![
        4 => Just("X-A: b"),
        4 => Just("accept:  */*  "),
        1 => Just("X-A:"),
        3 => Just("Content-Length: 5"),
        1 => Just("content-length:\t05"),
        1 => Just("content-length: 5 "),
        1 => Just("Transfer-Encoding: chunked"),
        1 => Just("Connection: keep-alive"),
        1 => Just("connection: close"),
        1 => Just("Host: y"),
        1 => Just("x-long: 0123456789012345678901234567890123456789"),
    ];
    let lines = proptest::collection::vec(line, 0..5);
    let body = prop_oneof![2 => Just(""), 2 => Just("hello"), 1 => Just("5\r\nhello\r\n0\r\n\r\n"), 1 => Just("hel")];
    (first, lines, body).prop_map(|(first, lines, body)| {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{first}\r\nHost: x\r\n{lines}\r\n{body}")
    })
}

/// A place, a byte, and whether it is put in, put over another, or taken out.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    let byte = prop_oneof![3 => proptest::sample::select(&b"\r\n \t:,;\0/?HTP1.0x\x7f\xe4"[..]), 1 => any::<u8>()];
    proptest::collection::vec((any::<usize>(), byte, 0..3u8), 0..4)
}

fn mutated(seed: &str, mutations: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = seed.as_bytes().to_vec();
    for (at, byte, how) in mutations {
        let at = at % bytes.len();
        match how {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// An answer: its status, headers, and body, if it has one, with whether its length is told.
type Sample = (u16, Vec<(&'static str, &'static str)>, Option<(&'static str, bool)>);

fn responses() -> impl Strategy<Value = Sample> {
    let header = prop_oneof![
        4 => Just(("x-a", "b")),
        2 => Just(("set-cookie", "a=b; Path=/")),
        1 => Just(("set-cookie", "c=d")),
        1 => Just(("connection", "close")),
        1 => Just(("connection", "x-a, Close")),
        1 => Just(("connection", "keep-alive")),
        1 => Just(("content-length", "5")),
        1 => Just(("date", "Sun, 06 Nov 1994 08:49:37 GMT")),
        1 => Just(("trailer", "x-sum")),
        1 => Just(("trailer", "x-b, x-c")),
    ];
    let headers = proptest::collection::vec(header, 0..6);
    let status = proptest::sample::select(&[200u16, 200, 204, 205, 304, 404, 500, 599][..]);
    let body = prop_oneof![1 => Just(None), 1 => Just(Some(("hello", true))), 1 => Just(Some(("hello", false)))];
    (status, headers, body)
}

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A body that says how long it is, or does not.
fn body(text: Option<(&'static str, bool)>) -> AnyBody {
    use http_body_util::{BodyExt, StreamBody};
    match text {
        None => Full::default().boxed_unsync(),
        Some((text, true)) => Full::from(text).boxed_unsync(),
        Some((text, false)) => {
            let frame = Ok(http_body::Frame::data(Bytes::from(text)));
            StreamBody::new(futures_util::stream::iter([frame])).boxed_unsync()
        }
    }
}

/// What hyper writes.
async fn written(response: http::Response<AnyBody>, asked: Asked) -> String {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let response = std::cell::RefCell::new(Some(response));
    tokio::task::spawn_local(async move {
        let answer = |_: Request<Incoming>| {
            let response = response.take();
            async { response.ok_or("only one") }
        };
        let _ = Builder::new().half_close(true).serve_connection(TokioIo::new(server), service_fn(answer)).await;
    });
    let method = if asked.head { "HEAD" } else { "GET" };
    let close = if asked.close { "connection: close\r\n" } else { "" };
    client.write_all(format!("{method} / HTTP/1.1\r\nhost: x\r\n{close}\r\n").as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    read_all(&mut client).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn answers_are_written_as_hyper_writes_them(answer in responses(), head in any::<bool>(), close in any::<bool>()) {
        let (status, headers, text) = answer;
        let asked = Asked { head, close };
        let response = |body| {
            let mut response = http::Response::builder().status(status);
            for (name, value) in &headers {
                response = response.header(*name, *value);
            }
            response.body(body).unwrap()
        };
        let hyper = block_on(written(response(body(text)), asked));
        let size = match text {
            None => Size::None,
            Some((text, true)) => Size::Known(text.len() as u64),
            Some((_, false)) => Size::Unknown,
        };
        let mut out = Vec::new();
        let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
        let parts = response(body(None)).into_parts().0;
        let Ok((framing, closes)) = write_head(&mut out, &parts, None, size, asked, date) else {
            prop_assert_eq!(hyper, "");
            return Ok(());
        };
        let body = match framing {
            Framing::None => "",
            Framing::Length(5) => "hello",
            Framing::Chunked => "5\r\nhello\r\n0\r\n\r\n",
            Framing::Length(_) => "?",
        };
        let lane = String::from_utf8(out).unwrap() + body;
        prop_assert_eq!(text_of(&lane), text_of(&hyper));
        prop_assert_eq!(lane.matches("date: ").count(), headers.iter().filter(|(name, _)| *name == "date").count().max(1));
        let said = headers.iter().any(|(_, value)| value.contains("lose"));
        prop_assert_eq!(closes, close || said);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(future)
}

/// What a whole site answers, and what it hears of.
async fn answers(bytes: &[u8], cuts: &[usize], fast_lane: bool) -> (String, Vec<String>) {
    let mut settings = settings();
    (settings.half_close, settings.fast_lane) = (true, fast_lane);
    // A busy machine is no slow client.
    (settings.header_timeout, settings.keepalive_timeout) = (Duration::from_secs(30), Duration::from_secs(30));
    let site = site(&settings);
    let mut stream = site.connect().await;
    stream.set_nodelay(true).unwrap();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, behind) = rest.split_at((*cut).min(rest.len()));
        let _ = stream.write_all(piece).await;
        tokio::task::yield_now().await;
        rest = behind;
    }
    let _ = stream.write_all(rest).await;
    let _ = stream.shutdown().await;
    let all = read_all(&mut stream).await;
    // Behind a request that breaks off hyper closes the connection without a word.
    (text_of(&all).replace("connection: close\r\n", ""), site.heard())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn what_is_taken_is_read_as_hyper_reads_it(seed in seeds(), mutations in mutations()) {
        plain::law(&mutated(&seed, &mutations));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_the_fast_lane_and_without_it_the_same_is_answered(
        seeds in proptest::collection::vec(seeds(), 1..4),
        mutations in mutations(),
        cuts in proptest::collection::vec(1usize..60, 0..6),
    ) {
        let bytes = mutated(&seeds.concat(), &mutations);
        let (lane, hyper) = block_on(async { (answers(&bytes, &cuts, true).await, answers(&bytes, &cuts, false).await) });
        prop_assert_eq!(lane, hyper, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

proptest! {
    #[test]
    fn an_answer_is_the_same_whether_its_headers_are_read_or_not(
        (status, mut headers, body) in responses(), head: bool, close: bool, whole: bool,
    ) {
        // What is hop-by-hop is gone from headers that are read, and what makes an answer more than plain is never in lines.
        headers.retain(|(name, _)| !["connection", "trailer"].contains(name));
        let count = |wanted: &str| headers.iter().filter(|(name, _)| *name == wanted).count();
        let whole = whole && count("content-length") < 2;
        let marks = Marks { whole, dated: count("date") > 0, sized: count("content-length") > 0 };
        let with = |more: &[(&'static str, &'static str)]| {
            let blanks = if whole { " " } else { "\t " };
            let lines = headers.iter().chain(more).map(|(name, value)| format!("{name}:{blanks}{value}\r\n"));
            Lines::new(lines.collect::<String>().into(), marks)
        };
        let size = match body {
            _ if head || matches!(status, 204 | 304) => Size::None,
            None => Size::None,
            Some((text, true)) => Size::Known(text.len() as u64),
            Some((_, false)) => Size::Unknown,
        };
        let (asked, date) = (Asked { head, close }, b"Sun, 06 Nov 1994 08:49:37 GMT");
        let (mut parts, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
        let hop = [("connection", "close"), ("keep-alive", "timeout=5"), ("transfer-encoding", "chunked")];
        let hop = if whole { &[][..] } else { &hop };
        let mut of_lines = Vec::new();
        let lines = write_head(&mut of_lines, &parts, Some(&with(hop)), size, asked, date);
        with(&[]).read(&mut parts.headers);
        let mut of_map = Vec::new();
        let map = write_head(&mut of_map, &parts, None, size, asked, date);
        prop_assert_eq!(&lines, &map);
        if lines.is_ok() {
            // A map puts the lines of one name together; what was text stays in its order.
            let sorted = |text: Vec<u8>| {
                let mut lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
                lines.sort_by_key(|line| line.split(':').next().map(str::to_owned));
                lines
            };
            prop_assert_eq!(sorted(of_lines), sorted(of_map));
        }
    }
}
