//! The one model that every configuration language is read into: what a Tidegate is to do, checked and complete.
//!
//! Each key is defined once, here: its name, type, default and meaning. The reader, `tidegate show`, the reference page and
//! the hints in error messages all come from these definitions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use super::access::*;
pub use super::mcp::*;
pub use super::scaling::*;
use super::section::{MILLISECOND, section};
pub use super::setting::{
    CheckKind, ClientAuth, Forwarded, HostHeader, Initial, LogFormat, LogTarget, Protocol, ProxyProtocol, RequestId,
    Secret, SettingError, StatusSet, StickyKey, TlsVersion, Workers,
};
use crate::balance::{Algorithm, HashKey};
use crate::limit::Per;
use crate::route::{HostPattern, PathPattern, ValuePattern};
use crate::types::{Address, Bind, Rate, Share, Size};

section! {
    /// The whole configuration.
    pub struct Config ("") {
        /// Further files to read, as globs relative to this file, such as `"routes.d/*.toml"`; their tables are merged with this file's.
        include: Vec<String> = vec![],
        /// Worker threads: `"auto"` (one for each CPU this process may use) or a number. Read at start only.
        workers: Workers = Workers::Auto,
        /// Started as root, who to go on as: `"USER"` or `"USER:GROUP"`, by name or number. Ports below 1024 can still be listened on. Read at start only.
        user: Option<String> = None,
        /// How long SIGTERM waits for requests and streams to finish before it cuts them.
        shutdown_timeout: Duration = Duration::from_secs(30),
        /// What happens to the process's own log.
        log: Log = Log::default(),
        /// One line for each request. Off unless asked for.
        access_log: AccessLog = AccessLog::default(),
        /// The admin API and the metrics page.
        admin: Admin = Admin::default(),
        /// Answers of our own, dressed: `{ "502" = "pages/502.html", "5xx" = "pages/sorry.html" }`; a route can add to or override them.
        error_pages: BTreeMap<String, PathBuf> = BTreeMap::new(),
        /// Where connections are accepted.
        listener: BTreeMap<String, Listener> = BTreeMap::new(),
        /// What holds for the scalers of all pools.
        scaler: Scalers = Scalers::default(),
        /// What holds for all pools of MCP servers.
        mcp: Mcp = Mcp::default(),
        /// Upstreams that can stand in for one another.
        pool: BTreeMap<String, Pool> = BTreeMap::new(),
        /// Which requests go where.
        route: Vec<Route> = vec![],
    }
}

section! {
    /// The process's own log, on standard error.
    pub struct Log ("log", short level) {
        /// `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`; also per module: `"info,tidegate::proxy=debug"`.
        level: String = "info".to_owned(),
        /// `"text"` or `"json"`.
        format: LogFormat = LogFormat::Text,
    }
}

section! {
    /// One line for each request.
    pub struct AccessLog ("access_log", short target) {
        /// `"off"`, `"stdout"` or a file; a file is reopened on SIGUSR1.
        target: LogTarget = LogTarget::Off,
        /// `"combined"` (NGINX's), `"json"`, or a template such as `"{client} {method} {path} {status} {duration}"`.
        format: String = "combined".to_owned(),
    }
}

section! {
    /// The admin API, the metrics page and what `tidegate status`, `drain` and `reload` talk to.
    pub struct Admin ("admin") {
        /// Where it listens: a loopback address, a Unix socket, or `"off"`. Any other address needs a token.
        bind: Option<Bind> = Some(Bind::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 9900)))),
        /// What callers must send as `Authorization: Bearer …`; at least 16 characters.
        token: Option<Secret> = None,
        /// At most so many routes and upstreams have metric series of their own; the others share the label `other`.
        max_series: u32 [1..] = 1000,
    }
}

