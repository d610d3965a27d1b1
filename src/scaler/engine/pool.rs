use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::build::{self, Built};
use super::ledger::Ledger;
use super::sampler::Sampler;
use super::shared::Shared;
use super::tally::Tally;
use super::view;
use crate::admin::scaling::{AskError, Finding, PoolScaler, PoolSignals, Record};
use crate::config::model::{self, Config, MaxConcurrency};
use crate::scale::{Decision, LeaderKind, Mode, Observed, Phase, Settings, State, decide};
use crate::scaler::fleet::{Action, Fleet, FleetSettings, Input, Plan, Saved as FleetSaved};
use crate::scaler::{DriverError, ErrorKind, Found, InstanceId, Life, ScaleRequest, Usage};
use crate::snapshot::{Intent, MemberReading, Pool, Replica};
use crate::types::Clock;

/// From one decision to the next.
const DECIDE_EVERY: f64 = 1.0;
/// From one look at the requests in progress to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// From one look at the driver's list to the next while something is on its way.
const BUSY_LIST: f64 = 0.2;
/// A driver that does not answer within this has not answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// From one look at what instances use to the next.
const USAGE_EVERY: f64 = 5.0;

/// What an operator wants of a pool's scaler.
#[derive(Debug)]
pub(super) enum Wish {
    /// The number stays as it is until then.
    Pause(Duration),
    /// A pause ends.
    Resume,
    /// So many until then; none ends it.
    Set(Option<(u32, Duration)>),
    /// All instances are replaced.
    Recycle,
}

/// What makes a pool's scaler look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Time has passed.
    Time,
    /// The driver has something new.
    Stirred,
    /// Requests wait for an instance, or an operator has asked for something: there is to be a decision at once.
    Wanted,
}

/// What a pool's scaler hears.
pub(super) enum Mail {
    Wish(Wish, oneshot::Sender<Result<PoolScaler, AskError>>),
    /// The scaler is no longer in the configuration: its instances leave (or stay), then it ends.
    Retire,
    /// It is there again.
    Stay,
    /// The process ends: what is known is written down, and instances are stopped if that is wanted.
    End(oneshot::Sender<()>),
}

/// What of a pool's scaler survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    at: f64,
    pub(super) state: State,
    pub(super) fleet: FleetSaved,
    pub(super) paused_until: Option<f64>,
    pub(super) set: Option<(u32, f64)>,
    pub(super) tally: Tally,
}

/// The same on its way out.
#[derive(Serialize)]
struct Kept<'a> {
    at: f64,
    pub(super) state: &'a State,
    pub(super) fleet: FleetSaved,
    pub(super) paused_until: Option<f64>,
    pub(super) set: Option<(u32, f64)>,
    pub(super) tally: &'a Tally,
}

/// The scaler of one pool, at work.
pub(super) struct PoolEngine {
    pub(super) name: Arc<str>,
    pub(super) shared: Rc<Shared>,
    pub(super) config: Arc<Config>,
    pub(super) settings: Settings,
    pub(super) built: Built,
    pub(super) fleet: Fleet,
    pub(super) state: State,
    sampler: Sampler,
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
    /// Whether the saved state has been taken over: once, as soon as this proxy decides.
    pub(super) restored: bool,
    pub(super) paused_until: Option<f64>,
    pub(super) set: Option<(u32, f64)>,
    retiring: Option<bool>,
    pub(super) wanted: Option<u32>,
    pub(super) last: Option<Record>,
    pub(super) last_change: Option<Record>,
    pub(super) recorded: f64,
    decided: f64,
    listed: f64,
    used: f64,
    usage: BTreeMap<InstanceId, Usage>,
    found: Vec<Found>,
    /// What the driver last failed at.
    pub(super) trouble: BTreeMap<&'static str, DriverError>,
    pub(super) findings: Vec<Finding>,
    sent: Option<(Vec<Replica>, Option<u32>)>,
    started: Vec<f64>,
    start_failures: u32,
    start_blocked: bool,
    pub(super) seen: Observed,
    /// What this proxy had counted when it last looked.
    own: Option<(f64, PoolSignals)>,
    readings: Vec<MemberReading>,
    pub(super) pool: Option<Arc<Pool>>,
    /// Whether the pool is no longer in the configuration.
    dissolved: bool,
    /// When no more than the most was last wanted.
    pub(super) below_max: f64,
    /// The codes of conditions that the log has been told of.
    pub(super) told: BTreeSet<String>,
    pub(super) decisions: u32,
}

