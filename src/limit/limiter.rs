use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use smallvec::SmallVec;

use super::pace::{Pace, Turn};
use super::permit::{Hold, Seat};
use super::table::{Client, Table};
use super::{ClientKey, ConnectionSeats, Per, Permit, Standing};
use crate::types::{Moment, Rate};

/// What a limiter allows each of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Who is counted together.
    pub per: Per,
    /// Requests over time.
    pub rate: Option<Rate>,
    /// So many may come at once above the rate.
    pub burst: u32,
    /// So much of rate and burst one request uses; more than `burst + 1` never passes.
    pub cost: u32,
    /// A request above the rate is held up to so long instead of refused.
    pub delay: Duration,
    /// Requests in progress at once.
    pub requests: Option<u32>,
    /// Connections with a request in progress at once.
    pub connections: Option<u32>,
    /// Clients remembered at once.
    pub max_clients: u32,
}

impl Default for Rule {
    /// Limits nothing, for each client address.
    fn default() -> Self {
        Rule {
            per: Per::Client,
            rate: None,
            burst: 0,
            cost: 1,
            delay: Duration::ZERO,
            requests: None,
            connections: None,
            max_clients: 100_000,
        }
    }
}

/// One rule and the clients it has seen.
#[derive(Debug)]
pub struct Limiter {
    rule: Rule,
    pace: Option<Pace>,
    table: Arc<Table>,
}

/// What a limiter says to a request.
#[derive(Debug)]
pub enum Admission {
    /// Let it through. The standing is there where the rule has a rate.
    Proceed(Permit, Option<Standing>),
    /// Let it through after so long: its place is booked, later ones queue behind it. A client that leaves meanwhile has used its place.
    Wait(Duration, Permit, Option<Standing>),
    /// Refuse it.
    Refuse(Refusal),
}

/// Why and for how long a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which part of the rule refused.
    pub reason: Reason,
    /// After so long a request would be let through if nobody else took its place; `Retry-After` has whole seconds, rounded up.
    /// Requests and connections end when they end: for those it is one second.
    pub retry_after: Duration,
    /// The client's standing, where the rule has a rate.
    pub standing: Option<Standing>,
    /// Which of the limiters given to [`admit_all`] refused.
    pub limiter: usize,
}

impl Refusal {
    /// `Retry-After` in seconds; at least 1.
    pub fn retry_after_seconds(&self) -> u64 {
        let seconds = self.retry_after.as_secs();
        (seconds + u64::from(self.retry_after.subsec_nanos() > 0)).max(1)
    }

    /// Adds `Retry-After` and, where the rule has a rate, the `RateLimit-*` headers to the answer that refuses.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(RETRY_AFTER, self.retry_after_seconds().into());
        if let Some(standing) = &self.standing {
            standing.tell(headers);
        }
    }
}

/// Which part of a rule refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Too many requests over time.
    Rate,
    /// Too many requests at once.
    Requests,
    /// Too many connections at once.
    Connections,
}

/// What one limiter decided, for those who count; see [`admit_all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let through at once.
    Admitted,
    /// Let through, later.
    Delayed,
    /// Refused.
    Refused(Reason),
}

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The client's address, as trusted proxies tell it.
    pub client: IpAddr,
    /// The request's headers, for rules that count by one.
    pub headers: &'a HeaderMap,
    /// Who it has been found to be by its key or token, for rules that count by that.
    pub principal: Option<&'a str>,
    /// The seats of the connection it came on.
    pub connection: &'a ConnectionSeats,
}

/// What a rule would let a request do.
struct Verdict {
    wait: Duration,
    /// The connection has no seat with this client yet.
    takes_seat: bool,
}

impl Limiter {
    /// A limiter that knows nobody.
    pub fn new(rule: Rule) -> Self {
        Self::on(rule, Table::new())
    }

    fn on(rule: Rule, table: Arc<Table>) -> Self {
        let pace = rule.rate.map(|rate| Pace::new(rate, rule.burst, rule.delay).costing(rule.cost));
        Limiter { rule, pace, table }
    }

