//! The way of a request, in order.

use std::rc::Rc;

use bytes::BytesMut;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;

use super::body::{Body, Content};
use super::client::Told;
use super::facts::Facts;
use super::life::Life;
use super::mcp::{self, Errand};
use super::normalize::{Normal, normalize, normalize_plain, strip};
use super::refuse::Refused;
use super::request_body::{Bounds, Inbound};
use super::respond::Exchange;
use super::tunnel::Switching;
use super::worker::Worker;
use super::{Connection, Refusal, access, attempt, client, refuse, respond, tunnel, wait};
use crate::access::WELL_KNOWN;
use crate::config::model::{self, PoolKind};
use crate::downstream::ClientBody;
use crate::limit::{Admission, Reason, Who, admit_all};
use crate::route::{Match, Question, Target};
use crate::snapshot::{Action, Pool, Route};
use crate::types::{Lines, Moment};

/// Answers a request: by an upstream, or by the refusal table.
pub async fn handle(worker: Rc<Worker>, connection: Rc<Connection>, request: Request<ClientBody>) -> Response<Body> {
    let (parts, mut body) = request.into_parts();
    let lines = body.take_lines();
    let mut life = Life::begin(worker, connection, &parts, lines.as_ref());
    match forward(&mut life, parts, lines, body).await {
        Ok(Way::Mcp(errand)) => mcp::serve(life, *errand).await,
        Ok(Way::Answered(mut response)) => {
            access::dress(&life, response.headers_mut());
            match life.joint.take() {
                Some(joint) => {
                    tokio::task::spawn_local(tunnel::run(*joint, life));
                    response.map(Body::detached)
                }
                None => response.map(|content| Body::new(content, life)),
            }
        }
        Err(refused) => refuse::answer(life, refused),
    }
}

/// What has become of a request.
#[expect(clippy::large_enum_variant, reason = "the usual way pays no allocation for the other")]
enum Way {
    /// It is answered.
    Answered(Response<Content>),
    /// It is for an MCP server, and goes on from here by itself.
    Mcp(Box<Errand>),
}

/// One request's way: normalize, route, let in, admit, pick and send, respond.
///
/// A plain request comes with its headers as `lines`, and they stay that as long as nobody on its way wants to know them.
async fn forward(
    life: &mut Life,
    mut parts: Parts,
    mut lines: Option<Lines>,
    body: ClientBody,
) -> Result<Way, Refused> {
    let view = life.view.clone();
    let listener = &view.listeners[life.connection.listener()].settings;
    let uri = std::mem::take(&mut parts.uri);
    let introduction = life.connection.state.introduction(&life.connection);
    let in_lines = client::is_told_in_lines(listener, introduction);
    if view.table.asks_headers() || !in_lines {
        read_lines(&mut lines, &mut parts);
    }
    let normal = match &lines {
        Some(lines) => normalize_plain(lines, &uri, &life.connection.state.last_host)?,
        None => normalize(&mut parts, &uri, listener.underscores)?, // 400
    };
    life.client = client::address(life.client, &listener.trusted_proxies, &parts.headers, listener.forwarded);

    if normal.matching().starts_with(WELL_KNOWN) {
        unfold(&mut lines, &mut parts, listener)?;
        if let Some(answer) = access::describe(life, &view, &parts, &normal) {
            return Ok(Way::Answered(answer));
        }
    }
    let question = question(life.connection.listener(), &normal, &parts, life.client);
    let found = view.table.find(&question).ok_or(Refusal::NoRoute)?; // 404
    life.take_route(found.rule);
    let route = &view.routes[found.rule];
    if !route.takes_lines {
        unfold(&mut lines, &mut parts, listener)?;
    }
    let pool = match &route.action {
        Action::Redirect(..) | Action::Respond { .. } => None,
        Action::Pool(pool) => Some(*pool),
        Action::Split(shares) => Some(share(shares, life.worker.random())),
    };
    if let Some(pool) = pool {
        let whole = route.timeout.request.unwrap_or(view.pools[pool].settings.timeout.request);
        life.bound(whole.map_or(Moment::NEVER, |whole| life.started + whole));
    }
    if let Some(rules) = &route.access
        // Boxed, because its state would make every request's larger.
        && let Some(answer) = Box::pin(access::pass(life, rules, &parts, &normal)).await?
    {
        return Ok(Way::Answered(answer)); // 401, 403
    }
    admit(life, route, &parts).await?; // 429

    let asked = Asked { normal: &normal, found: &found };
    let Some(pool) = pool else { return respond::own(life, route, &parts, asked).map(Way::Answered) };
    let sized = body.size_hint().exact().is_some();
    life.inbound = inbound(life, route, &view.pools[pool], listener, body)?; // 413
    let demand = wait::is_demand(&view.pools[pool].settings, &parts.headers, normal.matching());
    let in_lines = in_lines && route.takes_lines && sized && normal.upgrade.is_none() && !normal.trailers;
    let exchange = if lines.is_some() || in_lines && parts.method != Method::CONNECT {
        prepare_lines(life, route, listener, parts, lines.as_ref(), asked)?
    } else {
        prepare(life, route, listener, parts, asked)?
    };
    let mut exchange = Exchange { demand, counts: demand, ..exchange };
    let settings = &view.pools[pool].settings;
    if settings.stdio.is_some() {
        mcp::introduce(life.principal(), &mut exchange.head.headers);
    }
    if settings.kind == PoolKind::Mcp && mcp::concerns(&exchange.head.method, &exchange.head.headers) {
        // Nothing of the protocol is upgraded, and nothing of it gets by as an upgrade.
        exchange.upgrade = None;
        exchange.head.headers.remove(header::UPGRADE);
        exchange.head.headers.remove(header::CONNECTION);
        return Ok(Way::Mcp(Box::new(Errand::new(found.rule, pool, exchange, asked))));
    }
    let answer = attempt::run(life, route, pool, &mut exchange).await?; // 502, 503, 504
    respond::upstream(life, route, asked, exchange, answer).map(Way::Answered)
}

