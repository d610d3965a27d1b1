//! The life of one request: what is known of it, what it holds, and what is written down when it is over.
//!
//! A life begins when the request's head has been read and ends when it is dropped: with the last byte of the answer, or earlier, when
//! the client leaves. Whatever happens, every request is counted and logged exactly once, here.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::access::Asker;
use super::client::user;
use super::pick::Slot;
use super::request_body::Inbound;
use super::said::Said;
use super::tunnel::Joint;
use super::worker::Worker;
use super::{Connection, Refusal};
use crate::control::Event;
use crate::health::Trip;
use crate::limit::Permit;
use crate::snapshot::{Listener, Route, View};
use crate::sweep::Deadline;
use crate::telemetry::access::Line;
use crate::types::{Clock, Lines, Moment};

/// A request from its head to its last byte.
#[derive(Debug)]
pub struct Life {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// The one generation it sees.
    pub view: Rc<View>,
    /// The connection it came on.
    pub connection: Rc<Connection>,
    /// When its head had been read.
    pub started: Moment,
    /// Who it is from.
    pub client: IpAddr,
    /// Who asks, where its route wants to know.
    pub asker: Option<Box<Asker>>,
    /// Its method.
    pub method: Method,
    /// Its version.
    pub version: Version,
    /// Its route, by index.
    pub route: Option<usize>,
    /// Its place at an upstream.
    pub slot: Option<Slot>,
    /// Its permit from its route's limits.
    pub permit: Permit,
    /// Its body, where it has one.
    pub inbound: Option<Rc<Inbound>>,
    /// What was answered; none yet.
    pub status: Option<StatusCode>,
    /// Why we answered ourselves.
    pub refusal: Option<Refusal>,
    /// Why the answer broke off in the middle.
    pub broken: Option<Refusal>,
    /// Attempts made at upstreams.
    pub attempts: u32,
    /// Whether it has waited for an instance to be started.
    pub cold: bool,
    /// From the last attempt's start to its answer's head.
    pub upstream_time: Option<Duration>,
    /// The status of the upstream's answer; 0 while there is none.
    pub upstream_status: u16,
    /// When all of it must be done, where there is a bound.
    pub whole: Option<Deadline>,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Whether the answer's last byte has been handed on.
    pub ended: bool,
    /// Connections that are to be joined once the answer has been sent.
    pub joint: Option<Box<Joint>>,
    /// Bytes that went through its tunnel to the upstream.
    pub tunnelled: u64,
    /// What only the access log wants.
    pub said: Option<Said>,
}

impl Life {
    /// A request begins.
    pub fn begin(worker: Rc<Worker>, connection: Rc<Connection>, parts: &Parts, lines: Option<&Lines>) -> Box<Self> {
        let view = worker.view();
        let said = view.access_log.as_ref().map(|format| Said::of(parts, lines, format));
        let client = connection.client();
        view.listeners[connection.listener()].stats.at(worker.lane).in_flight.up();
        Box::new(Life {
            view,
            started: Clock::now(),
            client,
            asker: None,
            method: parts.method.clone(),
            version: parts.version,
            route: None,
            slot: None,
            permit: Permit::free(),
            inbound: None,
            status: None,
            refusal: None,
            broken: None,
            attempts: 0,
            cold: false,
            upstream_time: None,
            upstream_status: 0,
            joint: None,
            tunnelled: 0,
            whole: None,
            sent: 0,
            ended: false,
            said,
            worker,
            connection,
        })
    }

    /// Its listener.
    pub fn listener(&self) -> &Listener {
        &self.view.listeners[self.connection.listener()]
    }

    /// Its route, once it has one.
    pub fn route(&self) -> Option<&Route> {
        self.route.map(|index| &self.view.routes[index])
    }

    /// Who it has been found to be, by a key or token.
    pub fn principal(&self) -> Option<&str> {
        self.asker.as_ref()?.principal()
    }

    /// It has a route, by index; it is counted there from now on.
    pub fn take_route(&mut self, route: usize) {
        self.route = Some(route);
        self.view.routes[route].stats.at(self.worker.lane).in_flight.up();
    }

