//! Sending a request until an upstream answers, or until nobody may be asked any more.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};

use super::Refusal;
use super::life::Life;
use super::pick::{Affinity, Slot, Tried, pick};
use super::refuse::Refused;
use super::request_body::RequestBody;
use super::respond::Exchange;
use crate::config::model::{self, HostHeader, PoolKind};
use crate::health::Outcome;
use crate::retry::{self, Attempt, Stage, may_repeat};
use crate::snapshot::{Member, Pool, Route, View};
use crate::telemetry::{Fault, Lane};
use crate::types::{Clock, Moment};
use crate::upstream::{Answer, Outgoing, SendError, SendErrorKind};

/// One request's dealings with one pool.
pub(super) struct Attempts<'a> {
    /// The generation that the pool is of: that of the request's arrival, until it has had to wait.
    pub view: Rc<View>,
    pub route: &'a Route,
    /// The pool, by its index in `view`.
    pub pool: usize,
    pub policy: &'a model::Retry,
}

/// Why an attempt gave no answer.
enum Lost {
    /// It failed.
    Failed(SendError),
    /// The upstream's drain has ended before it answered.
    Cut,
    /// The whole request has taken too long.
    Late,
}

/// Gets an upstream's answer to `exchange`.
///
/// Each attempt goes to an upstream that was not tried before. Whether there is another one is decided by [`retry::may_repeat`] and paid from
/// the pool's budget. The last upstream tried keeps its slot in `life`, for as long as the answer lasts.
///
/// The request's route, its limits, times and retries are those of its arrival to its end. Its pool's members are so too, unless it has had to
/// wait for one: then from there on the pool is as the newest snapshot has it, because it may be served by whoever came since.
pub(super) async fn run(
    life: &mut Life,
    route: &Route,
    pool: usize,
    exchange: &mut Exchange,
) -> Result<Answer<RequestBody>, Refused> {
    run_in(life, life.view.clone(), route, pool, exchange).await
}

/// The same with the pool of another generation than the request's own.
pub(super) async fn run_in(
    life: &mut Life,
    view: Rc<View>,
    route: &Route,
    pool: usize,
    exchange: &mut Exchange,
) -> Result<Answer<RequestBody>, Refused> {
    let policy = route.retry.as_ref().unwrap_or(&view.pools[pool].settings.retry);
    let mut attempts = Attempts { view: view.clone(), route, pool, policy };
    attempts.arrives(life, exchange.counts);
    let mut tried = Tried::new();
    loop {
        let started = if life.attempts == 0 { life.started } else { Clock::now() };
        attempts.pick(life, exchange, &mut tried, started).await?;
        life.attempts += 1;
        // Where it had to wait, that was before the attempt.
        let started = life.slot.as_ref().map_or(started, Slot::taken);
        let sent = attempts.send(life, exchange).await;
        let now = Clock::now();
        let failure = match sent {
            Ok(answer) => {
                life.upstream_time = Some(now.since(started));
                let status = answer.response.status().as_u16();
                attempts.answered(life, status, now.since(started), now);
                if !policy.statuses.contains(&status) || !attempts.again(life, exchange, &tried, Stage::Sent, now) {
                    life.inbound.iter().for_each(|inbound| inbound.be_patient());
                    return Ok(answer);
                }
                Refusal::BadResponse
            }
            Err(Lost::Cut) if attempts.again(life, exchange, &tried, Stage::Sent, now) => Refusal::DrainDeadline,
            Err(Lost::Cut) => return Err(Refusal::DrainDeadline.into()),
            Err(Lost::Late) => {
                // A client that was still sending is late by itself.
                if life.inbound.as_ref().is_none_or(|inbound| inbound.ended()) {
                    attempts.blame(life, Fault::Timeout, now);
                }
                return Err(Refusal::RequestTimeout.into());
            }
            Err(Lost::Failed(error)) => {
                if let Some(fault) = life.inbound.as_ref().and_then(|inbound| inbound.fault()) {
                    return Err(fault.into());
                }
                let refusal = attempts.failed(life, &error, now);
                let stage = if error.delivered { Stage::Sent } else { Stage::NeverSent };
                if !attempts.again(life, exchange, &tried, stage, now) {
                    if refusal == Refusal::ConnectFailed && exchange.counts {
                        attempts.pool().kept.stats.at(life.worker.lane).saturated.up();
                    }
                    return Err(refusal.into());
                }
                refusal
            }
        };
        life.refusal = Some(failure);
    }
}

