use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::build;
use super::clock::Wall;
use super::pool::{Mail, PoolEngine, Wish};
use super::shared::{Role, Shared};
use super::{Call, Parts};
use crate::admin::scaling::{Answer, Ask, AskError, Finding, Record, ScalerStatus};
use crate::config::model::{Config, Leader};
use crate::scale::LeaderKind;
use crate::scaler::{
    Election, ElectionError, Heard, HttpClient, Notifier, Peers, Standing, Store, StoreError, identity,
};
use crate::telemetry::{PoolFigures, Series};

/// From one look at the configuration to the next.
const LOOK: Duration = Duration::from_millis(200);
/// From one try to open the state's folder to the next.
const RETRY: f64 = 1.0;
/// How long the end waits for the leadership to be given up.
const FAREWELL: Duration = Duration::from_secs(2);
/// Records that are given at once, where nobody says how many.
const RECORDS: usize = 1000;

/// Starts and ends the pools' scalers, and answers for all of them.
pub(super) struct Supervisor {
    shared: Rc<Shared>,
    base: PathBuf,
    pools: BTreeMap<String, Running>,
    config: Option<Arc<Config>>,
    election: Option<(Leader, JoinHandle<()>)>,
    /// Has the election's leadership given up.
    resign: Rc<Notify>,
    peers: Option<Peers>,
    /// Pools whose scaler has panicked, until it is started anew.
    broken: BTreeMap<String, f64>,
    housekeeping: f64,
}

struct Running {
    mail: UnboundedSender<Mail>,
    task: JoinHandle<()>,
    kind: &'static str,
    retiring: bool,
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Self {
        let shared = Shared {
            host: parts.host,
            registry: parts.registry,
            wall: RefCell::new(Wall::new()),
            proxy: identity(),
            folder: RefCell::default(),
            store: RefCell::default(),
            no_store: RefCell::default(),
            role: RefCell::new(Role::unknown(false)),
            sizes: RefCell::default(),
            statuses: RefCell::default(),
            own: RefCell::default(),
            heard: RefCell::new(Heard { complete: true, ..Heard::default() }),
            http: HttpClient::default(),
            watch: RefCell::default(),
            notifier: RefCell::default(),
            free_memory: Cell::default(),
            drift: Cell::default(),
        };
        Supervisor {
            shared: Rc::new(shared),
            base: parts.folder,
            pools: BTreeMap::new(),
            config: None,
            election: None,
            resign: Rc::default(),
            peers: None,
            broken: BTreeMap::new(),
            housekeeping: 0.0,
        }
    }

