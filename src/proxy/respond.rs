//! The answer: an upstream's, made fit for the client, or one that the route gives by itself.

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Version};
use smallvec::SmallVec;

use super::body::{Content, without_body_where_there_is_none};
use super::forward::Asked;
use super::life::Life;
use super::mcp::Named;
use super::normalize::strip;
use super::pick::Affinity;
use super::refuse::{Refused, page, plain};
use super::request_body::RequestBody;
use super::tunnel::Switching;
use super::{Refusal, pick, tunnel};
use crate::config::model::{self, StickyKey};
use crate::snapshot::{Action, Route};
use crate::types::{Clock, Lines};
use crate::upstream::{Answer, UpstreamBody};

/// A request as it goes to upstreams, kept until its answer is there.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Method and headers.
    pub head: Parts,
    /// Headers that are text already, where nobody needs to know them.
    pub lines: Option<Vec<u8>>,
    /// Whether the client's side takes the answer's headers as text.
    pub answer_in_lines: bool,
    /// Path and query.
    pub target: PathAndQuery,
    /// What the client wants to switch to.
    pub upgrade: Option<Switching>,
    /// Whether it is demand: a pool that sleeps is not woken by one that is not.
    pub demand: bool,
    /// Whether it is still to be counted as demand, which is done once, however often it is sent.
    pub counts: bool,
    /// The upstream it belongs to.
    pub affinity: Affinity,
    /// Upstreams that are of no use to it, by identity.
    pub shun: SmallVec<[u64; 2]>,
    /// Whether doing it twice is the same as doing it once, whatever its method says.
    pub repeatable: bool,
}

impl Exchange {
    /// Of a request with nothing special about it.
    pub(super) fn new(head: Parts, target: PathAndQuery, upgrade: Option<Switching>) -> Self {
        Exchange {
            head,
            lines: None,
            answer_in_lines: false,
            target,
            upgrade,
            demand: true,
            counts: true,
            affinity: Affinity::Free,
            shun: SmallVec::new(),
            repeatable: false,
        }
    }

    /// Makes headers of its lines where an upstream wants something else of them: a pool that was waited for is as a reload has made it.
    pub(super) fn settle_for(&mut self, pool: &model::Pool) {
        if !pool.takes_lines()
            && let Some(lines) = self.lines.take()
        {
            self.answer_in_lines = false;
            Lines::new(lines.into(), Default::default()).read(&mut self.head.headers);
        }
    }
}

/// Says that the request has waited for an instance to be started.
const COLD_START: HeaderName = HeaderName::from_static("x-tidegate-cold-start");

