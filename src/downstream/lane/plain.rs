//! What the fast lane takes: the one place that decides, as a pure function over bytes.
//!
//! A whitelist. What it names has one reading only, ours and hyper's and any upstream's; everything else, right or wrong, goes to
//! hyper with all its bytes, through the [`Gate`](crate::downstream::Gate), which refuses what must be refused. So nothing is refused
//! here, and a rule that is too strict costs speed and nothing else.
//!
//! | rule | because |
//! |---|---|
//! | one of seven methods, spelled in full | `CONNECT` makes a tunnel; what others mean is for the general reader |
//! | a target of plain bytes that begins with `/` | absolute form replaces `Host`, `*` and authority form have no path |
//! | exactly `HTTP/1.1` | 1.0 has other rules for how a message and a connection end |
//! | every line ends in CR LF, none is empty but the last | a bare line feed ends a line for some and not for others |
//! | a name is a token with the colon right behind it | a space in between has been read in three ways |
//! | no line begins with white space | folded lines |
//! | no control bytes in values | some read a NUL or a CR as the value's end |
//! | exactly one `Host` of plain bytes | two are two sites |
//! | no `Transfer-Encoding` | chunked bodies are hyper's, and with a `Content-Length` they smuggle |
//! | at most one `Content-Length`, of 1 to 18 digits | two may differ; signs, lists and overflow are read in several ways |
//! | no `Upgrade`, `HTTP2-Settings` | the connection may become another protocol's |
//! | no `Expect` | there is an interim answer to it |
//! | no `TE`, `Trailer` | they are about chunked messages; without `TE` an answer has no trailers |
//! | no `Proxy-Connection`, at most one `Connection`: `close` or `keep-alive` | it could name other headers as its own |
//! | within the listener's bounds, and 16 KiB | a larger head would not leave a worker's scratch space room for what follows it |

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr_iter;
use smallvec::SmallVec;

use crate::downstream::guard::HeadLimits;
use crate::downstream::line::is_plain_target;
use crate::types::lines::{Lines, Marks, is_in_form, plain_length, split_field};

/// A head is no longer than this.
pub(super) const LONGEST: usize = 16 << 10;

/// What some bytes are that a client's next request begins with.
#[derive(Debug)]
pub(super) enum Seen {
    /// A whole head that the fast lane takes.
    Plain(Head),
    /// The beginning of a head that may become one.
    Partial,
    /// Something for hyper.
    Other,
}

/// A plain head: where its parts are.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// How long it is, with the empty line.
    pub(super) length: usize,
    pub(super) method: Span,
    pub(super) target: Span,
    /// Names and values, in order.
    pub(super) fields: SmallVec<[(Span, Span); 16]>,
    /// The length of its body.
    pub(super) body: u64,
    /// The client wants the connection closed behind the answer.
    pub(super) close: bool,
    /// Some line is not in its one form, or is one that a proxy has a say in.
    touched: bool,
    host: bool,
    sized: bool,
    connection: bool,
}

/// A part of a head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    from: u16,
    to: u16,
}

