use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;

use super::connect::{open, secure};
use super::connections::HEAD_SIZE;
use super::error::{self, SendErrorKind};
use super::io::Stream;
use super::target::{Place, Target};
use crate::config::model::{CheckKind, HealthCheck, Protocol, StatusSet};
use crate::mcp::era as mcp;
use crate::types::format_duration;

/// One question to an upstream about its health.
#[derive(Debug, Clone)]
pub struct Probe {
    kind: CheckKind,
    method: Method,
    path: PathAndQuery,
    host: Option<HeaderValue>,
    headers: HeaderMap,
    expect: StatusSet,
    contains: Option<String>,
    timeout: Duration,
    port: Option<u16>,
}

/// A health check that cannot be made as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct InvalidProbe {
    /// The key of the pool's `health` table.
    pub key: &'static str,
    /// What was expected there.
    pub expected: &'static str,
}

/// Why an upstream did not pass; its text is one clause for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// There was no connection, or it broke: in the words of [`SendErrorKind`], and the system's.
    #[error("{kind}{}", cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Connection {
        /// What happened.
        kind: SendErrorKind,
        /// What the layers below said, where that adds something.
        cause: Option<String>,
    },
    /// All of it took too long.
    #[error("no answer within {}", format_duration(*.0))]
    Timeout(Duration),
    /// The wrong status.
    #[error("{found} instead of {expected}")]
    Status {
        /// The answer's status.
        found: u16,
        /// The right ones.
        expected: StatusSet,
    },
    /// The answer is of no MCP server.
    #[error("{0} and no JSON-RPC")]
    NoMcp(u16),
    /// The first 64 KiB of the body lack the text.
    #[error("the body does not hold {0:?}")]
    Body(String),
}

impl Probe {
    /// The probe that a pool's health check asks for.
    pub fn new(check: &HealthCheck) -> Result<Self, InvalidProbe> {
        let invalid = |key, expected| InvalidProbe { key, expected };
        let value = |text: &str, key| {
            HeaderValue::from_str(text).map_err(|_| invalid(key, "a header's value: visible characters and spaces"))
        };
        let mut headers = HeaderMap::new();
        for (name, text) in &check.headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| invalid("headers", "a header's name: letters, digits and hyphens"))?;
            headers.append(name, value(text, "headers")?);
        }
        let mcp = check.kind == CheckKind::Mcp;
        let path = if mcp && check.path == "/" { "/mcp" } else { check.path.as_str() };
        let path = path.parse().ok().filter(|_| path.starts_with('/'));
        let method = check.method.parse().map_err(|_| invalid("method", "an HTTP method such as \"GET\""))?;
        if mcp {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
            headers.insert("mcp-protocol-version", HeaderValue::from_static(mcp::NEWEST));
            headers.insert("mcp-method", HeaderValue::from_static("server/discover"));
        }
        Ok(Probe {
            kind: check.kind,
            method: if mcp { Method::POST } else { method },
            path: path.ok_or(invalid("path", "a path such as \"/health\""))?,
            host: check.host.as_deref().map(|host| value(host, "host")).transpose()?,
            headers,
            expect: check.expect.clone(),
            contains: check.contains.clone(),
            timeout: check.timeout,
            port: check.port,
        })
    }

    fn request(&self, target: &Target) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from_static(
            if self.kind == CheckKind::Mcp { mcp::DISCOVER } else { "" }.as_bytes(),
        )));
        *request.method_mut() = self.method.clone();
        let host = self.host.clone().unwrap_or_else(|| target.authority.clone());
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static("tidegate-health-check"));
        headers.extend(self.headers.clone());
        if target.protocol == Protocol::Http1 {
            headers.entry(HOST).or_insert(host);
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            *request.uri_mut() = self.path.clone().into();
        } else {
            let host = headers.remove(HOST).unwrap_or(host);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(if target.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority =
                Some(Authority::try_from(host.as_bytes()).unwrap_or_else(|_| Authority::from_static("localhost")));
            parts.path_and_query = Some(self.path.clone());
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| self.path.clone().into());
        }
        request
    }
}

/// How much of a body is looked at.
const BODY: usize = 64 << 10;
/// How much is read at all. hyper reads interim answers for as long as there are any, and nothing else on the thread has its turn.
const ANSWER: u64 = 1 << 20;

