//! One meaning for each request: what is ambiguous is refused, what remains is brought into one form.
//!
//! hyper has parsed the request by now and the [head guard](crate::downstream) has refused ambiguous framing; what is left to us is listed
//! in RFC 9110 §7.2 (Host), §7.6.1 (hop-by-hop headers) and RFC 9112 §3.2 (the target's forms). Nothing here is decided by the
//! configuration but the treatment of underscores.

use std::borrow::Cow;
use std::cell::RefCell;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::Refusal;
use crate::route::host;
use crate::route::path::{self, Path};
use crate::types::Lines;

/// `Keep-Alive` is not in the `http` crate's list.
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Nor is `Proxy-Connection`.
pub(super) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request in its one form.
#[derive(Debug)]
pub struct Normal<'a> {
    /// The host asked for, as it goes into `Host`.
    pub host: HeaderValue,
    /// How many bytes of `host` are its name, without port and final dot.
    name_len: usize,
    /// The path, as routes see it and as upstreams get it; none for `*`.
    pub path: Option<Path<'a>>,
    /// Path and query as they were sent, where they were in normal form.
    pub sent: Option<&'a PathAndQuery>,
    /// The query as it was sent.
    pub query: Option<&'a str>,
    /// What the client wants to upgrade to.
    pub upgrade: Option<HeaderValue>,
    /// `TE: trailers` was there.
    pub trailers: bool,
}

impl Normal<'_> {
    /// The host's name: lower case, no port.
    pub fn name(&self) -> &str {
        // Only ASCII passes `host::parse`.
        std::str::from_utf8(&self.host.as_bytes()[..self.name_len]).unwrap_or("")
    }

    /// The path as routes see it.
    pub fn matching(&self) -> &str {
        self.path.as_ref().map_or("*", Path::matching)
    }

    /// The path as upstreams get it.
    pub fn forward(&self) -> &str {
        self.path.as_ref().map_or("*", Path::forward)
    }
}

/// Checks a request, whose target was taken out of it, and brings it into its one form; its hop-by-hop headers are gone afterwards.
///
/// **Errors**: [`Refusal::BadRequest`], [`Refusal::BadHost`], [`Refusal::BadPath`], [`Refusal::ConnectMethod`].
/// **Cost**: one pass over the header names; allocates only where host or path are not in normal form already.
pub(super) fn normalize<'a>(parts: &mut Parts, uri: &'a Uri, underscores: bool) -> Result<Normal<'a>, Refusal> {
    let extended_connect = parts.extensions.get::<hyper::ext::Protocol>().is_some();
    if parts.method == Method::CONNECT && !extended_connect {
        return Err(Refusal::ConnectMethod);
    }
    check_form(parts, uri, extended_connect)?;
    let (host, name_len) = host(parts, uri)?;
    let path = match uri.path() {
        "*" => None,
        path => Some(path::normalize(path).map_err(|_| Refusal::BadPath)?),
    };
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    let hop = strip(&mut parts.headers, underscores)?;
    let as_sent = path.as_ref().is_some_and(|path| path.forward() == uri.path());
    let sent = uri.path_and_query().filter(|_| as_sent);
    Ok(Normal { host, name_len, path, sent, query: uri.query(), upgrade: hop.upgrade, trailers: hop.trailers })
}

/// The same for a request of the fast lane whose headers are text. That it is plain is known: one host, a path of plain bytes, and nothing
/// hop-by-hop that anybody but us would heed.
///
/// **Errors**: [`Refusal::BadHost`], [`Refusal::BadPath`].
pub(super) fn normalize_plain<'a>(lines: &Lines, uri: &'a Uri, last: &LastHost) -> Result<Normal<'a>, Refusal> {
    let (host, name_len) = last.name_of(lines.get("host").ok_or(Refusal::BadHost)?)?;
    let path = path::normalize(uri.path()).map_err(|_| Refusal::BadPath)?;
    let sent = uri.path_and_query().filter(|_| path.forward() == uri.path());
    Ok(Normal { host, name_len, path: Some(path), sent, query: uri.query(), upgrade: None, trailers: false })
}

