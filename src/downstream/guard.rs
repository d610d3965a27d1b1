//! The head guard: reads along with the raw bytes of HTTP/1 requests on their way into hyper and stops what hyper lets through.
//!
//! hyper 1.12 refuses obs-fold, spaces before the colon, NUL and CR in values, disagreeing or unreadable Content-Length by itself, with
//! a bare 400 that is not ours; so the guard refuses them first. It accepts, and a proxy must not: bare line feeds
//! as line ends, `Content-Length` with `Transfer-Encoding` (it drops the former), several equal `Content-Length`, and any list of
//! transfer codings that ends in `chunked`. It has no bound on the target below 64 KiB.
//!
//! The guard follows message borders itself, so it sees pipelined heads, and holds heads back until they are complete: hyper never
//! sees a part of one. That makes every refusal, 408 included, an answer in its place among the pipelined ones, made by the
//! application's refusal table instead of by hyper.
//!
//! It never keeps bytes (its caller does), never reads a clock, never looks at `Host`, targets or names beyond their bytes: what they say is
//! checked once, later, on hyper's parsed request. It is no parser of its own and decides only where lines and messages end; requests so
//! plain that a parser of our own can be as short do not come here, but through the [fast lane](super::lane).

use memchr::memchr_iter;

use super::chunked::{Chunked, Followed};
use super::line::{is_header, is_request};
use super::objection::Objection;

/// What a head may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the request line and all header lines.
    pub size: usize,
    /// Header lines.
    pub headers: usize,
    /// Bytes of the request target.
    pub uri: usize,
}

/// Follows one connection's requests.
#[derive(Debug)]
pub(super) struct Guard {
    limits: HeadLimits,
    phase: Phase,
    head: Head,
    /// Heads that have passed.
    heads: u64,
}

/// Where in the stream of requests the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between two requests.
    Between,
    /// In a head.
    Head,
    /// In a body; so many bytes are to come.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// Behind a request that may turn the connection into a tunnel: what follows waits for the answer.
    Held,
    /// Behind something that was refused; nothing passes any more.
    Refused(Objection),
    /// Behind a broken chunked body; hyper will see the same and close.
    Broken,
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// So many pass.
    pub(super) pass: usize,
    /// From here on they are to be shown again, with more; those between are dropped.
    pub(super) keep: usize,
}

impl Guard {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Guard::behind(0, limits)
    }

    /// Behind so many heads that passed elsewhere.
    pub(super) fn behind(heads: u64, limits: HeadLimits) -> Self {
        Guard { limits, phase: Phase::Between, head: Head::default(), heads }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// How many heads have passed.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the last head was HTTP/1.0, whose answers may end with the connection.
    pub(super) fn old(&self) -> bool {
        self.head.old
    }

    /// Lets nothing pass any more.
    pub(super) fn refuse(&mut self, objection: Objection) {
        self.phase = Phase::Refused(objection);
    }

    /// The answer to a held request was no tunnel: what follows is a request again.
    pub(super) fn resume(&mut self) {
        if self.phase == Phase::Held {
            self.phase = Phase::Between;
        }
    }

    /// Looks at `bytes`: what was kept the last time, and all that came since.
    ///
    /// **Cost**: about 100 ns for a head of 200 bytes; a body's bytes cost nothing.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Seen {
        let (mut at, mut pass) = (0, 0);
        loop {
            let rest = &bytes[at..];
            match self.phase {
                Phase::Between => match rest {
                    [] | [b'\r'] => return Seen { pass, keep: at },
                    // Empty lines before a request are skipped (RFC 9112 §2.2), and begin nothing.
                    [b'\r', b'\n', ..] => at += 2,
                    [b'\n', ..] => {
                        self.refuse(Objection::BareLineFeed);
                        return Seen { pass, keep: bytes.len() };
                    }
                    _ => {
                        self.head = Head::default();
                        self.phase = Phase::Head;
                    }
                },
                Phase::Head => match self.head.read(rest, self.limits) {
                    Ok(None) => return Seen { pass, keep: at },
                    Ok(Some(length)) => {
                        at += length;
                        pass = at;
                        self.heads += 1;
                        self.phase = self.head.body();
                    }
                    Err(objection) => {
                        self.refuse(objection);
                        return Seen { pass, keep: bytes.len() };
                    }
                },
                Phase::Length(left) => {
                    let here = left.min(rest.len() as u64);
                    at += here as usize;
                    pass = at;
                    self.phase = if here == left { self.head.behind() } else { Phase::Length(left - here) };
                    if rest.len() as u64 == here {
                        return Seen { pass, keep: at };
                    }
                }
                Phase::Chunked(mut chunked) => {
                    let followed = chunked.follow(rest);
                    let (length, phase) = match followed {
                        Followed::More => (rest.len(), Phase::Chunked(chunked)),
                        Followed::End(length) => (length, self.head.behind()),
                        Followed::Broken(length) => (length, Phase::Broken),
                    };
                    at += length;
                    pass = at;
                    self.phase = phase;
                    if !matches!(followed, Followed::End(_)) {
                        return Seen { pass, keep: bytes.len() };
                    }
                }
                Phase::Held => return Seen { pass, keep: at },
                Phase::Refused(_) | Phase::Broken => return Seen { pass, keep: bytes.len() },
            }
        }
    }
}