section! {
    /// An address we accept connections on.
    pub struct Listener ("listener.NAME") {
        /// One address or several: `"0.0.0.0:8080"`, `"[::]:8080"`, `":8080"`, `"unix:/run/tidegate.sock"`. A socket handed over by systemd for the same address is used instead of a new one.
        bind: Vec<Bind>,
        /// Which protocols clients may speak: `"http/1.1"`, `"h2"`. Without TLS `h2` means HTTP/2 with prior knowledge.
        protocols: Vec<Protocol> = vec![Protocol::Http2, Protocol::Http1],
        /// Speak TLS here.
        tls: Option<ListenerTls> = None,
        /// Whether connections start with a PROXY protocol header (v1 or v2): `"off"`, `"require"` or `"accept"`. Believed only from `trusted_proxies`, if any are named.
        proxy_protocol: ProxyProtocol = ProxyProtocol::Off,
        /// Networks whose `X-Forwarded-For`, `Forwarded` or PROXY header tells the client's address. Nobody else is believed. They must write or extend X-Forwarded-For themselves (`Forwarded` with `forwarded = "forwarded"`): what they pass on unread could be anybody's.
        trusted_proxies: Vec<IpNet> = vec![],
        /// Connections open at once; further ones wait in the kernel's queue.
        max_connections: u32 [1..] = 100_000,
        /// Connections open at once from one client address (IPv6: one /64); further ones are closed at once.
        max_connections_per_client: Option<u32> [1..] = None,
        /// The request line and all headers together; more is 431.
        max_header_size: Size [Size(8 << 10)..=Size(16 << 20)] = Size(64 << 10),
        /// Header lines; more is 431.
        max_headers: u32 [1..=10_000] = 100,
        /// The request target; more is 414.
        max_uri: Size [Size(256)..=Size(16 << 20)] = Size(16 << 10),
        /// A request body; more is 413. `"off"` for no bound. A route can override it.
        max_body: Option<Size> = Some(Size(100 << 20)),
        /// Requests open at once on one HTTP/2 connection.
        max_streams: u32 [1..] = 128,
        /// From a connection's start, or from a request's first byte, to the end of its headers; later is 408.
        header_timeout: Duration [MILLISECOND..] = Duration::from_secs(10),
        /// Between two pieces of a request body; later is 408.
        body_timeout: Duration [MILLISECOND..] = Duration::from_secs(30),
        /// A client that takes none of the answer for so long is cut off.
        send_timeout: Duration [MILLISECOND..] = Duration::from_secs(60),
        /// How long a connection may be idle between requests.
        keepalive_timeout: Duration [MILLISECOND..] = Duration::from_secs(75),
        /// A client that closes its sending side while its request runs: `false`, it has left (its request is cancelled, 499); `true`, it still reads.
        half_close: bool = false,
        /// Serve plain HTTP/1.1 requests by a small reader and writer of our own, which cost less time and memory than the general ones (hyper); connections with anything out of the ordinary go on to those. `false`: all do.
        fast_lane: bool = true,
        /// Accept header names with underscores; otherwise such headers are dropped, as NGINX does.
        underscores: bool = false,
        /// Which headers tell upstreams about the client: `"x-forwarded"` (X-Forwarded-For, -Proto, -Host and X-Real-IP), `"forwarded"` (RFC 7239), `"both"` or `"off"`.
        forwarded: Forwarded = Forwarded::XForwarded,
        /// `X-Request-Id`: `"pass"` (keep the client's, make one where there is none), `"always"` (make one) or `"off"`.
        request_id: RequestId = RequestId::Pass,
        /// Add ourselves to `Via` (RFC 9110 §7.6.3), and refuse what has passed a Tidegate ten times (508).
        via: bool = true,
    }
}

section! {
    /// TLS on a listener.
    pub struct ListenerTls ("listener.NAME.tls") {
        /// The certificate chain, PEM; its leaf first.
        certificate: Option<PathBuf> = None,
        /// The certificate's private key, PEM.
        key: Option<PathBuf> = None,
        /// Further certificates, chosen by the name the client asks for (SNI): `[{ certificate = "b.pem", key = "b.key" }]`.
        certificates: Vec<Certificate> = vec![],
        /// `"1.2"` or `"1.3"`.
        min_version: TlsVersion = TlsVersion::Tls12,
        /// Certificates of the authorities that sign client certificates, PEM.
        client_ca: Option<PathBuf> = None,
        /// With `client_ca`: `"require"` or `"optional"`.
        client_auth: ClientAuth = ClientAuth::Require,
        /// From a connection's start to the end of its handshake.
        handshake_timeout: Duration [MILLISECOND..] = Duration::from_secs(10),
    }
}

