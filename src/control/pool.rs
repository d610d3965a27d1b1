//! One pool as control knows it: who is in it, how each of them stands, and the table that is made of that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::bridge::{Bridged, bridged};
use super::event::Event;
use super::probing::Probing;
use super::replicas::{Made, completed, is_done, unchecked};
use crate::admin::{Change as Wish, ChangeError};
use crate::balance;
use crate::config::model;
use crate::health::{BreakerPolicy, Change, Crowd, EjectPolicy, Policy, Standing, State, Thresholds, Trip, Use, fit};
use crate::mcp::limits::Limit;
use crate::snapshot::{Member, Pool, PoolKept, Replica, Upstream};
use crate::telemetry::{Outcome, Registry, UpstreamStats};
use crate::types::{Address, Moment};
use crate::upstream::{Place, Resolved, Settings, Target};

/// A pool and its members.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<model::Pool>,
    far: Settings,
    policy: Arc<Policy>,
    kept: Arc<PoolKept>,
    members: Vec<MemberState>,
    /// Where in `members` each is, by its address: ten thousand are checked thousands of times a second.
    places: HashMap<Arc<str>, usize>,
    /// What names stood for when they were last resolved, by address as configured.
    resolved: HashMap<Address, Vec<Resolved>>,
    /// What the pool's scaler has made; kept as long as the configuration has the pool.
    pub(super) replicas: Vec<Replica>,
    /// Limits of what its MCP servers are asked, with who has used how much of them.
    limits: Arc<[Limit]>,
    /// What a member takes at once, as learned.
    pub(super) learned_bound: Option<u32>,
    registry: Arc<Registry>,
    events: UnboundedSender<Event>,
    /// The bridge to its MCP servers, where they speak on standard input and output.
    bridge: Option<Bridged>,
    pub(super) dirty: bool,
}

#[derive(Debug)]
pub(super) struct MemberState {
    /// The address as configured; a name can stand for several members.
    configured: Address,
    pub(super) upstream: Arc<Upstream>,
    target: Arc<Target>,
    pub(super) standing: Standing,
    weight: u32,
    /// An operator's, until the configuration has another weight for it.
    override_weight: Option<u32>,
    max_connections: Option<u32>,
    backup: bool,
    /// No longer in the configuration or in DNS: it finishes what it has and goes.
    pub(super) leaving: bool,
    /// What its scaler makes of it; none where it is no replica.
    pub(super) replica: Option<Made>,
    probing: Option<Probing>,
    /// The part of its weight that was last published.
    factor: f64,
}

/// A member as the configuration, DNS and the scaler want it.
pub(super) struct Wanted {
    pub(super) configured: Address,
    pub(super) place: Place,
    pub(super) host: String,
    pub(super) weight: u32,
    pub(super) backup: bool,
    pub(super) max_connections: Option<u32>,
    pub(super) replica: Option<Replica>,
}

/// Something that people should hear of.
#[derive(Debug)]
pub(super) struct News {
    /// The pool.
    pub pool: Arc<str>,
    /// The upstream.
    pub upstream: Arc<str>,
    /// What happened to it.
    pub change: Change,
}

impl PoolState {
    /// A pool without members; [`PoolState::adopt`] brings them.
    pub(super) fn new(
        name: Arc<str>,
        settings: Arc<model::Pool>,
        far: Settings,
        registry: Arc<Registry>,
        events: UnboundedSender<Event>,
    ) -> Self {
        let mut bridge = None;
        let settings = completed(with_bridge(&mut bridge, &name, settings));
        let stats = if settings.scaler.is_some() { registry.scaled_pool(&name) } else { registry.pool(&name) };
        let kept = PoolKept::new(stats);
        PoolState {
            policy: Arc::new(policy(&settings)),
            name,
            settings,
            far,
            kept: Arc::new(kept),
            members: Vec::new(),
            places: HashMap::new(),
            resolved: HashMap::new(),
            replicas: Vec::new(),
            limits: Arc::new([]),
            learned_bound: None,
            registry,
            events,
            bridge,
            dirty: true,
        }
    }