/// Asks an upstream once, over a connection of its own that is closed afterwards.
///
/// Runs on any tokio runtime with timers; nothing of it is shared with the connections that carry requests.
///
/// **Errors**: the first thing that was wrong.
pub async fn probe(target: &Target, probe: &Probe) -> Result<(), ProbeFailure> {
    tokio::time::timeout(probe.timeout, ask(target, probe)).await.unwrap_or(Err(ProbeFailure::Timeout(probe.timeout)))
}

async fn ask(target: &Target, probe: &Probe) -> Result<(), ProbeFailure> {
    let place = match (&target.place, probe.port) {
        (Place::Tcp(address), Some(port)) => Place::Tcp((address.ip(), port).into()),
        (place, _) => place.clone(),
    };
    let plain = open(&place).await.map_err(|error| unreached(error::connecting(&error), &error))?;
    if probe.kind == CheckKind::Tcp {
        return Ok(());
    }
    let stream = secure(target, plain).await.map_err(|error| unreached(SendErrorKind::TlsFailed, &error))?;
    let request = probe.request(target);
    match target.protocol {
        Protocol::Http1 => ask_http1(stream, request, probe).await,
        Protocol::Http2 => ask_http2(stream, request, probe).await,
    }
}

async fn ask_http1(stream: Stream, request: Request<Full<Bytes>>, probe: &Probe) -> Result<(), ProbeFailure> {
    let (reads, writes) = tokio::io::split(stream);
    let stream = TokioIo::new(tokio::io::join(reads.take(ANSWER), writes));
    let handshake = http1::Builder::new().max_header_size(HEAD_SIZE).handshake(stream).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        judge(response, probe).await
    };
    driven(connection, exchange).await
}

async fn ask_http2(stream: Stream, request: Request<Full<Bytes>>, probe: &Probe) -> Result<(), ProbeFailure> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let handshake = builder.max_header_list_size(HEAD_SIZE as u32).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        judge(response, probe).await
    };
    driven(connection, exchange).await
}

/// Runs an exchange on a connection that nobody else drives.
async fn driven<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut ended = false;
    std::future::poll_fn(|cx| {
        // What the connection ends with it has told the exchange before.
        ended = ended || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    })
    .await
}

async fn judge(response: Response<Incoming>, probe: &Probe) -> Result<(), ProbeFailure> {
    let found = response.status().as_u16();
    if probe.kind == CheckKind::Mcp {
        let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let json = kind.starts_with(b"application/json") || kind.starts_with(b"text/event-stream");
        return if json && found < 500 { Ok(()) } else { Err(ProbeFailure::NoMcp(found)) };
    }
    if !probe.expect.contains(found) {
        return Err(ProbeFailure::Status { found, expected: probe.expect.clone() });
    }
    let Some(text) = &probe.contains else { return Ok(()) };
    let mut body = response.into_body();
    let mut seen = BytesMut::new();
    while seen.len() < BODY {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            seen.extend_from_slice(&data[..data.len().min(BODY - seen.len())]);
        }
        if memchr::memmem::find(&seen, text.as_bytes()).is_some() {
            return Ok(());
        }
    }
    Err(ProbeFailure::Body(text.clone()))
}

fn unreached(kind: SendErrorKind, error: &io::Error) -> ProbeFailure {
    // "connection refused: Connection refused" tells nothing new.
    let cause = (kind != SendErrorKind::Refused).then(|| error.to_string());
    ProbeFailure::Connection { kind, cause }
}

fn broken(error: hyper::Error) -> ProbeFailure {
    use super::error::BadResponse;
    let kind = if error.is_parse_too_large() {
        SendErrorKind::BadResponse(BadResponse::HeadTooLarge)
    } else if error.is_parse() || error::cause::<h2::Error>(&error).is_some_and(h2::Error::is_library) {
        SendErrorKind::BadResponse(BadResponse::Malformed)
    } else if let Some(error) = error::cause::<io::Error>(&error) {
        error::open(error)
    } else if error::cause::<h2::Error>(&error).is_some() {
        SendErrorKind::Reset
    } else {
        SendErrorKind::ClosedEarly
    };
    ProbeFailure::Connection { kind, cause: None }
}
