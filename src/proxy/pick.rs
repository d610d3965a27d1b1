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
    /// Whether it is an event stream's: no load, but not drained while it lasts.
    stream: bool,
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
        Some(Slot { view: view.clone(), pool, member, lane, taken: now, pass: Some(pass), stream: false })
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

    /// From now on it is an event stream's, which keeps its place but is no load.
    pub fn becomes_stream(&mut self) {
        if !std::mem::replace(&mut self.stream, true) {
            let upstream = &self.member().upstream;
            upstream.streams.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            upstream.load.leave();
            self.pool().kept.queue.freed(upstream.identity);
        }
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
        if self.stream {
            upstream.streams.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            return;
        }
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
    /// The upstream it belongs to, whatever the pool's stickiness says.
    pub affinity: Affinity,
    /// Upstreams that are of no use to it, by identity.
    pub shun: &'a [u64],
}

/// Whether a request belongs to one upstream, by identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Affinity {
    /// To none.
    #[default]
    Free,
    /// It is better off there, and may go elsewhere.
    Prefer(u64),
    /// It is of no use anywhere else.
    Only(u64),
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
    let admitted = |member| Slot::admitted(view, index, member, worker.lane, now);
    if let Affinity::Only(identity) = choice.affinity {
        let member = pool.by_identity.get(&identity).copied().filter(|member| !tried.contains(member));
        let member = member.ok_or(Miss::Unfit)?;
        return match enter(pool, member) {
            Ok(()) => admitted(member).ok_or(Miss::Unfit),
            Err(_) => Err(Miss::Full),
        };
    }
    let before = tried.len();
    tried.extend(choice.shun.iter().filter_map(|identity| pool.by_identity.get(identity).copied()));
    let picked = choose(worker, pool, choice, tried, now, admitted);
    if !choice.shun.is_empty() {
        // Who is shunned has not been tried.
        let passed: Tried = tried.drain(before..).collect();
        let shunned = |member: &u32| choice.shun.contains(&pool.members[*member as usize].upstream.identity);
        tried.extend(passed.into_iter().filter(|member| !shunned(member)));
    }
    picked
}

/// Enters a member that a request belongs to. One that is thought to be down is tried all the same: what is there is nowhere else, and the
/// attempt tells the truth.
fn enter(pool: &Pool, member: u32) -> Result<(), NoPick> {
    match pool.table.enter(member) {
        Err(NoPick::Empty) => {
            let member = &pool.members[member as usize];
            if member.upstream.load.enter_though_shut(member.max_connections) { Ok(()) } else { Err(NoPick::Full) }
        }
        entered => entered,
    }
}

fn choose(
    worker: &Worker,
    pool: &Pool,
    choice: &Choice<'_>,
    tried: &mut Tried,
    now: Moment,
    admitted: impl Fn(u32) -> Option<Slot>,
) -> Result<Slot, Miss> {
    let lane = pool.kept.stats.at(worker.lane);
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
    if let Affinity::Prefer(identity) | Affinity::Only(identity) = choice.affinity {
        return pool.by_identity.get(&identity).copied();
    }
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
