//! A place at an upstream: which one, and the slot that proves it.

use std::rc::Rc;

use http::HeaderMap;
use http::header;
use smallvec::SmallVec;

use super::worker::Worker;
use crate::balance::stable_hash;
use crate::balance::{Draw, HashKey, NoPick};
use crate::config::model::StickyKey;
use crate::health::{Outcome, Pass, Trip};
use crate::snapshot::{Class, Member, Pool, View};
use crate::telemetry::Lane;
use crate::types::Moment;

/// Proof of having been given a place at an upstream; the place is given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    view: Rc<View>,
    pool: usize,
    member: u32,
    lane: Lane,
    taken: Moment,
    /// The circuit's permission, until it is given back with how the request went.
    pass: Option<Pass>,
}

impl Slot {
    /// For a member whose load has been entered, with its circuit's permission; none where there is none to be had, and the load is left.
    fn admitted(view: &Rc<View>, pool: usize, member: u32, lane: Lane, now: Moment) -> Option<Self> {
        let upstream = &view.pools[pool].members[member as usize].upstream;
        let Some(pass) = upstream.outcomes.admit() else {
            // Nobody who waits is told: it would not be let in either.
            upstream.load.leave();
            return None;
        };
        upstream.stats.at(lane).in_flight.up();
        Some(Slot { view: view.clone(), pool, member, lane, taken: now, pass: Some(pass) })
    }

    /// Counts how long it was held, once, before it is given back.
    pub fn held_until(&self, now: Moment) {
        let held = now.since(self.taken);
        self.pool().kept.stats.at(self.lane).held.add(u64::try_from(held.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The pool it is in.
    pub fn pool(&self) -> &Pool {
        &self.view.pools[self.pool]
    }

    /// The member that it is at.
    pub fn member(&self) -> &Member {
        &self.pool().members[self.member as usize]
    }

    /// The member's place in the pool.
    pub fn index(&self) -> u32 {
        self.member
    }

    /// Since when it is held.
    pub fn taken(&self) -> Moment {
        self.taken
    }

    /// Says how the request went, once; a trip is for control's ears.
    pub fn went(&mut self, outcome: Outcome, now: Moment) -> Option<Trip> {
        let pass = self.pass.take()?;
        self.member().upstream.outcomes.record(pass, outcome, &self.pool().policy, now)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The client has left before the upstream answered: nobody can tell how it would have gone.
        let _ = self.went(Outcome::Unknown, Moment::START);
        let upstream = &self.member().upstream;
        upstream.stats.at(self.lane).in_flight.down();
        upstream.load.leave();
        self.pool().kept.queue.freed(upstream.identity);
    }
}

/// What of a request bears on the choice of its upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Path and query as they go upstream.
    pub target: &'a str,
    /// The client's address, hashed already.
    pub client: std::net::IpAddr,
    /// Whether it would rather wait for the upstream that it is stuck to than go to another.
    pub patient: bool,
}

/// Members tried already.
pub(super) type Tried = SmallVec<[u32; 4]>;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nobody is fit who has not been tried.
    Unfit,
    /// Everybody who is fit is full; or the one that the request is stuck to is.
    Full,
}

/// Gives a request its place.
///
/// A client that is stuck to an upstream gets it, also while it drains, unless it was tried already or cannot take anything. Then the
/// pool's balancer chooses. An upstream whose breaker is half open lets only its trial requests through; others are sent on.
///
/// **Errors**: [`Miss`].
pub(super) fn pick(
    worker: &Worker,
    view: &Rc<View>,
    pool: usize,
    choice: &Choice<'_>,
    tried: &mut Tried,
    now: Moment,
) -> Result<Slot, Miss> {
    let index = pool;
    let pool = &view.pools[index];
    let lane = pool.kept.stats.at(worker.lane);
    let admitted = |member| Slot::admitted(view, index, member, worker.lane, now);
    if let Some(member) = stuck(pool, choice, now) {
        let entered = if tried.contains(&member) { Err(NoPick::Empty) } else { pool.table.enter(member) };
        if entered.is_ok()
            && let Some(slot) = admitted(member)
        {
            lane.stuck.up();
            return Ok(slot);
        }
        if choice.patient && entered == Err(NoPick::Full) {
            return Err(Miss::Full);
        }
        lane.moved.up();
    }
    let hash = hash(pool, choice);
    loop {
        let draw = Draw { now, random: worker.random(), hash, tried };
        let member = pool.table.pick(&pool.kept.cursor, &draw).map_err(|none| match none {
            NoPick::Empty => Miss::Unfit,
            NoPick::Full => Miss::Full,
        })?;
        match admitted(member) {
            Some(slot) => return Ok(slot),
            // Its circuit is half open and its trial requests are out.
            None => tried.push(member),
        }
    }
}

/// What a request that has to wait can use, and whether the upstream that it is stuck to is open to everybody.
pub(super) fn class(pool: &Pool, choice: &Choice<'_>, now: Moment) -> (Class, bool) {
    if !choice.patient {
        return (Class::Again, true);
    }
    let stuck = stuck(pool, choice, now).and_then(|member| pool.table.member(member));
    stuck.map_or((Class::Any, true), |member| (Class::Only(member.identity), member.weight > 0.0))
}

/// The member that the request is stuck to.
fn stuck(pool: &Pool, choice: &Choice<'_>, now: Moment) -> Option<u32> {
    let sticky = pool.settings.sticky.as_ref()?;
    let identity = if let Some(name) = &sticky.cookie {
        u64::from_str_radix(cookie(choice.headers, name)?, 16).ok()?
    } else {
        let key = match sticky.learn.as_ref()? {
            StickyKey::Header(name) => choice.headers.get(name)?.as_bytes(),
            StickyKey::Cookie(name) => cookie(choice.headers, name)?.as_bytes(),
        };
        pool.kept.learned.find(key, sticky.idle_timeout, now)?
    };
    pool.by_identity.get(&identity).copied()
}

/// What the pool's consistent hash goes by.
fn hash(pool: &Pool, choice: &Choice<'_>) -> Option<u64> {
    if pool.settings.balance != crate::balance::Algorithm::Hash {
        return None;
    }
    let path = || choice.target.split('?').next().unwrap_or("");
    let value = match &pool.settings.hash_on {
        HashKey::Client => return Some(client_hash(choice.client)),
        HashKey::Uri => Some(choice.target),
        HashKey::Path => Some(path()),
        HashKey::Header(name) => choice.headers.get(name).and_then(|value| value.to_str().ok()),
        HashKey::Cookie(name) => cookie(choice.headers, name),
        HashKey::Query(name) => query(choice.target, name),
    };
    // A request without the key is hashed by its client: better spread than all of them at one upstream.
    Some(value.map_or_else(|| client_hash(choice.client), |value| stable_hash(value.as_bytes())))
}

fn client_hash(client: std::net::IpAddr) -> u64 {
    match client.to_canonical() {
        std::net::IpAddr::V4(address) => stable_hash(&address.octets()),
        std::net::IpAddr::V6(address) => stable_hash(&address.octets()),
    }
}

/// The value of a cookie in a request.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
}

/// The raw value of a query parameter.
fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}