/// What is known about a head so far.
#[derive(Debug, Default)]
struct Head {
    /// Bytes that were looked at.
    seen: usize,
    /// Where the present line begins.
    line: usize,
    /// Lines that are complete, the request line included.
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    /// HTTP/1.0.
    old: bool,
    /// CONNECT, or with `Upgrade`.
    tunnel: bool,
}

impl Head {
    /// The longest method and version that a request line is thought to have besides its target.
    const AROUND_TARGET: usize = 64;

    /// Reads on in `bytes`, which begin with the head; its length once it is complete.
    fn read(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, Objection> {
        let from = self.seen;
        for feed in memchr_iter(b'\n', &bytes[from..]) {
            let end = from + feed;
            let Some((b'\r', line)) = bytes[self.line..end].split_last() else {
                return Err(Objection::BareLineFeed);
            };
            self.line = end + 1;
            if line.is_empty() {
                return self.complete(end + 1, limits).map(Some);
            }
            self.take(line, limits)?;
        }
        self.seen = bytes.len();
        if self.lines == 0 && self.seen > limits.uri.saturating_add(Self::AROUND_TARGET) {
            return Err(Objection::UriTooLong);
        }
        if self.seen > limits.size { Err(Objection::HeadTooLarge) } else { Ok(None) }
    }

    fn complete(&self, length: usize, limits: HeadLimits) -> Result<usize, Objection> {
        if self.chunked && self.length.is_some() {
            return Err(Objection::LengthAndEncoding);
        }
        if length > limits.size { Err(Objection::HeadTooLarge) } else { Ok(length) }
    }

    fn take(&mut self, line: &[u8], limits: HeadLimits) -> Result<(), Objection> {
        self.lines += 1;
        if self.lines == 1 {
            return self.take_request_line(line, limits);
        }
        if self.lines - 1 > limits.headers {
            return Err(Objection::TooManyHeaders);
        }
        match line[0] | 0x20 {
            b' ' => return Err(Objection::Folded),
            b'c' => {
                if let Some(value) = value(line, b"content-length") {
                    if self.length.is_some() {
                        return Err(Objection::SeveralLengths);
                    }
                    self.length = Some(number(value).ok_or(Objection::BadLength)?);
                }
            }
            b't' => {
                if let Some(value) = value(line, b"transfer-encoding") {
                    if self.chunked || self.old || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Objection::Encoding);
                    }
                    self.chunked = true;
                }
            }
            b'u' => self.tunnel |= value(line, b"upgrade").is_some(),
            _ if line[0] == b'\t' => return Err(Objection::Folded),
            _ => {}
        }
        if is_header(line) { Ok(()) } else { Err(Objection::NoHeader) }
    }

    fn take_request_line(&mut self, line: &[u8], limits: HeadLimits) -> Result<(), Objection> {
        self.old = line.ends_with(b"HTTP/1.0");
        self.tunnel = line.starts_with(b"CONNECT ");
        if line.len() > limits.uri {
            let target = line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len);
            // The second is what is not waited for where the line comes in pieces.
            if target > limits.uri || line.len() >= limits.uri.saturating_add(Self::AROUND_TARGET) {
                return Err(Objection::UriTooLong);
            }
        }
        if is_request(line) { Ok(()) } else { Err(Objection::NoRequest) }
    }

    /// What follows the head.
    fn body(&self) -> Phase {
        match self.length {
            _ if self.chunked => Phase::Chunked(Chunked::new()),
            Some(length) if length > 0 => Phase::Length(length),
            _ => self.behind(),
        }
    }

    /// What follows the message.
    fn behind(&self) -> Phase {
        if self.tunnel && !self.old { Phase::Held } else { Phase::Between }
    }
}