section! {
    /// A certificate and its key.
    pub struct Certificate ("listener.NAME.tls.certificates") {
        /// The certificate chain, PEM; its leaf first.
        certificate: PathBuf,
        /// The certificate's private key, PEM.
        key: PathBuf,
    }
}

section! {
    /// Interchangeable upstreams behind one name.
    pub struct Pool ("pool.NAME") {
        /// `"http"`, or `"mcp"` for MCP servers: sessions stay where they are and survive their upstream, streams are kept alive, errors are JSON-RPC.
        kind: PoolKind = PoolKind::Http,
        /// `"round_robin"`, `"weighted"` (smooth weighted round robin), `"least_connections"`, `"ewma"` (latency × load), `"random"` (better of two), `"hash"` (consistent) or `"first"` (the first with room). All of them honour weights.
        balance: Algorithm = Algorithm::RoundRobin,
        /// What `"hash"` hashes: `"client"`, `"uri"`, `"path"`, `"header:NAME"`, `"cookie:NAME"` or `"query:NAME"`.
        hash_on: HashKey = HashKey::Client,
        /// With `"hash"`: no upstream takes more than so many times its fair share, in percent over it (`"25%"`); `"off"` for no bound.
        hash_bound: Option<Share> = Some(Share(0.25)),
        /// The members: `"127.0.0.1:9001"` or `{ address = "127.0.0.1:9002", weight = 2 }`.
        upstreams: Vec<Upstream> = vec![],
        /// Requests that an upstream takes at once, unless its own `max_connections` says otherwise: a number, or `"learn"` (with a `scaler`). Further ones wait in the `queue`.
        max_concurrency: Option<MaxConcurrency> = None,
        /// Where requests wait while every upstream is full. No waiting unless asked for, or a `scaler` is there.
        queue: Option<Queue> = None,
        /// Upstreams are added and removed by the load. Such a pool needs no `upstreams`; without a `health` check of its own a TCP connection is one.
        scaler: Option<Scaler> = None,
        /// How upstreams are asked whether they are well: `{ path = "/health" }`. None unless asked for.
        health: Option<HealthCheck> = None,
        /// Sending failing upstreams away for a while.
        eject: Eject = Eject::default(),
        /// A circuit breaker for each upstream. None unless asked for.
        breaker: Option<Breaker> = None,
        /// If fewer than this share of the upstreams are fit, all are used: better a bad answer than none.
        panic_threshold: Share = Share(0.0),
        /// An upstream that comes or comes back gets its full weight only after so long.
        slow_start: Duration = Duration::ZERO,
        /// Keep a client on one upstream.
        sticky: Option<Sticky> = None,
        /// What upstreams speak: `"http/1.1"` or `"h2"`.
        protocol: Protocol = Protocol::Http1,
        /// Speak TLS to upstreams; `{}` verifies them against the system's authorities.
        tls: Option<UpstreamTls> = None,
        /// The Host that upstreams see: `"preserve"` (the client's), `"upstream"` (the upstream's address) or a literal.
        host: HostHeader = HostHeader::Preserve,
        /// How long things may take.
        timeout: Timeout = Timeout::default(),
        /// When a request is tried again on another upstream.
        retry: Retry = Retry::default(),
        /// Idle connections kept for each upstream and worker.
        idle_connections: u32 = 1024,
        /// How long such a connection is kept.
        idle_timeout: Duration = Duration::from_secs(60),
        /// How long a removed or draining upstream may go on with what it has; then it is cut.
        drain_timeout: Duration = Duration::from_secs(300),
        /// With `kind = "mcp"`: a session whose upstream is gone, or no longer knows it: `"reinit"` (it is initialized again elsewhere, unseen) or `"404"` (its client is told).
        session_loss: SessionLoss = SessionLoss::Reinit,
        /// With `kind = "mcp"`: how sessions leave an upstream that drains.
        drain: McpDrain = McpDrain::default(),
        /// With `kind = "mcp"`: event streams get a comment after so much silence, so that nobody on the way cuts them.
        keepalive: Duration [Duration::from_millis(100)..] = Duration::from_secs(15),
        /// With `kind = "mcp"`: limits for each client and tool.
        limit: Vec<McpLimit> = vec![],
        /// With `kind = "mcp"`: instead of `upstreams`, servers on standard input and output.
        stdio: Option<McpStdio> = None,
        /// With `kind = "mcp"`: lists that say how long they hold are kept.
        list_cache: McpCache = McpCache::default(),
    }
}