    /// Its MCP servers end with the process.
    pub(super) fn end_bridge(&mut self) {
        if let Some(bridge) = self.bridge.take() {
            bridge.end();
        }
    }

    /// The names that have to be resolved.
    pub(super) fn names(&self) -> impl Iterator<Item = &Address> {
        let addresses = self.settings.upstreams.iter().map(|upstream| &upstream.address);
        addresses.filter(|address| matches!(address, Address::Host { .. } | Address::Srv(_)))
    }

    /// Takes over new settings. Members that stay keep their health, load and counters; those that are gone drain.
    pub(super) fn adopt(&mut self, settings: Arc<model::Pool>, far: Settings, now: Moment) -> Vec<News> {
        let settings = completed(with_bridge(&mut self.bridge, &self.name, settings));
        if settings.scaler.is_some() && *self.kept.stats.labels()[0] != *self.name {
            let pool = &self.name;
            tracing::warn!(%pool, "the scaler sees the load of other pools too: raise admin.max_series and restart");
        }
        let stats = |place| self.registry.pool_limit(&self.name, place);
        self.limits = Limit::adopt(&self.limits, &settings.limit, stats, now);
        self.policy = Arc::new(policy(&settings));
        self.settings = settings;
        self.far = far;
        let names: Vec<Address> = self.names().cloned().collect();
        self.resolved.retain(|address, _| names.contains(address));
        self.reconcile(now)
    }

    /// A name stands for these addresses now.
    pub(super) fn resolved(&mut self, address: Address, found: Vec<Resolved>, now: Moment) -> Vec<News> {
        if !self.names().any(|name| *name == address) {
            return Vec::new();
        }
        self.resolved.insert(address, found);
        self.reconcile(now)
    }

    /// Everybody leaves: the pool is no longer in the configuration.
    pub(super) fn dissolve(&mut self, now: Moment) -> Vec<News> {
        let mut settings = (*self.settings).clone();
        settings.upstreams.clear();
        // No route leads here any more, so no sticky client comes back.
        settings.sticky = None;
        self.replicas.clear();
        self.settings = Arc::new(settings);
        self.reconcile(now)
    }

