use futures_util::future::join_all;
use tokio::time::timeout;

use crate::recorder::{Record, Recorder, Request};
use crate::support::*;

/// What an attacker would like to get past us.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Messages to a listener that hands on whatever is not refused.
pub(crate) const PLAIN: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = "{a}"
    [[route]]
    pool = "app"
"#;

/// Bytes that have been used to make two readers disagree, and the one thing that may become of them.
pub(crate) struct Row {
    pub(crate) name: String,
    /// `/ROW` stands for this row's own path.
    pub(crate) sent: Vec<u8>,
    pub(crate) fate: Fate,
}

#[derive(Clone)]
pub(crate) enum Fate {
    /// Answered with this status alone, and the connection ends; nothing of it reaches the upstream.
    Refused(u16),
    /// The body cannot be understood: no whole message reaches the upstream, and the connection ends.
    Broken,
    /// Not whole either: it takes what follows for its own and waits for more, until the client ends it.
    Unfinished,
    /// Arrives once, with this meaning, and so does the request behind it.
    Passes(Meaning),
    /// Arrives once, with this meaning, and the connection ends behind its answer.
    Last(Meaning),
}

/// What an upstream understands.
#[derive(Clone, Default)]
pub(crate) struct Meaning {
    line: String,
    body: String,
    has: Vec<(&'static str, &'static str)>,
    lacks: Vec<&'static str>,
    lacks_trailers: Vec<String>,
}

/// `GET /ROW HTTP/1.1`, and this body.
pub(crate) fn means(line: &str, body: &str) -> Meaning {
    Meaning { line: line.to_owned(), body: body.to_owned(), ..Meaning::default() }
}

impl Meaning {
    /// With this header, once.
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.has.push((name, value));
        self
    }

    /// Without this header, and without such a trailer.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.lacks.push(name);
        self
    }

    /// Without this trailer.
    pub(crate) fn without_trailer(mut self, name: &str) -> Self {
        self.lacks_trailers.push(name.to_owned());
        self
    }

    /// What is wrong with a request that should mean this.
    pub(crate) fn contradicts(&self, request: &Request, path: &str) -> Option<String> {
        let line = self.line.replace("/ROW", path);
        if request.line != line {
            return Some(format!("{:?} arrived instead of {line:?}", request.line));
        }
        if request.body != self.body.as_bytes() {
            return Some(format!("it arrived with the body {:?}", String::from_utf8_lossy(&request.body)));
        }
        if let Some((name, value)) = self.has.iter().find(|(name, value)| request.values(name) != [*value]) {
            return Some(format!("{name} is {:?}, not {value:?}", request.values(name)));
        }
        let came = |name: &&String| request.trailers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some(name) = self.lacks_trailers.iter().find(came) {
            return Some(format!("{name} has arrived as a trailer"));
        }
        let trailers = request.trailers.iter().map(|(name, _)| name.to_ascii_lowercase());
        let names: Vec<String> = request.names().into_iter().chain(trailers).collect();
        let kept = self.lacks.iter().find(|name| names.iter().any(|known| known == *name));
        kept.map(|name| format!("{name} has arrived"))
    }
}

impl Row {
    /// What is wrong with what has become of it at the upstream, having been sent so often.
    fn contradicts(&self, number: usize, times: usize, record: &Record) -> Option<String> {
        let path = path(number);
        let of = |path: &str| -> Vec<&Request> {
            // Slashes in front of a path are handed on as they came.
            let is = |target: &str| {
                let target = &target[target.find(|byte| byte != '/').unwrap_or(1) - 1..];
                target == path || target.starts_with(&format!("{path}?"))
            };
            record.requests.iter().filter(|request| request.line.split(' ').nth(1).is_some_and(is)).collect()
        };
        let (own, behind) = (of(&path), of(&format!("{path}/behind")));
        let (expected, meaning) = match &self.fate {
            Fate::Refused(_) | Fate::Broken | Fate::Unfinished => ((0, 0), None),
            Fate::Last(meaning) => ((times, 0), Some(meaning)),
            Fate::Passes(meaning) => ((times, times), Some(meaning)),
        };
        if (own.len(), behind.len()) != expected {
            return Some(format!("{} and {} behind arrived instead of {expected:?}", own.len(), behind.len()));
        }
        if matches!(self.fate, Fate::Refused(_)) && record.begun.iter().any(|begun| begun.contains(&format!("{path} ")))
        {
            return Some("its beginning arrived".to_owned());
        }
        own.iter().find_map(|request| meaning?.contradicts(request, &path))
    }
}