section! {
    /// A member of a pool. Just its address where nothing else is to be said.
    pub struct Upstream ("pool.NAME.upstreams", short address) {
        /// `"127.0.0.1:9001"`, `"api.internal:9001"` (every address of the name), `"unix:/run/app.sock"` or `"srv:_http._tcp.api.internal"`.
        address: Address,
        /// Its part of the load, relative to the others'; 0 takes none but what is stuck to it.
        weight: u32 [0..=1_000_000] = 1,
        /// Used only while no other upstream of the pool is fit.
        backup: bool = false,
        /// Requests it may have at once; further ones go elsewhere.
        max_connections: Option<u32> [1..] = None,
    }
}

section! {
    /// An active health check.
    pub struct HealthCheck ("pool.NAME.health", short kind) {
        /// `"http"`, `"tcp"` (a connection is enough) or `"mcp"` (asks `server/discover` at `path`, `/mcp` unless given; any JSON-RPC answer is good).
        kind: CheckKind = CheckKind::Http,
        /// The path asked for.
        path: String = "/".to_owned(),
        /// The method used.
        method: String = "GET".to_owned(),
        /// The Host sent; the upstream's address unless given.
        host: Option<String> = None,
        /// Further headers sent.
        headers: BTreeMap<String, String> = BTreeMap::new(),
        /// Which statuses are good: `"200-399"`, `"200,204"`.
        expect: StatusSet = StatusSet(vec![(200, 399)]),
        /// Text that the first 64 KiB of the body must hold.
        contains: Option<String> = None,
        /// From one check to the next; spread by up to a tenth each way.
        interval: Duration [MILLISECOND..] = Duration::from_secs(2),
        /// A check that takes longer has failed.
        timeout: Duration [MILLISECOND..] = Duration::from_secs(1),
        /// Good checks in a row until a sick upstream is fit again.
        rise: u32 [1..=1_000] = 2,
        /// Bad checks in a row until a fit upstream is sick.
        fall: u32 [1..=1_000] = 3,
        /// What an upstream is before its first check: `"down"` or `"up"`. One good check is enough at first.
        initial: Initial = Initial::Down,
        /// Another port for the checks.
        port: Option<u16> [1..] = None,
    }
}

section! {
    /// Passive health: upstreams that fail real requests are sent away for a while.
    pub struct Eject ("pool.NAME.eject") {
        /// Failures in a row that eject; 0 never ejects.
        failures: u32 = 5,
        /// Whether answers of 500 and above are failures, besides connect errors, resets and timeouts.
        on_5xx: bool = false,
        /// How long the first time; doubled each further time. Active checks that find it down, and then up again, end it.
        time: Duration [MILLISECOND..] = Duration::from_secs(10),
        /// At most so long.
        max_time: Duration [MILLISECOND..] = Duration::from_secs(300),
        /// Never more than this share of the pool at once.
        max_share: Share = Share(0.5),
    }
}