    /// Whether its upstream's drain has ended, so that it must end now.
    pub fn is_cut(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.member().upstream.is_cut())
    }

    /// Whether all of it should be done by now; otherwise the task is woken when it should.
    pub fn poll_late(&self, cx: &mut std::task::Context<'_>) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.poll_expired(cx).is_ready())
    }

    /// Whether all of it should be done by now, for whoever does not wait.
    pub fn is_late(&self) -> bool {
        self.whole.as_ref().is_some_and(Deadline::expired)
    }

    /// When all of it must be done.
    pub fn until(&self) -> Moment {
        self.whole.as_ref().map_or(Moment::NEVER, Deadline::at)
    }

    /// Tells control what requests have shown of the upstream.
    pub fn report(&self, trip: Option<Trip>) {
        if let (Some(trip), Some(slot)) = (trip, &self.slot) {
            let upstream = slot.member().upstream.clone();
            // Control ends last; without it there is nobody to tell.
            let _ = self.worker.events.send(Event::Tripped { upstream, trip });
        }
    }

    /// All of it must be done by then.
    pub fn bound(&mut self, until: Moment) {
        if until != Moment::NEVER {
            let deadline = self.worker.sweep.deadline();
            deadline.set(until);
            self.whole = Some(deadline);
        }
    }

    /// How long both ways may be silent.
    pub fn idle_timeout(&self) -> Option<Duration> {
        let of_route = self.route().and_then(|route| route.timeout.idle);
        of_route.or_else(|| self.slot.as_ref().map(|slot| slot.pool().settings.timeout.idle)).flatten()
    }

    fn received(&self) -> u64 {
        self.inbound.as_ref().map_or(self.tunnelled, |inbound| inbound.received())
    }

    fn count(&self, now: Moment, status: u16) {
        let lane = self.worker.lane;
        let received = self.received();
        let listener = self.listener().stats.at(lane);
        listener.requests.up(status);
        listener.in_flight.down();
        listener.received.add(received);
        listener.sent.add(self.sent);
        if let Some(route) = self.route() {
            let route = route.stats.at(lane);
            route.in_flight.down();
            route.finished(status, now.since(self.started), received, self.sent);
        }
        if let Some(slot) = &self.slot {
            let upstream = slot.member().upstream.stats.at(lane);
            upstream.sent.add(received);
            upstream.received.add(self.sent);
            slot.held_until(now);
            slot.pool().kept.stats.at(lane).completions.up();
        }
        if let Some(refusal) = self.broken.or(self.refusal) {
            self.worker.registry.at(lane).refusals.up(refusal.index());
        }
    }

    fn log(&self, now: Moment, status: u16) {
        let Some(said) = &self.said else { return };
        if self.route().is_some_and(|route| !route.access_log) {
            return;
        }
        let Some(format) = &self.view.access_log else { return };
        let slot = self.slot.as_ref();
        let fields = said.fields();
        let user = if fields.authorization.is_empty() { None } else { user(fields.authorization) };
        let line = Line {
            at: now,
            client: Some(self.client),
            principal: self.principal().unwrap_or_default(),
            user: user.as_deref().unwrap_or_default(),
            method: self.method.as_str(),
            target: said.target(),
            version: self.version,
            host: fields.host,
            scheme: self.connection.scheme(),
            status,
            received: self.received(),
            sent: self.sent,
            duration: now.since(self.started),
            upstream_duration: self.upstream_time,
            upstream_status: self.upstream_status,
            listener: &self.listener().name,
            route: self.route().map_or("", |route| &*route.name),
            pool: slot.map_or("", |slot| &*slot.pool().name),
            upstream: slot.map_or("", |slot| &*slot.member().upstream.address),
            attempts: self.attempts,
            refusal: self.broken.or(self.refusal).map_or("", |refusal| refusal.row().label),
            request_id: said.request_id(),
            referer: fields.referer,
            user_agent: fields.user_agent,
            tls: self.connection.tls_version(),
        };
        self.worker.log(format, &line);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.ended && self.broken.is_none() {
            // Dropped before its last byte: the client has left, which is never the upstream's fault; or we have panicked.
            let why = if std::thread::panicking() { Refusal::Internal } else { Refusal::ClientClosed };
            self.broken = Some(why);
            self.status.get_or_insert(why.status());
        }
        let now = Clock::now();
        let status = self.status.map_or(0, |status| status.as_u16());
        self.count(now, status);
        self.log(now, status);
    }
}