/// The value of a header line, if that is its name.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number(digits: &[u8]) -> Option<u64> {
    // The two highest values mean something else to hyper.
    const MOST: u64 = u64::MAX - 2;
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit).filter(|number| *number <= MOST)
    })
}

/// What passes of bytes that come in these pieces, and where the guard is then. No answer makes a tunnel.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn pass<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: HeadLimits) -> (Vec<u8>, Guard) {
    let mut guard = Guard::new(limits);
    let (mut passed, mut kept) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let Seen { pass, keep } = guard.look(&kept);
            assert!(pass <= keep && keep <= kept.len());
            passed.extend_from_slice(&kept[..pass]);
            kept.drain(..keep);
            if guard.phase() != Phase::Held || kept.is_empty() {
                break;
            }
            guard.resume();
        }
    }
    (passed, guard)
}

/// What must hold for any bytes: where they are cut makes no difference, and hyper sees the same requests in what passes as we do, and as
/// it sees in what has come, but for what was stopped.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn law(bytes: &[u8]) {
    use crate::judge;
    let wide = HeadLimits { size: 64 << 10, headers: 100, uri: 16 << 10 };
    let narrow = HeadLimits { size: 512, headers: 10, uri: 64 };
    for limits in [wide, narrow] {
        let (once, whole) = pass([bytes], limits);
        // Empty lines between requests are dropped or not, as they come.
        let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "");
        let same = |(passed, guard): (Vec<u8>, Guard)| {
            let phases = (guard.phase(), whole.phase());
            // Which of several objections is met first is a matter of pieces where a bound is one of them.
            let refused = limits == narrow && matches!(phases, (Phase::Refused(_), Phase::Refused(_)));
            assert!(refused || phases.0 == phases.1, "{phases:?}");
            assert_eq!((guard.heads(), plain(&passed)), (whole.heads(), plain(&once)));
        };
        same(pass(bytes.chunks(1), limits));
        same(pass(bytes.chunks(7), limits));
        for cut in judge::cuts(bytes).step_by(if limits == wide { 4 } else { 16 }) {
            same(pass([&bytes[..cut], &bytes[cut..]], limits));
        }
    }
    let (passed, guard) = pass([bytes], wide);
    let first = passed.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| guard.heads() > 0);
    let head = &passed[..first.unwrap_or_default()];
    assert!(!memchr_iter(b'\n', head).any(|feed| feed == 0 || head[feed - 1] != b'\r'), "a bare line feed passes");
    let (checked, raw) = (judge::requests(&passed), judge::requests(bytes));
    let count = checked.requests.len();
    let refused = checked.statuses.iter().find(|status| **status != 100 && **status != judge::ANSWER.as_u16());
    assert_eq!(refused, None, "hyper refuses what has passed");
    assert!(count as u64 <= guard.heads(), "{count} requests in {} heads", guard.heads());
    let broken = checked.requests.last().is_some_and(|request| request.body.is_none());
    assert!(checked.closes || broken || count as u64 == guard.heads(), "{count} requests in {} heads", guard.heads());
    match guard.phase() {
        Phase::Refused(_) => assert!(raw.requests.starts_with(&checked.requests)),
        // There hyper may read on, which it is not given.
        Phase::Broken => {
            let before = checked.requests.split_last().map_or(&[][..], |(_, before)| before);
            assert!(raw.requests.starts_with(before));
        }
        _ => assert_eq!(raw.requests, checked.requests),
    }
}