section! {
    /// A circuit breaker for each upstream: closed, open, half open.
    pub struct Breaker ("pool.NAME.breaker") {
        /// Opens where this share of the requests in a window failed.
        error_rate: Share = Share(0.5),
        /// … of at least so many requests.
        min_requests: u32 [1..] = 20,
        /// The window.
        window: Duration [MILLISECOND..] = Duration::from_secs(10),
        /// Opens after so many failures in a row; `"off"` to go by rate alone.
        failures: Option<u32> [1..] = None,
        /// How long it stays open.
        open: Duration [MILLISECOND..] = Duration::from_secs(5),
        /// Trial requests let through while half open; all must succeed.
        probes: u32 [1..] = 3,
    }
}

section! {
    /// Stickiness: what belongs together goes to one upstream.
    pub struct Sticky ("pool.NAME.sticky") {
        /// Insert a cookie of this name.
        cookie: Option<String> = None,
        /// Learn from answers: `"header:Mcp-Session-Id"` or `"cookie:JSESSIONID"`; requests that carry it follow.
        learn: Option<StickyKey> = None,
        /// How long without use until it is forgotten.
        idle_timeout: Duration [MILLISECOND..] = Duration::from_secs(3600),
        /// At most so many learned; then the longest unused is forgotten.
        max_entries: u32 [1..] = 100_000,
    }
}

section! {
    /// TLS towards upstreams.
    pub struct UpstreamTls ("pool.NAME.tls") {
        /// Authorities to trust instead of the system's, PEM.
        ca: Option<PathBuf> = None,
        /// Our client certificate, PEM.
        certificate: Option<PathBuf> = None,
        /// Its key, PEM.
        key: Option<PathBuf> = None,
        /// The name to ask for and to verify; the upstream's host (or address) unless given.
        server_name: Option<String> = None,
        /// `false` accepts any certificate. For tests only.
        verify: bool = true,
    }
}

section! {
    /// How long an upstream may take. `"off"` for no bound.
    pub struct Timeout ("pool.NAME.timeout") {
        /// For a connection.
        connect: Option<Duration> [MILLISECOND..] = Some(Duration::from_secs(3)),
        /// For the TLS handshake.
        tls: Option<Duration> [MILLISECOND..] = Some(Duration::from_secs(5)),
        /// From the request's last byte sent to the answer's headers.
        first_byte: Option<Duration> [MILLISECOND..] = Some(Duration::from_secs(60)),
        /// Between two pieces of the answer, and of silence in a tunnel. Streams that are alive are never cut by the others.
        idle: Option<Duration> [MILLISECOND..] = Some(Duration::from_secs(3600)),
        /// For the whole request, its retries and its answer.
        request: Option<Duration> [MILLISECOND..] = None,
    }
}

section! {
    /// Trying again on another upstream. Requests that did not reach an upstream always may; others only if idempotent.
    pub struct Retry ("pool.NAME.retry") {
        /// Attempts in all; 1 never tries again.
        attempts: u32 [1..=100] = 3,
        /// Retries at most, as a share of the pool's requests (ten a second are always allowed).
        budget: Share = Share(0.2),
        /// A request body up to this size is kept, so that it can be sent again.
        body: Size [..=Size(64 << 20)] = Size(64 << 10),
        /// Answers that count as failed attempts, besides broken connections: `[502, 503, 504]`.
        statuses: Vec<u16> = vec![],
    }
}

