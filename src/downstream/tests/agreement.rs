//! The guard and hyper see the same borders between messages: what is answered with the guard is what hyper alone answers, wherever
//! the bytes are cut, and what is behind a refusal is never answered.

use super::*;
use crate::downstream::guard::{Guard, Phase};
use proptest::prelude::*;

/// Messages in a row, right and wrong; each body looks like a request.
fn messages() -> impl Strategy<Value = String> {
    const BAIT: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = BAIT.len();
    let post = move |headers: &str, body: &str| format!("POST /echo HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}");
    let chunk = |size: usize, extension: &str| format!("{size:x}{extension}\r\n{BAIT}\r\n0\r\n");
    let message = prop_oneof![
        4 => Just("GET /a HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        4 => Just(post(&format!("content-length: {length}\r\n"), BAIT)),
        2 => Just(post("transfer-encoding: chunked\r\n", &format!("{}\r\n", chunk(length, "")))),
        2 => Just(post("Transfer-Encoding:chunked \r\n", &format!("{}a: b\r\n\r\n", chunk(length, " ;x=\"y\"")))),
        1 => Just(post("upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 3\r\n", "abc")),
        1 => Just("GET /a HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n".to_owned()),
        1 => Just("GET /a HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n".to_owned()),
        1 => Just("\r\n\r\n".to_owned()),
        1 => Just(post("content-length : 3\r\n", "abc")),
        1 => Just(post("content-length: 3\r\ncontent-length: 3\r\n", "abc")),
        1 => Just(post("transfer-encoding: chunked\r\n", &chunk(length + 1, ""))),
        1 => Just(post("transfer-encoding: chunked\r\n", &chunk(length - 1, ""))),
        1 => Just(post("transfer-encoding: chunked\r\n", &chunk(length, ";\n"))),
        1 => Just(post("transfer-encoding: chunked\r\ncontent-length: 3\r\n", "0\r\n\r\n")),
        1 => Just("GET /a HTTP/1.1\r\nhost: x\n\r\n".to_owned()),
    ];
    proptest::collection::vec(message, 1..5).prop_map(|messages| messages.concat())
}

/// What the guard makes of it by itself.
fn phase(text: &str) -> Phase {
    let limits = HeadLimits { size: 64 << 10, headers: 100, uri: 16 << 10 };
    let mut guard = Guard::new(limits);
    let mut rest = text.as_bytes();
    loop {
        let seen = guard.look(rest);
        rest = &rest[seen.keep..];
        if guard.phase() != Phase::Held || rest.is_empty() {
            return guard.phase();
        }
        guard.resume();
    }
}

async fn guarded(text: &str, cuts: &[usize]) -> String {
    let mut settings = settings();
    settings.half_close = true;
    let site = site(&settings);
    let mut stream = site.connect().await;
    stream.set_nodelay(true).unwrap();
    let mut rest = text.as_bytes();
    for cut in cuts {
        let (piece, behind) = rest.split_at((*cut).min(rest.len()));
        let _ = stream.write_all(piece).await;
        tokio::task::yield_now().await;
        rest = behind;
    }
    let _ = stream.write_all(rest).await;
    let _ = stream.shutdown().await;
    read_all(&mut stream).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn with_the_guard_and_without_it_the_same_is_answered(text in messages(), cuts in proptest::collection::vec(1usize..60, 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        let (with, without) = runtime.block_on(async { (guarded(&text, &cuts).await, super::hyper_alone::answers(&text).await) });
        prop_assert!(!with.contains("/smuggled HTTP/1.1 200") && !with.contains("hello /smuggled"), "{}", with);
        let (with, without) = (statuses(&with), statuses(&without));
        match phase(&text) {
            Phase::Refused(_) => {
                prop_assert_eq!(with.last(), Some(&"400"));
                prop_assert!(with.len() <= without.len().max(1) + 1, "{:?} {:?}", with, without);
            }
            Phase::Broken => prop_assert!(with.len() <= without.len(), "{:?} {:?}", with, without),
            _ => prop_assert_eq!(with, without),
        }
    }
}