/// The answer of a route that needs no upstream: a redirect or a fixed answer.
pub(super) fn own(
    life: &mut Life,
    route: &Route,
    parts: &Parts,
    asked: Asked<'_>,
) -> Result<Response<Content>, Refused> {
    let facts = asked.facts(life, &parts.headers);
    let mut text = BytesMut::new();
    let mut response = match &route.action {
        Action::Redirect(to, status) => {
            let location = to.location(&facts, &mut text);
            let mut response = plain(*status, page(life, *status), status.canonical_reason().unwrap_or("Redirect"));
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Action::Respond { status, body, content_type } => {
            body.render(&facts, &mut text);
            let mut response = Response::new(Content::Whole(text.split().freeze()));
            *response.status_mut() = *status;
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            response
        }
        Action::Pool(_) | Action::Split(_) => return Err(Refusal::Internal.into()),
    };
    route.response_headers.apply(response.headers_mut(), &facts, &mut text);
    if passes_for_a_tunnel(life, response.status()) {
        return Err(Refusal::ConnectMethod.into());
    }
    life.status = Some(response.status());
    Ok(without_body_where_there_is_none(response, parts.method == http::Method::HEAD))
}

/// An upstream's answer on its way to the client.
pub(super) fn upstream(
    life: &mut Life,
    route: &Route,
    asked: Asked<'_>,
    exchange: Exchange,
    answer: Answer<RequestBody>,
) -> Result<Response<Content>, Refused> {
    let (mut head, mut body) = answer.response.into_parts();
    if body.has_lines() && !life.cold {
        return Ok(plainly(life, head, body));
    }
    if let Some(lines) = body.take_lines() {
        lines.read(&mut head.headers);
    }
    life.upstream_status = head.status.as_u16();
    // What broke an earlier attempt is history: this one was answered.
    life.refusal = None;
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = head.headers.get(header::UPGRADE).filter(|_| switches).cloned();
    head.version = Version::HTTP_11;
    // What an upstream nominates in `Connection` is its own affair; nothing of it can smuggle a request.
    let _ = strip(&mut head.headers, true);
    remember(life, &exchange.head.headers, &mut head.headers);
    life.status = Some(head.status);
    if life.cold {
        head.headers.insert(COLD_START, HeaderValue::from_static("true"));
    }
    if !route.response_headers.is_empty() {
        let facts = asked.facts(life, &exchange.head.headers);
        route.response_headers.apply(&mut head.headers, &facts, &mut BytesMut::new());
    }
    if let Some(protocol) = protocol {
        return tunnel::switch(life, exchange, head, protocol, answer.upgraded);
    }
    if passes_for_a_tunnel(life, head.status) {
        return Err(Refusal::BadResponse.into());
    }
    if route.intercept_errors
        && (head.status.is_client_error() || head.status.is_server_error())
        && let Some(page) = page(life, head.status)
    {
        for name in OF_THE_BODY {
            head.headers.remove(name);
        }
        head.headers.insert(header::CONTENT_TYPE, page.content_type);
        let response = Response::from_parts(head, Content::Whole(page.body));
        return Ok(without_body_where_there_is_none(response, exchange.head.method == http::Method::HEAD));
    }
    Ok(Response::from_parts(head, Content::Upstream(body)))
}

/// An upstream's answer of whose headers nobody wants anything.
fn plainly(life: &mut Life, head: http::response::Parts, body: UpstreamBody<RequestBody>) -> Response<Content> {
    life.upstream_status = head.status.as_u16();
    life.refusal = None;
    life.status = Some(head.status);
    Response::from_parts(head, Content::Upstream(body))
}

/// Edits an upstream's head as the route wants it, for a request whose head is kept apart.
pub(super) fn edit(life: &Life, route: &Route, asked: &HeaderMap, named: &Named, head: &mut http::response::Parts) {
    if life.cold {
        head.headers.insert(COLD_START, HeaderValue::from_static("true"));
    }
    if !route.response_headers.is_empty() {
        route.response_headers.apply(&mut head.headers, &named.facts(life, asked), &mut BytesMut::new());
    }
}

/// Whether an answer that is none of a tunnel would be taken for one: over HTTP/2 any 2xx tells that the tunnel is open (RFC 8441 §5).
fn passes_for_a_tunnel(life: &Life, status: StatusCode) -> bool {
    life.method == http::Method::CONNECT && status.is_success()
}

/// What an answer's headers say of its body, and must not say of another one.
const OF_THE_BODY: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::CONTENT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::TRAILER,
];

/// Keeps the client where it is: inserts the pool's cookie, or learns the key that the answer holds.
fn remember(life: &Life, asked: &HeaderMap, headers: &mut HeaderMap) {
    let Some(slot) = &life.slot else { return };
    let Some(sticky) = &slot.pool().settings.sticky else { return };
    let identity = slot.member().upstream.identity;
    if let Some(name) = &sticky.cookie {
        let has_it = pick::cookie(asked, name).is_some_and(|value| u64::from_str_radix(value, 16) == Ok(identity));
        if !has_it
            && let Ok(cookie) = HeaderValue::from_str(&cookie(name, identity, life.connection.scheme() == "https"))
        {
            headers.append(header::SET_COOKIE, cookie);
        }
        return;
    }
    let key = match &sticky.learn {
        None => None,
        Some(StickyKey::Header(name)) => headers.get(name).map(HeaderValue::as_bytes),
        Some(StickyKey::Cookie(name)) => {
            headers.get_all(header::SET_COOKIE).iter().find_map(|line| set_cookie(line.as_bytes(), name))
        }
    };
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        slot.pool().kept.learned.learn(key, identity, sticky.max_entries as usize, Clock::now());
    }
}

fn cookie(name: &str, identity: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={identity:016x}; Path=/; HttpOnly; SameSite=Lax{secure}")
}

/// The value that a `Set-Cookie` line gives to the cookie `name`.
fn set_cookie<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pair = line.split(|byte| *byte == b';').next()?.trim_ascii();
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_cookie_line_gives_its_value() {
        assert_eq!(set_cookie(b"SID=abc; Path=/", "SID"), Some(&b"abc"[..]));
        assert_eq!(set_cookie(b"SID2=abc", "SID"), None);
    }
}