    /// A limiter with another rule and the same clients, as a reload makes it; with an empty table if others are counted together.
    ///
    /// What clients owe is kept as a number of requests, so that a higher rate helps them at once. Permits stay valid.
    ///
    /// **Cost**: a pass over all clients if the rate changed, otherwise nothing.
    pub fn with_rule(&self, rule: Rule, now: Moment) -> Self {
        if rule.per != self.rule.per {
            return Self::new(rule);
        }
        let next = Self::on(rule, self.table.clone());
        if let (Some(old), Some(new)) = (&self.pace, &next.pace)
            && old != new
        {
            next.table.for_each(|client| client.clear = new.rescale(old, client.clear, now));
        }
        next
    }

    /// What it allows.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Decides about a request of this client on this connection, and books it.
    ///
    /// `now` should be read for it: workers whose clocks are a tick apart are so much unfair to a client that both serve.
    ///
    /// **Cost**: one lookup under its shard's lock; no allocation for a known client.
    pub fn admit(&self, key: ClientKey, connection: &ConnectionSeats, now: Moment) -> Admission {
        self.table.with(key, self.bound(), now, |client| match self.judge(client, key, connection, now) {
            Ok(verdict) => self.commit(client, verdict, self.hold(key, connection), now),
            Err(refusal) => Admission::Refuse(refusal),
        })
    }

    /// What [`Limiter::admit`] would refuse, without booking anything.
    fn refusal(&self, key: ClientKey, connection: &ConnectionSeats, now: Moment) -> Option<Refusal> {
        self.table.look(key, |client| self.judge(client, key, connection, now).err()).flatten()
    }

    fn judge(
        &self,
        client: &Client,
        key: ClientKey,
        connection: &ConnectionSeats,
        now: Moment,
    ) -> Result<Verdict, Refusal> {
        let standing = self.pace.map(|pace| pace.standing(client.clear, now));
        let refuse = |reason, retry_after| Err(Refusal { reason, retry_after, standing, limiter: 0 });
        let in_use = |count: fn(&super::permit::Seats) -> u32| client.seats.as_deref().map_or(0, count);
        if self.rule.requests.is_some_and(|max| in_use(super::permit::Seats::requests) >= max) {
            return refuse(Reason::Requests, Duration::from_secs(1));
        }
        let takes_seat = self.rule.connections.is_some() && !connection.seated(self.table.id(), key);
        if takes_seat && self.rule.connections.is_some_and(|max| in_use(super::permit::Seats::connections) >= max) {
            return refuse(Reason::Connections, Duration::from_secs(1));
        }
        match self.pace.map_or(Turn::Now, |pace| pace.look(client.clear, now)) {
            Turn::Now => Ok(Verdict { wait: Duration::ZERO, takes_seat }),
            Turn::In(wait) => Ok(Verdict { wait, takes_seat }),
            Turn::NotBefore(wait) => refuse(Reason::Rate, wait),
        }
    }

    /// The connection's seat, if this rule counts connections.
    fn hold(&self, key: ClientKey, connection: &ConnectionSeats) -> Option<Rc<Seat>> {
        self.rule.connections.map(|_| connection.seat(self.table.id(), key))
    }

    fn commit(&self, client: &mut Client, verdict: Verdict, seat: Option<Rc<Seat>>, now: Moment) -> Admission {
        client.clear = self.pace.map_or(now, |pace| pace.book(client.clear, now));
        let standing = self.pace.map(|pace| pace.standing(client.clear, now));
        let mut permit = Permit::free();
        let request = self.rule.requests.is_some();
        if request || seat.is_some() {
            let seats = client.seats();
            if request {
                seats.enter_request();
            }
            if verdict.takes_seat {
                seats.enter_connection();
            }
            if let Some(seat) = &seat {
                seat.enter();
            }
            permit.hold(Hold { seats: seats.clone(), request, connection: seat });
        }
        if verdict.wait.is_zero() {
            Admission::Proceed(permit, standing)
        } else {
            Admission::Wait(verdict.wait, permit, standing)
        }
    }