section! {
    /// Which requests, and what happens to them. Exactly one of `pool`, `split`, `redirect` and `respond`.
    pub struct Route ("route") {
        /// Its name in metrics and logs; made from host and path where absent.
        name: Option<String> = None,
        /// Only requests that came in here.
        listener: Vec<String> = vec![],
        /// `"api.example.com"`, `"*.example.com"`; any host where absent.
        host: Vec<HostPattern> = vec![],
        /// `"/api"` (on segment borders), `"= /exact"`, `"^~ /raw-prefix"`, `"raw /prefix"`, `"~ regex"`, `"~* regex"`; any path where absent.
        path: Vec<PathPattern> = vec![],
        /// `"GET"`, `["PUT", "POST"]`.
        method: Vec<String> = vec![],
        /// Headers the request must have: `{ x-env = "beta", x-id = { regex = "^[0-9]+$" }, x-old = { present = false } }`.
        header: BTreeMap<String, ValuePattern> = BTreeMap::new(),
        /// Query parameters, in the same way.
        query: BTreeMap<String, ValuePattern> = BTreeMap::new(),
        /// Cookies, in the same way.
        cookie: BTreeMap<String, ValuePattern> = BTreeMap::new(),
        /// Networks the client must be in: `"10.0.0.0/8"`.
        from: Vec<IpNet> = vec![],
        /// The route is not for requests that match any of these.
        except: Option<Except> = None,
        /// Higher goes first, before all other precedence.
        priority: i32 = 0,
        /// Send it to this pool.
        pool: Option<String> = None,
        /// Send it to one of several pools, by weight: `[{ pool = "stable", weight = 95 }, { pool = "canary", weight = 5 }]`.
        split: Vec<Split> = vec![],
        /// Send the client elsewhere: `{ to = "https://{host}{uri}", status = 308 }`.
        redirect: Option<Redirect> = None,
        /// Answer at once: `{ status = 200, body = "ok" }`.
        respond: Option<Respond> = None,
        /// Change the path before the upstream sees it.
        rewrite: Option<Rewrite> = None,
        /// Change the request's headers.
        request_headers: HeaderEdit = HeaderEdit::default(),
        /// Change the answer's headers.
        response_headers: HeaderEdit = HeaderEdit::default(),
        /// Web pages that may ask at all: `["https://app.example.com", "http://localhost:*"]`; a request with another `Origin` is 403. Requests without one are not from web pages and go on. Unless given nothing is checked. (Which `Host` may be asked for is what `host` says.)
        origins: Vec<OriginPattern> = vec![],
        /// What browsers are told about pages of other origins (CORS): `"mcp"`, or a table.
        cors: Option<CorsSettings> = None,
        /// Who may come in, by key or token; anybody unless given.
        auth: Option<AuthSettings> = None,
        /// What clients are told that look for a token (RFC 9728).
        resource: Option<ResourceSettings> = None,
        /// Limits for each client: one table or several.
        limit: Vec<Limit> = vec![],
        /// Overrides of the pool's timeouts.
        timeout: TimeoutOverride = TimeoutOverride::default(),
        /// Overrides the listener's `max_body`; `"off"` for no bound.
        max_body: Option<Option<Size>> = None,
        /// Overrides the pool's retry.
        retry: Option<Retry> = None,
        /// Answers of our own, dressed; before the top level's.
        error_pages: BTreeMap<String, PathBuf> = BTreeMap::new(),
        /// Dress the upstreams' errors too, not only our own.
        intercept_errors: bool = false,
        /// Whether its requests are in the access log.
        access_log: bool = true,
    }
}

section! {
    /// What a route is not for; the same keys as in the route.
    pub struct Except ("route.except") {
        /// Hosts.
        host: Vec<HostPattern> = vec![],
        /// Paths.
        path: Vec<PathPattern> = vec![],
        /// Methods.
        method: Vec<String> = vec![],
        /// Headers.
        header: BTreeMap<String, ValuePattern> = BTreeMap::new(),
        /// Query parameters.
        query: BTreeMap<String, ValuePattern> = BTreeMap::new(),
        /// Cookies.
        cookie: BTreeMap<String, ValuePattern> = BTreeMap::new(),
        /// Client networks.
        from: Vec<IpNet> = vec![],
    }
}

section! {
    /// A part of a weighted split.
    pub struct Split ("route.split") {
        /// The pool.
        pool: String,
        /// Its part, relative to the others'.
        weight: u32 [0..=1_000_000] = 1,
    }
}

section! {
    /// A redirect.
    pub struct Redirect ("route.redirect", short to) {
        /// Where to; may hold variables and, for a regex path, captures: `"https://{host}{uri}"`, `"/new/$1"`.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16 = 308,
    }
}

section! {
    /// A fixed answer.
    pub struct Respond ("route.respond", short status) {
        /// The status.
        status: u16 [200..=599] = 200,
        /// The body; may hold variables.
        body: String = String::new(),
        /// Its type.
        content_type: String = "text/plain; charset=utf-8".to_owned(),
    }
}