/// Makes headers of a plain request's lines, hop-by-hop ones and all.
fn read_lines(lines: &mut Option<Lines>, parts: &mut Parts) {
    if let Some(lines) = lines.take() {
        lines.read(&mut parts.headers);
    }
}

/// The same for a request that is in its one form already.
fn unfold(lines: &mut Option<Lines>, parts: &mut Parts, listener: &model::Listener) -> Result<(), Refusal> {
    if lines.is_some() {
        read_lines(lines, parts);
        strip(&mut parts.headers, listener.underscores)?;
    }
    Ok(())
}

/// What was asked for, and what in its route took it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The request in its one form.
    pub normal: &'a Normal<'a>,
    /// Its route's match.
    pub found: &'a Match<'a>,
}

impl<'a> Asked<'a> {
    /// What templates can name about it; `headers` as they are now.
    pub(super) fn facts(self, life: &'a Life, headers: &'a HeaderMap) -> Facts<'a> {
        let Asked { normal, found } = self;
        let facts = Facts::new(life, headers, normal.name(), normal.forward(), normal.query);
        facts.with_captures(found, normal.matching())
    }
}

/// What the route table is asked about a request.
pub fn question<'a>(
    listener: usize,
    normal: &'a Normal<'_>,
    parts: &'a Parts,
    client: std::net::IpAddr,
) -> Question<'a> {
    Question {
        listener: listener as u32,
        host: normal.name(),
        path: normal.matching(),
        query: normal.query,
        method: &parts.method,
        headers: &parts.headers,
        client: Some(client),
    }
}

/// Asks the route's limits. A request that is to wait waits here, holding its place.
async fn admit(life: &mut Life, route: &Route, parts: &Parts) -> Result<(), Refused> {
    if route.limits.is_empty() {
        return Ok(());
    }
    let principal = life.asker.as_ref().and_then(|asker| asker.principal());
    let who = Who { client: life.client, headers: &parts.headers, principal, connection: &life.connection.state.seats };
    let lane = life.worker.lane;
    let count = |index: usize, decision| route.limit_answers[index].1.at(lane).decided(decision);
    match admit_all(&route.limits, who, life.started, count) {
        Admission::Proceed(permit, _) => life.permit = permit,
        Admission::Wait(span, permit, _) => {
            life.permit = permit;
            let left = life.until().since(life.started);
            tokio::time::sleep(span.min(left)).await;
            if left < span {
                return Err(Refusal::RequestTimeout.into());
            }
        }
        Admission::Refuse(refusal) => {
            let reason = match refusal.reason {
                Reason::Rate => Refusal::RateLimited,
                Reason::Requests => Refusal::RequestsLimited,
                Reason::Connections => Refusal::ConnectionsLimited,
            };
            let status = route.limit_answers[refusal.limiter].0;
            return Err(Refused::by_limit(reason, status, refusal));
        }
    }
    Ok(())
}

/// The pool that a draw falls on; `shares` holds cumulative weights.
fn share(shares: &[(u64, usize)], random: u64) -> usize {
    let total = shares.last().map_or(1, |(total, _)| (*total).max(1));
    let draw = random % total;
    let hit = shares.partition_point(|(until, _)| *until <= draw);
    shares.get(hit).or(shares.last()).map_or(0, |(_, pool)| *pool)
}

