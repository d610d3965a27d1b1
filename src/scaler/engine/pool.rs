use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::build::{self, Built};
use super::ledger::Ledger;
use super::sampler::Sampler;
use super::shared::Shared;
use super::tally::Tally;
use super::turn::bounded;
use crate::admin::scaling::{AskError, Finding, PoolScaler, PoolSignals, Record};
use crate::config::model::{self, Config};
use crate::scale::{LeaderKind, Mode, Observed, Settings, State};
use crate::scaler::fleet::{Fleet, FleetSettings, Saved as FleetSaved};
use crate::scaler::{DriverError, Found, InstanceId, Life, ScaleRequest, Usage};
use crate::snapshot::{MemberReading, Pool, Replica};
use crate::types::Clock;

/// From one look at the requests in progress to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
pub(super) enum Why {
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
    pub(super) sampler: Sampler,
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
    /// Whether the saved state has been taken over: once, as soon as this proxy decides.
    pub(super) restored: bool,
    pub(super) paused_until: Option<f64>,
    pub(super) set: Option<(u32, f64)>,
    pub(super) retiring: Option<bool>,
    pub(super) wanted: Option<u32>,
    pub(super) last: Option<Record>,
    pub(super) last_change: Option<Record>,
    pub(super) recorded: f64,
    pub(super) decided: f64,
    pub(super) listed: f64,
    pub(super) used: f64,
    pub(super) usage: BTreeMap<InstanceId, Usage>,
    pub(super) found: Vec<Found>,
    /// What the driver last failed at.
    pub(super) trouble: BTreeMap<&'static str, DriverError>,
    pub(super) findings: Vec<Finding>,
    pub(super) sent: Option<(Vec<Replica>, Option<u32>)>,
    pub(super) started: Vec<f64>,
    pub(super) start_failures: u32,
    pub(super) start_blocked: bool,
    pub(super) seen: Observed,
    /// What this proxy had counted when it last looked.
    pub(super) own: Option<(f64, PoolSignals)>,
    pub(super) readings: Vec<MemberReading>,
    pub(super) pool: Option<Arc<Pool>>,
    /// Whether the pool is no longer in the configuration.
    pub(super) dissolved: bool,
    /// When no more than the most was last wanted.
    pub(super) below_max: f64,
    /// The codes of conditions that the log has been told of.
    pub(super) told: BTreeSet<String>,
    pub(super) decisions: u32,
    /// The number that was last told while it is only tried.
    pub(super) proposed: Option<u32>,
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
            proposed: None,
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

    /// Whether this proxy decides about this pool. Instances of this machine's own are nobody else's business, but for proxies that share
    /// their state; and nobody decides while another process still has that.
    pub(super) fn leads(&self) -> bool {
        if self.shared.no_store.borrow().is_some() {
            return false;
        }
        self.shared.role.borrow().standing.leads || !self.is_shared()
    }

    /// Takes over another configuration, where there is one; no window is reset.
    pub(super) fn adopt(&mut self) {
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
        if build::kind(pool) != self.built.kind {
            // Another scaler follows as soon as the instances of this one's kind have left.
            return;
        }
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

    /// Takes over what the last leader has written down, once.
    pub(super) fn restore(&mut self, now: f64) {
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

    /// Whether other proxies send requests to the same instances.
    pub(super) fn is_shared(&self) -> bool {
        !self.built.is_local || self.config.scaler.leader.kind == LeaderKind::File
    }

    pub(super) fn acts(&self) -> bool {
        matches!(self.settings.mode, Mode::On | Mode::UpOnly) || self.retiring.is_some()
    }

    pub(super) fn packs(&self) -> bool {
        self.settings.mode == Mode::On && self.scaler().is_some_and(|scaler| scaler.drain.pack)
    }

    pub(super) fn scaler(&self) -> Option<&model::Scaler> {
        self.config.pool.get(&*self.name)?.scaler.as_ref()
    }

    /// Writes down what must survive; at once before anything is started or stopped.
    pub(super) fn keep(&self, at_once: bool) {
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