/// RFC 9112 §3.2: origin-form, absolute-form, and `*` for OPTIONS alone.
fn check_form(parts: &Parts, uri: &Uri, extended_connect: bool) -> Result<(), Refusal> {
    let path = uri.path();
    // hyper reads `GET c` as an authority without a scheme and gives it the path `/`.
    let authority_form = uri.authority().is_some() && uri.scheme().is_none();
    if authority_form && !extended_connect {
        return Err(Refusal::BadRequest);
    }
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(Refusal::BadRequest);
    }
    if path == "*" {
        return if parts.method == Method::OPTIONS { Ok(()) } else { Err(Refusal::BadPath) };
    }
    if path.starts_with('/') || path.is_empty() && uri.authority().is_some() { Ok(()) } else { Err(Refusal::BadPath) }
}

/// The one host of a request: the target's authority where it has one, else the one `Host` header.
fn host(parts: &Parts, uri: &Uri) -> Result<(HeaderValue, usize), Refusal> {
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::BadHost);
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    let host = match (authority, line) {
        (Some(authority), line) => {
            // RFC 9113 §8.3.1: an intermediary must not let the two disagree. On HTTP/1 the target wins (RFC 9112 §3.2.2).
            let agree = line.is_none_or(|line| line.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
            if parts.version >= Version::HTTP_2 && !agree || parts.version == Version::HTTP_11 && line.is_none() {
                return Err(Refusal::BadHost);
            }
            HeaderValue::from_str(authority).map_err(|_| Refusal::BadHost)?
        }
        (None, Some(line)) => line.clone(),
        // HTTP/1.0 may come without: it is for the default host.
        (None, None) if parts.version == Version::HTTP_10 => HeaderValue::from_static(""),
        (None, None) => return Err(Refusal::BadHost),
    };
    name_of(host)
}

/// A host in its one form, and how much of it is its name.
fn name_of(host: HeaderValue) -> Result<(HeaderValue, usize), Refusal> {
    let parsed = host::parse(host.to_str().map_err(|_| Refusal::BadHost)?).map_err(|_| Refusal::BadHost)?;
    let name_len = parsed.name.len();
    let normal = match (parsed.name, parsed.port) {
        (Cow::Borrowed(_), _) => None,
        (Cow::Owned(name), None) => Some(name),
        (Cow::Owned(name), Some(port)) => Some(format!("{name}:{port}")),
    };
    match normal {
        None => Ok((host, name_len)),
        Some(normal) => Ok((HeaderValue::from_str(&normal).map_err(|_| Refusal::BadHost)?, name_len)),
    }
}

/// The host of a connection's last request: its next one is nearly always for the same.
#[derive(Debug, Default)]
pub struct LastHost(RefCell<Option<Known>>);

#[derive(Debug)]
struct Known {
    sent: HeaderValue,
    host: HeaderValue,
    name_len: usize,
}

impl LastHost {
    /// What [`name_of`] makes of a host.
    fn name_of(&self, sent: &[u8]) -> Result<(HeaderValue, usize), Refusal> {
        let mut last = self.0.borrow_mut();
        if let Some(known) = last.as_ref().filter(|known| known.sent.as_bytes() == sent) {
            return Ok((known.host.clone(), known.name_len));
        }
        // A copy: nothing of the request is to be kept for it.
        let sent = HeaderValue::from_bytes(sent).map_err(|_| Refusal::BadHost)?;
        let (host, name_len) = name_of(sent.clone())?;
        *last = Some(Known { sent, host: host.clone(), name_len });
        Ok((host, name_len))
    }
}

/// RFC 9113 §8.2.3: an HTTP/2 client may split its cookies over several lines.
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// What hop-by-hop headers said before they went.
#[derive(Debug, Default)]
pub(super) struct Hop {
    /// The protocol named by `Upgrade`, where `Connection` names it too.
    pub upgrade: Option<HeaderValue>,
    /// `TE` held `trailers`.
    pub trailers: bool,
}

