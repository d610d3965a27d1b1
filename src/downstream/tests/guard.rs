//! The head guard without sockets: what it lets pass, what it stops, wherever the bytes are cut.

use crate::downstream::Objection;
use crate::downstream::guard::{Guard, HeadLimits, Phase, Seen, law};
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { size: 512, headers: 10, uri: 64 };

/// What passes of bytes that come in these pieces, and where the guard is then; what waits behind a request for a tunnel waits on.
fn pass<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Guard) {
    let mut guard = Guard::new(LIMITS);
    let (mut passed, mut kept) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let Seen { pass, keep } = guard.look(&kept);
        assert!(pass <= keep && keep <= kept.len());
        passed.extend_from_slice(&kept[..pass]);
        kept.drain(..keep);
    }
    (passed, guard)
}

fn whole(text: &str) -> (String, Phase) {
    let (passed, guard) = pass([text.as_bytes()]);
    (String::from_utf8(passed).unwrap(), guard.phase())
}

fn refused(text: &str) -> Option<Objection> {
    match whole(text) {
        (passed, Phase::Refused(objection)) if passed.is_empty() => Some(objection),
        _ => None,
    }
}

#[test]
fn whole_messages_pass_and_the_head_of_the_next_is_kept() {
    let get = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(whole(get), (get.to_owned(), Phase::Between));
    let (passed, phase) = whole(&format!("{get}{get}POST / HTTP/1.1\r\nhost"));
    assert_eq!((passed, phase), (format!("{get}{get}"), Phase::Head));
    let post = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab";
    assert_eq!(whole(post), (post.to_owned(), Phase::Length(1)));
    let chunked = "POST / HTTP/1.1\r\nTRANSFER-ENCODING:\tChunked \r\n\r\n2\r\nab\r\n0\r\n\r\n";
    assert_eq!(whole(chunked), (chunked.to_owned(), Phase::Between));
    assert_eq!(whole(&format!("{chunked}{get}")).0, format!("{chunked}{get}"));
}

#[test]
fn empty_lines_before_a_request_begin_nothing() {
    assert_eq!(whole("\r\n\r\n"), (String::new(), Phase::Between));
    let (passed, guard) = pass([b"GET / HTTP/1.1\r\n\r\n\r\n".as_slice(), b"\r", b"\n", b"GET /2 HTTP/1.1\r\n\r\n"]);
    assert_eq!(passed, b"GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    assert_eq!(guard.heads(), 2);
}

#[test]
fn what_is_ambiguous_is_refused() {
    use Objection::*;
    let cases: [(&str, Objection); 20] = [
        ("GET  / HTTP/1.1\r\n", NoRequest),
        ("GET / HTTP/1.1\r\ncontent-length : 4\r\n", NoHeader),
        ("GET / HTTP/1.1\r\nb\r\n", NoHeader),
        ("GET / HTTP/1.1\r\na: \0\r\n", NoHeader),
        ("GET / HTTP/1.1\n", BareLineFeed),
        ("GET / HTTP/1.1\r\na: b\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\na: b\r\n\n", BareLineFeed),
        ("\nGET", BareLineFeed),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n", Folded),
        ("GET / HTTP/1.1\r\na: b\r\n\tc\r\n", Folded),
        ("GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n", SeveralLengths),
        ("GET / HTTP/1.1\r\ncontent-length: 1x\r\n", BadLength),
        ("GET / HTTP/1.1\r\ncontent-length:\r\n", BadLength),
        ("GET / HTTP/1.1\r\ncontent-length: 18446744073709551614\r\n", BadLength),
        ("GET / HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n", LengthAndEncoding),
        ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n", LengthAndEncoding),
        ("GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n", Encoding),
        ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Encoding),
        ("GET / HTTP/1.1\r\ntransfer-encoding:\r\n", Encoding),
        ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n", Encoding),
    ];
    for (text, objection) in cases {
        assert_eq!(refused(text), Some(objection), "{text:?}");
    }
    let alike = "GET / HTTP/1.1\r\nx-content-length: 1\r\ncontent-lengths: 2\r\ntransfer-encodings: 3\r\n\r\n";
    assert_eq!(whole(alike).1, Phase::Between);
}

