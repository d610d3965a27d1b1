//! What the fast lane takes it reads as hyper does, whatever becomes of the bytes of plain requests.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::plain::{self, Head, Seen};
use crate::downstream::HeadLimits;
use crate::downstream::tests::{mirror, read_all, settings, site, text_of};

const LIMITS: HeadLimits = HeadLimits { size: 64 << 10, headers: 100, uri: 16 << 10 };

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

/// What hyper alone reads of the first request.
async fn hyper(bytes: &[u8]) -> Option<String> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (said, heard) = tokio::sync::oneshot::channel();
    let said = std::cell::RefCell::new(Some(said));
    tokio::task::spawn_local(async move {
        let answer = |request: Request<Incoming>| {
            let said = said.take();
            async move {
                let read = mirror(request).await;
                let _ = said.map(|said| said.send(read));
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::default()))
            }
        };
        let _ = Builder::new().half_close(true).serve_connection(TokioIo::new(server), service_fn(answer)).await;
    });
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    heard.await.ok()
}

/// What the fast lane reads of a request that it takes, in the same words.
fn lane(bytes: &[u8], head: &Head) -> String {
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&bytes[range]).unwrap();
    let mut all = format!("{} {} HTTP/1.1\n", text(head.method.range()), text(head.target.range()));
    let mut names: Vec<String> = Vec::new();
    for (name, _) in &head.fields {
        let name = text(name.range()).to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        for (_, value) in head.fields.iter().filter(|(other, _)| text(other.range()).eq_ignore_ascii_case(&name)) {
            let value = http::HeaderValue::from_bytes(&bytes[value.range()]).unwrap();
            all += &format!("{name}={value:?}\n");
        }
    }
    let body = &bytes[head.length..];
    match body.get(..head.body as usize) {
        Some(body) => all + &format!("{:?}", Bytes::copy_from_slice(body)),
        None => all + "broken",
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
        let bytes = mutated(&seed, &mutations);
        if let Seen::Plain(head) = plain::read(&bytes, LIMITS) {
            prop_assert_eq!(block_on(hyper(&bytes)), Some(lane(&bytes, &head)));
        }
        // Of no beginning of it anything else is believed than of the whole.
        let whole = matches!(plain::read(&bytes, LIMITS), Seen::Plain(_));
        for cut in 0..bytes.len() {
            match plain::read(&bytes[..cut], LIMITS) {
                Seen::Other => prop_assert!(!whole, "{}", cut),
                Seen::Plain(head) => prop_assert!(whole && head.length <= cut),
                Seen::Partial => {}
            }
        }
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
