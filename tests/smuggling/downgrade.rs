//! HTTP/2 requests that would be two, or others, once they are written down in HTTP/1.1.

use futures_util::future::join_all;

use crate::recorder::Recorder;
use crate::support::frames::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, Status, block, frame, http2_client,
};
use crate::support::*;
use crate::table::{Meaning, PLAIN, SMUGGLED, means};

/// Fields and a body, and what may become of them.
struct Row {
    name: String,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Option<Vec<u8>>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    fate: Fate,
}

enum Fate {
    /// The stream or its connection ends, or 400; nothing of it reaches the upstream.
    Refused,
    Passes(Meaning),
    /// Wrong, but harmless once it has this one meaning.
    Either(Meaning),
}

impl Fate {
    fn meaning(&self) -> Option<&Meaning> {
        match self {
            Fate::Refused => None,
            Fate::Passes(meaning) | Fate::Either(meaning) => Some(meaning),
        }
    }
}

type Field<'a> = (&'a str, &'a str);

const METHOD: Field<'_> = (":method", "GET");
const POST: Field<'_> = (":method", "POST");
const SCHEME: Field<'_> = (":scheme", "http");
const AUTHORITY: Field<'_> = (":authority", "a");
const PATH: Field<'_> = (":path", "/ROW");

fn row(fields: &[Field<'_>]) -> Row {
    let own = |(name, value): &Field<'_>| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let name = format!("{fields:?}");
    Row { name, fields: fields.iter().map(own).collect(), body: None, trailers: Vec::new(), fate: Fate::Refused }
}

/// Behind a good request's pseudo-header fields.
fn with(fields: &[Field<'_>]) -> Row {
    row(&[&[METHOD, SCHEME, AUTHORITY, PATH], fields].concat())
}

fn posted(fields: &[Field<'_>], body: &str) -> Row {
    Row { body: Some(body.as_bytes().to_vec()), ..row(&[&[POST, SCHEME, AUTHORITY, PATH], fields].concat()) }
}

impl Row {
    fn means(self, meaning: Meaning) -> Row {
        Row { fate: Fate::Passes(meaning), ..self }
    }

    fn means_at_most(self, meaning: Meaning) -> Row {
        Row { fate: Fate::Either(meaning), ..self }
    }

    fn trailing(mut self, name: &str, value: &str) -> Row {
        self.name += &format!(" trailing {name:?}: {value:?}");
        self.trailers.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        self
    }

    fn frames(&self, path: &str) -> Vec<u8> {
        let filled = |fields: &[(Vec<u8>, Vec<u8>)]| {
            let filled: Vec<_> = fields
                .iter()
                .map(|(name, value)| match String::from_utf8(value.clone()) {
                    Ok(text) => (name.clone(), text.replace("/ROW", path).into_bytes()),
                    Err(bytes) => (name.clone(), bytes.into_bytes()),
                })
                .collect();
            block(&filled)
        };
        let last = if self.body.is_none() && self.trailers.is_empty() { END_STREAM } else { 0 };
        let mut bytes = frame(HEADERS, END_HEADERS | last, 1, &filled(&self.fields));
        if let Some(body) = &self.body {
            let last = if self.trailers.is_empty() { END_STREAM } else { 0 };
            bytes.extend(frame(DATA, last, 1, body));
        }
        if !self.trailers.is_empty() {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &filled(&self.trailers)));
        }
        bytes
    }
}

/// Asserts what becomes of each row, and that the request on the next stream is only lost with its connection.
async fn assert_meanings(rows: Vec<Row>) {
    let a = Recorder::start().await;
    let proxy = proxy(PLAIN).with("a", &a).start().await;
    let web = proxy.address("web");
    let paths: Vec<String> = (0..rows.len()).map(|number| format!("/row-{number}-")).collect();
    let sendings = rows.iter().zip(&paths).map(|(row, path)| async move {
        let mut client = http2_client(web).await;
        // What ends the connection may end it before all of it is sent.
        let _ = client.try_send(row.frames(path)).await;
        let outcome = client.outcome(1).await;
        let _ = client.try_send(frames::get(3, &format!("{path}/behind"))).await;
        let behind = client.outcome(3).await;
        let good = Some(Outcome::Answered(Status::Known(200)));
        let passed = outcome == good && behind == good;
        let refused = outcome != good && (behind.is_none() || behind == good);
        let expected = match &row.fate {
            Fate::Passes(_) => passed,
            Fate::Refused => refused,
            Fate::Either(_) => passed || refused,
        };
        (!expected).then(|| format!("{}: {outcome:?}, and {behind:?} behind", row.name))
    });
    let mut problems: Vec<String> = join_all(sendings).await.into_iter().flatten().collect();
    assert_eq!(proxy.client().get("/last").await.status, 200);
    let record = a.record();
    for (row, path) in rows.iter().zip(&paths) {
        let is_own = |line: &str| line.split(' ').nth(1).is_some_and(|target| target.ends_with(path.as_str()));
        let own: Vec<_> = record.requests.iter().filter(|request| is_own(&request.line)).collect();
        let least = usize::from(matches!(row.fate, Fate::Passes(_)));
        if !(least..=usize::from(row.fate.meaning().is_some())).contains(&own.len()) {
            problems.push(format!("{}: {} arrived: {own:?}", row.name, own.len()));
        }
        let contradiction = own.iter().find_map(|request| row.fate.meaning()?.contradicts(request, path));
        problems.extend(contradiction.map(|problem| format!("{}: {problem}", row.name)));
    }
    let smuggled = record.requests.iter().filter(|request| request.line.contains(" /smuggled"));
    problems.extend(smuggled.map(|request| format!("smuggled: {request:?}")));
    problems.extend(record.wrong.iter().map(|wrong| format!("at the upstream: {wrong}")));
    println!("{} rows", rows.len());
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

fn empty_get() -> Meaning {
    means("GET /ROW HTTP/1.1", "")
}

#[tokio::test]
async fn pseudo_header_fields_are_what_a_request_line_can_say() {
    let split = format!("/ROW HTTP/1.1\r\nHost: a\r\n\r\n{}", SMUGGLED.trim_end());
    let mut rows = vec![
        row(&[METHOD, SCHEME, AUTHORITY, PATH]).means(empty_get().with("host", "a")),
        // The path.
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW x")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW HTTP/1.1")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW\r\nX: y")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", &split)]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW\nX: y")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW\0")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW\t")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "\t/ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", " /ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/ROW\u{7f}")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "?/ROW")]).means_at_most(means("GET /?/ROW HTTP/1.1", "")),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "*")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "b/ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "@b/ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", ":80/ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "http://b/ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "http://a/ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":path", "/../ROW")]),
        row(&[METHOD, SCHEME, AUTHORITY]),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, PATH]),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, (":path", "/smuggled")]),
        // The method.
        row(&[(":method", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "GET /smuggled"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "GET "), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", " GET"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "GE\tT"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "G\0T"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", ""), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "G(T"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "G\u{e4}T"), SCHEME, AUTHORITY, PATH]),
        row(&[SCHEME, AUTHORITY, PATH]),
        row(&[METHOD, METHOD, SCHEME, AUTHORITY, PATH]),
        row(&[METHOD, POST, SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "get"), SCHEME, AUTHORITY, PATH]).means(means("get /ROW HTTP/1.1", "")),
        // The scheme.
        row(&[METHOD, AUTHORITY, PATH]),
        row(&[METHOD, SCHEME, SCHEME, AUTHORITY, PATH]),
        row(&[METHOD, (":scheme", ""), AUTHORITY, PATH]),
        row(&[METHOD, (":scheme", "http://b/smuggled?"), AUTHORITY, PATH]),
        row(&[METHOD, (":scheme", "http /"), AUTHORITY, PATH]),
        row(&[METHOD, (":scheme", "http\r\nX: y"), AUTHORITY, PATH]),
        row(&[METHOD, (":scheme", "ftp"), AUTHORITY, PATH]),
        // The authority.
        row(&[METHOD, SCHEME, PATH]),
        row(&[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH]),
        row(&[METHOD, SCHEME, AUTHORITY, (":authority", "b"), PATH]),
        row(&[METHOD, SCHEME, (":authority", ""), PATH]),
        row(&[METHOD, SCHEME, PATH, ("host", "a")]).means(empty_get().with("host", "a")),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "a")]).means(empty_get().with("host", "a")),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "b")]),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "a"), ("host", "a")]),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "a"), ("host", "b")]),
        row(&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "")]),
        row(&[METHOD, SCHEME, PATH, ("host", "a"), ("host", "b")]),
        // Of the wrong kind, in the wrong place, in the wrong spelling.
        with(&[(":status", "200")]),
        with(&[(":protocol", "websocket")]),
        with(&[(":unknown", "x")]),
        with(&[(":", "x")]),
        row(&[METHOD, SCHEME, AUTHORITY, ("x", "y"), PATH]),
        row(&[("x", "y"), METHOD, SCHEME, AUTHORITY, PATH]),
        with(&[("x", "y"), (":path", "/smuggled")]),
        row(&[METHOD, SCHEME, AUTHORITY, (":Path", "/ROW")]),
        row(&[(":METHOD", "GET"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method ", "GET"), SCHEME, AUTHORITY, PATH]),
        row(&[(":method", "CONNECT"), (":authority", "a:443")]),
        row(&[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH]),
    ];
    let authorities = [
        "b,c",
        "b c",
        "b/c",
        "b/ROW",
        "u@b",
        "b:x",
        "b:99999",
        "b?c",
        "b#c",
        "b\\c",
        "b\r\nX: y",
        "b\0",
        "[::1",
        "b\t",
        " b",
        "b%00",
        "http://b",
        "b HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a",
    ];
    rows.extend(authorities.map(|authority| row(&[METHOD, SCHEME, (":authority", authority), PATH])));
    rows.extend(authorities.map(|host| row(&[METHOD, SCHEME, PATH, ("host", host)])));
    assert_meanings(rows).await;
}

#[tokio::test]
async fn fields_are_what_a_header_line_can_say() {
    let mut rows: Vec<Row> = [
        // What frames or steers a connection has no place here (RFC 9113 §8.2.2).
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("connection", "close"),
        ("connection", "x-forwarded-for"),
        ("connection", "transfer-encoding"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "chunked"),
        ("te", "trailers, chunked"),
        // Names.
        ("X-Upper", "y"),
        ("Transfer-Encoding", "chunked"),
        ("TRANSFER-ENCODING", "chunked"),
        ("Content-Length", "5"),
        ("x y", "z"),
        ("x:", "y"),
        ("x: y\r\nz", "a"),
        ("x\r\ntransfer-encoding", "chunked"),
        ("x\n", "y"),
        ("x\0", "y"),
        ("x\r", "y"),
        ("", "y"),
        (" x", "y"),
        ("x ", "y"),
        ("\u{e4}", "y"),
        ("x\u{7f}", "y"),
        ("(x)", "y"),
        ("transfer-encoding ", "chunked"),
        ("transfer-encoding\t", "chunked"),
        ("x: y\r\nhost: b\r\n\r\nget /smuggled http/1.1\r\nx", "y"),
        // Values.
        ("x", "y\r\nTransfer-Encoding: chunked"),
        ("x", "y\nz: a"),
        ("x", "y\rz: a"),
        ("x", "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a"),
        ("x", "y\0z"),
        ("x", "\0"),
        ("x", "y\r"),
        ("x", "y\n"),
        ("x", "\ny"),
        ("x", "y\u{1}"),
        ("x", "y\u{7f}"),
        ("cookie", "a=b\r\nX: y"),
        ("user-agent", "a\r\n b"),
        // Lengths.
        ("content-length", "5"),
        ("content-length", "+0"),
        ("content-length", "-1"),
        ("content-length", "0x0"),
        ("content-length", "0,0"),
        ("content-length", "18446744073709551616"),
        ("content-length", "0 0"),
        ("content-length", "a"),
    ]
    .iter()
    .map(|field| with(&[*field]))
    .collect();
    let hello = || means("POST /ROW HTTP/1.1", "hello");
    for length in ["0", "4", "6", "50", "+5", "5,5", "0x5", "-5", "", "5 5", "18446744073709551621"] {
        rows.push(posted(&[("content-length", length)], "hello"));
    }
    rows.push(posted(&[("content-length", "5"), ("content-length", "6")], "hello"));
    rows.push(posted(&[("content-length", "6"), ("content-length", "5")], "hello"));
    rows.push(posted(&[("transfer-encoding", "chunked")], "0\r\n\r\n"));
    rows.push(posted(&[("transfer-encoding", "chunked"), ("content-length", "5")], "0\r\n\r\n"));
    rows.push(posted(&[], "hello").means(hello()));
    rows.push(posted(&[("content-length", "5")], "hello").means(hello()));
    rows.push(posted(&[], SMUGGLED).means(means("POST /ROW HTTP/1.1", SMUGGLED)));
    rows.push(
        posted(&[], &format!("0\r\n\r\n{SMUGGLED}"))
            .means(means("POST /ROW HTTP/1.1", &format!("0\r\n\r\n{SMUGGLED}"))),
    );
    rows.push(Row { body: Some(SMUGGLED.into()), ..with(&[]) }.means(means("GET /ROW HTTP/1.1", SMUGGLED)));
    rows.push(with(&[("content-length", "0")]).means(empty_get()));
    rows.push(with(&[("content-length", "")]).means_at_most(empty_get().with("content-length", "0")));
    rows.push(
        with(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")])
            .means(empty_get().with("cookie", "a=1; b=2; c=3").with("x", "y")),
    );
    rows.push(with(&[("te", "trailers")]).means(empty_get().with("te", "trailers")));
    rows.push(with(&[("expect", "100-continue")]).means(empty_get().without("expect")));
    rows.push(with(&[("http2-settings", "AAMAAABkAARAAAAA")]).means(empty_get().without("upgrade")));
    rows.push(with(&[("proxy-authorization", "Basic eDp5")]).means(empty_get().without("proxy-authorization")));
    rows.push(
        with(&[("transfer_encoding", "chunked"), ("content_length", "5")])
            .means(empty_get().without("transfer_encoding").without("content_length")),
    );
    rows.push(with(&[("x", "a: b"), ("y", "")]).means(empty_get().with("x", "a: b").with("y", "")));
    // Trailers.
    for (name, value) in [(":path", "/smuggled"), (":method", "GET"), (":status", "200")] {
        let meaning = hello().without_trailer(name).without_trailer(&name[1..]);
        rows.push(
            posted(&[("te", "trailers"), ("trailer", "x")], "hello").trailing(name, value).means_at_most(meaning),
        );
    }
    for (name, value) in [
        ("X-Upper", "y"),
        ("x", "y\r\nz: a"),
        ("x\r\ny", "z"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
    ] {
        rows.push(posted(&[("te", "trailers"), ("trailer", "x")], "hello").trailing(name, value));
    }
    for name in ["content-length", "authorization", "host", "cookie"] {
        let meaning = hello().without_trailer(name).with("host", "a");
        rows.push(posted(&[("te", "trailers"), ("trailer", name)], "hello").trailing(name, "5").means(meaning));
    }
    assert_meanings(rows).await;
}