/// So much of a message to an MCP server is kept: what the SDKs' servers take at most.
const MCP_BODY: u64 = 4 << 20;

/// The request's body, if it has one.
fn inbound(
    life: &Life,
    route: &Route,
    pool: &Pool,
    listener: &model::Listener,
    body: ClientBody,
) -> Result<Option<Rc<Inbound>>, Refused> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let retry = route.retry.as_ref().unwrap_or(&pool.settings.retry);
    let bounds = Bounds {
        max_body: route.max_body.or(listener.max_body.map(|size| size.0)).unwrap_or(u64::MAX),
        keep: match pool.settings.kind {
            PoolKind::Http if retry.attempts > 1 => retry.body.0,
            PoolKind::Http => 0,
            // A session that has to be begun anew must not lose the call that finds it gone.
            PoolKind::Mcp => retry.body.0.max(MCP_BODY),
        },
        between: listener.body_timeout,
    };
    Ok(Some(Inbound::new(body, bounds, life.worker.sweep.deadline())?))
}

/// The request as upstreams get it.
fn prepare(
    life: &mut Life,
    route: &Route,
    listener: &model::Listener,
    mut parts: Parts,
    asked: Asked<'_>,
) -> Result<Exchange, Refused> {
    let normal = asked.normal;
    let random = u128::from(life.worker.random()) << 64 | u128::from(life.worker.random());
    let upgrade = Switching::asked(&mut parts, normal, random);
    let headers = &mut parts.headers;
    if let Some(rules) = &route.access {
        access::hand_on(life, rules, headers);
    }
    if headers.get(header::HOST) != Some(&normal.host) {
        headers.insert(header::HOST, normal.host.clone());
    }
    // We answer an expectation ourselves, once the upstream takes the body.
    headers.remove(header::EXPECT);
    if normal.trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let introduction = life.connection.state.introduction(&life.connection);
    client::introduce(headers, listener.forwarded, introduction, life.client, &normal.host);
    if listener.via {
        client::via(headers, life.version)?; // 508
    }
    let id = client::request_id(headers, listener.request_id, random, &mut life.worker.scratch.borrow_mut());
    if let Some(said) = &mut life.said {
        said.set_id(|| id.cloned());
    }
    let target = target(life, route, &parts.headers, asked)?;
    if !route.request_headers.is_empty() {
        let values = route.request_headers.render(&asked.facts(life, &parts.headers), &mut BytesMut::new());
        route.request_headers.write(values, &mut parts.headers);
    }
    Ok(Exchange::new(parts, target, upgrade))
}

/// The same where nobody wants to know the headers from here on: they are written as they go out, from the lines of a plain request or from
/// the headers of another one.
fn prepare_lines(
    life: &mut Life,
    route: &Route,
    listener: &model::Listener,
    mut parts: Parts,
    lines: Option<&Lines>,
    asked: Asked<'_>,
) -> Result<Exchange, Refused> {
    let random = u128::from(life.worker.random()) << 64 | u128::from(life.worker.random());
    let who = life.connection.state.introduction(&life.connection);
    let told = Told { listener, who, host: &asked.normal.host, version: life.version };
    let headers = std::mem::take(&mut parts.headers);
    let mut out = Vec::with_capacity(512);
    let id = match lines {
        Some(lines) => client::write_lines(&mut out, lines, &told, random)?, // 508
        None => client::write_map(&mut out, &headers, &told, random)?,       // 508
    };
    if let Some(said) = &mut life.said {
        said.set_id(|| HeaderValue::from_bytes(&out[id?]).ok());
    }
    let target = target(life, route, &headers, asked)?;
    Ok(Exchange { lines: Some(out), answer_in_lines: lines.is_some(), ..Exchange::new(parts, target, None) })
}

/// Path and query as they go upstream.
fn target(life: &Life, route: &Route, headers: &HeaderMap, asked: Asked<'_>) -> Result<PathAndQuery, Refusal> {
    let Asked { normal, found } = asked;
    let Some(path) = &normal.path else { return Ok(PathAndQuery::from_static("*")) };
    let target = Target { path, query: normal.query };
    let rewritten = match &route.rewrite {
        Some(rewrite) => rewrite.apply(target, found, &asked.facts(life, headers)),
        None => match &normal.sent {
            // The usual case: what was sent is normal already.
            Some(sent) => return Ok((*sent).clone()),
            None => target.unchanged(),
        },
    };
    rewritten.map_err(|_| Refusal::BadPath)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn_by_weight() {
        let shares = [(95, 7), (100, 8)];
        let counts = (0..100).fold([0, 0], |mut counts, draw| {
            counts[share(&shares, draw) - 7] += 1;
            counts
        });
        assert_eq!(counts, [95, 5]);
    }
}
