//! Who may ask, on a request's way: pages of which origins, and people with which keys and tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode};

use super::Refusal;
use super::body::{Content, without_body_where_there_is_none};
use super::life::Life;
use super::normalize::Normal;
use super::refuse::Refused;
use crate::access::{self, Cors, Known};
use crate::route::HostPattern;
use crate::snapshot::{Access, View};

/// What is kept of who asks, for requests of routes that want to know.
#[derive(Debug)]
pub struct Asker {
    /// The page that asks.
    origin: Option<HeaderValue>,
    /// Who it is.
    known: Option<Known>,
    /// Whether it only asks what it may do.
    preflight: bool,
}

impl Asker {
    /// Who it is, as a key or token has shown.
    pub(super) fn principal(&self) -> Option<&str> {
        self.known.as_ref().map(|known| &*known.identity.principal)
    }
}

/// Whether a request may go on; some are answered here, without an upstream.
pub(super) async fn pass(
    life: &mut Life,
    rules: &Access,
    parts: &Parts,
    normal: &Normal<'_>,
) -> Result<Option<Response<Content>>, Refused> {
    let headers = &parts.headers;
    let asks = rules.cors.is_some() && Cors::is_preflight(&parts.method, headers);
    let mut asker = Box::new(Asker { origin: headers.get(header::ORIGIN).cloned(), known: None, preflight: asks });
    let allowed = rules.origins.as_ref().is_none_or(|origins| origins.admit(headers));
    if allowed
        && !asks
        && let Some(auth) = &rules.auth
    {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match auth.identify(headers, now).await {
            Ok(known) => asker.known = Some(known),
            Err(refused) => {
                life.asker = Some(asker);
                return Err(denied(life, rules, auth, refused, parts, normal));
            }
        }
    }
    life.asker = Some(asker);
    if !allowed {
        return Err(Refusal::ForeignOrigin.into());
    }
    let Some(cors) = rules.cors.as_ref().filter(|_| asks) else { return Ok(None) };
    let mut answer = empty();
    cors.preflight(headers, answer.headers_mut());
    life.status = Some(answer.status());
    Ok(Some(answer))
}

fn empty() -> Response<Content> {
    let mut answer = Response::new(Content::Whole(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn denied(
    life: &Life,
    rules: &Access,
    auth: &access::Auth,
    refused: access::Refused,
    parts: &Parts,
    normal: &Normal<'_>,
) -> Refused {
    let refusal = match refused {
        access::Refused::NoKeys => return Refusal::NoIssuerKeys.into(),
        access::Refused::Scope { .. } => Refusal::InsufficientScope,
        access::Refused::Missing | access::Refused::WrongKey | access::Refused::BadToken(_) => Refusal::Unauthorized,
    };
    let host = normal.host.to_str().unwrap_or_default();
    let metadata = rules.resource.as_ref().map(|resource| resource.metadata(scheme(life, &parts.headers), host));
    let challenge = HeaderValue::from_str(&auth.challenge(refused, metadata.as_deref()));
    Refused::unauthorized(refusal, challenge.unwrap_or(HeaderValue::from_static("Bearer")))
}

/// The scheme that the client has used, as a trusted proxy before us tells.
fn scheme(life: &Life, headers: &HeaderMap) -> &'static str {
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    let trusted = life.connection.state.introduction(&life.connection).trusted;
    match headers.get(PROTO).filter(|_| trusted).map(HeaderValue::as_bytes) {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ => life.connection.scheme(),
    }
}

/// Says on an answer which pages may read it, where its route cares.
pub(super) fn dress(life: &Life, headers: &mut HeaderMap) {
    let Some(asker) = &life.asker else { return };
    let rules = life.route().and_then(|route| route.access.as_ref());
    if let Some(cors) = rules.and_then(|rules| rules.cors.as_ref()) {
        cors.dress(asker.origin.as_ref(), asker.preflight, headers);
    }
}

/// What upstreams are told of who it is: nothing that a client could have made up.
pub(super) fn hand_on(life: &Life, rules: &Access, headers: &mut HeaderMap) {
    let known = life.asker.as_ref().and_then(|asker| asker.known.as_ref());
    if let Some(known) = known.filter(|known| !rules.forward.unwrap_or(!known.is_key)) {
        headers.remove(&known.by);
    }
    let Some(name) = &rules.principal_header else { return };
    headers.remove(name);
    let principal = known.map(|known| HeaderValue::from_bytes(known.identity.principal.as_bytes()));
    if let Some(Ok(principal)) = principal {
        headers.insert(name.clone(), principal);
    }
}

/// The description of a protected resource (RFC 9728), where a request asks for one: for everybody, from every page.
pub(super) fn describe(life: &mut Life, view: &View, parts: &Parts, normal: &Normal<'_>) -> Option<Response<Content>> {
    let preflight = Cors::is_preflight(&parts.method, &parts.headers);
    if !preflight && !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let listener = &view.listeners[life.connection.listener()].name;
    let here = view.routes.iter().enumerate().filter_map(|(index, route)| {
        let rules = route.access.as_ref()?;
        let resource = rules.resource.as_ref()?;
        let listens = rules.listeners.is_empty() || rules.listeners.iter().any(|name| **name == **listener);
        let hosts = rules.hosts.is_empty() || rules.hosts.iter().any(|host| is_for(host, normal.name()));
        (listens && hosts).then_some((index, resource))
    });
    let alone = here.clone().count() == 1;
    let mut here = here;
    let (index, resource) = here.find(|(_, resource)| resource.is_described_at(normal.matching(), alone))?;
    life.take_route(index);
    let mut answer = empty();
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, Mcp-Protocol-Version"));
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
        *answer.status_mut() = StatusCode::OK;
        let host = normal.host.to_str().unwrap_or_default();
        *answer.body_mut() = Content::Whole(resource.document(scheme(life, &parts.headers), host));
    }
    life.status = Some(answer.status());
    Some(without_body_where_there_is_none(answer, parts.method == Method::HEAD))
}

fn is_for(pattern: &HostPattern, name: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(host) => host == name,
        HostPattern::Wildcard(suffix) => {
            name.strip_suffix(suffix.as_str()).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        }
    }
}