/// Waits until there is a place in the pool for anybody, which wakes a pool that sleeps, and gives it back: for who has more to do there than
/// to send one request.
///
/// **Errors**: it may not wait, or has waited in vain.
pub(super) async fn until_room(
    life: &mut Life,
    view: Rc<View>,
    route: &Route,
    pool: usize,
    exchange: &mut Exchange,
) -> Result<(), Refused> {
    let policy = &view.pools[pool].settings.retry;
    let mut attempts = Attempts { view: view.clone(), route, pool, policy };
    life.attempts = 0;
    attempts.pick(life, exchange, &mut Tried::new(), Clock::now()).await?;
    life.slot = None;
    Ok(())
}

impl Attempts<'_> {
    pub(super) fn pool(&self) -> &Pool {
        &self.view.pools[self.pool]
    }

    /// Counts the request: as demand, and for the retry budget, where one in sixteen counts for sixteen, so that workers share no counter.
    fn arrives(&self, life: &Life, counts: bool) {
        const BATCH: u32 = 16;
        let kept = &self.pool().kept;
        if counts {
            kept.stats.at(life.worker.lane).arrivals.up();
        }
        if life.worker.random().is_multiple_of(u64::from(BATCH)) {
            kept.budget.deposit(BATCH, life.started);
        }
    }

    /// Gives the request a place at an upstream, perhaps after a wait, and the upstream the `Host` it wants.
    async fn pick(
        &mut self,
        life: &mut Life,
        exchange: &mut Exchange,
        tried: &mut Tried,
        now: Moment,
    ) -> Result<(), Refused> {
        // The place of a failed attempt is given back before another is taken.
        if let Some(slot) = life.slot.take() {
            slot.held_until(now);
        }
        let picked = if self.pool().kept.queue.is_empty() {
            let mut picked = pick(&life.worker, &self.view, self.pool, &self.choice(life, exchange), tried, now);
            // Who comes by an older snapshot may find closed doors, and others that have opened since.
            if picked.is_err() && self.look_up(life, tried) {
                picked = pick(&life.worker, &self.view, self.pool, &self.choice(life, exchange), tried, now);
            }
            Some(picked)
        } else {
            // Who comes now does not overtake those who wait.
            None
        };
        let slot = match picked {
            Some(Ok(slot)) => slot,
            // Boxed, because it is rare and its state would make every request's larger.
            missed => Box::pin(self.wait(life, exchange, tried, missed.and_then(Result::err))).await?,
        };
        tried.push(slot.index());
        exchange.settle_for(&self.pool().settings);
        give_host(&mut exchange.head.headers, &self.pool().settings, slot.member());
        life.slot = Some(slot);
        Ok(())
    }

    /// Sends the request; none where it is cut off at the end of its upstream's drain.
    async fn send(&self, life: &Life, exchange: &Exchange) -> Result<Answer<RequestBody>, Lost> {
        let Some(target) = life.slot.as_ref().map(|slot| &slot.member().target) else { return Err(Lost::Cut) };
        let body = life.inbound.as_ref().map_or(RequestBody::EMPTY, |inbound| inbound.attempt());
        let settings = &self.pool().settings;
        let outgoing = Outgoing {
            method: &exchange.head.method,
            target: &exchange.target,
            headers: &exchange.head.headers,
            lines: exchange.lines.as_deref(),
            answer_in_lines: exchange.answer_in_lines,
            upgrade: exchange.upgrade.is_some(),
            first_byte: self.first_byte(),
            idle: self.route.timeout.idle.unwrap_or(settings.timeout.idle),
        };
        let mut sending = pin!(life.worker.far.send(target, outgoing, body));
        // The end of a drain wakes everybody who waits for a deadline; whoever is cut looks up here.
        poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(Lost::Failed)),
            Poll::Pending if life.is_cut() => Poll::Ready(Err(Lost::Cut)),
            Poll::Pending if life.poll_late(cx) => Poll::Ready(Err(Lost::Late)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// How long its answer's head may take. A tool of an MCP server may be silent for as long as a stream may.
    fn first_byte(&self) -> Option<Duration> {
        let timeout = &self.pool().settings.timeout;
        self.route.timeout.first_byte.unwrap_or(match self.pool().settings.kind {
            PoolKind::Http => timeout.first_byte,
            PoolKind::Mcp => self.route.timeout.idle.unwrap_or(timeout.idle),
        })
    }

    /// The upstream has answered: what that says of it.
    fn answered(&self, life: &mut Life, status: u16, latency: Duration, now: Moment) {
        let Some(slot) = life.slot.as_mut() else { return };
        let upstream = &slot.member().upstream;
        let lane = upstream.stats.at(life.worker.lane);
        lane.requests.up(status);
        lane.latency.record(latency);
        self.judge(life.worker.lane, status, latency);
        upstream.load.sample(latency, now);
        let bad = status >= 500 && self.pool().settings.eject.on_5xx;
        let trip = slot.went(if bad { Outcome::Bad } else { Outcome::Good }, now);
        life.report(trip);
    }

    /// What an answer says of the pool as a whole.
    fn judge(&self, lane: Lane, status: u16, latency: Duration) {
        let pool = self.pool();
        if status >= 500 {
            pool.kept.stats.at(lane).errors.up();
        }
        if pool.settings.scaler.is_some() {
            pool.kept.stats.at(lane).answered_after(latency);
        }
    }

    /// The attempt has failed: what that says of the upstream, and what the client would be told.
    fn failed(&self, life: &mut Life, error: &SendError, now: Moment) -> Refusal {
        if let Some(upstream) = life.slot.as_ref().map(|slot| &slot.member().upstream) {
            tracing::debug!(pool = %upstream.pool, upstream = %upstream.address, %error, "attempt failed");
        }
        if let Some(fault) = fault_of(error.kind) {
            self.blame(life, fault, now);
        }
        refusal_of(error.kind)
    }

    /// Counts a failure against the upstream.
    fn blame(&self, life: &mut Life, fault: Fault, now: Moment) {
        let Some(slot) = life.slot.as_mut() else { return };
        slot.member().upstream.stats.at(life.worker.lane).faults.up(fault);
        let trip = slot.went(Outcome::Bad, now);
        life.report(trip);
    }

    /// Whether there is another attempt.
    fn again(&self, life: &Life, exchange: &Exchange, tried: &Tried, stage: Stage, now: Moment) -> bool {
        // It belongs to the one that was tried.
        if matches!(exchange.affinity, Affinity::Only(_)) {
            return false;
        }
        // Asked before anything is paid for: where nobody is left, the answer we have is the best there is.
        if !self.pool().table.members().iter().any(|member| member.weight > 0.0 && !tried.contains(&member.id)) {
            return false;
        }
        let body = match &life.inbound {
            None => retry::Body::None,
            Some(inbound) if inbound.replayable() => retry::Body::Replayable,
            Some(_) => retry::Body::Gone,
        };
        let until = life.until();
        let left = (until != Moment::NEVER).then(|| until.since(now));
        let method = if exchange.repeatable { &http::Method::GET } else { &life.method };
        let attempt = Attempt { method, stage, body, made: life.attempts, allowed: self.policy.attempts, left };
        let lane = self.pool().kept.stats.at(life.worker.lane);
        match may_repeat(&attempt, &self.pool().kept.budget, self.policy.budget.0, now) {
            Ok(()) => lane.retries.up(),
            Err(retry::NoRepeat::Budget) => {
                lane.retries_denied.up();
                return false;
            }
            Err(_) => return false,
        }
        true
    }
}