    /// Works until it is told to end.
    pub(super) async fn run(mut self, mut calls: UnboundedReceiver<Call>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                call = calls.recv() => match call {
                    Some(Call::Ask(ask, reply)) => self.answer(ask, reply),
                    Some(Call::End) | None => break,
                },
                _ = looks.tick() => self.look(),
            }
        }
        self.end().await;
    }

    /// Follows the configuration in force, and keeps house.
    fn look(&mut self) {
        let config = self.shared.host.snapshot().config.clone();
        let before = self.config.replace(config.clone());
        let is_new = before.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &config));
        if is_new {
            self.settle_in(&config, before.as_deref());
        }
        let now = self.shared.now();
        if is_new || now >= self.housekeeping {
            self.housekeeping = now + RETRY;
            self.keep_house(&config);
        }
        self.follow(&config);
    }

    /// What of the whole configuration is not one pool's.
    fn settle_in(&mut self, config: &Config, before: Option<&Config>) {
        let peers = |config: &Config| {
            (config.scaler.peers.clone(), config.scaler.peer_token.clone(), config.admin.token.clone())
        };
        if before.map(peers) != Some(peers(config)) {
            let token = config.scaler.peer_token.as_ref().or(config.admin.token.as_ref());
            let urls = &config.scaler.peers;
            self.peers = (!urls.is_empty()).then(|| Peers::new(urls, &self.shared.proxy, token, &self.shared.http));
            *self.shared.heard.borrow_mut() = Heard { complete: urls.is_empty(), ..Heard::default() };
        }
        let folder = config.scaler.state_folder(&self.base);
        if *self.shared.folder.borrow() != folder {
            if self.shared.store.take().is_some() {
                tracing::info!("the scalers' state is kept in {} from now on", folder.display());
            }
            *self.shared.folder.borrow_mut() = folder;
        }
        let notify = &config.scaler.notify;
        if before.map(|before| &before.scaler.notify) != Some(notify) {
            self.shared.watch.borrow_mut().configure(notify);
            *self.shared.notifier.borrow_mut() = Notifier::new(notify, &self.shared.http);
        }
        let leader = &config.scaler.leader;
        if self.election.as_ref().is_some_and(|(known, _)| known == leader) {
            return;
        }
        if let Some((_, task)) = self.election.take() {
            task.abort();
        }
        *self.shared.role.borrow_mut() = Role::unknown(leader.kind == LeaderKind::None);
        let election = build::election(leader, &self.shared.proxy);
        let shared = self.shared.clone();
        let heed = move |outcome| shared.heed(outcome);
        let task = tokio::task::spawn_local(campaign(election, leader.lease, heed, self.resign.clone()));
        self.election = Some((leader.clone(), task));
    }

    fn keep_house(&mut self, config: &Config) {
        self.shared.drift.set(self.shared.wall.borrow_mut().follow());
        let floor = config.scaler.host_memory_floor.0;
        self.shared.free_memory.set((floor > 0).then(free_memory).flatten());
        let leads = self.shared.role.borrow().standing.leads;
        let shares_folder = config.scaler.leader.kind == LeaderKind::File;
        if shares_folder && !leads {
            drop(self.shared.store.take());
        } else if self.shared.store.borrow().is_none() && has_scaler(config) {
            self.open_store(config);
        }
        if let Some(peers) = &self.peers {
            self.shared.hear(peers.take());
        }
        self.shared.conditions(&self.findings());
        let mut figures = PoolFigures::default();
        figures.add(Series::ScalerLeader, &[], f64::from(u8::from(leads)));
        self.shared.registry.scalers.publish("", figures);
    }

    fn open_store(&self, config: &Config) {
        let folder = self.shared.folder.borrow().clone();
        match Store::open(&folder, config.scaler.retention) {
            Ok(store) => {
                *self.shared.store.borrow_mut() = Some(store);
                *self.shared.no_store.borrow_mut() = None;
            }
            Err(error) => {
                let advice = match &error {
                    StoreError::InUse { .. } => "this proxy only looks on until the other one has ended",
                    StoreError::Thread(_) => "it is tried again",
                };
                let told = Finding {
                    code: "STATE_IN_USE".to_owned(),
                    severity: "critical".to_owned(),
                    pool: None,
                    text: error.to_string(),
                    advice: advice.to_owned(),
                };
                let before = self.shared.no_store.replace(Some(told.clone()));
                if before.as_ref() != Some(&told) {
                    tracing::warn!("{}; {advice}", told.text);
                }
            }
        }
    }

    /// A scaler for each pool that has one; those that have been taken out leave.
    fn follow(&mut self, config: &Arc<Config>) {
        let now = self.shared.now();
        let ended = self.pools.iter().filter(|(_, running)| running.task.is_finished() && !running.retiring);
        for (pool, _) in ended {
            // Only a bug ends it early. The others go on, and so do its instances.
            tracing::error!(
                pool,
                "the pool's scaler has ended by a panic, which is a bug of Tidegate's; it is started anew in 10 s"
            );
            self.broken.insert(pool.clone(), now + 10.0);
        }
        self.pools.retain(|_, running| !running.task.is_finished());
        self.broken.retain(|_, until| *until > now);
        for (name, pool) in &config.pool {
            if pool.scaler.is_none() || self.broken.contains_key(name) {
                continue;
            }
            match self.pools.get_mut(name) {
                Some(running) if running.kind != build::kind(pool) => {
                    // Its instances leave before those of another kind come.
                    if !std::mem::replace(&mut running.retiring, true) {
                        tell(&running.mail, Mail::Retire);
                    }
                }
                Some(running) if running.retiring => {
                    running.retiring = false;
                    tell(&running.mail, Mail::Stay);
                }
                Some(_) => {}
                None => {
                    let engine = PoolEngine::new(name.as_str().into(), config.clone(), self.shared.clone());
                    let Some(engine) = engine else { continue };
                    let (mail, letters) = unbounded_channel();
                    let task = tokio::task::spawn_local(engine.run(letters));
                    self.pools.insert(name.clone(), Running { mail, task, kind: build::kind(pool), retiring: false });
                }
            }
        }
        for (name, running) in self.pools.iter_mut().filter(|(_, running)| !running.retiring) {
            if config.pool.get(name).is_none_or(|pool| pool.scaler.is_none()) {
                running.retiring = true;
                tell(&running.mail, Mail::Retire);
            }
        }
    }

    fn answer(&self, ask: Ask, reply: oneshot::Sender<Result<Answer, AskError>>) {
        let answer = match ask {
            Ask::Status => Ok(Answer::Status(self.status())),
            Ask::Doctor => Ok(Answer::Findings(self.findings())),
            Ask::Signals => Ok(Answer::Signals(self.shared.signals())),
            Ask::Explain { pool, at } => self.explain(&pool, at),
            Ask::History { pool, since, until, limit, all } => self.stored(&pool).map(|store| {
                let history = |store: &Store| store.history(&pool, since, until, limit.unwrap_or(RECORDS), all);
                Answer::History(store.as_ref().map(history).unwrap_or_default())
            }),
            Ask::Series { pool, since, until } => self.stored(&pool).map(|store| {
                Answer::Series(store.as_ref().map(|store| store.series(&pool, since, until)).unwrap_or_default())
            }),
            Ask::Pause { pool, r#for } => return self.pass_on(&pool, Wish::Pause(r#for), reply),
            Ask::Resume { pool } => return self.pass_on(&pool, Wish::Resume, reply),
            Ask::Set { pool, to, r#for } => {
                let until = to.map(|to| (to, r#for.unwrap_or(Duration::from_secs(3600))));
                return self.pass_on(&pool, Wish::Set(until), reply);
            }
            Ask::Recycle { pool } => return self.pass_on(&pool, Wish::Recycle, reply),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    /// The pool's scaler answers by itself, when it has done what was asked.
    fn pass_on(&self, pool: &str, wish: Wish, reply: oneshot::Sender<Result<Answer, AskError>>) {
        let running = match self.known(pool) {
            Ok(running) => running,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (done, answer) = oneshot::channel();
        tell(&running.mail, Mail::Wish(wish, done));
        tokio::task::spawn_local(async move {
            let answer = answer.await.unwrap_or(Err(AskError::Ended));
            let _ = reply.send(answer.map(|pool| Answer::Pool(Box::new(pool))));
        });
    }

    fn known(&self, pool: &str) -> Result<&Running, AskError> {
        let exists = self.config.as_ref().is_some_and(|config| config.pool.contains_key(pool));
        let missing = if exists { AskError::NoScaler } else { AskError::NoPool(pool.to_owned()) };
        self.pools.get(pool).ok_or(missing)
    }

    fn stored(&self, pool: &str) -> Result<std::cell::Ref<'_, Option<Store>>, AskError> {
        self.known(pool)?;
        Ok(self.shared.store.borrow())
    }

    fn explain(&self, pool: &str, at: Option<f64>) -> Result<Answer, AskError> {
        let store = self.stored(pool)?;
        let last = || self.shared.statuses.borrow().get(pool).and_then(|status| status.last.clone());
        let record: Option<Record> = match at {
            Some(at) => store.as_ref().and_then(|store| store.at(pool, at)),
            None => last(),
        };
        let none = || AskError::Impossible("no decision is known from then: ask for a later time".to_owned());
        record.map(|record| Answer::Record(Box::new(record))).ok_or_else(none)
    }

    fn status(&self) -> ScalerStatus {
        let role = self.shared.role.borrow();
        let statuses = self.shared.statuses.borrow();
        let cost = self.config.as_ref().map(|config| config.scaler.cost.clone()).unwrap_or_default();
        ScalerStatus {
            now: self.shared.now(),
            leadership: role.word().to_owned(),
            leader: role.standing.leader.clone(),
            generation: role.standing.generation,
            peers: self.shared.heard.borrow().peers.clone(),
            state_folder: self.shared.folder.borrow().display().to_string(),
            instance_hour: cost.instance_hour,
            currency: cost.currency,
            pools: statuses.values().cloned().collect(),
        }
    }

    /// All that needs attention: of each pool, and of all of them.
    fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> =
            self.shared.statuses.borrow().values().flat_map(|status| status.conditions.clone()).collect();
        all.extend(self.shared.store.borrow().iter().flat_map(Store::findings));
        all.extend(self.shared.no_store.borrow().clone());
        all.extend(self.shared.role.borrow().problem.clone());
        all.extend(self.shared.heard.borrow().findings.clone());
        if let Some(drift) = self.shared.drift.get() {
            all.push(Finding {
                code: "CLOCK".to_owned(),
                severity: "warning".to_owned(),
                pool: None,
                text: format!("the system's clock is {drift:+.0} s off the one that decisions go by"),
                advice: "keep the clock in step (NTP); schedules go by the later of the two until a restart".to_owned(),
            });
        }
        all
    }

    /// Everybody writes down what must survive; then the leadership is given up by ending.
    async fn end(self) {
        let ends = self.pools.values().map(|running| {
            let (done, ended) = oneshot::channel();
            tell(&running.mail, Mail::End(done));
            ended
        });
        let ends: Vec<_> = ends.collect();
        let _ = join_all(ends).await;
        // Before anybody else may have the folder.
        drop(self.shared.store.take());
        if let Some((_, task)) = self.election {
            self.resign.notify_one();
            // Whoever cannot be told in time sees the lease run out.
            let _ = tokio::time::timeout(FAREWELL, task).await;
        }
    }
}

fn tell(mail: &UnboundedSender<Mail>, letter: Mail) {
    // A scaler that has just ended hears nothing.
    let _ = mail.send(letter);
}

fn has_scaler(config: &Config) -> bool {
    config.pool.values().any(|pool| pool.scaler.is_some())
}

/// Takes part in the election until it is to resign.
async fn campaign(
    mut election: Box<dyn Election>,
    lease: Duration,
    heed: impl Fn(Result<Standing, ElectionError>),
    resign: Rc<Notify>,
) {
    let mut interval = tokio::time::interval(lease / 3);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = resign.notified() => return election.resign().await,
        }
        heed(election.campaign().await);
    }
}

/// Bytes that this machine could give to somebody new.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::LocalBoxFuture;

    use super::*;

    struct Recorded(Rc<RefCell<Vec<&'static str>>>);

    impl Election for Recorded {
        fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>> {
            self.0.borrow_mut().push("campaign");
            Box::pin(async { Ok(Standing { leads: true, leader: None, generation: 1 }) })
        }

        fn resign(&mut self) -> LocalBoxFuture<'_, ()> {
            self.0.borrow_mut().push("resign");
            Box::pin(async {})
        }
    }

    #[tokio::test(flavor = "local")]
    async fn who_ends_gives_the_leadership_up_at_once() {
        let (told, resign) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Notify::new()));
        let leads = Rc::new(Notify::new());
        let heard = leads.clone();
        let heed = move |outcome: Result<Standing, ElectionError>| {
            assert!(outcome.is_ok_and(|standing| standing.leads));
            heard.notify_one();
        };
        let election = Box::new(Recorded(told.clone()));
        let task = tokio::task::spawn_local(campaign(election, Duration::from_secs(3600), heed, resign.clone()));
        leads.notified().await;
        resign.notify_one();
        task.await.unwrap();
        assert_eq!(*told.borrow(), ["campaign", "resign"]);
    }
}