const VERSION: &[u8] = b" HTTP/1.1";
const METHODS: [&[u8]; 7] = [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"];

/// Reads a head.
///
/// **Cost**: about 100 ns for one of 200 bytes.
pub(super) fn read(bytes: &[u8], limits: HeadLimits) -> Seen {
    let longest = LONGEST.min(limits.size);
    let mut head = Head::default();
    let mut at = 0;
    for feed in memchr_iter(b'\n', &bytes[..bytes.len().min(longest)]) {
        let Some((b'\r', line)) = bytes[at..feed].split_last() else { return Seen::Other };
        let taken = match (at, line) {
            (0, line) => head.take_request_line(line, limits),
            (_, []) => return head.end(feed + 1),
            (_, line) => head.take_field(at, line, limits),
        };
        if taken.is_none() {
            return Seen::Other;
        }
        at = feed + 1;
    }
    // What is too long already is refused without waiting for its end.
    let endless = at == 0 && bytes.len() > limits.uri;
    if endless || bytes.len() >= longest { Seen::Other } else { Seen::Partial }
}

impl Head {
    fn take_request_line(&mut self, line: &[u8], limits: HeadLimits) -> Option<()> {
        let method = METHODS.iter().find(|method| line.starts_with(method))?.len();
        let target = line[method..].strip_prefix(b" ")?.strip_suffix(VERSION)?;
        self.method = Span::new(0, method);
        self.target = Span::new(method + 1, target.len());
        (target.len() <= limits.uri && is_plain_target(target)).then_some(())
    }

    fn take_field(&mut self, at: usize, line: &[u8], limits: HeadLimits) -> Option<()> {
        let (name, padded) = split_field(line)?;
        let value = padded.trim_ascii_start();
        let skipped = padded.len() - value.len();
        let value = value.trim_ascii_end();
        // By length first: most names are none of these.
        let is = |special: &str| name.eq_ignore_ascii_case(special.as_bytes());
        let mut touched = !is_in_form(padded);
        match name.len() {
            2 if is("te") => return None,
            3 => touched |= is("via"),
            4 if is("host") => self.take_host(value)?,
            6 if is("expect") => return None,
            7 if is("upgrade") || is("trailer") => return None,
            9 => touched |= is("forwarded") || is("x-real-ip"),
            10 if is("connection") => {
                touched = true;
                self.take_connection(value)?;
            }
            10 => touched |= is("keep-alive"),
            12 => touched |= is("x-request-id"),
            14 if is("content-length") => {
                touched = true;
                once(&mut self.sized)?;
                self.body = plain_length(value)?;
            }
            14 if is("http2-settings") => return None,
            15 => touched |= is("x-forwarded-for"),
            16 if is("proxy-connection") => return None,
            16 => touched |= is("x-forwarded-host") || is("x-forwarded-port"),
            17 if is("transfer-encoding") => return None,
            17 => touched |= is("x-forwarded-proto"),
            18 => touched |= is("proxy-authenticate"),
            19 => touched |= is("proxy-authorization"),
            _ => {}
        }
        self.touched |= touched || name.contains(&b'_');
        let value = Span::new(at + name.len() + 1 + skipped, value.len());
        self.fields.push((Span::new(at, name.len()), value));
        (self.fields.len() <= limits.headers).then_some(())
    }

    /// Letters, digits, and what ports and IPv6 addresses need: whether it names a host is decided where all requests' hosts are.
    fn take_host(&mut self, value: &[u8]) -> Option<()> {
        once(&mut self.host)?;
        let plain = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte));
        (plain && !value.is_empty()).then_some(())
    }

    fn take_connection(&mut self, value: &[u8]) -> Option<()> {
        once(&mut self.connection)?;
        self.close = value.eq_ignore_ascii_case(b"close");
        (self.close || value.eq_ignore_ascii_case(b"keep-alive")).then_some(())
    }

    /// Its fields' lines; `text` begins with the head, [in lower case](Head::lower).
    pub(super) fn lines(&self, text: &Bytes) -> Lines {
        let first_line = self.target.range().end + VERSION.len() + 2;
        let marks = Marks { whole: !self.touched, ..Marks::default() };
        Lines::new(text.slice(first_line..self.length - 2), marks)
    }

    /// Puts the names in a copy of the head into lower case.
    pub(super) fn lower(&self, text: &mut [u8]) {
        for (name, _) in &self.fields {
            text[name.range()].make_ascii_lowercase();
        }
    }

    fn end(mut self, length: usize) -> Seen {
        self.length = length;
        if self.host { Seen::Plain(self) } else { Seen::Other }
    }
}