/// Takes out what is meant for one hop only (RFC 9110 §7.6.1), in either direction, and what frames the message.
///
/// `Trailer` stays: since RFC 9110 §6.6.2 it is no hop's affair, and hyper passes on only those trailers that it names.
///
/// **Errors**: [`Refusal::BadRequest`] where `Connection` names a header that must not be hop-by-hop; taking such a header out is how
/// requests are made to mean something else behind a proxy. Such a header stays, all others are gone then too.
/// **Cost**: one look at each name; nothing is moved where there is nothing to take out.
pub(super) fn strip(headers: &mut HeaderMap, underscores: bool) -> Result<Hop, Refusal> {
    let mut found = false;
    let mut odd = false;
    for name in headers.keys() {
        let text = name.as_str();
        found |= is_hop(text);
        odd |= !underscores && text.as_bytes().contains(&b'_');
    }
    if odd {
        let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
    if !found {
        return Ok(Hop::default());
    }
    let mut hop = Hop::default();
    let mut upgrading = false;
    let mut meddling = false;
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .collect();
    hop.trailers = headers.get_all(header::TE).iter().any(|line| {
        line.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    for name in nominated {
        upgrading |= name == header::UPGRADE;
        if is_end_to_end(&name) {
            meddling = true;
        } else if name != header::UPGRADE {
            headers.remove(name);
        }
    }
    let upgrade = headers.remove(header::UPGRADE);
    hop.upgrade = upgrade.filter(|_| upgrading);
    for name in HOP {
        headers.remove(name);
    }
    if meddling { Err(Refusal::BadRequest) } else { Ok(hop) }
}

/// Takes out of a request's trailers what may only stand in its head (RFC 9110 §6.5.1): an upstream that adds them to the head would be told by
/// the client what only we tell, or what framing, routing and authentication have been decided by already.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    const NEVER: [HeaderName; 7] = [
        header::TRAILER,
        header::EXPECT,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::RANGE,
        header::CACHE_CONTROL,
        header::MAX_FORWARDS,
    ];
    let steers = |name: &&HeaderName| is_hop(name.as_str()) || is_end_to_end(name) || NEVER.contains(name);
    for name in trailers.keys().filter(steers).cloned().collect::<Vec<_>>() {
        trailers.remove(name);
    }
}

const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Whether it is one of [`HOP`] or `Upgrade`. By text: that is one look at its length and one comparison.
fn is_hop(name: &str) -> bool {
    matches!(
        name,
        "te" | "upgrade"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// Headers that carry a message's meaning or framing: `Connection` may not name them.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION, header::COOKIE, header::CONTENT_TYPE].contains(name)
        || name.as_str().starts_with("x-forwarded-")
        || name == "forwarded"
        || name == "x-real-ip"
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn normal(uri: &'static str, headers: &[(&str, &str)]) -> Result<Normal<'static>, Refusal> {
        // Leaked, so that the result can outlive this function; it is a test.
        let uri = Box::leak(Box::new(uri.parse().unwrap()));
        normalize(&mut parts("/", headers), uri, false)
    }

    #[test]
    fn a_request_has_exactly_one_good_host() {
        for host in ["a,b", "a/b", "u@a", "a b", "a:99999", "a:x", "[::1", "[::1]x", "a:1:2", ":80", "[zz]"] {
            assert_eq!(normal("/", &[("host", host)]).unwrap_err(), Refusal::BadHost, "{host}");
        }
        assert_eq!(normal("/", &[]).unwrap_err(), Refusal::BadHost);
        assert_eq!(normal("/", &[("host", "a"), ("host", "a")]).unwrap_err(), Refusal::BadHost);
        for (host, name) in
            [("A.Example:8080", "a.example"), ("[::1]:80", "[::1]"), ("a.", "a"), ("10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(normal("/", &[("host", host)]).unwrap().name(), name);
        }
    }

    #[test]
    fn the_targets_authority_wins_over_host_on_http_1() {
        let normal = normal("http://b.example/x", &[("host", "a.example")]).unwrap();
        assert_eq!(normal.name(), "b.example");
    }

    #[test]
    fn on_http_2_authority_and_host_must_agree() {
        let uri = Uri::from_static("https://b.example/x");
        let mut two = parts("https://b.example/x", &[("host", "a.example")]);
        two.version = Version::HTTP_2;
        assert_eq!(normalize(&mut two, &uri, false).unwrap_err(), Refusal::BadHost);
        let mut one = parts("https://b.example/x", &[("cookie", "a=1"), ("cookie", "b=2")]);
        one.version = Version::HTTP_2;
        assert_eq!(normalize(&mut one, &uri, false).unwrap().name(), "b.example");
        assert_eq!(one.headers[header::COOKIE], "a=1; b=2");
    }

    #[test]
    fn targets_without_a_form_are_refused() {
        assert_eq!(normal("c", &[("host", "a")]).unwrap_err(), Refusal::BadRequest);
        assert_eq!(normal("ftp://a/x", &[("host", "a")]).unwrap_err(), Refusal::BadRequest);
        assert_eq!(normal("*", &[("host", "a")]).unwrap_err(), Refusal::BadPath);
    }

    #[test]
    fn hop_by_hop_headers_go_and_with_them_what_connection_names() {
        let mut request = parts(
            "/",
            &[
                ("host", "a"),
                ("connection", "keep-alive, X-Drop"),
                ("x-drop", "1"),
                ("keep-alive", "5"),
                ("te", "gzip, Trailers"),
                ("x-keep", "1"),
            ],
        );
        let uri = Uri::from_static("/");
        let normal = normalize(&mut request, &uri, false).unwrap();
        assert!(normal.trailers);
        let mut left: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-keep"]);
    }

    #[test]
    fn connection_may_not_name_what_carries_meaning() {
        for name in ["host", "content-length", "authorization", "x-forwarded-for", "cookie"] {
            assert_eq!(normal("/", &[("host", "a"), ("connection", name)]).unwrap_err(), Refusal::BadRequest, "{name}");
        }
    }

    #[test]
    fn what_an_answer_nominates_wrongly_stays_and_its_hop_by_hop_headers_go() {
        let lines = [
            ("connection", "content-type, x-drop"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("content-type", "text/plain"),
            ("x-drop", "1"),
        ];
        let mut headers = parts("/", &lines).headers;
        assert!(strip(&mut headers, true).is_err());
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-type"]);
    }

    #[test]
    fn hop_by_hop_headers_are_known_by_their_text() {
        assert!(HOP.iter().chain([&header::UPGRADE]).all(|name| is_hop(name.as_str())));
        assert!(["host", "te2", "trailer", "cookie"].iter().all(|name| !is_hop(name)));
    }

    #[test]
    fn http_1_0_may_name_its_host_in_the_target_alone() {
        let uri = Uri::from_static("http://b.example/x");
        let mut old = parts("/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(normalize(&mut old, &uri, false).unwrap().name(), "b.example");
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let both = normal("/", &[("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")]).unwrap();
        assert_eq!(both.upgrade.unwrap(), "websocket");
        assert!(normal("/", &[("host", "a"), ("upgrade", "websocket")]).unwrap().upgrade.is_none());
    }

    #[test]
    fn names_with_underscores_are_dropped_unless_allowed() {
        let headers = [("host", "a"), ("x_user", "root"), ("x-user", "me")];
        let mut request = parts("/", &headers);
        normalize(&mut request, &Uri::from_static("/"), false).unwrap();
        assert!(!request.headers.contains_key("x_user"));
        let mut request = parts("/", &headers);
        normalize(&mut request, &Uri::from_static("/"), true).unwrap();
        assert!(request.headers.contains_key("x_user"));
    }
}
