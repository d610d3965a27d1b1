//! The way of a request to an MCP server, after it has been routed and admitted like any other.
//!
//! [`Talk`] is one exchange: it reads the message ahead, finds its session, sends it where the session is, moves the session where that is
//! gone, and passes the answer on. What a message is and what is to be said is decided by [`mcp`](crate::mcp).

mod call;
mod deliver;
mod exchange;
mod hold;
mod limits;
mod listen;
mod lists;
mod message;
mod recover;
mod reply;
mod script;
mod sse2024;
mod stand;
mod stream;
mod talk;

use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use regex::Regex;

use self::script::Outbox;
pub(in crate::proxy) use self::script::Script;
use self::talk::Talk;
use super::body::{Body, Content};
use super::facts::Facts;
use super::forward::Asked;
use super::life::Life;
use super::respond::Exchange;
use super::{PRINCIPAL, refuse};
use crate::route::Matched;

/// `Mcp-Session-Id`.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`.
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Method`.
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A request for an MCP server, ready to be sent.
#[derive(Debug)]
pub(super) struct Errand {
    /// Its route, by index in its life's view.
    pub route: usize,
    /// Its pool, likewise.
    pub pool: usize,
    /// The request as it goes to upstreams.
    pub exchange: Exchange,
    /// What templates can name of it.
    named: Named,
}

/// What templates can name of a request, kept beyond its head.
#[derive(Debug)]
pub(super) struct Named {
    host: Box<str>,
    forward: Box<str>,
    matching: Box<str>,
    query: Option<Box<str>>,
    regex: Option<Regex>,
}

impl Named {
    /// What templates can name about it; `headers` as they are now.
    pub(super) fn facts<'a>(&'a self, life: &'a Life, headers: &'a HeaderMap) -> Facts<'a> {
        Facts::new(life, headers, &self.host, &self.forward, self.query.as_deref())
            .with_expression(self.regex.as_ref(), &self.matching)
    }
}

impl Errand {
    /// For a request that [`concerns`] us.
    pub(super) fn new(route: usize, pool: usize, exchange: Exchange, asked: Asked<'_>) -> Self {
        let Asked { normal, found } = asked;
        let regex = match found.path {
            Matched::Regex(regex) => Some(regex.clone()),
            _ => None,
        };
        let named = Named {
            host: normal.name().into(),
            forward: normal.forward().into(),
            matching: normal.matching().into(),
            query: normal.query.map(Box::from),
            regex,
        };
        Errand { route, pool, exchange, named }
    }
}

/// Whether a request may be one of the protocol's. Others (pages, documents) go their usual way. Whatever is posted may hold a message, so
/// that nobody gets past a limit by another content type.
pub(super) fn concerns(method: &Method, headers: &HeaderMap) -> bool {
    match *method {
        Method::POST => true,
        Method::GET => accepts_events(headers),
        Method::DELETE => headers.contains_key(SESSION),
        _ => false,
    }
}

/// Whether a request says of itself that it is one of the protocol's.
fn claims(headers: &HeaderMap, query: Option<&str>) -> bool {
    let ours = || [SESSION, VERSION, METHOD].iter().any(|name| headers.contains_key(name));
    ours() || is_json(headers) && accepts_events(headers) || sse2024::is_marked(query)
}

/// Tells a bridge who asks, and nobody else does.
pub(super) fn introduce(principal: Option<&str>, headers: &mut HeaderMap) {
    headers.remove(PRINCIPAL);
    if let Some(principal) = principal.and_then(|principal| HeaderValue::from_str(principal).ok()) {
        headers.insert(PRINCIPAL, principal);
    }
}

/// Answers it.
pub(super) async fn serve(life: Box<Life>, errand: Errand) -> Response<Body> {
    let out = Rc::new(Outbox::default());
    let mut script = Script::new(Talk::new(life, errand, out.clone()).run(), out);
    match script.opened().await {
        Ok(head) => Response::from_parts(head, Body::detached(Content::Script(Box::new(script)))),
        // Its life has counted why.
        Err(_) => refuse::panicked(),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| is(kind, "application/json"))
}

fn is_events(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| is(kind, "text/event-stream"))
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let mut ranges =
        headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    ranges
        .any(|range| range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")))
}

/// Whether a content type is this one, whatever its parameters.
fn is(value: &HeaderValue, kind: &str) -> bool {
    let value = value.as_bytes();
    value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
        && value.get(kind.len()).is_none_or(|next| matches!(next, b';' | b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_protocols_requests_are_told_from_others() {
        let json = ("content-type", "application/json; charset=utf-8");
        let both = ("accept", "application/json, text/event-stream");
        assert!(claims(&headers(&[json, both]), None));
        assert!(claims(&headers(&[("mcp-session-id", "x")]), None));
        assert!(claims(&headers(&[]), Some("session_id=1&tidegate=x")));
        assert!(!claims(&headers(&[json, ("accept", "application/json")]), None), "OAuth's registration");
        assert!(!claims(&headers(&[("content-type", "application/jsonx"), both]), None));
        assert!(concerns(&Method::POST, &headers(&[])));
        assert!(concerns(&Method::GET, &headers(&[("accept", "Text/Event-Stream;q=1")])));
        assert!(!concerns(&Method::GET, &headers(&[("accept", "text/html, */*")])));
        assert!(concerns(&Method::DELETE, &headers(&[("mcp-session-id", "x")])));
        assert!(!concerns(&Method::OPTIONS, &headers(&[both])));
    }
}
