//! Members that a scaler has made: what becomes of them in their pool.
//!
//! A replica is a member like any other, but for four things: it takes nothing before it has passed a check, it can be cordoned, its drain
//! has a second deadline for clients that are stuck to it, and it goes without ceremony once its scaler does not name it any more.

use std::sync::Arc;
use std::time::Duration;

use super::pool::{MemberState, News, PoolState, Wanted, news_of};
use crate::config::model::{self, CheckKind, HealthCheck, MaxConcurrency, Queue};
use crate::health::{Policy, Standing, State, Thresholds};
use crate::snapshot::{Intent, Replica};
use crate::types::{Address, Moment};
use crate::upstream::Place;

/// What control knows of a replica beside what it knows of every member.
#[derive(Debug)]
pub(super) struct Made {
    /// The scaler's name for it.
    pub id: Arc<str>,
    /// What its scaler wanted of it last. Only another wish does anything, so that an operator's stands.
    pub intent: Intent,
    /// Whether it has ever passed a check.
    pub passed: bool,
    /// What the last check said while it has not.
    pub heard: Option<String>,
    /// While its scaler drains it: until when requests may finish where nobody is stuck to it.
    requests_until: Option<Moment>,
}

/// A scaled pool's health check where none is configured: a connection is enough.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A pool's settings with what a scaler cannot do without: a queue, and a health check; and with its own word for the end of drains.
pub(super) fn completed(settings: Arc<model::Pool>) -> Arc<model::Pool> {
    if let Some(deadline) = settings.drain.deadline.filter(|deadline| *deadline != settings.drain_timeout) {
        let mut settings = (*settings).clone();
        settings.drain_timeout = deadline;
        return completed(Arc::new(settings));
    }
    if settings.scaler.is_none() || (settings.queue.is_some() && settings.health.is_some()) {
        return settings;
    }
    let mut settings = (*settings).clone();
    settings.queue.get_or_insert_with(Queue::default);
    let check = || HealthCheck { kind: CheckKind::Tcp, interval: CHECK_EVERY, ..HealthCheck::default() };
    settings.health.get_or_insert_with(check);
    Arc::new(settings)
}

/// The standing of one that takes nothing before its first good check, whatever the pool says of others.
pub(super) fn unchecked(policy: &Policy, now: Moment) -> Standing {
    let checks = policy.checks.map(|checks| Thresholds { initially_up: false, ..checks });
    Standing::new(&Policy { checks, ..policy.clone() }, now)
}

/// Whether nothing is left of a replica that could be waited for.
pub(super) fn is_done(member: &MemberState) -> bool {
    member.standing.state() == State::Drained || member.upstream.open() == 0
}

impl PoolState {
    /// These are the replicas now, and a member takes so many requests at once where that is learned.
    pub(super) fn set_replicas(&mut self, replicas: Vec<Replica>, learned: Option<u32>, now: Moment) -> Vec<News> {
        self.dirty |= self.learned_bound != learned;
        self.learned_bound = learned;
        if self.replicas == replicas {
            return Vec::new();
        }
        self.replicas = replicas;
        self.reconcile(now)
    }

    /// What a member takes at once that has no bound of its own.
    pub(super) fn bound(&self) -> Option<u32> {
        match self.settings.max_concurrency? {
            MaxConcurrency::Count(count) => Some(count),
            MaxConcurrency::Learn => self.learned_bound,
        }
    }

    /// The member that a replica is to be.
    pub(super) fn wanted_of(&self, replica: &Replica) -> Option<Wanted> {
        let (place, host) = match &replica.address {
            Address::Ip(address) => (Place::Tcp(*address), address.ip().to_string()),
            Address::Unix(path) => (Place::Unix(path.as_path().into()), "localhost".to_owned()),
            name @ (Address::Host { .. } | Address::Srv(_)) => {
                let (pool, id) = (&self.name, &replica.id);
                tracing::error!(%pool, replica = %id, "{name} is a name: a replica is reached by an IP address or a socket");
                return None;
            }
        };
        Some(Wanted {
            configured: replica.address.clone(),
            place,
            host,
            weight: 1,
            backup: false,
            max_connections: None,
            replica: Some(replica.clone()),
        })
    }

    /// Does with a member what its scaler wants, where that is something new.
    pub(super) fn heed(&self, member: &mut MemberState, replica: Option<&Replica>, now: Moment) -> Vec<News> {
        let Some(replica) = replica else {
            member.replica = None;
            return Vec::new();
        };
        let before = member.replica.take().filter(|made| made.id == replica.id);
        let mut made = before.unwrap_or_else(|| Made {
            id: replica.id.clone(),
            intent: Intent::Serve,
            passed: member.standing.state() == State::Ready,
            heard: None,
            requests_until: None,
        });
        let mut change = None;
        if made.intent != replica.intent {
            let drains = matches!(member.standing.state(), State::Draining | State::Drained);
            match replica.intent {
                Intent::Drain { requests, sessions } => {
                    let sticky = self.settings.sticky.is_some();
                    let whole = if sticky { requests.max(sessions) } else { requests };
                    change = member.standing.drain(whole, now);
                    made.requests_until = Some(now + requests);
                }
                Intent::Serve | Intent::Cordon => {
                    if drains && matches!(made.intent, Intent::Drain { .. }) {
                        member.upstream.set_cut(false);
                        change = member.standing.recall(now);
                    }
                    made.requests_until = None;
                }
            }
            made.intent = replica.intent;
        }
        member.replica = Some(made);
        news_of(&self.name, &member.upstream, change).into_iter().collect()
    }
}

impl MemberState {
    /// Whether it takes new work only where nobody else has room.
    pub(super) fn is_cordoned(&self) -> bool {
        self.replica.as_ref().is_some_and(|made| made.intent == Intent::Cordon)
    }

    /// Whether its drain goes on for the sake of clients that are stuck to it alone.
    pub(super) fn overstays(&self, now: Moment) -> bool {
        let until = self.replica.as_ref().and_then(|made| made.requests_until);
        self.standing.state() == State::Draining && until.is_some_and(|until| until <= now)
    }

    /// Whether clients that are stuck to it may come back while it drains. To a replica that its scaler does not name any more nobody does.
    pub(super) fn may_be_come_back_to(&self, now: Moment) -> bool {
        let gone = self.leaving && self.replica.is_some();
        !gone && self.standing.deadline().is_some_and(|deadline| now < deadline)
    }

    /// Why it is in its state, in words.
    pub(super) fn reason(&self) -> String {
        let heard = self.replica.as_ref().filter(|made| !made.passed).and_then(|made| made.heard.as_ref());
        match heard.filter(|_| self.standing.state() == State::Starting) {
            Some(heard) => format!("{}: {heard}", self.standing.reason()),
            None => self.standing.reason().to_string(),
        }
    }
}