impl PoolEngine {
    /// For a pool whose configuration has a scaler.
    pub(super) fn new(name: Arc<str>, config: Arc<Config>, shared: Rc<Shared>) -> Option<Self> {
        let pool = config.pool.get(&*name)?;
        let fleet = Fleet::new(&name, FleetSettings::of(pool)?);
        let settings = crate::config::settings(pool)?;
        let built = build::driver(&name, pool, &shared);
        Some(PoolEngine {
            name,
            shared,
            settings,
            built,
            fleet,
            state: State::default(),
            sampler: Sampler::default(),
            ledger: Ledger::default(),
            tally: Tally::default(),
            restored: false,
            paused_until: None,
            set: None,
            retiring: None,
            wanted: None,
            last: None,
            last_change: None,
            recorded: 0.0,
            decided: 0.0,
            listed: 0.0,
            used: 0.0,
            usage: BTreeMap::new(),
            found: Vec::new(),
            trouble: BTreeMap::new(),
            findings: Vec::new(),
            sent: None,
            started: Vec::new(),
            start_failures: 0,
            start_blocked: false,
            seen: Observed::default(),
            own: None,
            readings: Vec::new(),
            pool: None,
            dissolved: false,
            below_max: 0.0,
            told: BTreeSet::new(),
            decisions: 0,
            config,
        })
    }