#[test]
fn bounds_hold_for_heads_that_end_and_for_those_that_never_do() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
    assert_eq!(whole(&target(64)).1, Phase::Between);
    assert_eq!(refused(&target(65)), Some(Objection::UriTooLong));
    assert_eq!(refused(&"G".repeat(129)), Some(Objection::UriTooLong));
    // A long method takes from the target's room, and where the line is cut makes no difference.
    let method = |length: usize| format!("{} /{} HTTP/1.1\r\n\r\n", "G".repeat(length), "a".repeat(63));
    assert_eq!(whole(&method(53)).1, Phase::Between);
    assert_eq!(refused(&method(54)), Some(Objection::UriTooLong));
    law(method(53).as_bytes());
    law(method(54).as_bytes());
    let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(whole(&lines(10)).1, Phase::Between);
    assert_eq!(refused(&lines(11)), Some(Objection::TooManyHeaders));
    let long = |length: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(length - 23));
    assert_eq!(whole(&long(512)).1, Phase::Between);
    assert_eq!(refused(&long(513)), Some(Objection::HeadTooLarge));
    assert_eq!(refused(&long(2000)[..513]), Some(Objection::HeadTooLarge));
}

#[test]
fn what_follows_a_request_for_a_tunnel_waits_for_its_answer() {
    let upgrade = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let (passed, mut guard) = pass([upgrade.as_bytes(), b"\x81\x05\n\n\n"]);
    assert_eq!((passed.as_slice(), guard.phase()), (upgrade.as_bytes(), Phase::Held));
    guard.resume();
    assert_eq!(guard.look(b"GET / HTTP/1.1\r\n\r\n"), Seen { pass: 18, keep: 18 });
    let with_body = "POST / HTTP/1.1\r\ncontent-length: 2\r\nupgrade: x\r\n\r\n";
    assert_eq!(whole(with_body).1, Phase::Length(2));
    assert_eq!(whole(&format!("{with_body}ab\n")).1, Phase::Held);
    assert_eq!(whole("CONNECT a:1 HTTP/1.1\r\n\r\n").1, Phase::Held);
}

#[test]
fn nothing_passes_behind_what_was_refused_or_broken() {
    let (passed, guard) = pass([b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\n".as_slice(), b"GET / HTTP/1.1\r\n\r\n"]);
    assert_eq!(passed, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!((guard.phase(), guard.heads()), (Phase::Refused(Objection::BareLineFeed), 1));
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let (passed, guard) = pass([head.as_bytes(), b"2\r\nabX\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", b"GET"]);
    assert_eq!(passed, [head, "2\r\nabX"].concat().as_bytes());
    assert_eq!(guard.phase(), Phase::Broken);
}

/// Pieces of requests, right and wrong.
fn parts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => Just("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        2 => (0usize..20).prop_map(|length| format!("POST /p HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{}", "b".repeat(length))),
        2 => "[a-c]{1,9}".prop_map(|body| format!("POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x};e\r\n{body}\r\n0\r\nt: v\r\n\r\n", body.len())),
        1 => Just("\r\n".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("GET / HTTP/1.1\r\nupgrade: x\r\n\r\n".to_owned()),
        1 => Just("GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n".to_owned()),
        1 => "[\\x00-\\x7f]{0,12}",
    ];
    proptest::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn where_bytes_are_cut_makes_no_difference_and_hyper_sees_the_same_requests(text in parts()) {
        law(text.as_bytes());
    }

    #[test]
    fn no_line_feed_that_passes_in_a_head_is_bare(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        law(&[b"GET / HTTP/1.1\r\n", bytes.as_slice(), b"\r\n\r\n"].concat());
    }
}