    /// Whether nobody is left.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut places: HashSet<Place> = HashSet::new();
        for upstream in &self.settings.upstreams {
            let mut add = |place: Place, host: String, weight: u32, backup: bool| {
                // Two names can stand for one address; the first one configured has it.
                if places.insert(place.clone()) {
                    let max_connections = upstream.max_connections;
                    wanted.push(Wanted {
                        configured: upstream.address.clone(),
                        place,
                        host,
                        weight,
                        backup,
                        max_connections,
                        replica: None,
                    });
                }
            };
            match &upstream.address {
                Address::Ip(address) => {
                    add(Place::Tcp(*address), address.ip().to_string(), upstream.weight, upstream.backup)
                }
                Address::Unix(path) => {
                    add(Place::Unix(path.as_path().into()), "localhost".into(), upstream.weight, upstream.backup)
                }
                name @ (Address::Host { .. } | Address::Srv(_)) => {
                    for found in self.resolved.get(name).into_iter().flatten() {
                        let weight =
                            found.weight.map_or(upstream.weight, |weight| upstream.weight.saturating_mul(weight));
                        add(Place::Tcp(found.address), found.host.clone(), weight, upstream.backup || found.backup);
                    }
                }
            }
        }
        // An address that is configured too is the configuration's.
        let made = self.replicas.iter().filter_map(|replica| self.wanted_of(replica));
        wanted.extend(made.filter(|wanted| places.insert(wanted.place.clone())));
        wanted
    }

    /// Makes the members those that are wanted.
    pub(super) fn reconcile(&mut self, now: Moment) -> Vec<News> {
        let wanted = self.wanted();
        let mut news = Vec::new();
        let before = std::mem::take(&mut self.members);
        let mut before: BTreeMap<Arc<str>, MemberState> =
            before.into_iter().map(|member| (member.upstream.address.clone(), member)).collect();
        for wanted in wanted {
            let name = wanted.place.to_string();
            let target = match Target::new(&self.name, &name, wanted.place.clone(), &wanted.host, &self.far) {
                Ok(target) => target,
                Err(error) => {
                    tracing::error!(pool = %self.name, upstream = %name, %error, "this upstream cannot be used");
                    continue;
                }
            };
            let known = before.remove(&*name);
            let is_new = known.is_none();
            let checked_first = wanted.replica.is_some();
            let stats = known.as_ref().map_or_else(|| self.stats_of(&name), |member| member.upstream.stats.clone());
            let target = Arc::new(target.counted_by(stats.clone()));
            let mut member = known.unwrap_or_else(|| self.newcomer(&name, &target, stats, checked_first, now));
            if std::mem::take(&mut member.leaving) {
                member.upstream.set_cut(false);
                news.extend(news_of(&self.name, &member.upstream, member.standing.recall(now)));
            }
            if is_new {
                let change = Change {
                    from: State::Starting,
                    to: member.standing.state(),
                    reason: member.standing.reason().clone(),
                };
                news.extend(news_of(&self.name, &member.upstream, Some(change)));
            }
            member.configured = wanted.configured;
            if member.weight != wanted.weight {
                member.override_weight = None;
            }
            member.weight = wanted.weight;
            member.backup = wanted.backup;
            member.max_connections = wanted.max_connections;
            member.target = target;
            news.extend(self.heed(&mut member, wanted.replica.as_ref(), now));
            member.probing = Probing::keep_or_start(
                member.probing.take(),
                &self.settings,
                &member.upstream,
                &member.target,
                &self.events,
            );
            self.members.push(member);
        }
        for mut member in before.into_values() {
            if member.replica.is_some() && is_done(&member) {
                // Its scaler has removed it already, or it does not matter any more.
                continue;
            }
            if !member.leaving {
                member.leaving = true;
                member.probing = None;
                news.extend(news_of(
                    &self.name,
                    &member.upstream,
                    member.standing.drain(self.settings.drain_timeout, now),
                ));
            }
            self.members.push(member);
        }
        let crowd = self.crowd();
        for member in &mut self.members {
            news.extend(news_of(&self.name, &member.upstream, member.standing.adopt(&self.policy, crowd, now)));
        }
        self.index();
        news
    }

    /// Where an upstream of this name is counted.
    fn stats_of(&self, name: &str) -> Arc<UpstreamStats> {
        match &self.settings.scaler {
            Some(_) => self.registry.scaled_upstream(&self.name, name),
            None => self.registry.upstream(&self.name, name),
        }
    }

    fn newcomer(
        &self,
        name: &str,
        target: &Arc<Target>,
        stats: Arc<UpstreamStats>,
        checked_first: bool,
        now: Moment,
    ) -> MemberState {
        let standing = if checked_first { unchecked(&self.policy, now) } else { Standing::new(&self.policy, now) };
        let upstream = Upstream::new(self.name.clone(), name.into(), standing.outcomes().clone(), stats);
        MemberState {
            configured: Address::Unix(std::path::PathBuf::new()),
            upstream: Arc::new(upstream),
            target: target.clone(),
            standing,
            weight: 1,
            override_weight: None,
            max_connections: None,
            backup: false,
            leaving: false,
            replica: None,
            probing: None,
            factor: 1.0,
        }
    }

    /// Where this upstream is; nothing where it is no member any more, even if another has its address.
    fn place_of(&self, upstream: &Arc<Upstream>) -> Option<usize> {
        let place = *self.places.get(&upstream.address)?;
        self.members.get(place).is_some_and(|member| Arc::ptr_eq(&member.upstream, upstream)).then_some(place)
    }

    /// The members have become others.
    fn index(&mut self) {
        let addresses = self.members.iter().map(|member| member.upstream.address.clone());
        self.places = addresses.zip(0..).collect();
        self.dirty = true;
    }

    fn crowd(&self) -> Crowd {
        Crowd::of(self.members.iter().map(|member| &member.standing))
    }

    /// A health check of `upstream` has ended.
    pub(super) fn checked(&mut self, upstream: &Arc<Upstream>, result: Result<(), &str>, now: Moment) -> Option<News> {
        let place = self.place_of(upstream)?;
        let member = &mut self.members[place];
        let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Failed };
        upstream.stats.control.checks.up(outcome);
        if let Some(made) = &mut member.replica
            && !made.passed
        {
            // It comes up: that it does not answer yet is no news, and does not make it sick.
            made.passed = result.is_ok();
            if let Err(detail) = result {
                self.dirty |= made.heard.as_deref() != Some(detail);
                made.heard = Some(detail.to_owned());
                return None;
            }
        }
        let change = member.standing.checked(result, &self.policy, now)?;
        self.dirty = true;
        news_of(&self.name, upstream, Some(change))
    }

    /// Requests have shown something of `upstream`.
    pub(super) fn tripped(&mut self, upstream: &Arc<Upstream>, trip: Trip, now: Moment) -> Option<News> {
        let crowd = self.crowd();
        let place = self.place_of(upstream)?;
        let member = &mut self.members[place];
        let change = member.standing.tripped(trip, &self.policy, crowd, now)?;
        if matches!(trip, Trip::Failing(_)) && change.to == State::Down {
            upstream.stats.control.ejections.up();
        }
        self.dirty = true;
        news_of(&self.name, upstream, Some(change))
    }

    /// An operator wants something of an upstream, named as configured or as resolved.
    pub(super) fn operate(&mut self, name: &str, wish: Wish, now: Moment) -> Result<Vec<News>, ChangeError> {
        let unknown = || ChangeError::NoUpstream { pool: self.name.to_string(), upstream: name.to_owned() };
        let deadline = self.settings.drain_timeout;
        let meant: Vec<&mut MemberState> = self
            .members
            .iter_mut()
            .filter(|member| &*member.upstream.address == name || member.configured.to_string() == name)
            .collect();
        if meant.is_empty() {
            return Err(unknown());
        }
        if meant.iter().all(|member| member.leaving) {
            let gone = format!("upstream {name} is no longer in the configuration and only finishes what it has");
            return Err(ChangeError::Impossible(gone));
        }
        let mut news = Vec::new();
        for member in meant {
            if member.leaving {
                continue;
            }
            let change = match wish {
                Wish::Drain { deadline: given } => member.standing.drain(given.unwrap_or(deadline), now),
                Wish::Maintenance => member.standing.maintain(now),
                Wish::Ready => {
                    member.upstream.set_cut(false);
                    member.standing.recall(now)
                }
                Wish::Weight(weight) => {
                    member.override_weight = weight;
                    None
                }
            };
            news.extend(news_of(&self.name, &member.upstream, change));
        }
        self.dirty = true;
        Ok(news)
    }

    /// Time has passed: ejections and drains end, slow starts go on. The second answer says whether somebody's requests were cut.
    pub(super) fn tick(&mut self, now: Moment) -> (Vec<News>, bool) {
        let mut news = Vec::new();
        let mut cut = false;
        let crowd = self.crowd();
        for member in &mut self.members {
            let running = member.upstream.open();
            // A client that is stuck to it is between two requests, not gone: it may stay until the deadline.
            let stuck = || has_clients_stuck(&self.settings, &self.kept, &member.upstream, now);
            if running > 0 && member.overstays(now) && !stuck() {
                // Nobody is stuck to it any more: what runs has had its time.
                drop(member.standing.drain(Duration::ZERO, now));
            }
            let stays = running == 0 && member.may_be_come_back_to(now);
            let busy = if stays && stuck() { 1 } else { running };
            // Who has picked it by an older snapshot may be on the way in: it is empty once nobody can come any more.
            let draining = member.standing.state() == State::Draining;
            let busy = if draining && busy == 0 && !member.upstream.close_if_free() { 1 } else { busy };
            let change = member.standing.tick(&self.policy, crowd, busy, now);
            if change.as_ref().is_some_and(|change| change.to == State::Drained) {
                member.upstream.load.shut();
                // Counted once more: nobody has come in since.
                if member.upstream.open() > 0 {
                    member.upstream.set_cut(true);
                    cut = true;
                }
            }
            self.dirty |= change.is_some() || member.standing.factor(&self.policy, now) != member.factor;
            news.extend(news_of(&self.name, &member.upstream, change));
        }
        let before = self.members.len();
        self.members.retain(|member| !(member.leaving && member.standing.state() == State::Drained));
        if self.members.len() != before {
            self.index();
        }
        (news, cut)
    }

    /// What slow housekeeping there is: forget what is stuck for too long, write down what the metrics page shows.
    pub(super) fn keep_house(&self, now: Moment) {
        let (queue, control) = (&self.kept.queue, &self.kept.stats.control);
        control.queue.set(queue.len() as i64);
        control.oldest_wait.set(queue.oldest().map_or(0.0, |since| now.since(since).as_secs_f64()));
        if let Some(sticky) = &self.settings.sticky {
            self.kept.learned.sweep(sticky.idle_timeout, now);
        }
        if let Some(mcp) = self.kept.mcp.get() {
            mcp.sweep(now);
            control.mcp().moves.set(mcp.moves());
            let sessions = mcp.sessions.count();
            for upstream in self.members.iter().map(|member| &member.upstream) {
                let count = sessions.get(&upstream.identity).copied().unwrap_or(0);
                upstream.stats.control.set_mcp(count, upstream.streams.load(std::sync::atomic::Ordering::Relaxed));
            }
        }
        for limit in &*self.limits {
            limit.limiter.sweep(now);
            limit.stats.control.observe(&limit.limiter);
        }
        for member in &self.members {
            member.upstream.stats.control.ewma.set(member.upstream.load.ewma(now).as_secs_f64());
        }
    }

    /// The soonest that [`PoolState::tick`] has something to do.
    pub(super) fn due(&self, now: Moment) -> Moment {
        let draining = self.members.iter().any(|member| member.standing.state() == State::Draining);
        let due = self.members.iter().map(|member| member.standing.due(&self.policy, now)).min();
        let drain = if draining { now + Duration::from_millis(100) } else { Moment::NEVER };
        due.unwrap_or(Moment::NEVER).min(drain)
    }

    /// The pool's name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether there is something that no snapshot shows yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The pool's part of the next snapshot.
    pub(super) fn derive_now(&mut self, now: Moment) -> Arc<Pool> {
        self.dirty = false;
        Arc::new(self.derive(now))
    }

    /// The pool's part of the next snapshot, if there is anything new in it.
    pub(super) fn derive_if_changed(&mut self, now: Moment) -> Option<Arc<Pool>> {
        self.dirty.then(|| self.derive_now(now))
    }

    fn derive(&mut self, now: Moment) -> Pool {
        let fitness: Vec<_> = self.members.iter().map(|member| (member.standing.fitness(), member.backup)).collect();
        let lineup = fit(&fitness, self.settings.panic_threshold.0);
        let bound = self.bound();
        let mut counts = [0; State::ALL.len()];
        let mut balanced = Vec::new();
        let mut members = Vec::with_capacity(self.members.len());
        for (index, (member, used)) in self.members.iter_mut().zip(&lineup.uses).enumerate() {
            let id = index as u32;
            let weight = member.override_weight.unwrap_or(member.weight);
            if member.standing.state() != State::Drained {
                member.upstream.load.open();
            }
            member.factor = member.standing.factor(&self.policy, now);
            let effective = if *used == Use::Any { f64::from(weight) * member.factor } else { 0.0 };
            let control = &member.upstream.stats.control;
            control.set_state(member.standing.state());
            control.set_circuit(self.policy.breaker.as_ref().map(|_| member.upstream.outcomes.phase()));
            control.weight.set(effective);
            counts[member.standing.state() as usize] += 1;
            let max_connections = member.max_connections.or(bound);
            if *used != Use::No {
                balanced.push(balance::Member {
                    id,
                    load: member.upstream.load.clone(),
                    weight: effective,
                    max: max_connections,
                    backup: member.backup || member.is_cordoned(),
                    identity: member.upstream.identity,
                });
            }
            members.push(Member {
                upstream: member.upstream.clone(),
                target: member.target.clone(),
                configured: member.configured.to_string(),
                state: member.standing.state(),
                reason: member.reason(),
                since: member.standing.since(),
                weight,
                effective_weight: effective,
                deadline: member.standing.deadline(),
                max_connections,
                backup: member.backup,
                replica: member.replica.as_ref().map(|made| made.id.clone()),
                cordoned: member.is_cordoned(),
                leaving: member.leaving,
            });
        }
        self.kept.stats.control.set_upstreams(counts);
        let hash_bound = self.settings.hash_bound.map(|share| share.0);
        Pool {
            name: self.name.clone(),
            settings: self.settings.clone(),
            policy: self.policy.clone(),
            by_identity: members.iter().zip(0..).map(|(member, id)| (member.upstream.identity, id)).collect(),
            members,
            table: balance::Table::new(self.settings.balance, hash_bound, balanced),
            panicking: lineup.panicking,
            limits: self.limits.clone(),
            kept: self.kept.clone(),
        }
    }
}

