use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, SET_COOKIE, TRAILER, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::Shared;
use super::body::{Held, Pattern, Reply, Running, full, stream};
use super::serve::Connection;
use super::{mcp, tunnel};
use crate::types::{Size, parse_duration};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Answers one request.
///
/// | path | answer |
/// |---|---|
/// | `/echo` | the request's body, streamed back as it comes, trailers too |
/// | `/upload` | reads the whole body, then tells its length and SHA-256 |
/// | `/early` | answers before it reads the body, then tells how much came |
/// | `/bytes/SIZE` | so many bytes, `Content-Length` known |
/// | `/chunks/N?interval=10ms&size=100` | N pieces of unknown total length |
/// | `/sse?events=N&interval=1s` | Server-Sent Events, without end unless told |
/// | `/slow/DURATION` | waits before it answers |
/// | `/hang` | never answers |
/// | `/status/CODE` | that status |
/// | `/fail` | resets the connection instead of answering |
/// | `/drop-mid-body?length=2000&sent=1000&chunked` | closes the connection in the middle of the body |
/// | `/headers?NAME=VALUE` | with these response headers |
/// | `/cookies/set?NAME=VALUE`, `/cookies` | sets, tells cookies |
/// | `/trailers` | a body with trailers |
/// | `/mcp` | a tiny MCP server, where events are accepted; else it mints an `Mcp-Session-Id`, and knows only its own |
/// | `/mcp/sse`, `/mcp/messages` | the same over MCP's first transport |
/// | `/ws`, and any `Upgrade` | WebSocket echo, byte echo |
/// | `/health`, `POST /health/up`, `/health/down` | 200 or 503, as switched |
/// | `/stats` | what it has seen |
/// | anything else | the request as it came: method, path, query, headers, client |
///
/// gRPC requests (by content type) get their body back as a gRPC answer with status 0.
pub(super) async fn answer(
    request: Request<Incoming>,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
) -> Result<Response<Held>, Infallible> {
    if let Some(response) = uncounted(&request, &shared) {
        return Ok(response.map(|body| Held { body, running: None }));
    }
    let mut running = Running::start(&shared);
    let latency = shared.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if request.headers().contains_key(UPGRADE) {
        return Ok(tunnel::open(request, running, shared).map(|body| Held { body, running: None }));
    }
    let bodiless = request.method() == Method::HEAD;
    let response = if shared.draws_failure() {
        status(StatusCode::INTERNAL_SERVER_ERROR, format!("{} fails as it was told to\n", shared.name))
    } else {
        // A reset was asked for, so it does not count as given up by the other side.
        if request.uri().path() == "/fail" {
            running.finish();
        }
        respond(request, &connection, &shared).await
    };
    if bodiless || response.body().is_end_stream() {
        running.finish();
    }
    Ok(response.map(|body| Held { body, running: Some(running) }))
}

fn uncounted(request: &Request<Incoming>, shared: &Arc<Shared>) -> Option<Response<Reply>> {
    match request.uri().path() {
        "/health" => {
            shared.stats.health_checks.fetch_add(1, Relaxed);
            let healthy = shared.healthy.load(Relaxed);
            Some(if healthy {
                status(StatusCode::OK, format!("{} is well\n", shared.name))
            } else {
                status(StatusCode::SERVICE_UNAVAILABLE, format!("{} is down\n", shared.name))
            })
        }
        "/health/up" | "/health/down" if request.method() != Method::POST => {
            Some(status(StatusCode::METHOD_NOT_ALLOWED, "POST it\n".to_owned()))
        }
        path @ ("/health/up" | "/health/down") => {
            shared.healthy.store(path == "/health/up", Relaxed);
            Some(status(StatusCode::OK, format!("{}\n", &path["/health/".len()..])))
        }
        "/stats" => {
            let mut seen = serde_json::to_value(&shared.stats).unwrap_or_default();
            seen["upstream"] = json!(shared.name);
            Some(as_json(&seen))
        }
        _ => None,
    }
}

