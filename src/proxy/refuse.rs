//! Answers of our own, made from the refusal table and nothing else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::{Body, Content, without_body_where_there_is_none};
use super::life::Life;
use super::pages::Page;
use super::refusal::Row;
use super::{Connection, Refusal, Worker, access};
use crate::limit;
use crate::snapshot::View;
use crate::telemetry::access::Line;
use crate::types::Clock;

/// `Proxy-Status`, RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why a request is not passed on, with what its answer says beyond the table.
#[derive(Debug)]
pub(super) struct Refused {
    refusal: Refusal,
    limit: Option<Box<Limited>>,
    /// After how many seconds the client may try again, where that is known.
    retry_after: Option<u32>,
    /// What somebody has to show who may not come in.
    challenge: Option<Box<HeaderValue>>,
}

/// What a limit's refusal says.
#[derive(Debug)]
struct Limited {
    status: StatusCode,
    refusal: limit::Refusal,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused { refusal, limit: None, retry_after: None, challenge: None }
    }
}

impl Refused {
    /// Which row of the table it is.
    pub(super) fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// After how many seconds it may be tried again, where that is known.
    pub(super) fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// By a limit, with the status that its rule names.
    pub(super) fn by_limit(label: Refusal, status: StatusCode, refusal: limit::Refusal) -> Self {
        let limit = Some(Box::new(Limited { status, refusal }));
        Refused { refusal: label, limit, retry_after: None, challenge: None }
    }

    /// For want of room: after this time there should be some, where that is known.
    pub(super) fn until_room(refusal: Refusal, after: Option<Duration>) -> Self {
        // A second at least, because 0 would ask for a retry at once; an hour at most, because nobody knows more.
        let seconds = |after: Duration| after.as_secs_f64().ceil().clamp(1.0, 3600.0) as u32;
        Refused { refusal, limit: None, retry_after: after.map(seconds), challenge: None }
    }

    /// For want of a good key or token.
    pub(super) fn unauthorized(refusal: Refusal, challenge: HeaderValue) -> Self {
        Refused { refusal, limit: None, retry_after: None, challenge: Some(Box::new(challenge)) }
    }
}

/// The answer to a refused request.
pub(super) fn answer(mut life: Box<Life>, refused: Refused) -> Response<Body> {
    let row = refused.refusal.row();
    let status = refused.limit.as_ref().map_or(refused.refusal.status(), |limited| limited.status);
    life.status = Some(status);
    life.refusal = Some(refused.refusal);
    let page = page(&life, status);
    let mut response = plain(status, page, row.text);
    let headers = response.headers_mut();
    sign(headers, row.proxy_status);
    if let Some(limited) = &refused.limit {
        limited.refusal.tell(headers);
    }
    if let Some(seconds) = refused.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(challenge) = refused.challenge {
        headers.insert(header::WWW_AUTHENTICATE, *challenge);
    }
    access::dress(&life, headers);
    // Nobody waits for the rest of a body any more, so that the connection ends behind this answer (RFC 9112 §9.6): a client that was not
    // told would send its next request into it.
    let unread = life.inbound.as_ref().is_some_and(|inbound| !inbound.ended() && !inbound.is_here());
    if (row.close || unread) && life.version <= http::Version::HTTP_11 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let head = life.method == http::Method::HEAD;
    without_body_where_there_is_none(response, head).map(|content| Body::new(content, life))
}

/// The answer to a request that panicked; its life has counted it.
pub(super) fn panicked() -> Response<Body> {
    let row = Refusal::Internal.row();
    let mut response = plain(Refusal::Internal.status(), None, row.text);
    sign(response.headers_mut(), row.proxy_status);
    response.map(Body::detached)
}

/// The answer to a request that never became one: it could not be read, or reading it took too long.
pub(super) fn unread(worker: &Worker, connection: &Connection, refusal: Refusal) -> Response<Body> {
    let row = refusal.row();
    let view = worker.view();
    worker.registry.at(worker.lane).refusals.up(refusal.index());
    view.listeners[connection.listener()].stats.at(worker.lane).requests.up(row.status);
    let status = refusal.status();
    let mut response = plain(status, view.pages.find(status).cloned(), row.text);
    sign(response.headers_mut(), row.proxy_status);
    if let Some(format) = &view.access_log {
        let Content::Whole(body) = response.body() else { return response.map(Body::detached) };
        worker.log(format, &unread_line(&view, connection, row, body.len() as u64));
    }
    response.map(Body::detached)
}

/// What is known of a request that could not be read: who sent it and how it was refused.
fn unread_line<'a>(view: &'a View, connection: &'a Connection, row: &'a Row, sent: u64) -> Line<'a> {
    Line {
        at: Clock::now(),
        client: Some(connection.client()),
        scheme: connection.scheme(),
        status: row.status,
        sent,
        listener: &view.listeners[connection.listener()].name,
        refusal: row.label,
        tls: connection.tls_version(),
        ..Line::default()
    }
}

pub(super) fn sign(headers: &mut HeaderMap, token: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("tidegate; error={token}")) {
        headers.insert(PROXY_STATUS, value);
    }
}

/// The dressed answer for a status: the route's, else the top level's.
pub(super) fn page(life: &Life, status: StatusCode) -> Option<Page> {
    let of_route = life.route().and_then(|route| route.pages.find(status));
    of_route.or_else(|| life.view.pages.find(status)).cloned()
}

/// A bare answer with a page or a line of text.
pub(super) fn plain(status: StatusCode, page: Option<Page>, text: &'static str) -> Response<Content> {
    let page = page.unwrap_or_else(|| Page {
        body: Bytes::from(format!("{} {text}\n", status.as_u16())),
        content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
    });
    let mut response = Response::new(Content::Whole(page.body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, page.content_type);
    response
}
