//! Waiting for a place: in the pool's line, until there is one or the time is over.
//!
//! Two things are waited for: a slot, while every upstream is full, for `queue.timeout`; and an instance, while nobody is fit and the pool's
//! scaler can do something about it, for `sleep.wake_timeout`. Who has waited for an instance waits for a slot afterwards, with a new clock.
//!
//! **Memory.** A request that waits holds its head and, of its body, 64 KiB and one piece read ahead (only who is read from can be seen to
//! leave) and what hyper and the kernel have in their buffers: with HTTP/1 one read buffer (8 KiB, and up to 408 KiB where the client sends
//! faster than it is read), with HTTP/2 the stream's window. A client that leaves in the middle of a longer body is noticed when its turn
//! comes, or its time is over.
//!
//! **Generations.** A request sees the tables of its arrival. One that waits looks at its *pool* anew each time it is its turn, because
//! whoever it waits for may not have existed when it came; from then on the pool is that of the newest snapshot, and everything else (route,
//! limits, pages, retries) stays. A pool that a reload has taken away stays as it was last, so that its members' slots serve those in line.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use http::header;

use super::Refusal;
use super::attempt::Attempts;
use super::life::Life;
use super::pick::{Affinity, Choice, Miss, Slot, Tried, class, pick};
use super::refuse::Refused;
use super::respond::Exchange;
use crate::config::model;
use crate::scale::Mode;
use crate::snapshot::{PoolKept, Ticket};
use crate::sweep::Deadline;
use crate::telemetry::{Lane, Waited};
use crate::types::{Clock, Moment};