fn path(number: usize) -> String {
    format!("/row-{number}-")
}

/// Sends each row to a proxy, whole and byte by byte, with another request behind it, and asserts its fate on both sides.
pub(crate) async fn assert_fates(rows: Vec<Row>) {
    const SIZES: [usize; 2] = [usize::MAX, 1];
    let a = Recorder::start().await;
    let proxy = proxy(PLAIN).with("a", &a).start().await;
    let mut problems = Vec::new();
    let numbered: Vec<(usize, &Row)> = rows.iter().enumerate().collect();
    for rows in numbered.chunks(32) {
        let sendings = rows.iter().flat_map(|(number, row)| SIZES.map(|size| send(&proxy, *number, row, size)));
        problems.extend(join_all(sendings).await.into_iter().flatten());
    }
    // A whole round trip behind everything else, for what may still be under way to the upstream.
    assert_eq!(proxy.client().get("/last").await.status, 200);
    let record = a.record();
    for (number, row) in numbered {
        let contradiction = row.contradicts(number, SIZES.len(), &record);
        problems.extend(contradiction.map(|problem| format!("{}: {problem}", row.name)));
    }
    let smuggled = record.requests.iter().filter(|request| request.line.contains(" /smuggled"));
    problems.extend(smuggled.map(|request| format!("smuggled: {request:?}")));
    problems.extend(record.wrong.iter().map(|wrong| format!("at the upstream: {wrong}")));
    println!("{} rows", rows.len());
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Sends a row in pieces; what is wrong with what is answered.
async fn send(proxy: &Proxy, number: usize, row: &Row, size: usize) -> Option<String> {
    let path = path(number);
    let behind = match row.fate {
        Fate::Passes(_) => format!("GET {path}/behind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        _ => SMUGGLED.repeat(2),
    };
    let mut bytes = replaced(&row.sent, b"/ROW", path.as_bytes());
    bytes.extend_from_slice(behind.as_bytes());
    let mut raw = raw_client(proxy.address("web")).await;
    for piece in bytes.chunks(size) {
        // Who is refused may have been cut by now.
        if raw.try_send(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    if matches!(row.fate, Fate::Unfinished) {
        // It may have been refused already.
        let _ = raw.try_half_close().await;
    }
    let Ok((rest, _)) = timeout(PATIENCE / 4, raw.rest()).await else {
        return Some(format!("{}: no end of the connection in pieces of {}", row.name, size.min(bytes.len())));
    };
    let rest = String::from_utf8_lossy(&rest).into_owned();
    let statuses: Vec<u16> =
        rest.match_indices("HTTP/1.").filter_map(|(at, _)| rest.get(at + 9..at + 12)?.parse().ok()).collect();
    let statuses: Vec<u16> = statuses.into_iter().filter(|status| *status >= 200).collect();
    let expected = match &row.fate {
        Fate::Refused(status) => statuses == [*status] && rest.to_ascii_lowercase().contains("connection: close"),
        Fate::Broken | Fate::Unfinished => statuses.is_empty() || matches!(statuses[..], [400 | 413]),
        Fate::Passes(_) => statuses == [200, 200],
        Fate::Last(_) => statuses == [200],
    };
    (!expected)
        .then(|| format!("{}: answered with {statuses:?} in pieces of {}: {rest:?}", row.name, size.min(bytes.len())))
}

fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let (mut new, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(what) {
            new.extend_from_slice(with);
            at += what.len();
        } else {
            new.push(bytes[at]);
            at += 1;
        }
    }
    new
}