async fn respond(request: Request<Incoming>, connection: &Connection, shared: &Arc<Shared>) -> Response<Reply> {
    let path = request.uri().path().to_owned();
    let query = Query::of(&request);
    // `*` and the empty path of a CONNECT have no segments.
    let path = path.strip_prefix('/').unwrap_or("");
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match (first, rest) {
        ("echo", _) => echo(request),
        ("upload", _) => upload(request).await,
        ("early", _) => early(request),
        ("bytes", size) => match size.parse::<Size>() {
            Ok(size) => typed("application/octet-stream", Pattern::of(size.0).boxed_unsync()),
            Err(error) => status(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        ("chunks", count) => chunks(count.parse().unwrap_or(1), &query),
        ("sse", _) => events(&query, shared.clone()),
        ("slow", span) => {
            tokio::time::sleep(parse_duration(span).unwrap_or(Duration::from_secs(1))).await;
            describe(&request, connection, shared)
        }
        ("hang", _) => pending().await,
        ("fail", _) => {
            connection.reset();
            pending().await
        }
        ("status", code) => match code.parse::<StatusCode>() {
            Ok(code) => status(code, format!("{} answers {code}\n", shared.name)),
            Err(error) => status(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        ("drop-mid-body", _) => broken(&query),
        ("headers", _) => with_headers(&query, describe(&request, connection, shared)),
        ("cookies", "set") => set_cookies(&query),
        ("cookies", _) => cookies(request.headers()),
        ("trailers", _) => with_trailers(shared),
        ("mcp", "sse") => mcp::first_transport(shared),
        ("mcp", "messages") => mcp::first_message(request, shared).await,
        ("mcp", _) if mcp::takes(&request) => mcp::answer(request, shared).await,
        ("mcp", _) => session(&request, connection, shared),
        _ if is_grpc(request.headers()) => grpc(request),
        _ => describe(&request, connection, shared),
    }
}

/// The request as it came.
fn describe(request: &Request<Incoming>, connection: &Connection, shared: &Shared) -> Response<Reply> {
    let headers: Vec<[String; 2]> = request
        .headers()
        .iter()
        .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    as_json(&json!({
        "upstream": shared.name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.uri().query(),
        "authority": request.uri().authority().map(|authority| authority.as_str()),
        "version": format!("{:?}", request.version()),
        "headers": headers,
        "client": connection.peer.map(|peer| peer.to_string()),
    }))
}

fn echo(request: Request<Incoming>) -> Response<Reply> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body.map_err(std::io::Error::other).boxed_unsync());
    for name in [CONTENT_TYPE, TRAILER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

async fn upload(request: Request<Incoming>) -> Response<Reply> {
    let mut body = request.into_body();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut length = 0u64;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => {
                digest.update(&piece);
                length += piece.len() as u64;
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap_or_default(),
            Err(error) => return status(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
    let hex: String = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let trailers: Vec<_> =
        trailers.iter().map(|(name, value)| [name.as_str(), value.to_str().unwrap_or("?")]).collect();
    as_json(&json!({ "bytes": length, "sha256": hex, "trailers": trailers }))
}

fn early(request: Request<Incoming>) -> Response<Reply> {
    let frames = unfold((Some(request.into_body()), true), |(body, first)| async move {
        if first {
            return Some((Ok(Frame::data(Bytes::from_static(b"early\n"))), (body, false)));
        }
        let mut body = body?;
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
        }
        Some((Ok(Frame::data(Bytes::from(format!("{length} bytes came\n")))), (None, false)))
    });
    typed("text/plain", stream(frames))
}

fn chunks(count: u64, query: &Query) -> Response<Reply> {
    let interval = query.duration("interval", Duration::ZERO);
    let size = query.number("size", 100).min(1 << 20) as usize;
    let piece = Bytes::from(vec![b'c'; size]);
    let frames = unfold(0, move |sent| {
        let piece = piece.clone();
        async move {
            if sent == count {
                return None;
            }
            if sent > 0 && !interval.is_zero() {
                tokio::time::sleep(interval).await;
            }
            Some((Ok(Frame::data(piece)), sent + 1))
        }
    });
    typed("application/octet-stream", stream(frames))
}

fn events(query: &Query, shared: Arc<Shared>) -> Response<Reply> {
    let interval = query.duration("interval", Duration::from_secs(1));
    let count = query.number("events", u64::MAX);
    let frames = unfold(0u64, move |sent| {
        let shared = shared.clone();
        async move {
            if sent == count {
                return None;
            }
            if sent > 0 {
                tokio::time::sleep(interval).await;
            }
            let event = format!("id: {sent}\nevent: tick\ndata: {} says {sent}\n\n", shared.name);
            Some((Ok(Frame::data(Bytes::from(event))), sent + 1))
        }
    });
    let mut response = typed("text/event-stream", stream(frames));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn broken(query: &Query) -> Response<Reply> {
    let length = query.number("length", 2000);
    let sent = query.number("sent", 1000).min(1 << 20) as usize;
    let frames = unfold(0, move |step| async move {
        if step == 0 {
            return Some((Ok(Frame::data(Bytes::from(vec![b'd'; sent]))), 1));
        }
        // What was said so far must be on the wire before the connection breaks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Err(std::io::Error::other("broken as asked")), 2))
    });
    let mut response = typed("application/octet-stream", stream(frames));
    if query.first("chunked").is_none() {
        response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    }
    response
}

fn with_headers(query: &Query, mut response: Response<Reply>) -> Response<Reply> {
    for (name, value) in &query.0 {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn set_cookies(query: &Query) -> Response<Reply> {
    let mut response = status(StatusCode::OK, "set\n".to_owned());
    for (name, value) in &query.0 {
        if let Ok(cookie) = format!("{name}={value}; Path=/").parse() {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    response
}

fn cookies(headers: &HeaderMap) -> Response<Reply> {
    let lines: Vec<_> = headers.get_all(COOKIE).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    as_json(&json!({ "cookies": lines }))
}

fn with_trailers(shared: &Shared) -> Response<Reply> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("42"));
    let frames =
        [Ok(Frame::data(Bytes::from(format!("{} sends trailers\n", shared.name)))), Ok(Frame::trailers(trailers))];
    let mut response = typed("text/plain", stream(futures_util::stream::iter(frames)));
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

/// Behaves as an MCP server over streamable HTTP does about sessions, and about nothing else.
fn session(request: &Request<Incoming>, connection: &Connection, shared: &Shared) -> Response<Reply> {
    let mine = format!("{}-", shared.name);
    let id = match request.headers().get(SESSION).map(|id| id.to_str().unwrap_or("?")) {
        Some(id) if id.starts_with(&mine) => id.to_owned(),
        Some(_) => return status(StatusCode::NOT_FOUND, format!("{} does not know this session\n", shared.name)),
        None => format!("{mine}{}", shared.sessions.fetch_add(1, Relaxed)),
    };
    let mut response = describe(request, connection, shared);
    if let Ok(id) = id.parse() {
        response.headers_mut().insert(SESSION, id);
    }
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A call that returns its argument: the request's messages are the answer's.
fn grpc(request: Request<Incoming>) -> Response<Reply> {
    let frames = unfold((request.into_body(), false), |(mut body, ended)| async move {
        if ended {
            return None;
        }
        match body.frame().await {
            Some(Ok(frame)) if frame.is_data() => Some((Ok(frame), (body, false))),
            Some(Err(error)) => Some((Err(std::io::Error::other(error)), (body, true))),
            _ => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some((Ok(Frame::trailers(trailers)), (body, true)))
            }
        }
    });
    typed("application/grpc", stream(frames))
}

pub(super) fn status(status: StatusCode, text: String) -> Response<Reply> {
    let mut response = typed("text/plain; charset=utf-8", full(text));
    *response.status_mut() = status;
    response
}

fn typed(kind: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn as_json(value: &Value) -> Response<Reply> {
    typed("application/json", full(format!("{value}\n")))
}

/// A query's parameters, decoded, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Incoming>) -> Self {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = request.uri().query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.first(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    }

    fn duration(&self, name: &str, otherwise: Duration) -> Duration {
        self.first(name).and_then(|value| parse_duration(value).ok()).unwrap_or(otherwise)
    }
}