/// Whether a request is demand: of a pool that may sleep, health checks and the like are not.
pub(super) fn is_demand(pool: &model::Pool, headers: &HeaderMap, path: &str) -> bool {
    let Some(scaler) = pool.scaler.as_ref().filter(|scaler| scaler.min == 0) else { return true };
    let sleep = &scaler.sleep;
    let agent = headers.get(header::USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    !sleep.ignore_agents.iter().any(|ignored| agent.starts_with(ignored.as_bytes()))
        && !sleep.ignore_paths.iter().any(|ignored| ignored == path)
}

/// The time in line of one request. Dropped without an outcome, its client has left.
struct Stay {
    ticket: Option<Ticket>,
    kept: Arc<PoolKept>,
    lane: Lane,
    joined: Moment,
    /// Since when it waits for a slot and no longer for an instance.
    full_since: Option<Moment>,
    deadline: Deadline,
    outcome: Waited,
}

/// What has happened to somebody who waits.
enum News {
    Turn,
    /// Its own time is over.
    Late,
    /// It has waited long enough.
    Over,
    /// Something is wrong on the client's side.
    Broken(Refusal),
}

impl Attempts<'_> {
    pub(super) fn choice<'a>(&self, life: &Life, exchange: &'a Exchange) -> Choice<'a> {
        Choice {
            headers: &exchange.head.headers,
            target: exchange.target.as_str(),
            client: life.client,
            patient: life.attempts == 0 && self.pool().settings.queue.is_some(),
            affinity: exchange.affinity,
            shun: &exchange.shun,
        }
    }

    /// Gets the request a place where there was none at once: `missed` says why, or somebody was waiting already.
    ///
    /// **Errors**: it may not wait, or has waited in vain.
    pub(super) async fn wait(
        &mut self,
        life: &mut Life,
        exchange: &Exchange,
        tried: &mut Tried,
        missed: Option<Miss>,
    ) -> Result<Slot, Refused> {
        let now = Clock::now();
        if life.attempts == 0 {
            // Upstreams whose circuits have let nobody in were not tried.
            tried.clear();
        }
        let miss = match missed {
            Some(Miss::Unfit) if matches!(exchange.affinity, Affinity::Only(_)) => Miss::Unfit,
            Some(miss) => self.meant(life, miss),
            None => match self.approach(life, exchange, tried, now) {
                Ok(slot) => return Ok(slot),
                Err(miss) => miss,
            },
        };
        if miss == Miss::Unfit && matches!(exchange.affinity, Affinity::Only(_)) {
            // Nobody else is of any use to it.
            return Err(Refusal::NoUpstream.into());
        }
        let lane = self.pool().kept.stats.at(life.worker.lane);
        match miss {
            Miss::Unfit => lane.unfit.up(),
            Miss::Full => lane.full.up(),
        }
        if !self.may_wait(exchange, tried, miss) {
            return Err(self.refused(life, exchange, miss, now));
        }
        let mut stay = self.join(life, exchange, now)?;
        self.goes_on(life, &mut stay, miss, now);
        self.stand_in_line(life, exchange, tried, stay).await
    }

    /// Somebody waits: tries at once where that overtakes nobody.
    fn approach(&mut self, life: &Life, exchange: &Exchange, tried: &mut Tried, now: Moment) -> Result<Slot, Miss> {
        self.look_up(life, tried);
        let (class, shared) = class(self.pool(), &self.choice(life, exchange), now);
        match self.pool().kept.queue.approach(class, shared) {
            Some(reserved) => self.try_once(life, exchange, tried, &reserved, now),
            None => Err(self.what_is_missing()),
        }
    }

    /// Where half-open circuits let nobody in for now, that is as if their upstreams were full: they do not need another instance.
    fn meant(&self, life: &Life, miss: Miss) -> Miss {
        if miss == Miss::Unfit && life.attempts == 0 && self.pool().settings.queue.is_some() {
            return self.what_is_missing();
        }
        miss
    }

    fn what_is_missing(&self) -> Miss {
        if self.pool().table.is_open() { Miss::Full } else { Miss::Unfit }
    }

    /// Takes a place in the line.
    fn join(&self, life: &mut Life, exchange: &Exchange, now: Moment) -> Result<Stay, Refused> {
        let pool = self.pool();
        let kept = pool.kept.clone();
        let size = pool.settings.queue.as_ref().map_or(0, |queue| queue.size as usize);
        let (class, shared) = class(pool, &self.choice(life, exchange), now);
        let Ok(ticket) = Ticket::join(&kept, class, shared, size, now) else {
            kept.stats.at(life.worker.lane).waited.up(Waited::Full);
            return Err(self.out_of_line(life, exchange, Refusal::QueueFull, now));
        };
        Ok(Stay {
            ticket: Some(ticket),
            kept,
            lane: life.worker.lane,
            joined: now,
            full_since: None,
            deadline: life.worker.sweep.deadline(),
            outcome: Waited::Left,
        })
    }

    async fn stand_in_line(
        &mut self,
        life: &mut Life,
        exchange: &Exchange,
        tried: &mut Tried,
        mut stay: Stay,
    ) -> Result<Slot, Refused> {
        loop {
            match stay.news(life).await {
                News::Turn => {}
                News::Late => return Err(life.refusal.take().unwrap_or(Refusal::RequestTimeout).into()),
                News::Broken(refusal) => return Err(refusal.into()),
                News::Over => {
                    stay.outcome = Waited::Timeout;
                    let now = Clock::now();
                    return Err(match self.what_is_missing() {
                        Miss::Full => self.out_of_line(life, exchange, Refusal::QueueTimeout, now),
                        Miss::Unfit => self.refused(life, exchange, Miss::Unfit, now),
                    });
                }
            }
            let now = Clock::now();
            let miss = match self.take_turn(life, exchange, tried, &mut stay, now) {
                Ok(slot) => return Ok(slot),
                Err(miss) => miss,
            };
            if !self.may_wait(exchange, tried, miss) {
                stay.outcome = Waited::Unfit;
                return Err(self.refused(life, exchange, miss, now));
            }
            self.goes_on(life, &mut stay, miss, now);
        }
    }

    /// Uses a turn, or passes it on.
    fn take_turn(
        &mut self,
        life: &Life,
        exchange: &Exchange,
        tried: &mut Tried,
        stay: &mut Stay,
        now: Moment,
    ) -> Result<Slot, Miss> {
        self.look_up(life, tried);
        let Some(mut ticket) = stay.ticket.take() else { return Err(self.what_is_missing()) };
        ticket.set_class(class(self.pool(), &self.choice(life, exchange), now).0);
        let reserved = ticket.turn().filter(|turn| turn.take).map(|turn| turn.reserved.clone());
        let tried_now = match reserved {
            Some(reserved) => self.try_once(life, exchange, tried, &reserved, now),
            None => Err(self.what_is_missing()),
        };
        match tried_now {
            Ok(slot) => {
                stay.outcome = Waited::Served;
                stay.kept.stats.at(stay.lane).served_after(now.since(stay.joined));
                ticket.served(slot.member().upstream.identity);
                Ok(slot)
            }
            Err(miss) => {
                ticket.failed();
                stay.ticket = Some(ticket);
                Err(miss)
            }
        }
    }

    /// Picks once, leaving the upstreams `reserved`, by identity, to others.
    fn try_once(
        &self,
        life: &Life,
        exchange: &Exchange,
        tried: &mut Tried,
        reserved: &[u64],
        now: Moment,
    ) -> Result<Slot, Miss> {
        let before = tried.len();
        tried.extend(reserved.iter().filter_map(|identity| self.pool().by_identity.get(identity).copied()));
        let picked = pick(&life.worker, &self.view, self.pool, &self.choice(life, exchange), tried, now);
        tried.truncate(before);
        // Where only those are left that are left to others, somebody is fit all the same.
        picked.map_err(|miss| if reserved.is_empty() { self.meant(life, miss) } else { self.what_is_missing() })
    }

    /// Sees the pool as it is in the newest snapshot; whether that is another one.
    pub(super) fn look_up(&mut self, life: &Life, tried: &mut Tried) -> bool {
        let view = life.worker.view();
        if view.generation == self.view.generation {
            return false;
        }
        let pool = self.pool();
        // Pools are in the order of their names.
        let Ok(index) = view.pools.binary_search_by(|other| other.name.cmp(&pool.name)) else { return false };
        let newest = &view.pools[index];
        if !Arc::ptr_eq(&newest.kept, &pool.kept) {
            return false;
        }
        let known = tried.iter().filter_map(|member| {
            let identity = pool.members[*member as usize].upstream.identity;
            newest.by_identity.get(&identity).copied()
        });
        *tried = known.collect();
        self.pool = index;
        self.view = view;
        true
    }

    /// Whether it is any use to wait, and allowed.
    fn may_wait(&self, exchange: &Exchange, tried: &Tried, miss: Miss) -> bool {
        let settings = &self.pool().settings;
        settings.queue.is_some()
            && match miss {
                Miss::Full => true,
                Miss::Unfit => tried.is_empty() && exchange.demand && wakes(settings),
            }
    }

    /// It waits on, for a slot or for an instance.
    fn goes_on(&self, life: &mut Life, stay: &mut Stay, miss: Miss, now: Moment) {
        if miss == Miss::Unfit {
            life.cold = true;
            stay.kept.queue.want();
        }
        let settings = &self.pool().settings;
        let queue = settings.queue.as_ref().map_or(Duration::ZERO, |queue| queue.timeout);
        let wake = settings.scaler.as_ref().map_or(Duration::ZERO, |scaler| scaler.sleep.wake_timeout);
        let for_slot = |since: Moment| since + queue;
        let until = match miss {
            Miss::Full => for_slot(*stay.full_since.get_or_insert(now)),
            Miss::Unfit => (stay.joined + wake).max(stay.full_since.map_or(Moment::START, for_slot)),
        };
        stay.deadline.set(until);
    }

    /// The answer to a request that may not wait.
    fn refused(&self, life: &mut Life, exchange: &Exchange, miss: Miss, now: Moment) -> Refused {
        let pool = self.pool();
        match miss {
            Miss::Full => self.turned_away(life, exchange, Refusal::UpstreamsFull, self.next_free()),
            Miss::Unfit => {
                let eta = pool.kept.queue.eta().map(|eta| eta.since(now));
                let usual =
                    || Some(pool.settings.scaler.as_ref()?.sleep.wake_timeout).filter(|_| wakes(&pool.settings));
                self.turned_away(life, exchange, Refusal::NoUpstream, eta.or_else(usual))
            }
        }
    }

    /// The answer to a request that is too many in the line, or was in it for too long.
    fn out_of_line(&self, life: &mut Life, exchange: &Exchange, refusal: Refusal, now: Moment) -> Refused {
        let pool = self.pool();
        let usual = pool.settings.queue.as_ref().map(|queue| queue.timeout);
        self.turned_away(life, exchange, refusal, pool.kept.queue.patience(now).or(usual))
    }

    fn turned_away(&self, life: &mut Life, exchange: &Exchange, refusal: Refusal, after: Option<Duration>) -> Refused {
        // Where an earlier attempt failed, its failure is the reason that matters.
        if let Some(earlier) = life.refusal.take() {
            return earlier.into();
        }
        if exchange.counts {
            self.pool().kept.stats.at(life.worker.lane).saturated.up();
        }
        Refused::until_room(refusal, after)
    }

    /// How long it takes on average until one of the requests in progress has ended.
    fn next_free(&self) -> Option<Duration> {
        let pool = self.pool();
        let stats = &pool.kept.stats;
        let completions = stats.sum(|lane| lane.completions.value());
        let in_flight: u32 = pool.members.iter().map(|member| member.upstream.load.in_flight()).sum();
        let held = Duration::from_nanos(stats.sum(|lane| lane.held.value()));
        (completions > 0 && in_flight > 0).then(|| held.div_f64(completions as f64 * f64::from(in_flight)))
    }
}

/// Whether the pool's scaler starts instances.
pub(super) fn wakes(pool: &model::Pool) -> bool {
    pool.scaler.as_ref().is_some_and(|scaler| matches!(scaler.mode, Mode::On | Mode::UpOnly))
}

impl Stay {
    async fn news(&mut self, life: &Life) -> News {
        poll_fn(|cx| {
            if life.poll_late(cx) {
                return Poll::Ready(News::Late);
            }
            if let Some(Err(refusal)) = life.inbound.as_ref().map(|inbound| inbound.poll_ahead(cx)) {
                return Poll::Ready(News::Broken(refusal));
            }
            if self.ticket.as_mut().is_some_and(|ticket| ticket.poll_turn(cx).is_ready()) {
                return Poll::Ready(News::Turn);
            }
            self.deadline.poll_expired(cx).map(|()| News::Over)
        })
        .await
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.kept.stats.at(self.lane).waited.up(self.outcome);
    }
}
