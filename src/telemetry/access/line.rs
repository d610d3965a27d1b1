use std::net::IpAddr;
use std::time::Duration;

use http::Version;

use crate::types::Moment;

/// The facts of one finished request, borrowed for as long as its line is being written.
///
/// Empty text, `None` and a status of 0 are written as `-` (JSON: `null`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Line<'a> {
    /// When it ended.
    pub at: Moment,
    /// The client's address; none behind a Unix socket.
    pub client: Option<IpAddr>,
    /// Who the client says it is (`Authorization: Basic`).
    pub user: &'a str,
    /// Who it is, as a key or token has shown.
    pub principal: &'a str,
    /// The method.
    pub method: &'a str,
    /// The request target as the client sent it.
    pub target: &'a str,
    /// The HTTP version of the request.
    pub version: Version,
    /// The host asked for.
    pub host: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The status the client got.
    pub status: u16,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// From the end of the request's headers to the end of the answer.
    pub duration: Duration,
    /// From sending the request to the upstream to the headers of its answer; of the last attempt.
    pub upstream_duration: Option<Duration>,
    /// The status the upstream gave; 0 where it gave none.
    pub upstream_status: u16,
    /// The listener.
    pub listener: &'a str,
    /// The route.
    pub route: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// The upstream of the last attempt.
    pub upstream: &'a str,
    /// How many upstreams were tried.
    pub attempts: u32,
    /// Why the answer is our own.
    pub refusal: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// `Referer`.
    pub referer: &'a [u8],
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// The version of TLS, such as `TLSv1.3`.
    pub tls: &'a str,
}

/// One fact, as it is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fact<'a> {
    /// Text of the request: to be escaped.
    Text(&'a [u8]),
    /// Text of ours: needs no escaping.
    Plain(&'a str),
    /// `METHOD TARGET VERSION`.
    Request,
    Address(IpAddr),
    Number(u64),
    Seconds(Duration),
    /// UTC, with milliseconds.
    Time,
    /// As NGINX has it.
    TimeLocal,
    Absent,
}

macro_rules! variables {
    ($($variant:ident $name:literal => $fact:expr;)+) => {
        /// What a template can name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Variable { $($variant),+ }

        impl Variable {
            pub(super) const ALL: &'static [(Variable, &'static str)] = &[$((Variable::$variant, $name)),+];

            /// This fact of a request.
            pub(super) fn of<'a>(self, line: &Line<'a>) -> Fact<'a> {
                let fact: for<'l> fn(&Line<'l>) -> Fact<'l> = match self { $(Variable::$variant => $fact),+ };
                fact(line)
            }
        }
    };
}

variables! {
    Time "time" => |_| Fact::Time;
    TimeLocal "time_local" => |_| Fact::TimeLocal;
    Client "client" => |line| line.client.map_or(Fact::Plain("unix:"), Fact::Address);
    User "user" => |line| text(line.user);
    Request "request" => |line| if line.method.is_empty() { Fact::Absent } else { Fact::Request };
    Method "method" => |line| text(line.method);
    Target "target" => |line| text(line.target);
    Path "path" => |line| text(line.target.split('?').next().unwrap_or_default());
    Query "query" => |line| text(line.target.split_once('?').map_or("", |(_, query)| query));
    Version "version" => |line| Fact::Plain(version(line.version));
    Host "host" => |line| bytes(line.host);
    Scheme "scheme" => |line| plain(line.scheme);
    Status "status" => |line| status(line.status);
    Received "bytes_in" => |line| Fact::Number(line.received);
    Sent "bytes_out" => |line| Fact::Number(line.sent);
    Duration "duration" => |line| Fact::Seconds(line.duration);
    UpstreamDuration "upstream_duration" => |line| line.upstream_duration.map_or(Fact::Absent, Fact::Seconds);
    UpstreamStatus "upstream_status" => |line| status(line.upstream_status);
    Listener "listener" => |line| text(line.listener);
    Route "route" => |line| text(line.route);
    Pool "pool" => |line| text(line.pool);
    Upstream "upstream" => |line| text(line.upstream);
    Attempts "attempts" => |line| Fact::Number(u64::from(line.attempts));
    Refusal "refusal" => |line| plain(line.refusal);
    RequestId "request_id" => |line| text(line.request_id);
    Referer "referer" => |line| bytes(line.referer);
    UserAgent "user_agent" => |line| bytes(line.user_agent);
    Tls "tls" => |line| plain(line.tls);
    Principal "principal" => |line| text(line.principal);
}

fn text(text: &str) -> Fact<'_> {
    bytes(text.as_bytes())
}

fn bytes(bytes: &[u8]) -> Fact<'_> {
    if bytes.is_empty() { Fact::Absent } else { Fact::Text(bytes) }
}

fn plain(text: &str) -> Fact<'_> {
    if text.is_empty() { Fact::Absent } else { Fact::Plain(text) }
}

fn status<'a>(status: u16) -> Fact<'a> {
    if status == 0 { Fact::Absent } else { Fact::Number(u64::from(status)) }
}

/// As NGINX writes it: HTTP/2 is `HTTP/2.0`.
pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}