    /// Forgets clients that have been idle for a minute; called every few seconds.
    pub fn sweep(&self, now: Moment) {
        self.table.sweep(self.bound(), now);
    }

    /// How many clients are remembered.
    pub fn size(&self) -> usize {
        self.table.size()
    }

    /// How many clients were forgotten because the table was full, ever.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    fn bound(&self) -> usize {
        self.rule.max_clients.max(1) as usize
    }
}

/// Asks several limiters as one: a request that one of them refuses is booked with none.
///
/// `count` hears what each of those who had a say decided. The answer waits for the longest, and carries the
/// standing of which least remains.
///
/// **Cost**: one lookup for each limiter, and one more for each if there are several.
pub fn admit_all(
    limiters: &[Arc<Limiter>],
    who: Who<'_>,
    now: Moment,
    mut count: impl FnMut(usize, Decision),
) -> Admission {
    let key = |limiter: &Limiter| limiter.rule.per.key(who.client, who.headers, who.principal);
    let [first, others @ ..] = limiters else { return Admission::Proceed(Permit::free(), None) };
    if others.is_empty() {
        let admission = first.admit(key(first), who.connection, now);
        count(0, admission.decision());
        return admission;
    }
    let asked: SmallVec<[(&Limiter, ClientKey); 4]> =
        limiters.iter().map(|limiter| (&**limiter, key(limiter))).collect();
    admit_keys(&asked, who.connection, now, count)
}

/// As [`admit_all`], for limiters whose keys are known already; the same limiter may be asked several times.
pub fn admit_keys(
    asked: &[(&Limiter, ClientKey)],
    connection: &ConnectionSeats,
    now: Moment,
    mut count: impl FnMut(usize, Decision),
) -> Admission {
    for (index, (limiter, key)) in asked.iter().enumerate() {
        if let Some(refusal) = limiter.refusal(*key, connection, now) {
            count(index, Decision::Refused(refusal.reason));
            return Admission::Refuse(Refusal { limiter: index, ..refusal });
        }
    }
    let mut together = Admission::Proceed(Permit::free(), None);
    for (index, (limiter, key)) in asked.iter().enumerate() {
        // Between the look above and this one another thread may have taken the place; then the earlier ones stay booked.
        let admission = limiter.admit(*key, connection, now);
        count(index, admission.decision());
        match (together, admission) {
            (_, Admission::Refuse(refusal)) => return Admission::Refuse(Refusal { limiter: index, ..refusal }),
            (so_far, admission) => together = so_far.join(admission),
        }
    }
    together
}

impl Admission {
    /// What was decided, without what is held.
    pub fn decision(&self) -> Decision {
        match self {
            Admission::Proceed(..) => Decision::Admitted,
            Admission::Wait(..) => Decision::Delayed,
            Admission::Refuse(refusal) => Decision::Refused(refusal.reason),
        }
    }

    fn join(self, other: Admission) -> Admission {
        let (wait, mut permit, standing) = match self {
            Admission::Proceed(permit, standing) => (Duration::ZERO, permit, standing),
            Admission::Wait(wait, permit, standing) => (wait, permit, standing),
            refusal @ Admission::Refuse(_) => return refusal,
        };
        let (other_wait, other_permit, other_standing) = match other {
            Admission::Proceed(permit, standing) => (Duration::ZERO, permit, standing),
            Admission::Wait(wait, permit, standing) => (wait, permit, standing),
            refusal @ Admission::Refuse(_) => return refusal,
        };
        permit.join(other_permit);
        let standing = [standing, other_standing].into_iter().flatten().min_by_key(Standing::remaining);
        match wait.max(other_wait) {
            Duration::ZERO => Admission::Proceed(permit, standing),
            wait => Admission::Wait(wait, permit, standing),
        }
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