/// Gives a request the `Host` that its upstream wants.
pub(super) fn give_host(headers: &mut HeaderMap, settings: &model::Pool, member: &Member) {
    let host = match &settings.host {
        HostHeader::Preserve => return,
        HostHeader::Upstream => member.configured.as_str(),
        HostHeader::Literal(host) => host,
    };
    if let Ok(host) = HeaderValue::from_str(host.strip_prefix("unix:").map_or(host, |_| "localhost")) {
        headers.insert(header::HOST, host);
    }
}

/// How a failure is counted; nothing where it was not the upstream's.
fn fault_of(kind: SendErrorKind) -> Option<Fault> {
    Some(match kind {
        SendErrorKind::Refused | SendErrorKind::Unreachable => Fault::Connect,
        SendErrorKind::ConnectTimeout => Fault::ConnectTimeout,
        SendErrorKind::TlsFailed | SendErrorKind::TlsTimeout => Fault::Tls,
        SendErrorKind::Reset | SendErrorKind::ClosedEarly => Fault::Reset,
        SendErrorKind::SendTimeout | SendErrorKind::FirstByteTimeout => Fault::Timeout,
        SendErrorKind::BadResponse(_) => Fault::Malformed,
        SendErrorKind::NoSocket | SendErrorKind::RequestBody => return None,
    })
}

fn refusal_of(kind: SendErrorKind) -> Refusal {
    match kind {
        SendErrorKind::Refused | SendErrorKind::Unreachable => Refusal::ConnectFailed,
        SendErrorKind::NoSocket => Refusal::NoSocket,
        SendErrorKind::ConnectTimeout => Refusal::ConnectTimeout,
        SendErrorKind::TlsFailed => Refusal::TlsFailed,
        SendErrorKind::TlsTimeout => Refusal::TlsTimeout,
        SendErrorKind::Reset | SendErrorKind::ClosedEarly => Refusal::UpstreamClosed,
        SendErrorKind::SendTimeout | SendErrorKind::FirstByteTimeout => Refusal::FirstByteTimeout,
        SendErrorKind::BadResponse(_) => Refusal::BadResponse,
        SendErrorKind::RequestBody => Refusal::BodyBroken,
    }
}