    /// Works until it is told to end, or until nobody is left of a scaler that has been taken out.
    pub(super) async fn run(mut self, mut mail: UnboundedReceiver<Mail>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let driver = self.built.driver.clone();
            let stirred = async {
                match &driver {
                    Some(driver) => driver.changed().await,
                    None => std::future::pending().await,
                }
            };
            let kept = self.pool.as_ref().map(|pool| pool.kept.clone());
            let wanted = async {
                match &kept {
                    Some(kept) => kept.wanted().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                letter = mail.recv() => match letter {
                    Some(Mail::Wish(wish, reply)) => {
                        let answer = self.wish(wish);
                        self.turn(Why::Wanted).await;
                        // Whoever asked may have gone.
                        let _ = reply.send(answer.map(|()| self.status()));
                    }
                    Some(Mail::Retire) => self.retiring = Some(self.scaler().is_none_or(|scaler| scaler.stop_on_remove)),
                    Some(Mail::Stay) => self.retiring = None,
                    Some(Mail::End(done)) => {
                        self.end().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                () = wanted => self.turn(Why::Wanted).await,
                () = stirred => {
                    self.turn(Why::Stirred).await;
                    // A driver that stirs without end is not to have the thread for itself.
                    looks.tick().await;
                }
                _ = looks.tick() => {
                    if let Some(pool) = &self.pool {
                        self.sampler.look(pool, Clock::now());
                    }
                    self.turn(Why::Time).await;
                }
            }
            if self.has_left() {
                self.forget();
                return;
            }
        }
    }

    /// Whether a scaler that was taken out has nothing left to do.
    fn has_left(&self) -> bool {
        match self.retiring {
            Some(true) => self.fleet.is_empty() && self.listed > 0.0 && self.found.is_empty(),
            Some(false) => true,
            None => false,
        }
    }

    /// What is due: the driver's list, a decision, the fleet's step, and what follows from them.
    async fn turn(&mut self, why: Why) {
        let now = self.shared.now();
        self.adopt();
        let decides = why == Why::Wanted || now - self.decided >= DECIDE_EVERY;
        let stirs = why == Why::Stirred || (now - self.listed >= BUSY_LIST && self.is_busy(now));
        if !decides && !stirs {
            return;
        }
        let answered = self.list(now).await;
        if !self.leads() {
            self.follow(decides);
            return self.publish(now, decides);
        }
        self.restore(now);
        if decides {
            self.look_at_usage(now).await;
            self.decide(now, answered);
        }
        let plan = self.step(answered, now);
        self.keep(!plan.actions.is_empty());
        self.carry_out(&plan.actions, now).await;
        self.pass_on(plan);
        self.publish(now, decides);
    }

    /// Whether something is on its way that is worth looking at more often.
    fn is_busy(&self, now: f64) -> bool {
        let coming = self.fleet.instances(now).iter().any(|instance| instance.phase == Phase::Starting);
        coming || self.found.iter().any(|found| matches!(found.life, Life::Pending | Life::Stopping))
    }

    /// Whether this proxy decides about this pool. Instances of this machine's own are nobody else's business, but for proxies that share
    /// their state; and nobody decides while another process still has that.
    pub(super) fn leads(&self) -> bool {
        if self.shared.no_store.borrow().is_some() {
            return false;
        }
        self.shared.role.borrow().standing.leads || !self.is_shared()
    }

    /// Takes over another configuration, where there is one; no window is reset.
    fn adopt(&mut self) {
        let snapshot = self.shared.host.snapshot();
        match snapshot.pools.iter().find(|pool| pool.name == self.name) {
            Some(pool) => (self.pool, self.dissolved) = (Some(pool.clone()), false),
            // What still runs there is seen by the members it had.
            None => self.dissolved = true,
        }
        if Arc::ptr_eq(&snapshot.config, &self.config) || self.retiring.is_some() {
            return;
        }
        let Some(pool) = snapshot.config.pool.get(&*self.name).filter(|pool| pool.scaler.is_some()) else { return };
        let before = self.config.pool.get(&*self.name);
        if before.map(|pool| &pool.scaler) != Some(&pool.scaler) {
            tracing::info!(pool = %self.name, "the scaler has another configuration");
            if before.map(build::part) != Some(build::part(pool)) {
                self.built.become_that_of(&self.name, pool, &self.shared);
                self.trouble.clear();
                self.listed = 0.0;
            } else if before.map(build::signals) != Some(build::signals(pool)) {
                self.built.external = build::external(pool, &self.shared);
            }
        }
        if let (Some(fleet), Some(settings)) = (FleetSettings::of(pool), crate::config::settings(pool)) {
            self.fleet.adopt(fleet);
            self.settings = settings;
        }
        self.config = snapshot.config.clone();
        // Whatever control has made of the pool, it is told again.
        self.sent = None;
    }

    /// Asks the driver what there is; whether it has answered.
    async fn list(&mut self, now: f64) -> bool {
        let Some(driver) = self.built.driver.clone() else {
            if let Some(error) = &self.built.problem {
                self.trouble.insert("build", error.clone());
            }
            return false;
        };
        self.listed = now;
        if let Some(pool) = &self.pool {
            let members = pool.members.iter().filter(|member| member.replica.is_none());
            driver.discovered(members.filter_map(|member| member.upstream.address.parse().ok()).collect());
        }
        match bounded("list", driver.list()).await {
            Ok(found) => {
                self.found = found;
                self.trouble.remove("list");
                true
            }
            Err(error) => {
                self.fail("list", error);
                false
            }
        }
    }

    fn fail(&mut self, op: &'static str, error: DriverError) {
        self.tally.driver_errors.entry(op.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        if self.trouble.get(op) != Some(&error) {
            tracing::warn!(pool = %self.name, driver = self.built.kind, "{op}: {error}");
        }
        self.trouble.insert(op, error);
    }

    async fn look_at_usage(&mut self, now: f64) {
        if now - self.used < USAGE_EVERY {
            return;
        }
        self.used = now;
        let Some(driver) = self.built.driver.clone() else { return };
        match bounded("usage", driver.usage()).await {
            Ok(usage) => {
                self.usage = usage.into_iter().collect();
                self.trouble.remove("usage");
            }
            Err(error) => {
                self.usage.clear();
                self.fail("usage", error);
            }
        }
    }

    /// Takes over what the last leader has written down, once.
    fn restore(&mut self, now: f64) {
        if std::mem::replace(&mut self.restored, true) {
            return;
        }
        let Some(settings) = self.config.pool.get(&*self.name).and_then(FleetSettings::of) else { return };
        let saved = self.shared.store.borrow().as_ref().and_then(|store| store.load_pool(&self.name));
        let saved: Saved = match saved.map(serde_json::from_value).transpose() {
            Ok(saved) => saved.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(pool = %self.name, %error, "the scaler's saved state is of another version: it learns anew; instances are found again");
                Saved::default()
            }
        };
        // A clock that was set back since: what was learned belongs to times that are still to come.
        self.state = if saved.at > now + 60.0 { State::default() } else { saved.state };
        self.fleet = Fleet::restore(&self.name, saved.fleet, settings);
        self.tally = saved.tally;
        (self.paused_until, self.set) = (saved.paused_until, saved.set);
        let last = self
            .shared
            .store
            .borrow()
            .as_ref()
            .and_then(|store| store.history(&self.name, None, None, 1, false).records.pop());
        if let (Some(driver), Some(record)) = (&self.built.driver, last) {
            driver.resume(ScaleRequest {
                desired: record.decision.desired,
                current: record.decision.current,
                decision: record.id.clone(),
                generation: self.shared.role.borrow().standing.generation,
                reason: record.decision.reason.clone(),
                victims: Vec::new(),
            });
            self.last_change = Some(record);
        }
    }

    /// What is observed, decided and written down.
    fn decide(&mut self, now: f64, answered: bool) {
        self.decided = now;
        self.observe(now, answered);
        let decision = decide(&self.seen, &mut self.state, &self.settings, now);
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.set = self.set.filter(|(_, until)| *until > now);
        self.wanted = self.wish_of(&decision);
        if decision.wanted <= self.settings.max {
            self.below_max = now;
        }
        self.tally.decided(&decision, self.wanted);
        self.write_down(decision, now);
        self.sample(now);
        self.started.clear();
        self.start_failures = 0;
    }

    fn observe(&mut self, now: f64, answered: bool) {
        let Some(pool) = self.pool.clone() else { return };
        let mut seen = self.look(&pool, now);
        seen.complete &= answered && !self.trouble.contains_key("list");
        seen.external = self.built.external.values();
        (seen.cpu, seen.memory) = view::usage_shares(&self.usage);
        seen.instances = self.fleet.instances(now);
        seen.started = self.started.clone();
        (seen.start_failures, seen.start_blocked) = (self.start_failures, self.start_blocked);
        self.seen = seen;
    }

    /// What this proxy, and where it matters the others, have seen of the pool since the last look.
    fn look(&mut self, pool: &Pool, now: f64) -> Observed {
        let readings = pool.readings(Clock::now());
        let own = self.sampler.signals(&readings);
        self.readings = readings.by_member;
        let mut seen = match &self.own {
            Some((at, before)) => view::between(before, &own, now - at),
            // Whatever was counted before we looked says nothing about a second.
            None => Observed {
                in_flight: own.in_flight,
                queue: own.queue as f64,
                oldest_wait: own.oldest_wait,
                ..Observed::default()
            },
        };
        let leaving =
            self.sent.iter().flat_map(|(replicas, _)| replicas).filter(|replica| replica.intent != Intent::Serve);
        let leaving = leaving.map(|replica| replica.address.to_string()).collect();
        let told = PoolSignals { leaving: if self.leads() { leaving } else { Vec::new() }, ..own.clone() };
        self.shared.own.borrow_mut().insert(self.name.to_string(), told);
        self.own = Some((now, own));
        if self.is_shared() {
            let (heard, complete) = self.shared.take_heard(&self.name);
            view::add(&mut seen, heard.unwrap_or_default());
            seen.complete &= complete;
        }
        seen
    }

    /// Whether other proxies send requests to the same instances.
    fn is_shared(&self) -> bool {
        !self.built.is_local || self.config.scaler.leader.kind == LeaderKind::File
    }

    /// How many there are to be, after what operators have said; none where the number is to be left alone.
    fn wish_of(&self, decision: &Decision) -> Option<u32> {
        match (self.retiring, self.set, self.paused_until) {
            (Some(_), _, _) => Some(0),
            (None, Some((to, _)), _) => Some(to),
            (None, None, Some(_)) => None,
            (None, None, None) => decision.apply.then_some(decision.desired),
        }
    }

    pub(super) fn acts(&self) -> bool {
        matches!(self.settings.mode, Mode::On | Mode::UpOnly) || self.retiring.is_some()
    }

    fn step(&mut self, answered: bool, now: f64) -> Plan {
        let seen = view::members(self.pool.as_deref(), self.dissolved, &self.readings, &self.shared, &self.name);
        let scarce = self.built.is_local && self.shared.short_of_memory(&self.config).is_some();
        let last = self.last.as_ref();
        let cordon = last.filter(|_| self.set.is_none() && self.paused_until.is_none() && self.packs());
        let input = Input {
            found: answered.then_some(&self.found),
            seen: &seen,
            usage: &self.usage,
            wanted: self.wanted,
            cordon: cordon.map_or(0, |record| record.decision.cordon),
            decision: last.map_or("", |record| &record.id),
            generation: self.shared.role.borrow().standing.generation,
            reason: last.map_or("", |record| &record.decision.reason),
            may_start: if self.acts() && !scarce { self.shared.room(&self.config) } else { 0 },
            may_stop: self.acts(),
            random: fastrand::u64(..),
        };
        let plan = self.fleet.step(&input, now);
        self.shared.sizes.borrow_mut().insert(self.name.to_string(), self.fleet.instances(now).len() as u32);
        plan
    }

    fn packs(&self) -> bool {
        self.settings.mode == Mode::On && self.scaler().is_some_and(|scaler| scaler.drain.pack)
    }

    fn scaler(&self) -> Option<&model::Scaler> {
        self.config.pool.get(&*self.name)?.scaler.as_ref()
    }

    /// Has the driver do it, all at once: they do not depend on one another.
    async fn carry_out(&mut self, actions: &[Action], now: f64) {
        let Some(driver) = self.built.driver.clone() else { return };
        let calls = actions.iter().map(|action| async {
            match action {
                Action::Start(order) => ("start", bounded("start", driver.start(order)).await),
                Action::Stop { id, grace } => ("stop", bounded("stop", driver.stop(id, *grace)).await),
                Action::Scale(request) => ("scale", bounded("scale", driver.scale(request)).await),
                Action::Mark(ids) => ("mark", bounded("mark", driver.mark(ids)).await),
            }
        });
        let results = join_all(calls).await;
        for (action, (op, result)) in actions.iter().zip(results) {
            self.fleet.acted(action, &result, now);
            match result {
                Ok(()) => drop(self.trouble.remove(op)),
                Err(error) => self.fail(op, error),
            }
        }
    }

    /// Tells control, the log and the tally.
    fn pass_on(&mut self, plan: Plan) {
        let now = self.shared.now();
        for news in &plan.news {
            let (pool, instance) = (&self.name, &news.id);
            if news.bad {
                tracing::warn!(%pool, %instance, "{} → {}: {}", news.from, news.to, news.why);
            } else {
                tracing::info!(%pool, %instance, "{} → {}: {}", news.from, news.to, news.why);
            }
            self.tally.heard(news, now);
            if news.from == "draining" && matches!(news.to, "stopping" | "gone") {
                let left = self.readings.iter().find(|reading| reading.replica.as_deref() == Some(&news.id));
                self.tally.sessions_cut += left.map_or(0, |reading| reading.sessions as u64);
            }
        }
        self.tally.started(&plan.started, plan.start_failures);
        self.started.extend(&plan.started);
        self.start_failures += plan.start_failures;
        self.start_blocked = plan.start_blocked;
        self.findings = plan.findings;
        self.send(plan.replicas);
    }

    /// Tells control who is there, if that is something new.
    fn send(&mut self, replicas: Vec<Replica>) {
        let learns =
            self.config.pool.get(&*self.name).is_some_and(|pool| pool.max_concurrency == Some(MaxConcurrency::Learn));
        let capacity =
            self.last.as_ref().map(|record| record.decision.terms.capacity).filter(|capacity| *capacity >= 1.0);
        let learned = capacity.filter(|_| learns).map(|capacity| capacity.ceil() as u32);
        let set = (replicas, learned);
        if self.sent.as_ref() != Some(&set) {
            self.shared.host.replicas(&self.name, set.0.clone(), set.1);
            self.sent = Some(set);
        }
    }

    /// Another proxy decides: what the driver lists is used as it is.
    fn follow(&mut self, looks: bool) {
        let now = self.shared.now();
        if looks && let Some(pool) = self.pool.clone() {
            self.seen = self.look(&pool, now);
            self.decided = now;
        }
        self.restored = false;
        let draining = self.shared.leaving(&self.name);
        let drain = self.scaler().map(|scaler| (scaler.drain.requests, scaler.drain.sessions));
        let drain = drain.unwrap_or_default();
        self.send(view::followed(&self.found, &draining, drain));
    }

    /// Writes down what must survive; at once before anything is started or stopped.
    fn keep(&self, at_once: bool) {
        let Some(store) = &*self.shared.store.borrow() else { return };
        let saved = Kept {
            at: self.shared.now(),
            state: &self.state,
            fleet: self.fleet.save(),
            paused_until: self.paused_until,
            set: self.set,
            tally: &self.tally,
        };
        if at_once {
            store.save_pool(&self.name, &saved);
        } else {
            store.keep_pool(&self.name, &saved);
        }
    }
}

impl PoolEngine {
    /// The process ends. Instances go on and are found again, unless the configuration says otherwise.
    async fn end(&mut self) {
        if !self.leads() || !self.restored {
            return;
        }
        self.keep(true);
        let Some(driver) = self.built.driver.clone() else { return };
        let stops = self.scaler().is_some_and(|scaler| scaler.stop_on_exit);
        let grace = self
            .config
            .pool
            .get(&*self.name)
            .and_then(FleetSettings::of)
            .map_or(Duration::ZERO, |settings| settings.grace);
        if !stops || driver.by_count() {
            return;
        }
        let until = self.shared.now() + grace.as_secs_f64() + 5.0;
        while self.shared.now() < until {
            let Ok(found) = bounded("list", driver.list()).await else { return };
            let alive: Vec<&Found> = found.iter().filter(|found| !matches!(found.life, Life::Ended { .. })).collect();
            if alive.is_empty() {
                return;
            }
            for instance in alive.iter().filter(|found| found.life != Life::Stopping) {
                if let Err(error) = bounded("stop", driver.stop(&instance.id, grace)).await {
                    tracing::warn!(pool = %self.name, instance = %instance.id, "cannot stop it: {error}");
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tracing::warn!(pool = %self.name, "some instances have not stopped in time and go on");
    }
}

/// Waits for the driver, but not for ever.
async fn bounded<T>(op: &str, call: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => result,
        Err(_) => Err(DriverError {
            what: format!("no answer to `{op}` within {} s", PATIENCE.as_secs()),
            advice: "see whether what makes the instances is up and not overloaded".to_owned(),
            kind: ErrorKind::Unreachable,
        }),
    }
}