/// Nothing where it was there before.
fn once(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

impl Span {
    fn new(from: usize, length: usize) -> Self {
        // Heads are shorter than 64 KiB.
        Span { from: from as u16, to: (from + length) as u16 }
    }

    pub(super) fn range(self) -> Range<usize> {
        usize::from(self.from)..usize::from(self.to)
    }
}

/// What must hold for any bytes: what is taken hyper reads alike, the guard lets it pass, and of no beginning of it anything else is
/// believed than of the whole.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn law(bytes: &[u8]) {
    use crate::downstream::guard;
    use crate::judge;
    let limits = HeadLimits { size: 64 << 10, headers: 100, uri: 16 << 10 };
    let whole = read(bytes, limits);
    let length = if let Seen::Plain(head) = &whole { Some(head.length) } else { None };
    for cut in judge::cuts(bytes) {
        match read(&bytes[..cut], limits) {
            Seen::Other => assert_eq!(length, None, "{cut}"),
            Seen::Partial => assert!(length.is_none_or(|length| cut < length), "{cut}"),
            Seen::Plain(head) => assert!(length == Some(head.length) && head.length <= cut, "{cut}"),
        }
    }
    let Seen::Plain(head) = whole else { return };
    let text = |span: Span| String::from_utf8_lossy(&bytes[span.range()]).into_owned();
    let rest = &bytes[head.length..];
    let body = usize::try_from(head.body).ok().and_then(|body| rest.get(..body));
    // A header map has the lines of one name together.
    let mut headers: judge::Fields = Vec::new();
    for (name, value) in &head.fields {
        let (name, value) = (text(*name).to_ascii_lowercase(), bytes[value.range()].to_vec());
        let last = headers.iter().rposition(|(other, _)| *other == name);
        headers.insert(last.map_or(headers.len(), |last| last + 1), (name, value));
    }
    let asked = judge::Asked {
        method: text(head.method),
        target: text(head.target),
        version: http::Version::HTTP_11,
        headers,
        body: body.map(|body| (body.to_vec(), Vec::new())),
    };
    let heard = judge::requests(bytes);
    assert_eq!(heard.requests.first(), Some(&asked));
    assert!(heard.closes || !head.close, "hyper closes where we do");
    let message = &bytes[..head.length + body.map_or(rest.len(), <[u8]>::len)];
    let (passed, guard) = guard::pass([message], limits);
    assert_eq!((passed.as_slice(), guard.heads()), (message, 1), "{:?}", guard.phase());

    let mut copy = bytes[..head.length].to_vec();
    head.lower(&mut copy);
    let lines = head.lines(&Bytes::from(copy));
    let mut map = http::HeaderMap::new();
    lines.read(&mut map);
    assert_eq!(judge::fields(&map), asked.headers);
    if let Some((all, _)) = lines.whole() {
        let mut written = Vec::new();
        lines.iter().for_each(|line| line.write(&mut written));
        assert_eq!(written, all);
        assert!(lines.iter().all(|line| !line.is_hop()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 64 << 10, headers: 8, uri: 100 };

    fn verdict(text: &str) -> &'static str {
        match read(text.as_bytes(), LIMITS) {
            Seen::Plain(_) => "plain",
            Seen::Partial => "partial",
            Seen::Other => "other",
        }
    }

    /// A head with these lines besides its first and its host.
    fn with(lines: &str) -> String {
        format!("POST /a HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
    }

    #[test]
    fn plain_heads_are_taken() {
        for line in [
            "GET / HTTP/1.1",
            "HEAD /a/b?c=d&e=%20 HTTP/1.1",
            "POST /~!$&'()*+,;=:@-._ HTTP/1.1",
            "PUT //a HTTP/1.1",
            "DELETE /a HTTP/1.1",
            "PATCH /a HTTP/1.1",
            "OPTIONS /a HTTP/1.1",
        ] {
            assert_eq!(verdict(&format!("{line}\r\nhost: x\r\n\r\n")), "plain", "{line}");
        }
        for lines in [
            "",
            "a:\r\n",
            "a: b\tc \r\n",
            "a: \u{e4}\r\na: \r\n",
            "CONTENT-LENGTH:\t5 \r\n",
            "content-length: 999999999999999999\r\n",
            "connection: Keep-Alive\r\n",
            "Connection: close\r\n",
            "keep-alive: timeout=5\r\nupgrade-insecure-requests: 1\r\n",
            "sec-websocket-key: x\r\n",
        ] {
            assert_eq!(verdict(&with(lines)), "plain", "{lines:?}");
        }
        for host in ["x", "a.example:8080", "[::1]:80", "127.0.0.1", "a_b"] {
            assert_eq!(verdict(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), "plain", "{host}");
        }
    }

    #[test]
    fn everything_else_is_for_hyper() {
        for line in [
            "",
            "\r\nGET / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /",
            "GET",
            "get / HTTP/1.1",
            "GETS / HTTP/1.1",
            "TRACE / HTTP/1.1",
            "M-SEARCH / HTTP/1.1",
            "CONNECT a:443 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET http://x/ HTTP/1.1",
            "GET x HTTP/1.1",
            "GET /[] HTTP/1.1",
            "GET /\"<>{}|^` HTTP/1.1",
            "GET /# HTTP/1.1",
            "GET /\\ HTTP/1.1",
            "GET /\u{e4} HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET /\t HTTP/1.1",
            "GET / HTTP/1.0",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "PRI * HTTP/2.0",
        ] {
            assert_eq!(verdict(&format!("{line}\r\nhost: x\r\n\r\n")), "other", "{line:?}");
        }
        for lines in [
            "transfer-encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "upgrade: websocket\r\n",
            "expect: 100-continue\r\n",
            "te: trailers\r\n",
            "trailer: a\r\n",
            "http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "proxy-connection: keep-alive\r\n",
            "host: x\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5\r\na: b\r\nContent-Length: 6\r\n",
            "content-length:\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 5, 5\r\n",
            "content-length: 5 5\r\n",
            "content-length: 0x5\r\n",
            "content-length: 1000000000000000000\r\n",
            "connection: upgrade\r\n",
            "connection: close, x\r\n",
            "connection:\r\n",
            "connection: close\r\nconnection: close\r\n",
            "connection: keep-alive\r\nconnection: close\r\n",
            " folded: x\r\n",
            "a: b\r\n c\r\n",
            "a: b\r\n\tc\r\n",
            "a : b\r\n",
            "a\t: b\r\n",
            "a b: c\r\n",
            "(a): b\r\n",
            "\u{e4}: b\r\n",
            ": b\r\n",
            "a\r\n",
            "a: b\0\r\n",
            "a: b\rc\r\n",
            "a: b\x1b\r\n",
            "a: b\x7f\r\n",
            "a: b\n",
            "a: b\r\r\n",
            "\n",
        ] {
            assert_eq!(verdict(&with(lines)), "other", "{lines:?}");
        }
        for host in ["", "a b", "a,b", "a/b", "a@b", "\u{e4}", "\"x\"", "a%20"] {
            assert_eq!(verdict(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), "other", "{host}");
        }
        assert_eq!(verdict("GET / HTTP/1.1\r\na: b\r\n\r\n"), "other", "no host");
        assert_eq!(verdict("GET / HTTP/1.1\nhost: x\r\n\r\n"), "other", "a bare line feed");
    }

    #[test]
    fn bounds_are_the_listeners_and_our_own() {
        let target = |length: usize| format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(length - 1));
        assert_eq!((verdict(&target(100)), verdict(&target(101))), ("plain", "other"));
        assert_eq!(verdict(&"G".repeat(200)), "other", "no end of the target in sight");
        let lines = |count: usize| with(&"a: b\r\n".repeat(count - 1));
        assert_eq!((verdict(&lines(8)), verdict(&lines(9))), ("plain", "other"));
        let long = |length: usize| with(&format!("a: {}\r\n", "b".repeat(length - with("a: \r\n").len())));
        assert_eq!((verdict(&long(LONGEST)), verdict(&long(LONGEST + 1))), ("plain", "other"));
        assert_eq!(
            (verdict(&long(LONGEST)[..LONGEST - 1]), verdict(&long(LONGEST * 2)[..LONGEST])),
            ("partial", "other")
        );
        let small = HeadLimits { size: 50, ..LIMITS };
        assert!(matches!(read(long(50).as_bytes(), small), Seen::Plain(_)));
        assert!(matches!(read(long(51).as_bytes(), small), Seen::Other));
    }

    #[test]
    fn a_beginning_may_become_plain_until_a_line_of_it_is_not() {
        let whole = with("a: b\r\ncontent-length: 3\r\n");
        for cut in 0..whole.len() {
            assert_eq!(verdict(&whole[..cut]), "partial", "{cut}");
        }
        assert_eq!(verdict("GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\n"), "other");
        assert_eq!(verdict("GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r"), "partial");
        assert_eq!(verdict("BREW / HTTP/1.1\r\n"), "other");
    }

    #[test]
    fn the_parts_are_where_they_are() {
        let text =
            "POST /a?b HTTP/1.1\r\nHost:x\r\nX-Y:\t a b \r\ncontent-length: 12\r\nconnection: close\r\nZ:\r\n\r\nbody";
        let Seen::Plain(head) = read(text.as_bytes(), LIMITS) else { panic!("plain") };
        let part = |span: Span| &text[span.range()];
        assert_eq!((part(head.method), part(head.target)), ("POST", "/a?b"));
        let fields: Vec<_> = head.fields.iter().map(|(name, value)| (part(*name), part(*value))).collect();
        let expected = [("Host", "x"), ("X-Y", "a b"), ("content-length", "12"), ("connection", "close"), ("Z", "")];
        assert_eq!(fields, expected);
        assert_eq!((head.body, head.close, &text[head.length..]), (12, true, "body"));
    }
}