section! {
    /// A change of the path; one of `prefix`, `path` and `regex`.
    pub struct Rewrite ("route.rewrite") {
        /// What the route's matched prefix becomes: `/api/x` with path `/api` and prefix `/v1` goes on as `/v1/x`.
        prefix: Option<String> = None,
        /// The whole new path (and query, if it holds a `?`); may hold variables.
        path: Option<String> = None,
        /// An expression; what it matches becomes `to`.
        regex: Option<String> = None,
        /// The replacement for `regex`, with `$1` or `${name}` for its captures.
        to: Option<String> = None,
    }
}

section! {
    /// Changes of headers, done in this order: remove, set, add. Values may hold variables such as `{client}`, `{host}`, `{scheme}`, `{request_id}`.
    pub struct HeaderEdit ("route.request_headers") {
        /// Names to take out.
        remove: Vec<String> = vec![],
        /// Replace all lines of the name.
        set: BTreeMap<String, String> = BTreeMap::new(),
        /// Add a line.
        add: BTreeMap<String, String> = BTreeMap::new(),
    }
}

impl Pool {
    /// Whether its upstreams get a plain request's headers as they are, whatever they say, and need nothing said of them.
    pub fn takes_lines(&self) -> bool {
        let hashed = self.balance == Algorithm::Hash && matches!(self.hash_on, HashKey::Header(_) | HashKey::Cookie(_));
        self.kind == PoolKind::Http
            && self.protocol == Protocol::Http1
            && self.host == HostHeader::Preserve
            && self.sticky.is_none()
            && self.stdio.is_none()
            && self.scaler.as_ref().is_none_or(|scaler| scaler.min > 0)
            && !hashed
    }
}

impl Route {
    /// The same of what it does itself with its requests and answers.
    pub fn takes_lines(&self) -> bool {
        let edits = |edit: &HeaderEdit| !(edit.remove.is_empty() && edit.set.is_empty() && edit.add.is_empty());
        let asks = |limit: &Limit| !matches!(limit.per, Per::Client | Per::Prefix(_) | Per::All);
        self.rewrite.is_none()
            && self.origins.is_empty()
            && self.cors.is_none()
            && self.auth.is_none()
            && self.resource.is_none()
            && !self.intercept_errors
            && !edits(&self.request_headers)
            && !edits(&self.response_headers)
            && !self.limit.iter().any(asks)
    }
}

section! {
    /// A limit for each client.
    pub struct Limit ("route.limit", short rate) {
        /// Requests: `"100/s"`, `"10/min"`.
        rate: Option<Rate> = None,
        /// So many may come at once above the rate.
        burst: u32 = 0,
        /// Hold a request above the rate up to so long instead of refusing it.
        delay: Duration = Duration::ZERO,
        /// Requests in progress at once.
        requests: Option<u32> [1..] = None,
        /// Connections with a request in progress at once.
        connections: Option<u32> [1..] = None,
        /// Who is counted: `"client"` (its address; IPv6: its /64), `"client/24"` (IPv4 prefix), `"header:NAME"`, `"cookie:NAME"`, `"principal"` (who `auth` has found it to be) or `"all"` (everybody together).
        per: Per = Per::Client,
        /// The status of a refusal; NGINX users expect 503.
        status: u16 [400..=599] = 429,
        /// Clients remembered at once; then the longest unused is forgotten.
        max_clients: u32 [1..] = 100_000,
    }
}

section! {
    /// Overrides of a pool's timeouts for one route; `"off"` for no bound.
    pub struct TimeoutOverride ("route.timeout") {
        /// From the request's last byte sent to the answer's headers.
        first_byte: Option<Option<Duration>> [MILLISECOND..] = None,
        /// Between two pieces of the answer.
        idle: Option<Option<Duration>> [MILLISECOND..] = None,
        /// For the whole request.
        request: Option<Option<Duration>> [MILLISECOND..] = None,
    }
}