fn with_bridge(bridge: &mut Option<Bridged>, pool: &str, settings: Arc<model::Pool>) -> Arc<model::Pool> {
    match (&settings.stdio, &bridge) {
        (None, None) => settings,
        _ => Arc::new(bridged(bridge, pool, (*settings).clone())),
    }
}

/// Whether clients may come back to an upstream that they are stuck to. Who holds a cookie of ours nobody knows.
fn has_clients_stuck(settings: &model::Pool, kept: &PoolKept, upstream: &Upstream, now: Moment) -> bool {
    // A session moves only when its upstream's time is over, or at once where it is portable.
    if settings.kind == model::PoolKind::Mcp {
        return !settings.drain.portable && kept.mcp().sessions.at(upstream.identity) > 0;
    }
    settings.sticky.as_ref().is_some_and(|sticky| {
        sticky.cookie.is_some() || kept.learned.leads_to(upstream.identity, sticky.idle_timeout, now)
    })
}

pub(super) fn news_of(pool: &Arc<str>, upstream: &Arc<Upstream>, change: Option<Change>) -> Option<News> {
    change.map(|change| News { pool: pool.clone(), upstream: upstream.address.clone(), change })
}

/// A pool's settings in the words of `health`.
fn policy(settings: &model::Pool) -> Policy {
    let checks = settings.health.as_ref().map(|health| Thresholds {
        rise: health.rise,
        fall: health.fall,
        initially_up: health.initial == model::Initial::Up,
    });
    let eject = &settings.eject;
    Policy {
        checks,
        eject: EjectPolicy {
            failures: eject.failures,
            time: eject.time,
            max_time: eject.max_time,
            max_share: eject.max_share.0,
        },
        breaker: settings.breaker.as_ref().map(|breaker| BreakerPolicy {
            error_rate: breaker.error_rate.0,
            min_requests: breaker.min_requests,
            window: breaker.window,
            failures: breaker.failures,
            open: breaker.open,
            probes: breaker.probes,
        }),
        slow_start: settings.slow_start,
    }
}
