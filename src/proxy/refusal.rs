//! The refusal table: the only place that makes a response of our own.
//!
//! One row for each way we answer instead of an upstream: the status, the RFC 9209 `Proxy-Status` token, the metric label, whose
//! fault it is, and the words a client gets. Causes go to the log, never to the client.

use http::StatusCode;

/// Whose fault a refusal is; upstream faults are the only ones that count against an upstream's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request was wrong or its sender left.
    Client,
    /// The client is over a limit.
    Limit,
    /// No route or no upstream was there to take it.
    Config,
    /// The upstream failed.
    Upstream,
    /// We failed.
    Proxy,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The metric label and the name in logs.
    pub label: &'static str,
    /// What the client gets.
    pub status: u16,
    /// The `error` parameter of `Proxy-Status` (RFC 9209 §2.3).
    pub proxy_status: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether the connection is closed behind the answer, because its framing can no longer be trusted.
    pub close: bool,
    /// The words in the body.
    pub text: &'static str,
}

macro_rules! table {
    ($($(#[doc = $doc:literal])* $name:ident $label:literal $status:literal $token:literal $fault:ident $close:ident $text:literal;)*) => {
        /// Why we answered instead of an upstream.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refusal { $($(#[doc = $doc])* $name,)* }

        impl Refusal {
            /// All of them, in the order of their indices.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];
            /// Their metric labels, by index.
            pub const LABELS: &'static [&'static str] = &[$($label,)*];
            const ROWS: &'static [Row] = &[$(Row { label: $label, status: $status, proxy_status: $token, fault: Fault::$fault, close: table!(@$close), text: $text },)*];
        }
    };
    (@close) => { true };
    (@keep) => { false };
}

table! {
    /// The request cannot be understood in one way only (RFC 9112 §3.2, §5, §6).
    BadRequest        "bad_request"         400 "http_request_error"          Client   close "Bad request";
    /// The target's path climbs above its root or holds an invalid escape.
    BadPath           "bad_path"            400 "http_request_error"          Client   close "Bad request target";
    /// No, several or an invalid `Host`, or one that disagrees with `:authority`.
    BadHost           "bad_host"            400 "http_request_error"          Client   close "Bad or missing Host";
    /// The request target is longer than `max_uri`.
    UriTooLong        "uri_too_long"        414 "http_request_error"          Client   close "URI too long";
    /// The head is longer than `max_header_size`, or has more lines than `max_headers`.
    HeadTooLarge      "head_too_large"      431 "http_request_error"          Client   close "Request headers too large";
    /// The head was not complete within `header_timeout`.
    HeaderTimeout     "header_timeout"      408 "http_request_error"          Client   close "Request timed out";
    /// CONNECT: we are not a forward proxy.
    ConnectMethod     "connect_method"      405 "http_request_denied"         Client   close "Method not allowed";
    /// The client was slower than `body_timeout`.
    BodyTimeout       "body_timeout"        408 "http_request_error"          Client   close "Request body timed out";
    /// The body is longer than `max_body`.
    BodyTooLarge      "body_too_large"      413 "http_request_error"          Client   close "Request body too large";
    /// The client broke off in its own body.
    BodyBroken        "body_broken"         400 "http_request_error"          Client   close "Request body incomplete";
    /// The client left before its answer was complete (NGINX's 499).
    ClientClosed      "client_closed"       499 "http_request_error"          Client   close "Client closed request";
    /// A page of an origin that is not in the route's `origins`.
    ForeignOrigin     "foreign_origin"      403 "http_request_denied"         Client   keep  "Origin not allowed";
    /// No key or token, or none that is good (RFC 6750 §3.1).
    Unauthorized      "unauthorized"        401 "http_request_denied"         Client   keep  "Unauthorized";
    /// A key or token that is good, but not for this.
    InsufficientScope "insufficient_scope"  403 "http_request_denied"         Client   keep  "Insufficient scope";
    /// The issuer's keys could never be fetched, so that no token can be verified.
    NoIssuerKeys      "no_issuer_keys"      503 "proxy_configuration_error"   Config   keep  "Service unavailable";
    /// A rate limit.
    RateLimited       "rate_limited"        429 "http_request_denied"         Limit    keep  "Too many requests";
    /// A limit of requests in progress.
    RequestsLimited   "requests_limited"    429 "http_request_denied"         Limit    keep  "Too many requests at once";
    /// A limit of connections in use.
    ConnectionsLimited "connections_limited" 429 "http_request_denied"        Limit    keep  "Too many connections";
    /// No route is for this request.
    NoRoute           "no_route"            404 "destination_not_found"       Config   keep  "Not found";
    /// Every upstream of the pool is down, draining or unresolved.
    NoUpstream        "no_upstream"         503 "destination_unavailable"     Config   keep  "Service unavailable";
    /// Every fit upstream has `max_connections` requests.
    UpstreamsFull     "upstreams_full"      503 "connection_limit_reached"    Config   keep  "Service unavailable";
    /// Every upstream is full, and as many requests as `queue.size` allows wait already.
    QueueFull         "queue_full"          503 "connection_limit_reached"    Config   keep  "Service unavailable";
    /// It has waited for `queue.timeout` and no upstream had room for it.
    QueueTimeout      "queue_timeout"       503 "connection_limit_reached"    Config   keep  "Service unavailable";
    /// The request has passed us ten times: a pool leads back to its own listener.
    Loop              "loop"                508 "proxy_loop_detected"         Config   keep  "Loop detected";
    /// This machine has no socket, port or memory left for a connection to the upstream.
    NoSocket          "no_socket"           503 "proxy_internal_error"        Proxy    keep  "Service unavailable";
    /// The upstream refused the connection or could not be reached.
    ConnectFailed     "connect_failed"      502 "connection_refused"          Upstream keep  "Bad gateway";
    /// No connection within `timeout.connect`.
    ConnectTimeout    "connect_timeout"     504 "connection_timeout"          Upstream keep  "Gateway timeout";
    /// The TLS handshake with the upstream failed.
    TlsFailed         "tls_failed"          502 "tls_protocol_error"          Upstream keep  "Bad gateway";
    /// The TLS handshake took longer than `timeout.tls`.
    TlsTimeout        "tls_timeout"         504 "connection_timeout"          Upstream keep  "Gateway timeout";
    /// The upstream closed or reset the connection before its answer.
    UpstreamClosed    "upstream_closed"     502 "connection_terminated"       Upstream keep  "Bad gateway";
    /// No answer within `timeout.first_byte`.
    FirstByteTimeout  "first_byte_timeout"  504 "http_response_timeout"       Upstream keep  "Gateway timeout";
    /// The upstream's answer is not HTTP, or can be understood in two ways.
    BadResponse       "bad_response"        502 "http_protocol_error"         Upstream keep  "Bad gateway";
    /// The request, with its retries, took longer than `timeout.request`.
    RequestTimeout    "request_timeout"     504 "http_response_timeout"       Upstream keep  "Gateway timeout";
    /// The upstream was cut off at the end of its drain.
    DrainDeadline     "drain_deadline"      503 "connection_terminated"       Config   keep  "Service unavailable";
    /// The JSON-RPC message cannot be read, or contradicts itself or its headers.
    BadMessage        "bad_message"         400 "http_request_error"          Client   keep  "Bad JSON-RPC message";
    /// The session id is none of ours, was forged, or is too old.
    NoSession         "no_session"          404 "destination_not_found"       Client   keep  "Session not found";
    /// The upstream died with the call in progress, so that nobody knows whether it was done.
    OutcomeUnknown    "outcome_unknown"     502 "connection_terminated"       Upstream keep  "Outcome unknown";
    /// A bug of ours: the request panicked.
    Internal          "internal"            500 "proxy_internal_error"        Proxy    close "Internal server error";
}

impl Refusal {
    /// The row.
    pub fn row(self) -> &'static Row {
        &Self::ROWS[self as usize]
    }

    /// The status clients get; limits may be configured otherwise.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether it is certain that no upstream has acted on the request.
    pub fn is_undelivered(self) -> bool {
        use Refusal::*;
        matches!(
            self,
            NoUpstream
                | UpstreamsFull
                | QueueFull
                | QueueTimeout
                | NoSocket
                | ConnectFailed
                | ConnectTimeout
                | TlsFailed
                | TlsTimeout
        )
    }

    /// Its place in the table, for counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_status_of_its_own_kind_and_a_label_nobody_else_has() {
        let mut labels = Refusal::LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            let row = refusal.row();
            let server_side = matches!(row.fault, Fault::Upstream | Fault::Proxy);
            assert_eq!(
                refusal.status().is_server_error(),
                server_side || matches!(row.status, 503 | 508),
                "{}",
                row.label
            );
            assert_eq!(Refusal::LABELS[refusal.index()], row.label);
        }
    }
}
